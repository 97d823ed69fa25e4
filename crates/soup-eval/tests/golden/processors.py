"""Makes processors.json with Pillow and transformers (13.0 and 4.57 when it was checked in): of images as the processors that have steps
of their own turn them into values, the size, the first values, and SHA-256 of all as little-endian f32.

    pip install Pillow numpy transformers && python processors.py
"""

import hashlib
import json
import pathlib

import numpy as np
import transformers
from PIL import Image

HERE = pathlib.Path(__file__).resolve().parent
IMAGES = ["photo.png", "rgb.png", "palette.png"]
MEAN, STD = [0.485, 0.456, 0.406], [0.47853944, 0.4732864, 0.47434163]
CASES = {
    "ConvNext": [
        {"size": {"shortest_edge": 32}, "crop_pct": 0.875},
        {"size": {"shortest_edge": 31}, "crop_pct": 0.9, "resample": 3, "image_mean": MEAN, "image_std": STD},
        {"size": {"shortest_edge": 400}, "do_normalize": False},
        {"size": {"shortest_edge": 40}, "do_rescale": False},
    ],
    "EfficientNet": [
        {},
        {"size": {"height": 24, "width": 33}, "image_mean": MEAN, "image_std": STD},
        {"size": {"height": 24, "width": 33}, "image_mean": MEAN, "image_std": STD, "include_top": False, "resample": 2},
        {"size": {"height": 40, "width": 40}, "rescale_offset": True, "rescale_factor": 1 / 127.5, "do_normalize": False},
        {"size": {"height": 30, "width": 20}, "do_center_crop": True, "crop_size": {"height": 24, "width": 26}},
        {"size": {"height": 8, "width": 9}, "do_rescale": False, "rescale_offset": True},
    ],
}


def main():
    golden = []
    for family, all_options in CASES.items():
        for options in all_options:
            processor = getattr(transformers, f"{family}ImageProcessor")(**options)
            config = {"image_processor_type": f"{family}ImageProcessor", **options}
            for name in IMAGES:
                image = np.asarray(Image.open(HERE / "images" / name).convert("RGB"))
                values = processor(image, return_tensors="np")["pixel_values"][0].astype("<f4")
                golden.append({
                    "config": config,
                    "image": name,
                    "height": values.shape[1],
                    "width": values.shape[2],
                    "first": values.flatten()[:4].tolist(),
                    "sha256": hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest(),
                })
    (HERE / "processors.json").write_text(json.dumps(golden, indent=1) + "\n")


main()
