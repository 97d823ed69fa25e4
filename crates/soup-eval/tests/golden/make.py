"""Makes the golden files of the preprocessing tests with Pillow and numpy (13.0 and 2.4 when they were checked in).

    pip install Pillow numpy && python make.py

images/*.png and *.webp   what is decoded: 8-bit PNGs of every colour type, a lossless WebP
golden.json               name of the case -> what it is, and SHA-256 of the pixels Pillow gives; the pixels
                          themselves of small cases, so that a difference can be looked at
"""
import hashlib
import io
import json
import pathlib

import numpy as np
from PIL import Image

HERE = pathlib.Path(__file__).resolve().parent
IMAGES = HERE / "images"


def scene(width, height, seed):
    """Smooth parts, edges and noise, in RGB."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    red = (x * 255 / max(width - 1, 1)).astype(np.uint8)
    green = np.where((x // 3 + y // 2) % 2 == 0, 255, 0).astype(np.uint8)
    blue = rng.integers(0, 256, (height, width)).astype(np.uint8)
    return np.stack([red, green, blue], 2)


def sources():
    rgb = Image.fromarray(scene(23, 17, 1))
    alpha = rgb.copy()
    alpha.putalpha(Image.fromarray(scene(23, 17, 2)[:, :, 2]))
    palette = rgb.quantize(13)
    return {
        "rgb.png": rgb,
        "rgba.png": alpha,
        "grey.png": rgb.convert("L"),
        "grey_alpha.png": alpha.convert("LA"),
        "palette.png": palette,
        "bilevel.png": rgb.convert("1"),
        "lossless.webp": rgb,
    }


def digest(image):
    return hashlib.sha256(np.asarray(image).tobytes()).hexdigest()


def main():
    IMAGES.mkdir(exist_ok=True)
    golden = {"convert": [], "resize": []}
    for name, image in sources().items():
        buffer = io.BytesIO()
        if name.endswith(".webp"):
            image.save(buffer, "WEBP", lossless=True)
        elif name == "palette.png":
            image.save(buffer, "PNG", transparency=3)
        else:
            image.save(buffer, "PNG")
        (IMAGES / name).write_bytes(buffer.getvalue())
        stored = Image.open(io.BytesIO(buffer.getvalue()))
        for mode in ("L", "RGB"):
            golden["convert"].append({"image": name, "mode": mode, "sha256": digest(stored.convert(mode))})
    (IMAGES / "photo.png").unlink(missing_ok=True)
    Image.fromarray(scene(61, 47, 3)).save(IMAGES / "photo.png")
    photo = Image.open(IMAGES / "photo.png")
    sizes = [(61, 47), (32, 32), (16, 48), (122, 94), (61, 20), (30, 47), (1, 1), (224, 224), (7, 5), (60, 46)]
    for mode in ("L", "RGB"):
        image = photo.convert(mode)
        for filter in range(6):
            for width, height in sizes:
                out = image.resize((width, height), resample=filter)
                case = {"mode": mode, "filter": filter, "width": width, "height": height, "sha256": digest(out)}
                if width * height <= 35 and mode == "L":
                    case["pixels"] = np.asarray(out).flatten().tolist()
                golden["resize"].append(case)
    (HERE / "golden.json").write_text(json.dumps(golden, indent=1) + "\n")


main()
