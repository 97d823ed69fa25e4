#!/usr/bin/env python3
"""Soups of any model of transformers on one machine with PyTorch: what soups under an external judge are compared with.

A plain loop, with the pool in memory and nothing of soupctl: averages in pool order (`soups.py`), figures that are
compared exactly (`tallies.py`), soupctl's rules (`recipes.py`), and a judge for the kind of model (`kinds/`).

Prints one JSON object: `cooks` has a report for every recipe and metric, with the names that `soupctl cook -o json` has
for the same, and the confusion matrix of everything that was scored.
"""

import argparse
import json
import resource
import time
from pathlib import Path

import torch

import running
from kinds import KINDS, Options
from recipes import PASSES, Ledger, cook
from soups import find_data, load_pool
from tallies import Metric


def parser_of(description: str) -> argparse.ArgumentParser:
    """The arguments that do not depend on the kind."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("pool", type=Path, metavar="POOL", help="folder with configuration, ingredients and data")
    parser.add_argument("--validation", type=Path, help="file; relative to the pool if not here (default: data/val.*)")
    parser.add_argument("--test", action="append", default=[], metavar="NAME=PATH", help="reported on, decides nothing")
    parser.add_argument("--recipe", action="append", choices=list(PASSES), help="may be given several times")
    parser.add_argument("--metric", action="append", help="may be given several times")
    parser.add_argument("--threads", type=int, default=2, help="threads of PyTorch")
    parser.add_argument("--batch-size", type=int, default=32, help="samples in a block")
    parser.add_argument("--batch-norm", choices=running.CHOICES, default="average", help="statistics of soups")
    parser.add_argument("--calibration", type=Path, help="file on which they are recomputed; relative to the pool if not here")
    parser.add_argument("--max-length", type=int, help="tokens of every text (default: the tokenizer's)")
    return parser


def only_file(folder: Path, stem: str) -> Path:
    """The data file of this name, whatever its extension."""
    found = sorted(folder.glob(f"{stem}.*"))
    if len(found) != 1:
        raise SystemExit(f"{len(found)} files {folder / stem}.*, expected one: name it")
    return found[0]


def run(kind: str, arguments: argparse.Namespace) -> dict[str, object]:
    """All that was asked for. A soup that several recipes try is scored once."""
    torch.set_num_threads(arguments.threads)
    begun = time.perf_counter()
    judge = KINDS[kind](arguments.pool, Options(arguments.batch_size, arguments.max_length))
    pool = load_pool(arguments.pool)
    given = arguments.validation
    validation = judge.read(find_data(given, arguments.pool) if given else only_file(arguments.pool / "data", "val"))
    tests = {}
    for name, equals, path in (test.partition("=") for test in arguments.test):
        if not equals:
            raise SystemExit(f"--test {name}: expected NAME=PATH")
        tests[name] = judge.read(find_data(Path(path), arguments.pool))
    read = time.perf_counter()

    finish: running.Finish = lambda soup, members: soup
    if arguments.batch_norm == "first":
        finish = running.of_first(pool)
    elif arguments.batch_norm == "recompute":
        finish = running.recomputed(judge, judge.read(find_data(arguments.calibration, arguments.pool)))
    ledger = Ledger(pool, lambda soup: judge.score(soup, validation), finish)
    metrics = [Metric(name) for name in arguments.metric or [judge.metric]]
    reports = []
    for recipe in arguments.recipe or ["greedy"]:
        for metric in metrics:
            report = cook(ledger, recipe, metric)
            soup = ledger.soup(frozenset(report["ingredients"]))
            report["test"] = {name: judge.score(soup, test).figures(metric) for name, test in tests.items()}
            reports.append(report)
    return {
        "kind": kind,
        "cooks": reports,
        "soups_scored": len(ledger.tallies),
        "threads": torch.get_num_threads(),
        "batch_size": arguments.batch_size,
        "seconds": {"read": round(read - begun, 3), "cook": round(time.perf_counter() - read, 3)},
        "peak_rss_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }


def main() -> None:
    parser = parser_of(__doc__.splitlines()[0])
    parser.add_argument("--kind", choices=list(KINDS), required=True, help="what kind of model the pool has")
    arguments = parser.parse_args()
    print(json.dumps(run(arguments.kind, arguments), indent=1))


if __name__ == "__main__":
    main()
