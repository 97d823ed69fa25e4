#!/usr/bin/env python3
"""Samples a second of convolutional networks in PyTorch: what `cargo bench -p soup-eval --bench convolve` is compared with.

Writes each model to a folder of its own, from where the benchmark takes it. Processor time of one thread, seven rounds of a batch of 32.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from transformers import (
    EfficientNetConfig,
    EfficientNetForImageClassification,
    ResNetConfig,
    ResNetForImageClassification,
)

SAMPLES = 32
MODELS = {
    # microsoft/resnet-50, resnet-18 and google/efficientnet-b0, and what a tiny pool has.
    "resnet-50": (ResNetForImageClassification, ResNetConfig(num_labels=1000), 224),
    "resnet-18": (
        ResNetForImageClassification,
        ResNetConfig(layer_type="basic", hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2], num_labels=1000),
        224,
    ),
    "efficientnet-b0": (
        EfficientNetForImageClassification,
        EfficientNetConfig(width_coefficient=1.0, depth_coefficient=1.0, hidden_dim=1280, image_size=224, num_labels=1000),
        224,
    ),
    "resnet-tiny": (
        ResNetForImageClassification,
        ResNetConfig(layer_type="basic", embedding_size=16, hidden_sizes=[16, 32, 48], depths=[1, 1, 1], num_labels=10),
        32,
    ),
}


def rates(work):
    work()
    seconds = []
    for _ in range(7):
        started = time.process_time()
        work()
        seconds.append(time.process_time() - started)
    return SAMPLES / min(seconds), SAMPLES / sorted(seconds)[3]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder of the models")
    parser.add_argument("--only", action="append", choices=list(MODELS))
    parser.add_argument("--gradient", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.only or MODELS:
        kind, config, side = MODELS[name]
        torch.manual_seed(0)
        model = kind(config).eval()
        folder = arguments.out / name
        model.save_pretrained(folder)
        size = {"height": side, "width": side}
        (folder / "preprocessor_config.json").write_text(json.dumps({"size": size}))
        pixels = torch.randn(SAMPLES, 3, side, side)
        labels = torch.zeros(SAMPLES, dtype=torch.long)

        def forward():
            with torch.inference_mode():
                model(pixel_values=pixels)

        def backward():
            model(pixel_values=pixels, labels=labels).loss.backward()

        for layout in ("channels first", "channels last"):
            if layout == "channels last":
                model, pixels = model.to(memory_format=torch.channels_last), pixels.to(memory_format=torch.channels_last)
            best, median = rates(forward)
            print(f"{name}, {layout}: {best:.1f} samples/s at best, {median:.1f} in the median", flush=True)
        if arguments.gradient:
            best, median = rates(backward)
            print(f"  its gradient: {best:.1f} samples/s at best, {median:.1f} in the median", flush=True)


if __name__ == "__main__":
    main()
