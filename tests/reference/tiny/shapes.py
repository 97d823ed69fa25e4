"""Pictures of four shapes, made up by rule, in Parquet as Hugging Face datasets writes it."""

import io
import json
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image, ImageDraw
from transformers.image_processing_utils import BaseImageProcessor

NAMES = ["circle", "square", "triangle", "cross"]
SIZE = 32


@dataclass(frozen=True)
class Picture:
    png: bytes
    label: int


class Noise:
    """Gaussian, of the same strength in every picture; all follows from the seed."""

    def __init__(self, seed: int, strength: float):
        self.generator = np.random.default_rng(seed)
        self.strength = strength

    def of(self, *shape: int) -> np.ndarray:
        return self.generator.normal(0, self.strength, shape)


def draw(rng: random.Random, noise: Noise, label: int) -> Picture:
    """One picture: a bright shape of some colour, size and turn, before a dark colour, with noise."""
    back, fore = ([rng.randrange(low, low + 96) for _ in range(3)] for low in (16, 128))
    image = Image.new("RGB", (SIZE, SIZE), tuple(back))
    pen = ImageDraw.Draw(image)
    r = rng.uniform(7, 11)
    x, y = (SIZE / 2 + rng.uniform(-4, 4) for _ in range(2))
    colour = tuple(fore)
    if NAMES[label] == "circle":
        pen.ellipse((x - r, y - r, x + r, y + r), fill=colour)
    elif NAMES[label] == "square":
        pen.rectangle((x - r * 0.85, y - r * 0.85, x + r * 0.85, y + r * 0.85), fill=colour)
    elif NAMES[label] == "triangle":
        pen.polygon([(x, y - r), (x - r, y + r * 0.8), (x + r, y + r * 0.8)], fill=colour)
    else:
        w = r * rng.uniform(0.25, 0.5)
        pen.rectangle((x - r, y - w, x + r, y + w), fill=colour)
        pen.rectangle((x - w, y - r, x + w, y + r), fill=colour)
    image = image.rotate(rng.uniform(-15, 15), fillcolor=tuple(back))
    pixels = np.asarray(image).astype(np.float64) + noise.of(SIZE, SIZE, 3)
    buffer = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).round().astype(np.uint8)).save(buffer, format="PNG")
    return Picture(buffer.getvalue(), label)


def pictures(seed: int, count: int, strength: float) -> list[Picture]:
    """So many, with noise of that strength."""
    rng, noise = random.Random(seed), Noise(seed, strength)
    return [draw(rng, noise, rng.randrange(len(NAMES))) for _ in range(count)]


def write_parquet(file: Path, of: list[Picture], names: list[str]) -> None:
    """Columns `image` (bytes and path) and `label`, whose class names stand in the schema's metadata."""
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema(
        [("image", image), ("label", pa.int64())],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    rows = [{"bytes": picture.png, "path": f"{index:05}.png"} for index, picture in enumerate(of)]
    table = pa.table({"image": rows, "label": [picture.label for picture in of]}, schema=schema)
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file)


def write_held_out(out: Path, strength: float) -> None:
    """Validation, calibration and test sets."""
    write_parquet(out / "data/val.parquet", pictures(2, 320, strength), NAMES)
    write_parquet(out / "data/calibration.parquet", pictures(4, 150, strength), NAMES)
    write_parquet(out / "data/test.parquet", pictures(3, 240, strength), NAMES)


def training_set(processor: BaseImageProcessor, count: int, strength: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixel values and labels."""
    of = pictures(1, count, strength)
    images = [np.asarray(Image.open(io.BytesIO(picture.png))) for picture in of]
    pixels = processor(images, input_data_format="channels_last", return_tensors="pt")["pixel_values"]
    return pixels, torch.tensor([picture.label for picture in of])
