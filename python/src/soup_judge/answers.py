"""What a judge answers: a survey of the datasets, and what happens to samples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Metric:
    """A value made of figures, by which soups are compared: a mean, or a ratio of two figures, or exp of one."""

    name: str
    figure: str
    by: str = ""
    """The figure that is divided by; empty: the number of samples."""
    exp: bool = False
    """Whether exp is taken of the ratio, as in perplexity."""
    lower_is_better: bool = field(kw_only=True)
    """There is no default: the wrong one chooses the worst soup."""


@dataclass(frozen=True)
class Range:
    """What a figure of one sample can be, of whatever soup. Every answer is held against it: outside is wrong."""

    least: float | None = None
    """Not less than this; None: there is no such end."""
    most: float | None = None
    """Not more than this; None: there is no such end."""
    fixed: bool = False
    """Whether it is the same of all soups, as a count of tokens is."""


@dataclass(frozen=True)
class Survey:
    """What a judge finds without a parameter."""

    samples: Sequence[int]
    """Of every dataset, in the order asked; each at least 1."""
    classes: int | None = None
    """Of a classifier, which answers with `Outcomes`."""
    values: bool = False
    """Whether a number is predicted of each sample, told as `Values`; of at most 65536 samples a dataset."""
    figures: Sequence[str] = ()
    """Names of what `Sums` tells, 1 to 64 of them, in this order."""
    metrics: Sequence[Metric] = ()
    """What is made of the figures."""
    ranges: Mapping[str, Range] = field(default_factory=dict)
    """What is promised of some figures, by their names: a soup is then rejected as soon as it cannot reach another one
    any more, before all samples are judged."""
    notes: Sequence[str] = ()
    """What people should know, one line each."""


@dataclass(frozen=True)
class Outcomes:
    """What happened to the samples of a block, in the order of their positions; each array has one element a sample."""

    labels: ArrayLike
    """The true classes, from 0."""
    predictions: ArrayLike
    """The classes with the largest logit, the first of several."""
    losses: ArrayLike
    """Cross-entropies in nats. Infinity is an answer, and not a number is the worst."""
    logits: NDArray[Any] | None = None
    """One row of f32 a sample; needed of judges that declare `logits`."""

    @classmethod
    def from_logits(cls, logits: ArrayLike, labels: ArrayLike, classes: Sequence[int] | None = None) -> Outcomes:
        """Outcomes by the rules of soupctl's own judge.

        `logits` are real, [samples, classes]; `labels` are integers, [samples], each a column of `logits`. Losses are
        taken in f64. A sample with a logit that is not finite counts as wrong whatever the rest of it: its loss is
        +inf, and its prediction the first of the wrong classes with the largest logit that is a number.

        With `classes`, which has every label, predictions and losses are as if the model had only these; the logits
        stay whole.

        Raises `ValueError` for arrays that do not fit together.
        """
        rows, truth = checked_rows(logits, labels)
        if classes is None:
            predictions, losses = _judged(rows, truth)
            none = predictions == rows.shape[1]
        else:
            subset = np.unique(np.asarray(classes, dtype=np.int64))
            at = np.searchsorted(subset, truth)
            if (
                subset.size == 0
                or subset[0] < 0
                or subset[-1] >= rows.shape[1]
                or (subset[at % subset.size] != truth).any()
            ):
                raise ValueError("classes: these have to be columns of the logits, and every label one of them")
            own, losses = _judged(rows[:, subset], at)
            none = own == subset.size
            predictions = subset[np.where(none, 0, own)]
        # Where there is no wrong class to predict, any other will do, if the model has one.
        predictions = np.where(none, (truth == 0) & (rows.shape[1] > 1), predictions)
        return cls(truth, predictions, losses, rows.astype(np.float32, copy=False))


@dataclass(frozen=True)
class Sums:
    """What the samples of a block add up to."""

    values: Mapping[str, float]
    """By the names of the survey's figures, all of them. Not a number is an answer, and the worst; infinity is none."""
    samples: int | None = None
    """How many samples they are of; None: as many as were asked about."""


@dataclass(frozen=True)
class Values:
    """What was predicted of the samples of a block, in the order of their positions; one element a sample."""

    truths: ArrayLike
    """The true numbers."""
    predictions: ArrayLike
    """The predicted ones. Not a number is an answer, and the worst; infinity is none."""


@dataclass(frozen=True)
class Gradient:
    """The derivatives of a `Loss` over a block of samples."""

    loss: float
    d_beta: float
    correct: int
    """Samples whose prediction is their label."""
    gradients: Mapping[str, ArrayLike] = field(default_factory=dict)
    """By the names of the tensors, in their shapes; of those that are not here it is zero."""


@dataclass(frozen=True)
class OfLogits:
    """A loss, and its derivatives by what it was made of."""

    loss: float
    d_logits: NDArray[np.float64]
    """[samples, classes]"""
    d_beta: float
    correct: int

    def gradient(self, gradients: Mapping[str, ArrayLike]) -> Gradient:
        """The answer, when `d_logits` has been carried back to the tensors."""
        return Gradient(self.loss, self.d_beta, self.correct, gradients)


@dataclass(frozen=True)
class Loss:
    """The sum over samples of `scale` times the cross-entropy of `beta` times the logits against smoothed labels.

    A label smoothed by s is 1 - s + s/C for the true class of C, and s/C for the others.
    """

    beta: float = 1.0
    label_smoothing: float = 0.0
    scale: float = 1.0

    def of_logits(self, logits: ArrayLike, labels: ArrayLike) -> OfLogits:
        """The loss in nats, and its derivatives, in f64.

        `logits` are real, [samples, classes], and `labels` integers, [samples]. A sample with a logit that is not
        finite has a loss of +inf, derivatives that are not a number, and counts as wrong. Raises `ValueError` for
        arrays that do not fit.
        """
        rows, truth = checked_rows(logits, labels)
        rows = rows.astype(np.float64)
        count, classes = rows.shape
        finite = np.isfinite(rows).all(axis=1)
        scaled = self.beta * np.where(finite[:, None], rows, 0.0)
        log_sum = _log_sum_exp(scaled)
        targets = np.full((count, classes), self.label_smoothing / classes)
        targets[np.arange(count), truth] += 1.0 - self.label_smoothing
        excess = np.exp(scaled - log_sum[:, None]) - targets
        losses = np.where(finite, (targets * (log_sum[:, None] - scaled)).sum(axis=1), math.inf)
        excess[~finite] = math.nan
        return OfLogits(
            loss=self.scale * float(losses.sum()),
            d_logits=self.scale * self.beta * excess,
            d_beta=self.scale * float((excess * rows).sum()),
            correct=int((_judged(rows, truth)[0] == truth).sum()),
        )


Answer = Outcomes | Sums | Values
Kind = Literal["outcomes", "sums", "values"]


def checked_rows(logits: ArrayLike, labels: ArrayLike) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Logits and labels as arrays that fit together, else `ValueError`."""
    rows = np.asarray(logits)
    truth = np.asarray(labels)
    if rows.ndim != 2 or rows.shape[1] == 0 or not np.issubdtype(rows.dtype, np.floating):
        raise ValueError(f"logits: expected real numbers, [samples, classes], got {rows.dtype} {list(rows.shape)}")
    if truth.shape != rows.shape[:1] or not (np.issubdtype(truth.dtype, np.integer) or truth.size == 0):
        raise ValueError(f"labels: expected {rows.shape[0]} integers, got {truth.dtype} {list(truth.shape)}")
    if ((truth < 0) | (truth >= rows.shape[1])).any():
        raise ValueError(f"labels: {truth.min()} to {truth.max()} are not all among {rows.shape[1]} classes")
    return rows, truth.astype(np.int64)


def _judged(rows: NDArray[Any], truth: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Predictions and losses; the number of classes stands for no prediction."""
    rows = rows.astype(np.float64)
    each = np.arange(len(rows))
    finite = np.isfinite(rows).all(axis=1)
    safe = np.where(finite[:, None], rows, 0.0)
    # Never below zero: rounding could leave a tiny negative for a very certain sample.
    losses = np.maximum(_log_sum_exp(safe) - safe[each, truth], 0.0)
    losses[~finite] = math.inf
    # Of the rows that are not finite the true class is left out, and what is not a number is below all.
    candidates = np.where(np.isnan(rows), -math.inf, rows)
    classes = rows.shape[1]
    predictions = candidates.argmax(axis=1)
    for row in np.flatnonzero(~finite):
        wrong = np.delete(np.arange(classes), truth[row])
        numbers = wrong[~np.isnan(rows[row, wrong])]
        if numbers.size:
            predictions[row] = numbers[rows[row, numbers].argmax()]
        else:
            predictions[row] = wrong[0] if wrong.size else classes
    return predictions, losses


def _log_sum_exp(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    largest = rows.max(axis=1, initial=-math.inf)
    summed: NDArray[np.float64] = largest + np.log(np.exp(rows - largest[:, None]).sum(axis=1))
    return summed
