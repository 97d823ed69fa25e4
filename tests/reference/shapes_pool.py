#!/usr/bin/env python3
"""Makes tests/pools/resnet-shapes: a tiny ResNet's fine-tunings, two of it from scratch, and what plain PyTorch says of their soups.

`reference.json` has a report (as `judged_torch.py` gives it) for each way to treat running statistics and each recipe, a learned
soup (`learning.py`) whose statistics are averaged, and the counts of the uniform soup of both networks from scratch.
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch.func import functional_call
from transformers import ConvNextImageProcessor, ResNetConfig, ResNetForImageClassification

import running
from kinds import KINDS, Options
from learning import Learning, learned
from recipes import PASSES, Ledger, cook
from soups import Pool, load_pool
from tallies import Metric
from tiny import images
from tiny.shapes import NAMES, SIZE, pictures, training_set, write_parquet
from tiny.training import Training, make_pool

NOISE = 40.0
BATCH_SIZE = 32
LEARNING = Learning(lr=0.1, epochs=3, mini_batch=25)
SETS = {"val": (2, 200), "calibration": (4, 100), "test": (3, 100)}
BASE = Training(steps=120, lr=2e-3, seed=1, wrong=0.2)
INGREDIENTS = {
    "m0": Training(steps=60, lr=1e-3, seed=10, share=0.25),
    "m1": Training(steps=40, lr=5e-4, seed=11, share=0.4, weight_decay=0.1),
    "m2": Training(steps=60, lr=1e-3, seed=12, share=0.4, wrong=0.05),
    "m3": Training(steps=60, lr=1.5e-3, seed=13, share=0.25),
    "m4": Training(steps=60, lr=3e-3, seed=14, share=0.1, wrong=0.4),
}
# From two initialisations.
SCRATCH = Training(steps=150, lr=2e-3, seed=20)


def model_of(seed: int) -> ResNetForImageClassification:
    torch.manual_seed(seed)
    return ResNetForImageClassification(
        ResNetConfig(embedding_size=16, hidden_sizes=[16, 32, 48], depths=[1, 1, 1], layer_type="basic", **images.LABELS)
    )


def make(out: Path) -> None:
    processor = ConvNextImageProcessor(size={"shortest_edge": SIZE}, crop_pct=0.875)
    processor.save_pretrained(out)
    for name, (seed, count) in SETS.items():
        write_parquet(out / f"data/{name}.parquet", pictures(seed, count, NOISE), NAMES)
    pixels, labels = training_set(processor, images.TRAINING, NOISE)

    def loss_of(model, rows, wrong):
        targets = (labels[rows] + wrong) % len(NAMES)
        return torch.nn.functional.cross_entropy(model(pixel_values=pixels[rows]).logits, targets)

    make_pool(out, model_of(1), loss_of, len(labels), BASE, INGREDIENTS)
    nothing = Training(steps=1, lr=0.0, seed=0)
    for name, seed in (("s0", 2), ("s1", 3)):
        make_pool(out / "scratch", model_of(seed), loss_of, len(labels), nothing, {name: SCRATCH})
    shutil.move(out / "scratch", out / "two")
    shutil.move(out / "two/ingredients", out / "scratch")
    shutil.rmtree(out / "two")


def reference(out: Path) -> dict[str, object]:
    judge = KINDS["images"](out, Options(BATCH_SIZE, None))
    validation, calibration, test = (judge.read(out / f"data/{name}.parquet") for name in SETS)
    metric = Metric("accuracy")

    def ledger_of(pool: Pool, treatment: str) -> Ledger:
        finish: running.Finish = lambda soup, members: soup
        if treatment == "first":
            finish = running.of_first(pool)
        elif treatment == "recompute":
            finish = running.recomputed(judge, calibration)
        return Ledger(pool, lambda soup: judge.score(soup, validation), finish)

    pool = load_pool(out)
    reports = {}
    for treatment in running.CHOICES:
        ledger = ledger_of(pool, treatment)
        reports[treatment] = {recipe: cook(ledger, recipe, metric) for recipe in PASSES}
        for report in reports[treatment].values():
            soup = ledger.soup(frozenset(report["ingredients"]))
            report["test"] = judge.score(soup, test).figures(metric)
    scratch = {file.stem: load_file(file) for file in sorted((out / "scratch").glob("*.safetensors"))}
    collapse = {}
    for treatment in running.CHOICES:
        ledger = ledger_of(scratch, treatment)
        alone = {name: tally.figures(metric) for name, tally in ledger.ranking()}
        collapse[treatment] = {"alone": alone, "uniform": ledger.tally(frozenset(scratch)).figures(metric)}
    learning = learned_soup(judge, pool, calibration, validation)
    return {"batch_size": BATCH_SIZE, "pool": reports, "learned": learning, "scratch": collapse}


def learned_soup(judge, pool: Pool, train, validation) -> dict[str, object]:
    """Learned from the pictures that are there for statistics: they have labels, too."""
    model = judge.model.eval()
    logits = lambda parameters, inputs: functional_call(model, parameters, kwargs=inputs).logits
    report, soup = learned(pool, logits, train, LEARNING)
    return {**report, "validation": judge.score({**next(iter(pool.values())), **soup}, validation).figures(Metric("accuracy"))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the pool")
    parser.add_argument("--reference", action="store_true", help="only compute the reference of a pool that is there")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if not arguments.reference:
        make(arguments.out)
    found = reference(arguments.out)
    (arguments.out / "reference.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
