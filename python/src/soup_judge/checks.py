"""From what a judge answers to what is sent: everything is checked, so that a wrong answer names what is wrong with
it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from soup_judge._wire import judge_pb2 as wire
from soup_judge.answers import Answer, Gradient, Outcomes, Sums, Survey, Values
from soup_judge.errors import WrongAnswer
from soup_judge.judge import Judge, default_digest, default_numerics
from soup_judge.schema import Dataset, Schema, listed
from soup_judge.tensors import rounded

PROTOCOL = 1

_WORD = re.compile(r"[A-Za-z0-9_.+-]{1,64}")
_FIGURE = re.compile(r"[a-z0-9_-]{1,64}")
_MOST_FIGURES = 64
_MOST_VALUES = 65536


def description(judge: Judge) -> wire.DescribeResponse:
    """Who a judge is. Raises `WrongAnswer` for attributes that may not be sent."""
    name = type(judge).__name__
    numerics = default_numerics() if judge.numerics is None else judge.numerics
    for attribute, word in (("version", judge.version), ("numerics", numerics)):
        if not isinstance(word, str) or not _WORD.fullmatch(word):
            raise WrongAnswer(f"{name}.{attribute} is {word!r}: set it to 1 to 64 letters, digits and _.+- characters")
    try:
        digest = default_digest(judge) if judge.digest is None else judge.digest
    except (TypeError, ValueError) as error:
        raise WrongAnswer(f"{name} has no digest: {error}") from error
    if not re.fullmatch(r"([0-9a-f]{64})?", digest):
        raise WrongAnswer(
            f"{name}.digest is {digest!r}: set it to 64 hexadecimal digits of lower case, or to '' for none"
        )
    if not (math.isfinite(judge.tolerance) and judge.tolerance >= 0):
        raise WrongAnswer(f"{name}.tolerance is {judge.tolerance}: set it to a number that is at least 0")
    return wire.DescribeResponse(
        protocol=PROTOCOL,
        version=judge.version,
        digest=digest,
        numerics=numerics,
        abilities=judge.abilities(),
        datasets=judge.datasets,
        tolerance=judge.tolerance,
    )


def survey(judge: Judge, survey: Survey, datasets: Sequence[Dataset]) -> wire.Survey:
    """A survey for the wire, or `WrongAnswer`."""
    if not isinstance(survey, Survey):
        raise WrongAnswer(f"open returned {_kind(survey)}: return a Survey")
    if len(survey.samples) != len(datasets):
        raise WrongAnswer(
            f"Survey.samples has {len(survey.samples)} counts: give one for each of {len(datasets)} datasets"
        )
    for dataset, count in zip(datasets, survey.samples, strict=True):
        if not _is_count(count) or count < 1:
            raise WrongAnswer(f"Survey.samples says {count!r} for dataset {dataset.name}: give a count of at least 1")
    if [survey.classes is not None, bool(survey.figures), bool(survey.values)].count(True) != 1:
        raise WrongAnswer(
            "Survey has to tell either of classes (of a classifier), of figures (sums) or of values (numbers), "
            "and of one of them"
        )
    told = wire.Survey(samples=[int(count) for count in survey.samples], notes=[_line(note) for note in survey.notes])
    if survey.classes is not None:
        if not _is_count(survey.classes) or not 1 <= survey.classes < 1 << 32:
            raise WrongAnswer(f"Survey.classes is {survey.classes!r}: give a count of at least 1")
        if survey.metrics:
            raise WrongAnswer("Survey.metrics are made of figures: a classifier has none")
        if survey.ranges:
            raise WrongAnswer("Survey.ranges are of figures: a classifier has none")
        told.classes = int(survey.classes)
        return told
    if judge.logits:
        raise WrongAnswer("Survey tells of no classes, but the judge declares logits: set `logits = False`")
    if survey.values:
        if survey.metrics:
            raise WrongAnswer("Survey.metrics are made of figures: predicted numbers have their own")
        if max(survey.samples) > _MOST_VALUES:
            raise WrongAnswer(f"Survey.samples: values are told of at most {_MOST_VALUES} samples of a dataset")
        told.values = 1
        return told
    told.figures.CopyFrom(_figures(survey))
    return told


def _figures(survey: Survey) -> wire.Figures:
    names = list(survey.figures)
    wrong = [name for name in names if not isinstance(name, str) or not _FIGURE.fullmatch(name)]
    if isinstance(survey.figures, str) or wrong or len(set(names)) != len(names) or len(names) > _MOST_FIGURES:
        raise WrongAnswer(
            f"Survey.figures is {survey.figures!r}: give 1 to {_MOST_FIGURES} different names of lower-case letters, "
            "digits and -_"
        )
    if len({metric.name for metric in survey.metrics}) != len(survey.metrics):
        raise WrongAnswer("Survey.metrics: two have the same name")
    figures = wire.Figures(names=names)
    for metric in survey.metrics:
        lost = [figure for figure in (metric.figure, metric.by) if figure and figure not in names]
        if not _FIGURE.fullmatch(metric.name):
            raise WrongAnswer(f"Survey.metrics: {metric.name!r} is no name of lower-case letters, digits and -_")
        if not metric.figure or lost:
            raise WrongAnswer(f"Survey.metrics: {metric.name!r} is made of the figures {listed(names)} only")
        if metric.exp and not metric.by:
            raise WrongAnswer(
                f"Survey.metrics: {metric.name!r} takes exp of a ratio: say by which figure is divided (`by`)"
            )
        formula = wire.Metric.FORMULA_RATIO if metric.by else wire.Metric.FORMULA_MEAN
        figures.metrics.add(
            name=metric.name,
            formula=wire.Metric.FORMULA_EXP_RATIO if metric.exp else formula,
            figure=metric.figure,
            by=metric.by,
            lower_is_better=metric.lower_is_better,
        )
    for figure, promised in survey.ranges.items():
        if figure not in names:
            raise WrongAnswer(f"Survey.ranges: {figure!r} is none of the figures {listed(names)}")
        least, most = promised.least, promised.most
        ends = [end for end in (least, most) if end is not None]
        if not all(math.isfinite(end) for end in ends) or (len(ends) == 2 and ends[0] > ends[1]):
            raise WrongAnswer(f"Survey.ranges: {figure!r} from {least} to {most} is no range of numbers")
        figures.ranges.add(figure=figure, least=least, most=most, fixed=promised.fixed)
    return figures


def block(index: int, answer: Answer, survey: wire.Survey, samples: int, logits: bool) -> wire.Block:
    """What was judged of a block of `samples`, for the wire, or `WrongAnswer`."""
    if survey.WhichOneof("tallies") == "figures":
        if not isinstance(answer, Sums):
            raise WrongAnswer(f"judge returned {_kind(answer)}: the survey tells of figures, so return Sums")
        return wire.Block(block=index, sums=_sums(answer, list(survey.figures.names), samples))
    if survey.WhichOneof("tallies") == "values":
        if not isinstance(answer, Values):
            raise WrongAnswer(f"judge returned {_kind(answer)}: the survey tells of values, so return Values")
        return wire.Block(block=index, values=_values(answer, samples))
    if not isinstance(answer, Outcomes):
        raise WrongAnswer(f"judge returned {_kind(answer)}: the survey tells of classes, so return Outcomes")
    classes = survey.classes
    told = wire.Outcomes(
        labels=_classes("labels", answer.labels, samples, classes),
        predictions=_classes("predictions", answer.predictions, samples, classes),
        losses=_column("Outcomes.losses", answer.losses, samples, np.floating).astype(np.float64).tolist(),
    )
    if -math.inf in told.losses:
        raise WrongAnswer("Outcomes.losses has minus infinity: give not a number where a loss is none")
    if not logits:
        return wire.Block(block=index, outcomes=told)
    if answer.logits is None:
        raise WrongAnswer(
            "judge returned Outcomes without logits, but declares them: use Outcomes.from_logits, or logits = False"
        )
    rows = np.asarray(answer.logits)
    if rows.shape != (samples, classes) or not np.issubdtype(rows.dtype, np.floating):
        raise WrongAnswer(
            f"Outcomes.logits is {rows.dtype} {list(rows.shape)}: give real numbers, [{samples}, {classes}] here"
        )
    return wire.Block(block=index, outcomes=told, logits=rows.astype("<f4").tobytes())


def _values(answer: Values, samples: int) -> wire.Values:
    truths, predictions = (
        _column(f"Values.{what}", column, samples, np.floating).astype(np.float64)
        for what, column in (("truths", answer.truths), ("predictions", answer.predictions))
    )
    if not np.isfinite(truths).all():
        raise WrongAnswer("Values.truths has something that is not finite: every sample has a true number")
    if np.isinf(predictions).any():
        raise WrongAnswer("Values.predictions has infinity: give not a number where there is no prediction")
    return wire.Values(truths=truths.tolist(), predictions=predictions.tolist())


def _sums(answer: Sums, names: list[str], samples: int) -> wire.Sums:
    count = samples if answer.samples is None else answer.samples
    if count != samples:
        raise WrongAnswer(f"Sums.samples is {count!r}: the block has {samples}, and every sample counts")
    surplus = [str(name) for name in answer.values if name not in names]
    missing = [name for name in names if name not in answer.values]
    if surplus or missing:
        raise WrongAnswer(
            f"Sums.values has to have just the survey's figures: missing {listed(missing) or '-'}, "
            f"unknown {listed(surplus) or '-'}"
        )
    try:
        values = [float(answer.values[name]) for name in names]
    except (TypeError, ValueError) as error:
        raise WrongAnswer(f"Sums.values has to have one number a figure: {error}") from error
    infinite = [name for name, value in zip(names, values, strict=True) if math.isinf(value)]
    if infinite:
        raise WrongAnswer(f"Sums.values has an infinite {listed(infinite)}: give not a number where a sum is none")
    return wire.Sums(samples=samples, values=values)


def _classes(what: str, values: ArrayLike, samples: int, bound: int) -> list[int]:
    column = _column(f"Outcomes.{what}", values, samples, np.integer)
    if ((column < 0) | (column >= bound)).any():
        raise WrongAnswer(
            f"Outcomes.{what} has {column.min()} to {column.max()}: classes are counted from 0 and below {bound}"
        )
    found: list[int] = column.tolist()
    return found


def _column(
    what: str, values: ArrayLike, samples: int, kind: type[np.integer[Any]] | type[np.floating[Any]]
) -> NDArray[Any]:
    column = np.asarray(values)
    if column.shape != (samples,) or not np.issubdtype(column.dtype, kind):
        wanted = "integers" if kind is np.integer else "real numbers"
        raise WrongAnswer(f"{what} is {column.dtype} {list(column.shape)}: give {samples} {wanted}, one a sample")
    return column


def gradient(answer: Gradient, schema: Schema, samples: int) -> Iterable[tuple[str, NDArray[Any]]]:
    """The gradients by name, as arrays in the shapes of their tensors, or `WrongAnswer`."""
    if not isinstance(answer, Gradient):
        raise WrongAnswer(f"differentiate returned {_kind(answer)}: return a Gradient")
    if not _is_count(answer.correct) or answer.correct > samples:
        raise WrongAnswer(f"Gradient.correct is {answer.correct!r}: give how many of the {samples} samples are right")
    for what, number in (("loss", answer.loss), ("d_beta", answer.d_beta)):
        if not isinstance(number, (int, float, np.floating)):
            raise WrongAnswer(f"Gradient.{what} is {_kind(number)}: give a number")
    unknown = [str(name) for name in answer.gradients if name not in schema.by_name]
    if unknown:
        raise WrongAnswer(f"Gradient.gradients has {listed(unknown)}: name tensors of the schema")
    return [(name, _slope(name, values, schema)) for name, values in answer.gradients.items()]


def statistics(answer: Any, schema: Schema) -> dict[str, NDArray[np.uint8]]:
    """The bytes of what was recomputed, by the names of its tensors in the schema's order, or `WrongAnswer`."""
    if not isinstance(answer, Mapping):
        raise WrongAnswer(f"recompute returned {_kind(answer)}: return arrays by the names of tensors")
    wanted = [tensor for tensor in schema.tensors if tensor.recomputed]
    names = [tensor.name for tensor in wanted]
    lacking = [name for name in names if name not in answer]
    surplus = [name for name in answer if name not in names]
    if lacking or surplus:
        raise WrongAnswer(
            f"recompute returned statistics that are not those of the soup: missing {listed(lacking) or '-'}, "
            f"unknown {listed(surplus) or '-'}"
        )
    found = {}
    for tensor in wanted:
        array = np.asarray(answer[tensor.name])
        if array.shape != tensor.shape or not np.issubdtype(array.dtype, np.floating):
            raise WrongAnswer(
                f"recompute returned {array.dtype} {list(array.shape)} for {tensor.name}: give real numbers in the "
                f"tensor's shape, {list(tensor.shape)}"
            )
        if not np.isfinite(array).all():
            raise WrongAnswer(f"recompute returned {tensor.name} with something that is not finite")
        found[tensor.name] = rounded(tensor, array)
    return found


def _slope(name: str, values: ArrayLike, schema: Schema) -> NDArray[Any]:
    tensor = schema.by_name[name]
    array = np.asarray(values)
    if not tensor.is_float:
        raise WrongAnswer(
            f"Gradient.gradients has {name}, which is {tensor.dtype}: only real numbers have gradients, leave it out"
        )
    if array.shape != tensor.shape or not np.issubdtype(array.dtype, np.floating):
        raise WrongAnswer(
            f"Gradient.gradients[{name!r}] is {array.dtype} {list(array.shape)}: give real numbers in the "
            f"tensor's shape, {list(tensor.shape)}"
        )
    return array


def _is_count(value: object) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and bool(value >= 0)


def _kind(value: object) -> str:
    return f"a {type(value).__name__}" if value is not None else "None"


def _line(text: str) -> str:
    return " ".join(str(text).split())
