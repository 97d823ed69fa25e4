#!/usr/bin/env python3
"""Makes the pool `tests/pools/bert-ratings` and its `reference.json`: soups of a tiny BERT that predicts a number, by PyTorch,
transformers and scipy alone.

    python ratings_pool.py ../pools/bert-ratings

The soups are those of `judged_torch.py --kind regression`.
"""

import argparse
import json
import shutil
from pathlib import Path

import scipy
import torch
import transformers

from judged_torch import parser_of, run
from tiny.ratings import ratings

METRICS = ["pearson+spearman", "mse"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the pool; what is there is replaced")
    out = parser.parse_args().out
    torch.set_num_threads(1)
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
    reference = {"made_with": made_with, "cooks": run("regression", arguments)["cooks"]}
    (out / "reference.json").write_text(json.dumps(reference, indent=1) + "\n")


if __name__ == "__main__":
    main()
