"""From logits to outcomes and losses: the rules of soupctl's own judge."""

import math

import numpy as np
import pytest

from soup_judge import Loss, Outcomes

INF, NAN = math.inf, math.nan


@pytest.mark.parametrize(
    ("logits", "label", "prediction", "loss"),
    [
        ([0, 0], 0, 0, math.log(2)),
        ([0, 0], 1, 0, math.log(2)),
        ([1, 3, 2], 1, 1, math.log(1 + math.exp(-1) + math.exp(-2))),
        ([1e30, -1e30], 0, 0, 0),
        ([5], 0, 0, 0),
        ([NAN, NAN], 0, 1, INF),
        ([NAN, NAN], 1, 0, INF),
        ([NAN, 2, 3], 2, 1, INF),
        ([INF, 2, 3], 0, 2, INF),
        ([-INF, 2, 3], 2, 1, INF),
        ([-INF, NAN, 3], 2, 0, INF),
        ([NAN], 0, 0, INF),
    ],
)
def test_outcome_of_a_sample(logits, label, prediction, loss):
    found = Outcomes.from_logits(np.array([logits], np.float32), [label])
    assert (found.labels.tolist(), found.predictions.tolist()) == ([label], [prediction])
    assert found.losses[0] == pytest.approx(loss, abs=1e-12)


def test_among_some_classes_the_others_do_not_count():
    logits = np.array([[9.0, 1.0, 3.0, 2.0], [0.0, NAN, 1.0, 4.0]], np.float32)
    found = Outcomes.from_logits(logits, [3, 1], classes=[3, 1])
    assert found.predictions.tolist() == [3, 3]
    assert found.losses[0] == pytest.approx(math.log(1 + math.exp(-1)))
    assert found.losses[1] == INF
    assert found.logits.shape == (2, 4)
    assert Outcomes.from_logits(logits[1:], [1], classes=[1]).predictions.tolist() == [0]
    assert Outcomes.from_logits(logits[1:, ::-1][:, 2:], [0], classes=[0]).predictions.tolist() == [1]
    for classes in ([], [1], [3, 4], [-1, 3]):
        with pytest.raises(ValueError, match="columns of the logits"):
            Outcomes.from_logits(logits[:1], [3], classes=classes)


@pytest.mark.parametrize(
    ("logits", "labels"),
    [
        (np.zeros(3), [0]),
        (np.zeros((1, 0)), [0]),
        (np.zeros((1, 2), int), [0]),
        (np.zeros((1, 2)), [0, 1]),
        (np.zeros((1, 2)), [0.0]),
        (np.zeros((1, 2)), [2]),
        (np.zeros((1, 2)), [-1]),
    ],
)
def test_arrays_that_do_not_fit(logits, labels):
    with pytest.raises(ValueError, match=r"^(logits|labels): "):
        Outcomes.from_logits(logits, labels)
    with pytest.raises(ValueError, match=r"^(logits|labels): "):
        Loss().of_logits(logits, labels)


def test_no_samples_have_no_loss():
    at = Loss().of_logits(np.zeros((0, 3)), [])
    assert (at.loss, at.d_beta, at.correct, at.d_logits.shape) == (0, 0, 0, (0, 3))


def test_the_loss_is_the_smoothed_cross_entropy():
    logits = np.array([[1.0, 2.0, -1.0], [0.5, 0.0, 0.25]])
    labels = [1, 2]
    loss = Loss(beta=0.7, label_smoothing=0.3, scale=0.5)

    def by_hand(logits, beta):
        total = 0.0
        for row, label in zip(logits, labels, strict=True):
            norm = math.log(sum(math.exp(beta * v) for v in row))
            targets = [(0.7 if c == label else 0.0) + 0.1 for c in range(3)]
            total += 0.5 * sum(t * (norm - beta * v) for t, v in zip(targets, row, strict=True))
        return total

    at = loss.of_logits(logits, labels)
    assert at.loss == pytest.approx(by_hand(logits, 0.7))
    assert at.correct == 1
    step = 1e-6
    assert at.d_beta == pytest.approx((by_hand(logits, 0.7 + step) - by_hand(logits, 0.7 - step)) / (2 * step))
    for row, column in np.ndindex(2, 3):
        nudge = np.zeros((2, 3))
        nudge[row, column] = step
        slope = (by_hand(logits + nudge, 0.7) - by_hand(logits - nudge, 0.7)) / (2 * step)
        assert at.d_logits[row, column] == pytest.approx(slope)


def test_a_sample_that_is_not_finite_spoils_the_loss_and_counts_as_wrong():
    at = Loss(scale=0.5).of_logits(np.array([[NAN, 1.0], [5.0, 0.0]]), [0, 0])
    assert (at.loss, at.correct) == (INF, 1)
    assert math.isnan(at.d_beta)
    assert np.isnan(at.d_logits[0]).all() and np.isfinite(at.d_logits[1]).all()
