"""Makes what is checked against open_clip (3.3.0, PyTorch 2.15 when they were checked in).

    pip install torch open_clip_torch safetensors tokenizers && python open_clip_models.py

Golden files are those of models.py, in models/open_clip*, with open_clip's own configuration and names.
"""
import json

import open_clip
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

import models as golden

HERE = golden.HERE
VISION = {"image_size": 16, "layers": 2, "width": 24, "head_width": 8, "patch_size": 4, "mlp_ratio": 2.0}
TEXT = {"context_length": 12, "vocab_size": 61, "width": 20, "heads": 4, "layers": 2}
# Of model_cfg and preprocess_cfg, and the prompts' templates.
CASES = {
    "open_clip": (
        {"embed_dim": 16, "quick_gelu": True, "vision_cfg": VISION, "text_cfg": TEXT},
        {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.25, 0.5]},
        ["w1 w2 {}"],
    ),
    # Everything that is read away from its default, several prompts a class.
    "open_clip_odd": (
        {
            "embed_dim": 11,
            "vision_cfg": {
                **VISION,
                "image_size": 19,
                "patch_size": 5,
                "layers": 3,
                "head_width": 12,
                "mlp_ratio": 1.9,
                "patch_dropout": 0.5,
                "norm_kwargs": {"eps": 0.02},
            },
            "text_cfg": {**TEXT, "layers": 3, "mlp_ratio": 1.3, "norm_kwargs": {"eps": 0.01}, "ls_init_value": None},
        },
        {"size": [19, 19], "mode": "RGB", "interpolation": "bilinear", "resize_mode": "squash", "fill_color": 0},
        ["{}", "w2 w3 w4 w5 w2 {}", "w7 {} w8"],
    ),
}


def logits(model, prompts, tokenizer, pixels, length):
    """As open_clip's zero-shot classifiers have it."""
    classes = []
    for _, of_class in prompts:
        ids = [tokenizer.encode(prompt).ids for prompt in of_class]
        padded = torch.tensor([of + [0] * (length - len(of)) for of in ids])
        mean = model.encode_text(padded, normalize=True).mean(dim=0)
        classes.append(mean / mean.norm())
    return model.logit_scale.exp() * model.encode_image(pixels, normalize=True) @ torch.stack(classes).T


def make(case, model_cfg, preprocess_cfg, templates):
    torch.manual_seed(sum(case.encode()))
    model = open_clip.CLIP(**model_cfg).eval()
    golden.randomise(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".ln_" in f".{name}" and name.endswith("weight"):
                parameter.add_(1.0)
        model.logit_scale.fill_(1.7)
    folder = HERE / "models" / case
    folder.mkdir(parents=True, exist_ok=True)

    def saved(model, to):
        save_file(model.state_dict(), f"{to}/model.safetensors")
        return load_file(f"{to}/model.safetensors")

    saved(model, folder)
    said = {"model_cfg": model_cfg, "preprocess_cfg": preprocess_cfg}
    (folder / "open_clip_config.json").write_text(json.dumps(said, indent=2) + "\n")
    tokenizer = Tokenizer.from_file(str(HERE / "models/clip_zero_shot/tokenizer.json"))
    tokenizer.save(str(folder / "tokenizer.json"))
    prompts = [[name, [template.format(name) for template in templates]] for name in golden.ZERO_SHOT_CLASSES]
    said = {"classes": golden.ZERO_SHOT_CLASSES, "templates": templates}
    (folder / "prompts.json").write_text(json.dumps(said, indent=1) + "\n")
    side = model_cfg["vision_cfg"]["image_size"]
    pixels = torch.randn(golden.SAMPLES, 3, side, side)

    def forward(model):
        dtype = next(model.parameters()).dtype
        return logits(model, prompts, tokenizer, pixels.to(dtype), model_cfg["text_cfg"]["context_length"])

    golden.write(case, model, folder, {"pixel_values": pixels}, forward, golden.SAMPLES, len(prompts), saved)


if __name__ == "__main__":
    for case, parts in CASES.items():
        make(case, *parts)
