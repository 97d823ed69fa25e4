#!/usr/bin/env python3
"""Compares what soupctl cooked with what PyTorch says of the same pool, trial by trial.

Takes the JSON of `soupctl cook -o json` and that of `judged_torch.py`, and looks for the reference's report of the same
recipe and metric. Names, orders, verdicts, counts and the soup's SHA-256 have to be equal; losses, sums and metrics may
differ by the tolerance. Exit code: 0 equal, 1 different, 2 nothing to compare with.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path

# What only the reference knows.
OWN = {"metric", "confusion"}
COMPARED = ["ingredients", "score", "test", "baselines", "ranking", "order", "trials", "sha256"]


def differences(found: object, expected: object, tolerance: float, where: str) -> Iterator[str]:
    """All places where what was found is not what was expected; what it has besides does not matter."""
    match found, expected:
        case dict(), dict():
            for name in expected.keys() - OWN:
                if name in found:
                    yield from differences(found[name], expected[name], tolerance, f"{where}.{name}")
                else:
                    yield f"{where} has no {name}"
        case list(), list() if len(found) == len(expected):
            for index, pair in enumerate(zip(found, expected, strict=True)):
                yield from differences(*pair, tolerance, f"{where}[{index}]")
        case (float(), float() | int()) | (int(), float()):
            if not math.isclose(found, expected, rel_tol=tolerance):
                yield f"{where} is {found}, expected {expected}"
        case _ if found != expected:
            yield f"{where} is {found}, expected {expected}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("soupctl", type=Path, metavar="SOUPCTL.json")
    parser.add_argument("reference", type=Path, metavar="REFERENCE.json")
    parser.add_argument("--tolerance", type=float, default=1e-5, help="of losses, sums and metrics, relative")
    arguments = parser.parse_args()

    found = json.loads(arguments.soupctl.read_text())
    wanted = found["recipe"], found["options"]["metric"]
    reports = json.loads(arguments.reference.read_text())["cooks"]
    expected = next((report for report in reports if (report["recipe"], report["metric"]) == wanted), None)
    if expected is None:
        print(f"{arguments.reference} has no report of {' by '.join(wanted)}", file=sys.stderr)
        sys.exit(2)

    compared = {name: expected[name] for name in COMPARED if name != "test" or expected["test"]}
    different = list(differences(found, compared, arguments.tolerance, "soupctl"))
    for line in different:
        print(line)
    names = ", ".join(found["ingredients"])
    print(f"{' by '.join(wanted)}: {len(found['trials'])} trials, chosen {names}: {'DIFFERENT' if different else 'equal'}")
    sys.exit(1 if different else 0)


if __name__ == "__main__":
    main()
