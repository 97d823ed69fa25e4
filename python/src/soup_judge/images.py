"""Tables of images as samples of PyTorch's judges."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from numpy.typing import NDArray

from soup_judge.classes import align
from soup_judge.data import Cache, read_table
from soup_judge.errors import Refused
from soup_judge.schema import Dataset
from soup_judge.torch import Samples

CACHE = 4 << 30
"""Bytes of preprocessed images that are kept, of each dataset."""


def image_samples(
    dataset: Dataset,
    names: Sequence[str],
    prepare: Callable[[Sequence[bytes]], NDArray[Any]],
    cache: int,
    argument: str | None = "pixel_values",
) -> Samples:
    """A table of images as samples whose classes are called `names`; `argument` is the model's name for pixels."""
    table = read_table(dataset)
    encoded = table.images()
    values, theirs = table.labels()
    labels = align(dataset.name, values, theirs, names)
    try:
        prepare(encoded[:1])
    except (OSError, ValueError) as error:
        raise Refused(f"dataset {dataset.name}: the first image: {error}") from error
    pixels = Cache(lambda positions: prepare([encoded[position] for position in positions]), cache)

    def inputs(positions: Sequence[int]) -> Any:
        rows = torch.from_numpy(pixels(positions))
        return rows if argument is None else {argument: rows}

    return Samples(inputs, labels.labels, labels.classes.tolist(), [labels.note])
