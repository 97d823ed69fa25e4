#!/usr/bin/env python3
"""Samples a second of a forward pass in PyTorch, on the example pool: what `cargo bench -p soup-eval` is compared with.

Processor time of all threads, divided by them, so that a machine that others use does for a comparison; nine rounds each.
"""

import argparse
import time
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from held_out import count_correct, read_held_out


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pool", type=Path, default=Path("tests/pools/vit-fashion"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch-size", type=int, nargs="+", default=[8, 32, 100, 250])
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    config = ViTConfig.from_pretrained(arguments.pool)
    model = ViTForImageClassification(config).eval()
    model.load_state_dict(load_file(arguments.pool / "ingredients/m10.safetensors"))
    processor = ViTImageProcessor.from_pretrained(arguments.pool)
    held_out = read_held_out(arguments.pool / "data/val.parquet", processor, config.num_channels)
    for batch_size in arguments.batch_size:
        count_correct(model, *held_out, batch_size)
        seconds = []
        for _ in range(9):
            started = time.process_time()
            count_correct(model, *held_out, batch_size)
            seconds.append((time.process_time() - started) / arguments.threads)
        best, median = (len(held_out[1]) / s for s in (min(seconds), sorted(seconds)[4]))
        print(f"batch {batch_size:4}: {best:8.0f} samples/s at best, {median:.0f} in the median", flush=True)


if __name__ == "__main__":
    main()
