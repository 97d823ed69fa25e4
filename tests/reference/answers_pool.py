#!/usr/bin/env python3
"""Makes the pool `tests/pools/t5-reviews` and its `reference.json`: soups of a tiny T5 that answers with the name of a class, by PyTorch
and transformers alone.

    python answers_pool.py ../pools/t5-reviews

The soups are those of `judged_torch.py --kind seq2seq`, greedy and pruned.
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
import transformers

from judged_torch import parser_of, run
from tiny.text import t5

# Heads that are wider together than the hidden state.
SIZES = {"d_model": 28, "d_kv": 9, "d_ff": 48}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the pool; what is there is replaced")
    out = parser.parse_args().out
    torch.set_num_threads(1)
    for part in ("ingredients", "data"):
        shutil.rmtree(out / part, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    t5(out, SIZES)
    arguments = parser_of("").parse_args([
        str(out), "--validation", "data/val.jsonl", "--test", "test=data/test.jsonl", "--recipe", "greedy", "--recipe",
        "pruned", "--metric", "accuracy", "--threads", "1",
    ])
    reference = {
        "made_with": {"torch": torch.__version__, "transformers": transformers.__version__},
        "cooks": run("seq2seq", arguments)["cooks"],
    }
    (out / "reference.json").write_text(json.dumps(reference, indent=1) + "\n")


if __name__ == "__main__":
    main()
