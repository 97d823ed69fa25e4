#!/usr/bin/env python3
"""Loads a cooked folder the way its users will, with transformers, and counts again what soupctl counted.

The folder has to load with `from_pretrained` alone: no parameter missing, left over or of another shape. Then its
count of correct predictions on the held-out data has to be the one in its soup.json (or --expect-correct). Exit code:
0 equal, 1 different, 2 nothing to compare with.
"""

import argparse
import json
import sys
from pathlib import Path

from transformers import ViTForImageClassification, ViTImageProcessor

from held_out import count_correct, read_held_out


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="OUTPUT_DIR", help="the folder that soupctl cook wrote")
    parser.add_argument("--data", type=Path, required=True, help="the Parquet file that it was validated on")
    parser.add_argument("--expect-correct", type=int, metavar="N", help="count to compare with instead of soup.json's")
    parser.add_argument("--batch-size", type=int, default=100)
    return parser.parse_args()


def read_expected(folder):
    """The correct count and the number of samples in the folder's soup.json."""
    try:
        score = json.loads((folder / "soup.json").read_text())["report"]["score"]
        return score["correct"], score["total"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"{folder / 'soup.json'} has no report.score.correct and .total ({error!r}): "
              "give --expect-correct", file=sys.stderr)
        sys.exit(2)


def load_model(folder):
    """The model, if the checkpoint is exactly its parameters: transformers itself only warns of missing ones."""
    model, loading = ViTForImageClassification.from_pretrained(folder, output_loading_info=True)
    problems = {kind: list(found) for kind, found in loading.items() if found}
    if problems:
        print(f"{folder} does not load cleanly: {problems}", file=sys.stderr)
        sys.exit(1)
    return model.eval()


def main():
    arguments = parse_arguments()
    if arguments.expect_correct is None:
        expected, expected_total = read_expected(arguments.folder)
    else:
        expected, expected_total = arguments.expect_correct, None

    model = load_model(arguments.folder)
    processor = ViTImageProcessor.from_pretrained(arguments.folder)
    pixel_values, labels = read_held_out(arguments.data, processor, model.config.num_channels)
    correct = count_correct(model, pixel_values, labels, arguments.batch_size)

    total = len(labels)
    equal = correct == expected and expected_total in (None, total)
    print(f"transformers: {correct}/{total}   expected: {expected}/{expected_total or total}   "
          f"{'equal' if equal else 'DIFFERENT'}")
    sys.exit(0 if equal else 1)


if __name__ == "__main__":
    main()
