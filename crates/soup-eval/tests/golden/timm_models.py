"""Makes what is checked against timm, and the table of its architectures (timm 1.0.31, PyTorch 2.15 when they were checked in).

    pip install torch torchvision timm safetensors pillow
    python timm_models.py             golden files: models/timm*, as models.py makes them, and timm.json
    python timm_models.py --table     ../../src/models/timm/architectures.json

timm.json has, for every case, a pretrained_cfg, an image of images/, and the SHA-256 of what timm's transform for evaluation makes of it:
f32, little-endian, [channels, height, width].
"""
import functools
import hashlib
import json
import sys

import timm
import timm.models.deit as deit
import timm.models.vision_transformer as vision_transformer
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.data import create_transform, resolve_data_config
from timm.models._hub import save_for_hf

import models as golden

HERE = golden.HERE
TABLE = HERE / "../../src/models/timm/architectures.json"

SMALL = {
    "img_size": 16,
    "patch_size": 4,
    "embed_dim": 24,
    "depth": 2,
    "num_heads": 3,
    "num_classes": 5,
}
CASES = {
    "timm": ("vit_tiny_patch16_224", SMALL),
    # A scale for each branch, registers that have no positions, a mean that is normalised.
    "timm_registers": (
        "vit_small_patch14_reg4_dinov2",
        {**SMALL, "reg_tokens": 2, "global_pool": "avg", "act_layer": "gelu_tanh", "mlp_ratio": 2.5},
    ),
    # No token for the whole, registers with positions, neither square nor a whole number of patches.
    "timm_gap": (
        "vit_so150m2_patch16_reg1_gap_256",
        {**SMALL, "img_size": [15, 22], "patch_size": [4, 5], "in_chans": 1},
    ),
    # A normalisation before the layers, with its own epsilon, and a mean of all tokens, normalised before.
    "timm_clip": (
        "vit_base_patch32_clip_quickgelu_224",
        {**SMALL, "global_pool": "avg", "fc_norm": False, "pool_include_prefix": True},
    ),
    # Gated, and nothing normalises in the end.
    "timm_gated": ("vit_giant_patch14_dinov2", {**SMALL, "depth": 1, "final_norm": False}),
}

# What timm makes of images: of pretrained_cfg what its transform looks at.
HALF = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
TRANSFORMS = [
    {"input_size": [3, 24, 24], "crop_pct": 0.9, "interpolation": "bicubic", **HALF},
    {"input_size": [3, 24, 24], "crop_pct": 0.95, "interpolation": "bilinear"},
    {"input_size": [3, 25, 25], "crop_pct": 1.0, "interpolation": "bicubic", "crop_mode": "squash"},
    {"input_size": [3, 25, 26], "crop_pct": 0.8, "interpolation": "lanczos", "crop_mode": "squash"},
    {"input_size": [3, 20, 31], "crop_pct": 0.875, "interpolation": "bicubic", "crop_mode": "center"},
    {"input_size": [3, 31, 20], "interpolation": "box"},
    {"input_size": [3, 33, 33], "crop_pct": 1.3, "interpolation": "nearest", "mean": [0.1, 0.2, 0.3], "std": [0.3, 0.2, 0.1]},
    {"input_size": [3, 32, 29], "crop_pct": 1.4, "interpolation": "hamming"},
    {"input_size": [3, 17, 17]},
]


def plain(value):
    """An argument as JSON: classes by name, and a normalisation with the epsilon that is bound to it."""
    if isinstance(value, functools.partial):
        if value is timm.layers.SwiGLUPacked:
            return "SwiGLUPacked"
        assert set(value.keywords) == {"eps"}, value
        return {"name": value.func.__name__.lower(), "eps": value.keywords["eps"]}
    if isinstance(value, type):
        return value.__name__
    return value


def table():
    """The arguments that every architecture of a vision transformer stands for."""
    found = {}

    def note(variant, pretrained=False, **arguments):
        arguments = {name: plain(value) for name, value in sorted(arguments.items())}
        if "act_layer" in arguments:
            arguments["act_layer"] = arguments["act_layer"].lower()
        found[variant] = arguments

    vision_transformer._create_vision_transformer = note
    deit._create_deit = note
    for name in timm.list_models(module="vision_transformer") + timm.list_models(module="deit"):
        timm.model_entrypoint(name)()
    rows = [f"{json.dumps(name)}: {json.dumps(arguments)}" for name, arguments in sorted(found.items())]
    TABLE.write_text("{\n" + ",\n".join(rows) + "\n}\n")
    print(f"{len(rows)} architectures")


def make(case, architecture, options):
    torch.manual_seed(sum(case.encode()))
    model = timm.create_model(architecture, **options).eval()
    golden.randomise(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(".gamma"):
                parameter.add_(1.0)
    folder = HERE / "models" / case
    folder.mkdir(parents=True, exist_ok=True)

    def saved(model, to):
        save_for_hf(model, to, model_args=options, safe_serialization=True)
        return load_file(f"{to}/model.safetensors")

    saved(model, folder)
    size = options["img_size"] if isinstance(options["img_size"], list) else [options["img_size"]] * 2
    pixels = torch.randn(golden.SAMPLES, options.get("in_chans", 3), *size)

    def run(model):
        return model(pixels.to(next(model.parameters()).dtype))

    golden.write(case, model, folder, {"pixel_values": pixels}, run, golden.SAMPLES, options["num_classes"], saved)


def transforms():
    cases = []
    for cfg in TRANSFORMS:
        for name in ["photo.png", "rgb.png"]:
            image = Image.open(HERE / "images" / name).convert("RGB")
            transform = create_transform(**resolve_data_config(pretrained_cfg=cfg), is_training=False)
            values = transform(image).contiguous()
            assert list(values.shape) == cfg["input_size"]
            digest = hashlib.sha256(values.numpy().astype("<f4").tobytes()).hexdigest()
            cases.append({"image": name, "pretrained_cfg": cfg, "sha256": digest})
    (HERE / "timm.json").write_text(json.dumps(cases, indent=1) + "\n")
    print(f"{len(cases)} transforms")


if sys.argv[1:] == ["--table"]:
    table()
else:
    for case in sys.argv[1:] or CASES:
        make(case, *CASES[case])
    if not sys.argv[1:]:
        transforms()
