#!/usr/bin/env python3
"""The greedy soup on one machine with PyTorch and transformers: what soupctl is compared with.

It is the loop that a careful user would write, and no slower than it has to be: all ingredients stay in memory, images
are decoded once, one model object is reused. It has none of what soupctl does besides (no workers, no journal, no
trial that stops early). The rules are soupctl's defaults: candidates by validation accuracy, ties in pool order; a
trial is kept when it scores at least what the soup so far does; a mean is summed in f64 in pool order, divided once,
rounded once.

Prints one JSON object: the chosen ingredients in pool order, all trials with exact counts, the soup's SHA-256 (as
soupctl reports it), seconds of each phase and the peak resident memory.
"""

import time

STARTED = time.perf_counter()

import argparse
import json
import resource
from pathlib import Path

import torch
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from held_out import count_correct, read_held_out
from soups import find_data, load_pool, mean_of, sha256_of

IMPORTED = time.perf_counter()


class Phases:
    """Wall seconds by phase of the run; a phase lasts until the next one ends."""

    def __init__(self):
        self.seconds = {"import": IMPORTED - STARTED}
        self.begun = IMPORTED

    def ended(self, phase):
        now = time.perf_counter()
        self.seconds[phase] = now - self.begun
        self.begun = now


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pool", type=Path, required=True, help="folder with config.json and the ingredients")
    parser.add_argument("--validation", type=Path, required=True, help="Parquet file; relative to the pool if not here")
    parser.add_argument("--test", action="append", default=[], metavar="NAME=PATH", help="reported on, decides nothing")
    parser.add_argument("--threads", type=int, required=True, help="threads of PyTorch")
    parser.add_argument("--batch-size", type=int, default=100)
    arguments = parser.parse_args()
    if arguments.threads < 1 or arguments.batch_size < 1:
        parser.error("--threads and --batch-size must be at least 1")
    for test in arguments.test:
        if "=" not in test:
            parser.error(f"--test {test}: expected NAME=PATH")
    return arguments


def greedy(pool, ranking, score):
    """Tries the ingredients best first. Returns the chosen ones in pool order, their mean, its count and the trials.

    `ranking` is the correct count of each ingredient, `score` the function from a state dict to its count.
    """
    position = {name: index for index, name in enumerate(pool)}
    best, *candidates = sorted(pool, key=lambda name: (-ranking[name], position[name]))
    chosen, soup, bar = [best], mean_of([pool[best]]), ranking[best]
    trials = []
    for candidate in candidates:
        members = sorted([*chosen, candidate], key=position.get)
        trial = mean_of([pool[name] for name in members])
        correct = score(trial)
        accepted = correct >= bar
        trials.append({"candidate": candidate, "ingredients": members, "correct": correct, "bar": bar,
                       "verdict": "accepted" if accepted else "rejected"})
        if accepted:
            chosen, soup, bar = members, trial, correct
    return chosen, soup, bar, trials


def main():
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    phases = Phases()

    pool = load_pool(arguments.pool)
    config = ViTConfig.from_pretrained(arguments.pool)
    model = ViTForImageClassification(config).eval()
    processor = ViTImageProcessor.from_pretrained(arguments.pool)
    phases.ended("load")

    validation = read_held_out(find_data(arguments.validation, arguments.pool), processor, config.num_channels)
    phases.ended("decode")

    def score(state_dict, held_out=validation):
        model.load_state_dict(state_dict)
        return count_correct(model, *held_out, arguments.batch_size)

    ranking = {name: score(state_dict) for name, state_dict in pool.items()}
    phases.ended("ranking")
    chosen, soup, correct, trials = greedy(pool, ranking, score)
    phases.ended("trials")

    tests = {}
    for name, _, path in (test.partition("=") for test in arguments.test):
        test = read_held_out(find_data(Path(path), arguments.pool), processor, config.num_channels)
        tests[name] = {"correct": score(soup, test), "total": len(test[1])}
    phases.ended("test")

    print(json.dumps({
        "chosen": chosen,
        "correct": correct,
        "total": len(validation[1]),
        "sha256": sha256_of(soup),
        "ranking": ranking,
        "trials": trials,
        "test": tests,
        "threads": torch.get_num_threads(),
        "seconds": {phase: round(seconds, 3) for phase, seconds in phases.seconds.items()},
        "peak_rss_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }, indent=1))


if __name__ == "__main__":
    main()
