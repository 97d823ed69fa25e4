"""Held-out images as a transformers user reads them: Parquet of Hugging Face datasets in, pixel values out."""

import io

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image

IMAGE_COLUMN = "image"
LABEL_COLUMN = "label"
PIL_MODE_OF_CHANNELS = {1: "L", 3: "RGB"}


def read_held_out(path, processor, channels):
    """Decodes and preprocesses every row of a Parquet file, once.

    `processor` is the model's image processor and `channels` its config's `num_channels`. Returns `pixel_values`
    (float32, [rows, channels, height, width]) and `labels` (int64, [rows]), both in the order of the file.
    """
    if channels not in PIL_MODE_OF_CHANNELS:
        raise SystemExit(f"the model reads {channels} channels, expected 1 or 3")
    table = pq.read_table(path, columns=[IMAGE_COLUMN, LABEL_COLUMN])
    images = [decode(row["bytes"], channels) for row in table[IMAGE_COLUMN].to_pylist()]
    # The format is said, not guessed: the processor refuses arrays of rank 2, and would take one whose height is 1 or 3
    # for channels-first.
    batch = processor(images, input_data_format="channels_last", return_tensors="pt")
    return batch["pixel_values"].to(torch.float32), torch.tensor(table[LABEL_COLUMN].to_pylist(), dtype=torch.int64)


def decode(png_or_jpeg, channels):
    """One encoded image as uint8 [height, width, channels]. PIL drops the channel axis of grey images; it is put back."""
    pixels = np.asarray(Image.open(io.BytesIO(png_or_jpeg)).convert(PIL_MODE_OF_CHANNELS[channels]))
    return pixels[:, :, np.newaxis] if pixels.ndim == 2 else pixels


@torch.inference_mode()
def count_correct(model, pixel_values, labels, batch_size):
    """How many samples the model's largest logit is right about; the last batch may be short."""
    correct = 0
    for begin in range(0, len(labels), batch_size):
        logits = model(pixel_values=pixel_values[begin : begin + batch_size]).logits
        correct += int((logits.argmax(dim=-1) == labels[begin : begin + batch_size]).sum())
    return correct
