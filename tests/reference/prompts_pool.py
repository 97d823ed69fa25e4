#!/usr/bin/env python3
"""Makes the pool `tests/pools/clip-shapes` and its `reference.json`: soups of a tiny CLIP whose classes are what prompts say, by PyTorch
and transformers alone.

    python prompts_pool.py ../pools/clip-shapes

The soups are those of `judged_torch.py --kind clip`, greedy and pruned, with the uniform soup; and a learned one (`learning.py`).
`nearest` is the smallest distance of the two largest logits of any sample under any of these soups but the learned one: how far another
implementation may be off and still count the same.
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
import transformers
from torch.func import functional_call

from judged_torch import parser_of, run
from kinds import ClipJudge, Options
from learning import Learning, figures, learned
from soups import load_pool, soup_of
from tiny.clip import PROMPTS, contrasted, model_of, processors_of
from tiny.shapes import NAMES, pictures, training_set, write_parquet
from tiny.training import Training, make_pool

NOISE = 25.0
SETS = {"val": (2, 160), "train": (4, 96), "test": (3, 64)}
TEXT = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3}
VISION = {"hidden_size": 40, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 5}
WIDTH = 20
TRAINING = 2000
LEARNING = Learning(lr=0.1, epochs=3, mini_batch=64)
BASE = Training(steps=900, lr=2e-3, seed=1, wrong=0.1)
INGREDIENTS = {
    "m0": Training(steps=150, lr=0.00035, seed=40, share=0.4),
    "m1": Training(steps=200, lr=0.00056, seed=41, share=0.4, weight_decay=0.1),
    "m2": Training(steps=150, lr=0.0007, seed=42, share=0.4, wrong=0.05),
    "m3": Training(steps=200, lr=0.00105, seed=43, share=0.3),
    "m4": Training(steps=250, lr=0.0007, seed=44, share=0.5),
    "m5": Training(steps=80, lr=1.5e-3, seed=45, share=0.1, wrong=0.3),
}


class ZeroShot(torch.nn.Module):
    """What a judge's model makes of pixels and its prompts."""

    def __init__(self, judge: ClipJudge):
        super().__init__()
        self.model = judge.model
        self.logits = lambda pixels: judge.images(pixels) @ (judge.classes() * judge.model.logit_scale.exp()).T

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.logits(pixels)


def make(out: Path) -> None:
    tokenizer, processor = processors_of(out)
    for name, (seed, count) in SETS.items():
        write_parquet(out / f"data/{name}.parquet", pictures(seed, count, NOISE), NAMES)
    prompts = {"classes": NAMES, "templates": PROMPTS}
    (out / "prompts.json").write_text(json.dumps(prompts, indent=1) + "\n")
    loss_of = contrasted(tokenizer, *training_set(processor, TRAINING, NOISE))
    make_pool(out, model_of(tokenizer, TEXT, VISION, WIDTH), loss_of, TRAINING, BASE, INGREDIENTS)


def reference(out: Path) -> dict[str, object]:
    arguments = parser_of("").parse_args([
        str(out), "--validation", "data/val.parquet", "--test", "test=data/test.parquet", "--recipe", "greedy", "--recipe",
        "pruned", "--metric", "accuracy", "--threads", "1",
    ])
    cooks = run("clip", arguments)["cooks"]
    judge = ClipJudge(out, Options(32, None))
    model, pool = ZeroShot(judge), load_pool(out)
    val, train, test = (judge.read(out / f"data/{name}.parquet") for name in SETS)
    pixels = torch.cat([val.inputs["pixel_values"], test.inputs["pixel_values"]])
    soups = {tuple(trial["ingredients"]) for report in cooks for trial in [report, *report["trials"]]}
    soups |= {(name,) for name in pool} | {tuple(pool)}
    nearest = float("inf")
    for members in sorted(soups):
        with torch.no_grad():
            judge.model.load_state_dict(soup_of(pool, members))
            first, second = judge.model.eval() and model(pixels).topk(2).values.T
        nearest = min(nearest, float((first - second).min()))

    def logits(parameters, inputs):
        named = {f"model.{name}": tensor for name, tensor in parameters.items()}
        return functional_call(model, named, (inputs["pixel_values"],))

    report, soup = learned(pool, logits, train, LEARNING)
    with torch.no_grad():
        judge.model.load_state_dict(soup)
        of_learned = {**report, "validation": figures(model(val.inputs["pixel_values"]), val.labels)}
    return {
        "made_with": {"torch": torch.__version__, "transformers": transformers.__version__},
        "nearest": nearest,
        "cooks": cooks,
        "learned": of_learned,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the pool; what is there is replaced")
    parser.add_argument("--reference", action="store_true", help="only compute the reference of a pool that is there")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if not arguments.reference:
        for part in ("ingredients", "data"):
            shutil.rmtree(arguments.out / part, ignore_errors=True)
        arguments.out.mkdir(parents=True, exist_ok=True)
        make(arguments.out)
    found = reference(arguments.out)
    (arguments.out / "reference.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
