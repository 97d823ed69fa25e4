"""Serves a judge of transformers: `python -m soup_judge.transformers KIND`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from soup_judge.images import CACHE
from soup_judge.judge import Judge
from soup_judge.server import serve
from soup_judge.torch import add_arguments, arithmetic_of
from soup_judge.transformers import (
    CausalPerplexity,
    ClipLinear,
    ClipZeroShot,
    ImageClassification,
    SequenceClassification,
    T5LabelText,
)

KINDS = {
    "image-classification": ImageClassification,
    "sequence-classification": SequenceClassification,
    "t5-label-text": T5LabelText,
    "causal-perplexity": CausalPerplexity,
    "clip-zero-shot": ClipZeroShot,
    "clip-linear": ClipLinear,
}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(prog="python -m soup_judge.transformers", description=__doc__)
    kinds = found.add_subparsers(dest="kind", required=True, metavar="KIND")
    for name, kind in KINDS.items():
        about = (kind.__doc__ or "").splitlines()[0]
        one = kinds.add_parser(name, help=about, description=about)
        add_arguments(one)
        if name.startswith(("image", "clip")):
            one.add_argument("--cache-mib", type=int, default=CACHE >> 20, metavar="N", help="of pixels, each dataset")
        if name not in ("image-classification", "clip-linear"):
            one.add_argument("--tokenizer", type=Path, required=True, metavar="DIR", help="folder of the tokenizer")
            one.add_argument("--max-length", type=int, metavar="N", help="tokens at which texts are cut")
        if name == "t5-label-text":
            one.add_argument("--labels", metavar="A,B,…", help="texts of the classes; else the names of the config")
        if name == "clip-zero-shot":
            one.add_argument("--prompts", type=Path, required=True, metavar="FILE", help="JSON: texts by class")
        if name == "clip-linear":
            one.add_argument("--no-normalize", action="store_true", help="features keep their length")
    return found


def judge_of(arguments: argparse.Namespace) -> Judge:
    """The judge that the command line tells."""
    options: dict[str, object] = {"arithmetic": arithmetic_of(arguments)}
    if "cache_mib" in arguments:
        options["cache"] = arguments.cache_mib << 20
    if "tokenizer" in arguments:
        options |= {"tokenizer": arguments.tokenizer, "max_length": arguments.max_length}
    if "labels" in arguments:
        options["labels"] = arguments.labels.split(",") if arguments.labels is not None else None
    if "prompts" in arguments:
        options["prompts"] = arguments.prompts
    if "no_normalize" in arguments:
        options["normalized"] = not arguments.no_normalize
    judge: Judge = KINDS[arguments.kind](**options)
    return judge


def main(arguments: Sequence[str] | None = None) -> None:
    """Serves until told to end."""
    options = parser().parse_args(arguments)
    serve(judge_of(options), options.socket)


if __name__ == "__main__":
    main(sys.argv[1:])
