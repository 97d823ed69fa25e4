"""Classes have names on both sides, the model's and the dataset's, and a number only stands for a name.

A dataset's class is the model's class of the same name: the very same one, else the only one that is equal where case,
spaces and punctuation do not count. A dataset may lack classes of the model; it may have none that the model lacks.
Where the model's names are made up (LABEL_3, or 3), nothing can be compared, and what is assumed is said.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from soup_judge.errors import Refused
from soup_judge.schema import listed


@dataclass(frozen=True)
class Labels:
    """The labels of a dataset as classes of the model."""

    labels: NDArray[np.int64]
    classes: NDArray[np.int64]
    """Those that the dataset has, ascending: by its names, or where it has no names those that occur."""
    note: str = ""


def names_of(config: Mapping[str, Any]) -> list[str]:
    """The names of a model's classes by its config.json, made up where it has none. Raises `Refused` where they have
    gaps."""
    id2label = config.get("id2label")
    if id2label is None:
        # What transformers takes where nothing is said.
        return [f"LABEL_{index}" for index in range(int(config.get("num_labels", 2)))]
    try:
        names = {int(index): str(name) for index, name in id2label.items()}
    except (AttributeError, TypeError, ValueError):
        raise Refused("config.json: id2label is not a name for every number") from None
    if sorted(names) != list(range(len(names))) or not names:
        raise Refused("config.json: id2label has gaps")
    return [names[index] for index in range(len(names))]


def are_made_up(names: Sequence[str]) -> bool:
    """Whether names say nothing but a number."""
    return all(name in (f"LABEL_{index}", str(index)) for index, name in enumerate(names))


def align(dataset: str, values: Sequence[Any], theirs: Sequence[str] | None, ours: Sequence[str]) -> Labels:
    """Labels of a dataset as numbers of the model's classes, whose names are `ours`.

    `values` are numbers, of classes called `theirs` where that is known, or names. Raises `Refused` for what matches
    no class.
    """
    if values and all(isinstance(value, str) for value in values):
        if all(value.isdecimal() for value in values):
            return align(dataset, [int(value) for value in values], None, ours)
        theirs = sorted(set(values))
        if are_made_up(ours):
            raise Refused(
                f"dataset {dataset}: its labels are names ({listed(theirs)}), and the model's classes have none"
            )
        place = {name: index for index, name in enumerate(theirs)}
        values = [place[value] for value in values]
    labels = _numbers(dataset, values, len(theirs or ours))
    if theirs is None or (are_made_up(ours) and len(theirs) <= len(ours)):
        note = "" if theirs is None or are_made_up(theirs) else "names of its classes have nothing to be compared with"
        return Labels(labels, np.unique(labels) if theirs is None else np.arange(len(theirs)), note)
    if are_made_up(theirs) and len(theirs) <= len(ours):
        return Labels(labels, np.arange(len(theirs)), "its classes are numbers, and were taken for the model's")
    places = np.array([_find(name, ours) for name in theirs], np.int64)
    unknown = [name for name, place in zip(theirs, places, strict=True) if place < 0]
    if unknown:
        raise Refused(
            f"dataset {dataset}: the model has no class, or several, called {listed(unknown)}; it has {listed(ours)}"
        )
    if len(set(places.tolist())) < len(theirs):
        raise Refused(f"dataset {dataset}: several of its classes are the same of the model's: {listed(theirs)}")
    note = "" if (places == np.arange(len(theirs))).all() else "its classes were renumbered by their names"
    return Labels(places[labels], np.sort(places), note)


def _numbers(dataset: str, values: Sequence[Any], classes: int) -> NDArray[np.int64]:
    for row, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 0 <= value < classes:
            raise Refused(f"dataset {dataset}: the label of row {row} is {value!r}, none of {classes} classes")
    return np.array(values, np.int64)


def _find(name: str, ours: Sequence[str]) -> int:
    for same in (lambda one: one == name, lambda one: _fold(one) == _fold(name)):
        found = [index for index, one in enumerate(ours) if same(one)]
        if found:
            return found[0] if len(found) == 1 else -1
    return -1


def _fold(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).casefold() or name
