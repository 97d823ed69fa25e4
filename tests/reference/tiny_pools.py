#!/usr/bin/env python3
"""Makes tiny pools of several kinds of models, out of nothing: random weights, made-up data, some seconds of training.

Each pool has a folder of its own with `ingredients/`, `config.json`, what reads its data (`preprocessor_config.json`, a
tokenizer) and `data/`. Every ingredient begins with the same briefly trained model and differs in how it was trained on;
the last one is a bad one.
"""

import argparse
import shutil
import time
from pathlib import Path

import torch

from tiny import clip, images, text

POOLS = {
    "t5": text.t5,
    "causal-lm": text.causal_lm,
    "clip": clip.clip,
    "resnet": images.resnet,
    "efficientnet": images.efficientnet,
    "vit": images.vit,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the pools; pools that are there are replaced")
    parser.add_argument("--only", action="append", choices=list(POOLS), help="may be given several times")
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch; another number makes other pools")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for name in arguments.only or POOLS:
        begun = time.perf_counter()
        out = arguments.out / name
        if out.exists():
            shutil.rmtree(out)
        out.mkdir(parents=True)
        POOLS[name](out)
        print(f"{name}: {time.perf_counter() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    main()
