#!/usr/bin/env python3
"""Makes the pool `tests/pools/bert-reviews` and its `reference.json`: soups of a tiny BERT by PyTorch and transformers alone.

    python reviews_pool.py ../pools/bert-reviews

The soups are those of `judged_torch.py --kind text`: greedy and pruned, by accuracy and by the mean of accuracy and F1. Besides,
a learned soup (`learning.py`).
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
import transformers
from torch.func import functional_call
from transformers import AutoModelForSequenceClassification

from judged_torch import parser_of, run
from kinds import KINDS, Options
from learning import Learning, figures, learned
from soups import load_pool
from tiny.bert import bert

LEARNING = Learning(lr=0.1, epochs=3, mini_batch=64)


def logits_of(judge, model, samples):
    """In f32, sample by sample in the order of the file."""
    with torch.no_grad():
        blocks = [
            model(**{name: tensor[block] for name, tensor in samples.inputs.items()}).logits
            for block in judge.blocks(len(samples.labels))
        ]
    return torch.cat(blocks)


def learned_soup(pool_folder):
    """The learned soup, and what it scores."""
    judge = KINDS["text"](pool_folder, Options(32, None))
    train, val = (judge.read(pool_folder / f"data/{name}.jsonl") for name in ("train", "val"))
    model = AutoModelForSequenceClassification.from_config(judge.model.config).eval()
    logits = lambda parameters, inputs: functional_call(model, parameters, kwargs=inputs).logits
    report, soup = learned(load_pool(pool_folder), logits, train, LEARNING)
    model.load_state_dict(soup, strict=False)
    return {**report, "validation": figures(logits_of(judge, model, val), val.labels)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the pool; what is there is replaced")
    out = parser.parse_args().out
    torch.set_num_threads(1)
    for part in ("ingredients", "data"):
        shutil.rmtree(out / part, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    bert(out)
    arguments = parser_of("").parse_args([
        str(out), "--validation", "data/val.jsonl", "--test", "test=data/test.jsonl", "--recipe", "greedy", "--recipe",
        "pruned", "--metric", "accuracy", "--metric", "accuracy+binary-f1", "--threads", "1",
    ])
    cooks = run("text", arguments)["cooks"]
    reference = {
        "made_with": {"torch": torch.__version__, "transformers": transformers.__version__},
        "cooks": cooks,
        "learned": learned_soup(out),
    }
    # What is there three times is read one way by PyTorch.
    (out / "data/test.jsonl").unlink()
    (out / "reference.json").write_text(json.dumps(reference, indent=1) + "\n")


if __name__ == "__main__":
    main()
