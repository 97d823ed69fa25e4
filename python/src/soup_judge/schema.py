"""What a run tells a judge: the tensors of its soups, the texts of the pool, the datasets."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from soup_judge.errors import Refused

MOST_NAMES = 8
"""So many names stand in one text; of others it is said how many there are."""

ITEM_SIZES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8, "C64": 8,
}  # fmt: skip
"""Bytes of an element by the dtypes of safetensors that are understood."""


STATISTICS = ("running_mean", "running_var", "moving_mean", "moving_variance", "moving_var")
"""Last parts of the names of running statistics."""


@dataclass(frozen=True)
class Tensor:
    """A tensor of every soup of the run."""

    name: str
    dtype: str
    """As in safetensors: "F32", "BF16", …"""
    shape: tuple[int, ...]
    recomputed: bool = field(default=False, compare=False)
    """Whether it is a running statistic of a normalisation layer that is computed anew for every soup."""

    @property
    def elements(self) -> int:
        """How many elements it has."""
        return math.prod(self.shape)

    @property
    def is_statistic(self) -> bool:
        """Whether it is a running statistic of a normalisation layer, by its name in PyTorch, TensorFlow or Flax."""
        *before, last = re.split("[./]", self.name)
        return self.is_float and (last in STATISTICS or "batch_stats" in before)

    @property
    def is_float(self) -> bool:
        """Whether its elements are real numbers, which soups average."""
        return self.dtype.startswith(("F", "BF"))


@dataclass
class Dataset:
    """A dataset of the run. What a judge keeps of it goes into `data`."""

    name: str
    """Its name in reports."""
    source: str
    """What the user wrote: a path, a URL, or a name that the judge knows."""
    options: Mapping[str, str] = field(default_factory=dict)
    """Options as the user gave them, such as "split"; only of those that the judge declares."""
    data: Any = None
    """Whatever `open` puts here; `judge` finds it again."""


@dataclass(frozen=True)
class Schema:
    """What all soups of the run have in common."""

    tensors: tuple[Tensor, ...]
    """In canonical order."""
    config_text: str = ""
    """The pool's config.json; empty: it has none."""
    preprocessor_text: str = ""
    """The pool's preprocessor_config.json; empty: it has none."""
    batch_size: int = 1
    """As many samples as may be judged together."""
    class_subset: bool = False
    """Whether predictions are to be taken among the classes that a dataset has."""

    @cached_property
    def by_name(self) -> Mapping[str, Tensor]:
        """The tensors by their names."""
        return {tensor.name: tensor for tensor in self.tensors}

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """The pool's config.json. Raises `Refused` where there is none."""
        return _parsed(self.config_text, "config.json")

    @cached_property
    def preprocessor(self) -> Mapping[str, Any]:
        """The pool's preprocessor_config.json. Raises `Refused` where there is none."""
        return _parsed(self.preprocessor_text, "preprocessor_config.json")

    def expect(
        self, shapes: Mapping[str, Sequence[int]], *, optional: Collection[str] = (), unused: Collection[str] = ()
    ) -> None:
        """Raises `Refused`, with names, unless the tensors are exactly those of a model.

        `shapes` are the model's, by name. Of those in `optional` a soup may lack any; those in `unused` it may have
        besides, of whatever shape.
        """
        missing = [name for name in shapes if name not in self.by_name and name not in optional]
        surplus = [name for name in self.by_name if name not in shapes and name not in unused]
        wrong = [
            f"{name} of {list(self.by_name[name].shape)} instead of {list(shape)}"
            for name, shape in shapes.items()
            if name in self.by_name and self.by_name[name].shape != tuple(shape)
        ]
        faults = [("it lacks ", missing), ("the model does not know ", surplus), ("it has ", wrong)]
        if any(names for _, names in faults):
            told = "; ".join(lead + listed(names) for lead, names in faults if names)
            raise Refused(f"the pool's tensors are not the model's: {told}")


def listed(names: Iterable[str]) -> str:
    """Names for a text, the first few of many."""
    names = list(names)
    if len(names) > MOST_NAMES:
        return f"{', '.join(names[:MOST_NAMES])} and {len(names) - MOST_NAMES} more"
    return ", ".join(names)


def _parsed(text: str, file: str) -> Mapping[str, Any]:
    if not text:
        raise Refused(f"the pool has no {file}, which this judge needs")
    try:
        value = json.loads(text)
    except ValueError as error:
        raise Refused(f"the pool's {file} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise Refused(f"the pool's {file} is not a JSON object")
    return value
