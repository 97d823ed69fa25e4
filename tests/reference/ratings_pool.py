#!/usr/bin/env python3
"""Makes the pool `tests/pools/bert-ratings` and its `reference.json`: soups of a tiny BERT that predicts a number, by PyTorch,
transformers and scipy alone.

    python ratings_pool.py ../pools/bert-ratings

The soups are those of `judged_torch.py --kind regression`, and a learned one (`learning.py`).
"""

import argparse
import json
import shutil
from pathlib import Path

import scipy
import torch
import transformers
from torch.func import functional_call

from judged_torch import parser_of, run
from kinds import KINDS, Options
from kinds.base import Labelled
from learning import Learning, learned, squared_error
from soups import load_pool
from tallies import Metric
from tiny.ratings import ratings

METRICS = ["pearson+spearman", "mse"]
LEARNING = Learning(lr=0.1, epochs=3, mini_batch=64)


def learned_soup(out):
    """The learned soup, and what it scores. It learns from the test data: there are no other rated pairs here."""
    judge = KINDS["regression"](out, Options(32))
    train, val = (judge.read(out / f"data/{name}.jsonl") for name in ("test", "val"))
    predicted = lambda parameters, inputs: functional_call(judge.model.eval(), parameters, kwargs=inputs).logits
    targets = Labelled(train.inputs, torch.tensor(train.scores))
    report, soup = learned(load_pool(out), predicted, targets, LEARNING, squared_error)
    return {**report, "validation": judge.score(soup, val).figures(Metric("mse"))}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the pool; what is there is replaced")
    parser.add_argument("--reference", action="store_true", help="only compute the reference of a pool that is there")
    given = parser.parse_args()
    out = given.out
    torch.set_num_threads(1)
    if not given.reference:
        for part in ("ingredients", "data"):
            shutil.rmtree(out / part, ignore_errors=True)
        out.mkdir(parents=True, exist_ok=True)
        ratings(out)
    metrics = [argument for metric in METRICS for argument in ("--metric", metric)]
    arguments = parser_of("").parse_args([
        str(out), "--validation", "data/val.jsonl", "--test", "test=data/test.jsonl", "--recipe", "greedy", "--recipe",
        "pruned", *metrics, "--threads", "1",
    ])
    made_with = {"torch": torch.__version__, "transformers": transformers.__version__, "scipy": scipy.__version__}
    reference = {
        "made_with": made_with,
        "cooks": run("regression", arguments)["cooks"],
        "learned": learned_soup(out),
    }
    (out / "reference.json").write_text(json.dumps(reference, indent=1) + "\n")


if __name__ == "__main__":
    main()
