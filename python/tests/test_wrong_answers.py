"""What a judge returns is checked before it is sent, and the error says what to return instead."""

import math

import numpy as np
import pytest
from helpers import Differentiable, Scripted, gradient_file

import soup_judge

WRONG_SURVEYS = {
    "no survey": (None, "return a Survey"),
    "too few": (soup_judge.Survey([], classes=2), "one for each of 1"),
    "none": (soup_judge.Survey([0], classes=2), "validation", "at least 1"),
    "neither": (soup_judge.Survey([1]), "either of classes"),
    "both": (soup_judge.Survey([1], classes=2, figures=["a"]), "either of classes"),
    "classes": (soup_judge.Survey([1], classes=0), "Survey.classes"),
    "metrics": (
        soup_judge.Survey([1], classes=2, metrics=[soup_judge.Metric("m", "a", lower_is_better=True)]),
        "a classifier has none",
    ),
    "name": (soup_judge.Survey([1], figures=["Upper"]), "lower-case"),
    "text": (soup_judge.Survey([1], figures="abc"), "1 to 64 different names"),
    "twice": (soup_judge.Survey([1], figures=["a", "a"]), "different names"),
    "many": (soup_judge.Survey([1], figures=[f"f{n}" for n in range(65)]), "1 to 64"),
    "lost": (
        soup_judge.Survey([1], figures=["a"], metrics=[soup_judge.Metric("m", "b", lower_is_better=True)]),
        "made of the figures a",
    ),
    "metric": (
        soup_judge.Survey([1], figures=["a"], metrics=[soup_judge.Metric("M e", "a", lower_is_better=True)]),
        "'M e' is no name",
    ),
    "exp": (
        soup_judge.Survey([1], figures=["a"], metrics=[soup_judge.Metric("m", "a", exp=True, lower_is_better=True)]),
        "exp of a ratio",
    ),
    "same": (
        soup_judge.Survey([1], figures=["a"], metrics=[soup_judge.Metric("m", "a", lower_is_better=True)] * 2),
        "the same name",
    ),
    "range": (soup_judge.Survey([1], figures=["a"], ranges={"b": soup_judge.Range()}), "none of the figures a"),
    "ends": (soup_judge.Survey([1], figures=["a"], ranges={"a": soup_judge.Range(1.0, 0.0)}), "from 1.0 to 0.0"),
    "endless": (soup_judge.Survey([1], figures=["a"], ranges={"a": soup_judge.Range(-math.inf)}), "from -inf"),
    "of classes": (soup_judge.Survey([1], classes=2, ranges={"a": soup_judge.Range()}), "a classifier has none"),
}


@pytest.mark.parametrize("name", WRONG_SURVEYS)
def test_surveys_that_may_not_be_sent(serving, perceptron, refused, name):
    survey, *texts = WRONG_SURVEYS[name]
    client = serving(Scripted(open=lambda *_: survey))
    with refused.fault("WrongAnswer", *texts):
        client.open("s", perceptron.pool.tensors, [perceptron.dataset])


WRONG_OUTCOMES = {
    "nothing": (None, "judge returned None", "return Outcomes"),
    "sums": (soup_judge.Sums({}), "return Outcomes"),
    "length": (soup_judge.Outcomes([0], [0, 0], [0.0, 0.0]), "Outcomes.labels", "give 2 integers"),
    "type": (soup_judge.Outcomes([0.0, 1.0], [0, 0], [0.0, 0.0]), "Outcomes.labels is float64"),
    "label": (soup_judge.Outcomes([0, 2], [0, 0], [0.0, 0.0]), "Outcomes.labels has 0 to 2", "below 2"),
    "negative": (soup_judge.Outcomes([0, 0], [0, -1], [0.0, 0.0]), "Outcomes.predictions has -1"),
    "prediction": (soup_judge.Outcomes([0, 0], [0, 3], [0.0, 0.0]), "Outcomes.predictions has 0 to 3", "below 2"),
    "loss": (soup_judge.Outcomes([0, 0], [0, 0], [1, 2]), "Outcomes.losses is int64", "real numbers"),
    "minus infinity": (soup_judge.Outcomes([0, 0], [0, 0], [0.0, -math.inf]), "minus infinity"),
    "no logits": (soup_judge.Outcomes([0, 0], [0, 0], [0.0, 0.0]), "without logits"),
    "logits": (soup_judge.Outcomes([0, 0], [0, 0], [0.0, 0.0], np.zeros((2, 3))), "[2, 3]", "[2, 2]"),
}


@pytest.mark.parametrize("name", WRONG_OUTCOMES)
def test_outcomes_that_may_not_be_sent(scripted, refused, name):
    answer, *texts = WRONG_OUTCOMES[name]
    client = scripted(Differentiable, judge=lambda *_: answer)
    with refused.fault("WrongAnswer", *texts):
        client.judge("s", 1, 0, [0, 1], logits=True)


WRONG_SUMS = {
    "outcomes": (soup_judge.Outcomes([], [], []), "return Sums"),
    "missing": (soup_judge.Sums({"nll": 1.0}), "missing tokens"),
    "unknown": (soup_judge.Sums({"nll": 1.0, "tokens": 2, "words": 3}), "unknown words"),
    "number": (soup_judge.Sums({"nll": "much", "tokens": 2}), "one number a figure"),
    "infinite": (soup_judge.Sums({"nll": math.inf, "tokens": 2}), "infinite nll", "not a number"),
    "samples": (soup_judge.Sums({"nll": 1.0, "tokens": 2}, samples=3), "the block has 2"),
}
NUMBERS = soup_judge.Survey([10], values=True)
WRONG_VALUES = {
    "sums": (soup_judge.Sums({}), "return Values"),
    "length": (soup_judge.Values([0.0], [0.0, 0.0]), "Values.truths is float64 [1]", "give 2 real numbers"),
    "type": (soup_judge.Values([0.0, 1.0], [0, 1]), "Values.predictions is int64"),
    "truth": (soup_judge.Values([0.0, math.nan], [0.0, 1.0]), "Values.truths has something that is not finite"),
    "infinite": (soup_judge.Values([0.0, 1.0], [0.0, math.inf]), "Values.predictions has infinity"),
}
PERPLEXITY = soup_judge.Survey(
    [10],
    figures=["nll", "tokens"],
    metrics=[soup_judge.Metric("perplexity", "nll", by="tokens", exp=True, lower_is_better=True)],
    notes=["two\nlines"],
)


@pytest.mark.parametrize("name", WRONG_SUMS)
def test_sums_that_may_not_be_sent(scripted, refused, name):
    answer, *texts = WRONG_SUMS[name]
    client = scripted(open=PERPLEXITY, judge=lambda *_: answer)
    with refused.fault("WrongAnswer", *texts):
        client.judge("s", 1, 0, [0, 1])


@pytest.mark.parametrize("name", WRONG_VALUES)
def test_values_that_may_not_be_sent(scripted, refused, name):
    answer, *texts = WRONG_VALUES[name]
    client = scripted(open=NUMBERS, judge=lambda *_: answer)
    with refused.fault("WrongAnswer", *texts):
        client.judge("s", 1, 0, [0, 1])


def test_values_one_after_the_other(scripted):
    client = scripted(open=NUMBERS, judge=soup_judge.Values([0.5, 3.8], np.array([math.nan, 2.5], np.float32)))
    (block,) = client.judge("s", 1, 0, [0, 1])
    assert list(block.values.truths) == [0.5, 3.8]
    assert math.isnan(block.values.predictions[0]) and block.values.predictions[1] == 2.5


def test_sums_in_the_order_of_the_survey(serving, perceptron):
    client = serving(Scripted(open=PERPLEXITY, judge=soup_judge.Sums({"tokens": 7, "nll": math.nan})))
    survey = client.open("s", perceptron.pool.tensors, [perceptron.dataset])
    assert list(survey.figures.names) == ["nll", "tokens"] and list(survey.notes) == ["two lines"]
    (metric,) = survey.figures.metrics
    assert (metric.formula, metric.figure, metric.by, metric.lower_is_better) == (3, "nll", "tokens", True)
    client.load("s", 1, perceptron.soup)
    (block,) = client.judge("s", 1, 0, [0, 1, 2])
    assert block.sums.samples == 3 and math.isnan(block.sums.values[0]) and block.sums.values[1] == 7


WRONG_GRADIENTS = {
    "nothing": (None, "return a Gradient"),
    "unknown": (soup_judge.Gradient(0.0, 0.0, 0, {"w": np.zeros(1)}), "has w"),
    "shape": (soup_judge.Gradient(0.0, 0.0, 0, {"hidden.bias": np.zeros((1, 8))}), "[1, 8]", "[8]"),
    "type": (soup_judge.Gradient(0.0, 0.0, 0, {"hidden.bias": np.zeros(8, int)}), "int64"),
    "correct": (soup_judge.Gradient(0.0, 0.0, 2, {}), "correct is 2", "the 1 samples"),
    "loss": (soup_judge.Gradient(None, 0.0, 1, {}), "Gradient.loss"),
}


@pytest.mark.parametrize("name", WRONG_GRADIENTS)
def test_gradients_that_may_not_be_sent(scripted, refused, tmp_path, name):
    answer, *texts = WRONG_GRADIENTS[name]
    client = scripted(Differentiable, differentiate=lambda *_: answer)
    with refused.fault("WrongAnswer", *texts):
        client.differentiate("s", 1, 0, [0], gradient_file(tmp_path, 75), soup_judge.Loss())


@pytest.mark.parametrize(
    ("attribute", "value"),
    [("version", ""), ("version", "a b"), ("numerics", "x" * 65), ("digest", "abc"), ("tolerance", -1.0),
     ("tolerance", math.nan), ("configuration", {"a": object()})],
)  # fmt: skip
def test_who_it_is_is_checked_before_it_serves(tmp_path, attribute, value):
    judge = Scripted()
    setattr(judge, attribute, value)
    with pytest.raises(soup_judge.WrongAnswer, match=r"Scripted(\.| has no )"):
        soup_judge.Server(judge, tmp_path / "socket")
