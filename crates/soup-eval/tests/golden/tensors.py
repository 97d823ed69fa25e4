"""Makes tensors.json with torchvision and transformers (0.29, and 4.57 and 5.24, when it was checked in; it keeps what other versions of
transformers made): of images as processors turn them into values that work on tensors, and those of 5 that work on PIL images, the size, the
first values, and SHA-256 of all as little-endian f32. Needs a processor with AVX2: elsewhere torchvision resizes with other arithmetic.

    pip install torchvision transformers && python tensors.py
"""

import hashlib
import json
import pathlib
import tempfile

import numpy as np
import torch
import transformers
from PIL import Image

HERE = pathlib.Path(__file__).resolve().parent
FILE = HERE / "tensors.json"
IMAGES = ["photo.png", "rgb.png", "palette.png"]
TRANSPARENT = ["rgba.png", "grey_alpha.png"]
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
OBLONG = {"height": 24, "width": 33}
CROP = {"do_center_crop": True, "crop_size": {"height": 24, "width": 27}}
CASES = {
    "ViT": [
        {},
        {"size": OBLONG, "resample": 3, "image_mean": MEAN, "image_std": STD},
        {"size": OBLONG, "resample": 1, "do_rescale": False},
        {"size": {"height": 31, "width": 30}, "do_normalize": False, **CROP},
        {"size": 20, "resample": 0},
    ],
    "Siglip": [{}, {"size": {"height": 9, "width": 50}, "resample": 2}],
    "DeiT": [{}, {"size": {"height": 20, "width": 20}, "crop_size": 23}],
    "Beit": [{}, {"size": OBLONG, **CROP}],
    "CLIP": [{}, {"size": {"shortest_edge": 28}, "crop_size": 25}, {"size": 21, "crop_size": 28, "do_normalize": False}],
    "ChineseCLIP": [{"size": {"shortest_edge": 28}, "crop_size": 28}],
    "Bit": [{"size": {"shortest_edge": 33}, "crop_size": 28, "image_mean": MEAN, "image_std": STD}],
    "ConvNext": [
        {},
        {"size": {"shortest_edge": 32}, "crop_pct": 0.875},
        {"size": {"shortest_edge": 31}, "crop_pct": 0.9, "resample": 2, "image_mean": MEAN, "image_std": STD},
    ],
    "EfficientNet": [
        {},
        {"size": OBLONG, "image_mean": MEAN, "image_std": STD},
        {"size": OBLONG, "include_top": False, "resample": 0},
        {"size": OBLONG, "rescale_offset": True, "rescale_factor": 1 / 127.5},
        {"size": OBLONG, "rescale_offset": True, "rescale_factor": 1 / 127.5, "do_normalize": False},
        {"size": OBLONG, "do_normalize": False},
        {"size": OBLONG, "do_normalize": False, "include_top": False, **CROP},
    ],
}


def processors(family, options):
    """What a file says, and the processor that it is of in this version."""
    newer = int(transformers.__version__.split(".")[0]) >= 5
    with tempfile.TemporaryDirectory() as folder:
        name = f"{family}ImageProcessor" + ("" if newer else "Fast")
        config = {"image_processor_type": name, **options}
        (pathlib.Path(folder) / "preprocessor_config.json").write_text(json.dumps(config))
        if not newer:
            yield config, getattr(transformers, name).from_pretrained(folder)
            return
        yield config, transformers.AutoImageProcessor.from_pretrained(folder)
        processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
        yield {**config, "image_processor_type": f"{name}Pil"}, processor


def of_this_version():
    for family, all_options in CASES.items():
        for options in all_options:
            for config, processor in processors(family, options):
                converts = bool(processor.do_convert_rgb)
                for name in IMAGES + TRANSPARENT * converts:
                    image = Image.open(HERE / "images" / name)
                    image = image if converts else image.convert("RGB")
                    values = processor(image, return_tensors="pt")["pixel_values"][0].numpy().astype("<f4")
                    yield {
                        "transformers_version": transformers.__version__,
                        "config": config,
                        "image": name,
                        "height": values.shape[1],
                        "width": values.shape[2],
                        "first": values.flatten()[:4].tolist(),
                        "sha256": hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest(),
                    }


def main():
    assert torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
    before = json.loads(FILE.read_text()) if FILE.exists() else []
    others = [case for case in before if case["transformers_version"] != transformers.__version__]
    golden = sorted(others + list(of_this_version()), key=lambda case: case["transformers_version"])
    lines = ",\n".join(json.dumps(case) for case in golden)
    FILE.write_text(f"[\n{lines}\n]\n")


main()
