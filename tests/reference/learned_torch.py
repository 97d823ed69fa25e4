#!/usr/bin/env python3
"""The learned soup on one machine with PyTorch and transformers, the pool in memory: what soupctl is compared with.

It is the authors' way: the tensors of all ingredients are stacked, every step mixes them by the weights, runs one
mini-batch through the mixed model by `torch.func.functional_call`, and lets autograd go all the way back to the weights.
Options are soupctl's: alpha by model or by tensor under softmax, beta from 1, AdamW without weight decay, mini-batches in
the order of the file.

Prints one JSON object: the loss of every mini-batch, alpha, beta, seconds of each phase and a step, and the peak resident
memory.
"""

import time

STARTED = time.perf_counter()

import argparse
import json
import resource
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.func import functional_call
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from greedy_torch import Phases
from held_out import read_held_out
from soups import find_data, load_pool


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pool", type=Path, required=True, help="folder with config.json and the ingredients")
    parser.add_argument("--train", type=Path, required=True, help="Parquet file; relative to the pool if not here")
    parser.add_argument("--threads", type=int, required=True, help="threads of PyTorch")
    parser.add_argument("--granularity", choices=["model", "tensor"], default="tensor")
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--mini-batch", type=int, default=256)
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    phases = Phases()

    pool = list(load_pool(arguments.pool).values())
    config = ViTConfig.from_pretrained(arguments.pool)
    model = ViTForImageClassification(config).eval()
    processor = ViTImageProcessor.from_pretrained(arguments.pool)
    names = [name for name, tensor in pool[0].items() if tensor.is_floating_point()]
    stacked = {name: torch.stack([ingredient[name] for ingredient in pool]) for name in names}
    copied = {name: tensor for name, tensor in pool[0].items() if name not in stacked}
    k = len(pool)
    del pool
    phases.ended("load")
    pixels, labels = read_held_out(find_data(arguments.train, arguments.pool), processor, config.num_channels)
    phases.ended("decode")

    rows = 1 if arguments.granularity == "model" else len(names)
    alpha = torch.zeros(rows, k, requires_grad=True)
    beta = torch.ones((), requires_grad=True)
    optimizer = torch.optim.AdamW([alpha, beta], lr=arguments.lr, weight_decay=0.0)
    losses = []
    for _ in range(arguments.epochs):
        for begin in range(0, len(labels), arguments.mini_batch):
            end = begin + arguments.mini_batch
            weights = torch.softmax(alpha, dim=1)
            mixed = {
                name: torch.einsum("k,k...->...", weights[min(row, rows - 1)], stacked[name])
                for row, name in enumerate(names)
            }
            logits = functional_call(model, {**mixed, **copied}, kwargs={"pixel_values": pixels[begin:end]}).logits
            loss = F.cross_entropy(beta * logits, labels[begin:end])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    phases.ended("learn")

    print(json.dumps({
        "losses": losses,
        "alpha": torch.softmax(alpha, dim=1).detach().mean(0).tolist(),
        "beta": float(beta),
        "threads": torch.get_num_threads(),
        "seconds": {phase: round(seconds, 3) for phase, seconds in phases.seconds.items()},
        "seconds_per_step": round(phases.seconds["learn"] / len(losses), 4),
        "peak_rss_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }, indent=1))


if __name__ == "__main__":
    main()
