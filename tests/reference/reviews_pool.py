#!/usr/bin/env python3
"""Makes the pool `tests/pools/bert-reviews` and its `reference.json`: soups of a tiny BERT by PyTorch and transformers alone.

    python reviews_pool.py ../pools/bert-reviews

The soups are those of `judged_torch.py --kind text`: greedy and pruned, by accuracy and by the mean of accuracy and F1. Besides,
a learned soup, the authors' way: one weight an ingredient under softmax and an inverse temperature, AdamW, mini-batches in the
order of the file, autograd all the way back to the weights.
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
import torch.nn.functional as F
import transformers
from torch.func import functional_call
from transformers import AutoModelForSequenceClassification

from judged_torch import parser_of, run
from kinds import KINDS, Options
from soups import load_pool
from tiny.bert import bert

LEARNING = {"lr": 0.1, "epochs": 3, "mini_batch": 64}


def logits_of(judge, model, samples):
    """In f32, sample by sample in the order of the file."""
    with torch.no_grad():
        blocks = [
            model(**{name: tensor[block] for name, tensor in samples.inputs.items()}).logits
            for block in judge.blocks(len(samples.labels))
        ]
    return torch.cat(blocks)


def figures(logits, labels):
    labels = torch.as_tensor(labels)
    return {
        "correct": int((logits.argmax(1) == labels).sum()),
        "n": len(labels),
        "loss": float(F.cross_entropy(logits.double(), labels)),
    }


def learned(pool_folder):
    """The learned soup, and what it scores."""
    judge = KINDS["text"](pool_folder, Options(32, None))
    train, val = (judge.read(pool_folder / f"data/{name}.jsonl") for name in ("train", "val"))
    pool = load_pool(pool_folder)
    model = AutoModelForSequenceClassification.from_config(judge.model.config).eval()
    names = [name for name, tensor in next(iter(pool.values())).items() if tensor.is_floating_point()]
    stacked = {name: torch.stack([ingredient[name] for ingredient in pool.values()]) for name in names}
    alpha = torch.zeros(len(pool), requires_grad=True)
    beta = torch.ones((), requires_grad=True)
    optimizer = torch.optim.AdamW([alpha, beta], lr=LEARNING["lr"], weight_decay=0.0)
    losses = []
    labels = torch.as_tensor(train.labels)

    def mixed():
        weights = torch.softmax(alpha, dim=0)
        return {name: torch.einsum("k,k...->...", weights, stacked[name]) for name in names}

    for _ in range(LEARNING["epochs"]):
        for begin in range(0, len(labels), LEARNING["mini_batch"]):
            part = slice(begin, begin + LEARNING["mini_batch"])
            inputs = {name: tensor[part] for name, tensor in train.inputs.items()}
            loss = F.cross_entropy(beta * functional_call(model, mixed(), kwargs=inputs).logits, labels[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    with torch.no_grad():
        model.load_state_dict(mixed(), strict=False)
    return {
        **LEARNING,
        "losses": losses,
        "weights": dict(zip(pool, torch.softmax(alpha, dim=0).tolist())),
        "beta": float(beta.detach()),
        "validation": figures(logits_of(judge, model, val), val.labels),
    }


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
        "learned": learned(out),
    }
    # What is there three times is read one way by PyTorch.
    (out / "data/test.jsonl").unlink()
    (out / "reference.json").write_text(json.dumps(reference, indent=1) + "\n")


if __name__ == "__main__":
    main()
