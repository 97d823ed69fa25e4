#!/usr/bin/env python3
"""Makes the pool `tests/pools/t5-reviews` and its `reference.json`: soups of a tiny T5 that answers with the name of a class, by PyTorch
and transformers alone.

    python answers_pool.py ../pools/t5-reviews

The soups are those of `judged_torch.py --kind seq2seq`, greedy and pruned; the same where the model is taken at its word
(`--kind seq2seq-written`); and a learned soup (`learning.py`).
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
import transformers
from torch.func import functional_call

from judged_torch import parser_of, run
from kinds import KINDS, Options
from learning import Learning, figures, learned
from soups import load_pool
from tiny.text import t5

# Heads that are wider together than the hidden state.
SIZES = {"d_model": 28, "d_kv": 9, "d_ff": 48}


# The embeddings, which are `shared.weight`.
TIED = ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"]
LEARNING = Learning(lr=0.1, epochs=3, mini_batch=64)


def cooks(out, kind, recipes):
    recipes = [argument for recipe in recipes for argument in ("--recipe", recipe)]
    arguments = parser_of("").parse_args([
        str(out), "--validation", "data/val.jsonl", "--test", "test=data/test.jsonl", *recipes, "--metric", "accuracy",
        "--threads", "1",
    ])
    return run(kind, arguments)["cooks"]


def learned_soup(out):
    """The learned soup, and what it scores. It learns from the test data: there are no other labelled reviews here."""
    judge = KINDS["seq2seq"](out, Options(32))
    train, val = (judge.read(out / f"data/{name}.jsonl") for name in ("test", "val"))
    model = judge.model.eval()

    def logits(parameters, inputs):
        # By all of its names: `functional_call` does not find them by itself.
        tied = {name: parameters["shared.weight"] for name in TIED}
        judge.model = lambda **given: functional_call(model, {**parameters, **tied}, kwargs=given)
        return judge.scores(inputs)

    report, soup = learned(load_pool(out), logits, train, LEARNING)
    with torch.inference_mode():
        of_blocks = [
            logits(soup, {name: tensor[block] for name, tensor in val.inputs.items()})
            for block in judge.blocks(len(val.labels))
        ]
    return {**report, "validation": figures(torch.cat(of_blocks), val.labels)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the pool; what is there is replaced")
    parser.add_argument("--reference", action="store_true", help="only compute the reference of a pool that is there")
    arguments = parser.parse_args()
    out = arguments.out
    torch.set_num_threads(1)
    if not arguments.reference:
        for part in ("ingredients", "data"):
            shutil.rmtree(out / part, ignore_errors=True)
        out.mkdir(parents=True, exist_ok=True)
        t5(out, SIZES)
    reference = {
        "made_with": {"torch": torch.__version__, "transformers": transformers.__version__},
        "cooks": cooks(out, "seq2seq", ["greedy", "pruned"]),
        "written": cooks(out, "seq2seq-written", ["pruned"]),
        "learned": learned_soup(out),
    }
    (out / "reference.json").write_text(json.dumps(reference, indent=1) + "\n")


if __name__ == "__main__":
    main()
