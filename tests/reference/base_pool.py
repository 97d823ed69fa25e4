#!/usr/bin/env python3
"""Makes a pool of the size of ViT-B/16 (86 M parameters, 8 fine-tunings, 2.7 GB) and 200 images, to compare times on.

    python base_pool.py FOLDER [--ingredients 8] [--images 200] [--noise 0.2] [--seed 0]

Nothing is trained: one model drawn at random stands for the pretrained one, an ingredient is that with noise on every tensor, and
some have more of it than others. Labels are what the mean of all says, but for one image in eight, which has another: so
scores lie between chance and perfect, differ, and soups differ from their ingredients. With the noise that it has by default models are
right about half of the images; with a tenth of it nearly as often as labels allow, as fine-tunings are. How long a rejected trial takes
depends on that.
"""

import argparse
import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

CLASSES = 10
SIDE = 224


def image(generator):
    """Waves of a few directions and colours, which is what JPEG is good at."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    pixels = np.zeros((SIDE, SIDE, 3))
    for _ in range(6):
        fx, fy, phase = generator.uniform(-9, 9, 2).tolist() + [generator.uniform(0, 6.3)]
        pixels += np.cos(6.3 * (fx * x + fy * y) + phase)[..., None] * generator.normal(0, 40, 3)
    return Image.fromarray(np.clip(pixels + 128, 0, 255).astype(np.uint8))


def jpeg(picture):
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=90)
    return out.getvalue()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--ingredients", type=int, default=8)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--noise", type=float, default=0.2, help="of the standard deviation of a tensor, at least")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    generator = np.random.default_rng(arguments.seed)
    folder = arguments.folder
    (folder / "ingredients").mkdir(parents=True)
    (folder / "data").mkdir()

    config = ViTConfig(id2label={i: f"class {i}" for i in range(CLASSES)})
    config.architectures = ["ViTForImageClassification"]
    model = ViTForImageClassification(config).eval()
    with torch.no_grad():
        # The head of a model that was not trained says the same of everything.
        model.classifier.weight.normal_(0, 1)
        base = {name: value.clone() for name, value in model.state_dict().items()}
        total = {name: torch.zeros_like(value) for name, value in base.items()}
        for index in range(arguments.ingredients):
            scale = arguments.noise * (1 + index % 4)
            tensors = {}
            for name, value in base.items():
                spread = value.std() if value.numel() > 1 else torch.tensor(0.0)
                tensors[name] = value + torch.randn_like(value) * spread * scale
                total[name] += tensors[name]
            save_file(tensors, folder / "ingredients" / f"m{index:02}.safetensors")
        model.load_state_dict({name: value / arguments.ingredients for name, value in total.items()})
    config.save_pretrained(folder)
    processor = ViTImageProcessor()
    processor.save_pretrained(folder)

    pictures = [image(generator) for _ in range(arguments.images)]
    encoded = [jpeg(picture) for picture in pictures]
    labels = []
    with torch.no_grad():
        for start in range(0, len(encoded), 20):
            batch = [Image.open(io.BytesIO(data)).convert("RGB") for data in encoded[start:start + 20]]
            labels += model(**processor(batch, return_tensors="pt")).logits.argmax(-1).tolist()
    for at in range(0, len(labels), 8):
        labels[at] = (labels[at] + 1 + int(generator.integers(CLASSES - 1))) % CLASSES
    features = {"image": {"_type": "Image"}, "label": {"names": [f"class {i}" for i in range(CLASSES)], "_type": "ClassLabel"}}
    table = pa.table({
        "image": pa.array([{"bytes": data, "path": None} for data in encoded],
                          pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        "label": pa.array(labels, pa.int64()),
    }).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, folder / "data" / "val.parquet")
    counts = np.bincount(labels, minlength=CLASSES).tolist()
    print(f"{arguments.ingredients} ingredients, {len(labels)} images, {counts} of each class")


main()
