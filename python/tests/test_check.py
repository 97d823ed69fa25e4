"""The conformance checks pass for judges that keep their promises, and find those that do not."""

import re
import threading

import numpy as np
import pytest
from helpers import Pool, example

import soup_judge
from soup_judge.check.__main__ import main

mlp = example("mlp")
regression = example("regression")


@pytest.fixture
def checked(tmp_path, perceptron, capsys):
    """The lines of a check, and its exit status."""

    def check(judge, *arguments, weights=perceptron.soup, source=perceptron.dataset.source):
        path = tmp_path / "judge.sock"
        with soup_judge.Server(judge, path):
            status = main([str(path), "--weights", str(weights), "--source", source, "--timeout", "20", *arguments])
        return status, capsys.readouterr().out.splitlines()

    return check


def test_a_judge_with_gradients_passes(checked, perceptron):
    status, lines = checked(mlp.Perceptron(), "--source", perceptron.dataset.source)
    assert status == 0, lines
    assert lines[-1] == "18 passed, 0 failed, 1 skipped"


def test_a_judge_of_figures_passes(checked, tmp_path):
    random = np.random.default_rng(3)
    arrays = {"weight": random.normal(size=4), "bias": np.array(0.5)}
    np.savez(tmp_path / "data.npz", x=random.normal(size=(50, 4)), y=random.normal(size=50))
    soup = Pool(tmp_path, arrays).write("line", arrays)
    status, lines = checked(regression.Regression(), weights=soup, source=str(tmp_path / "data.npz"))
    assert status == 0, lines
    assert lines[-1] == "15 passed, 0 failed, 4 skipped"


def test_without_files_there_is_little_to_ask(tmp_path, capsys):
    path = tmp_path / "judge.sock"
    with soup_judge.Server(mlp.Perceptron(), path):
        assert main([str(path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "2 passed, 0 failed, 17 skipped"


def test_nobody_serves(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path / "nothing"), "--wait", "0.2"])
    assert ended.value.code == 2
    assert "nobody serves at" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--batch-size", "0"], ["--option", "x"], ["--weights", "nowhere"]])
def test_arguments_that_cannot_be(tmp_path, arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path / "socket"), *arguments])
    assert ended.value.code == 2
    assert "usage" in capsys.readouterr().err


class TakesAnyOption(mlp.Perceptron):
    def check_request(self, schema, datasets):
        pass


class TakesAnyTensors(mlp.Perceptron):
    def open(self, schema, datasets):
        try:
            return super().open(schema, datasets)
        except soup_judge.Refused:
            return soup_judge.Survey([40], classes=3)


class IgnoresWeights(mlp.Perceptron):
    kept = None

    def load(self, tensors):
        self.kept = self.kept or {name: np.array(array) for name, array in super().load(tensors).items()}
        return self.kept


class KeepsOneModel(mlp.Perceptron):
    def load(self, tensors):
        self.model = super().load(tensors)

    def judge(self, model, dataset, positions):
        return super().judge(self.model, dataset, positions)


class Random(mlp.Perceptron):
    def judge(self, model, dataset, positions):
        outcomes = super().judge(model, dataset, positions)
        return soup_judge.Outcomes(
            outcomes.labels, outcomes.predictions, outcomes.losses + np.random.random(), outcomes.logits
        )


class NormalisesBlocks(mlp.Perceptron):
    def judge(self, model, dataset, positions):
        outcomes = super().judge(model, dataset, positions)
        losses = np.full(len(positions), outcomes.losses.max())
        return soup_judge.Outcomes(outcomes.labels, outcomes.predictions, losses, outcomes.logits)


class SortsSamples(mlp.Perceptron):
    def judge(self, model, dataset, positions):
        return super().judge(model, dataset, np.sort(positions))


class OthersLogits(mlp.Perceptron):
    def judge(self, model, dataset, positions):
        outcomes = super().judge(model, dataset, positions)
        return soup_judge.Outcomes(outcomes.labels, outcomes.predictions, outcomes.losses, -outcomes.logits)


class WrongGradient(mlp.Perceptron):
    wrong = staticmethod(lambda gradients: gradients)
    loss_factor = 1.0
    d_beta_factor = 1.0

    def differentiate(self, model, dataset, positions, loss):
        told = super().differentiate(model, dataset, positions, loss)
        gradients = self.wrong(dict(told.gradients))
        return soup_judge.Gradient(
            told.loss * self.loss_factor, told.d_beta * self.d_beta_factor, told.correct, gradients
        )


class GradientTwice(WrongGradient):
    wrong = staticmethod(lambda gradients: {name: 2 * array for name, array in gradients.items()})


class GradientWithoutABias(WrongGradient):
    wrong = staticmethod(lambda gradients: {name: g for name, g in gradients.items() if name != "hidden.bias"})


class LossTwice(WrongGradient):
    loss_factor = 2.0


class WrongDBeta(WrongGradient):
    d_beta_factor = -1.0


class MeanOfBlocks(WrongGradient):
    def differentiate(self, model, dataset, positions, loss):
        mean = soup_judge.Loss(loss.beta, loss.label_smoothing, loss.scale / len(positions))
        return super().differentiate(model, dataset, positions, mean)


FAULTS = [
    (TakesAnyOption, "an unknown option", "expected INVALID_ARGUMENT, got an answer"),
    (TakesAnyTensors, "tensors that are not", "expected INVALID_ARGUMENT"),
    (IgnoresWeights, "two generations", "other weights give the same"),
    (KeepsOneModel, "two generations", "losses differ"),
    (Random, "the same again", "losses differ"),
    (NormalisesBlocks, "the size of blocks", "losses differ"),
    (SortsSamples, "blocks come in order", "labels do not follow"),
    (OthersLogits, "logits are rows", "not the first largest"),
    (GradientTwice, "derivatives are", "the gradient says"),
    (GradientWithoutABias, "derivatives are", "along hidden.bias"),
    (LossTwice, "loss and counts", "not that of judging"),
    (WrongDBeta, "derivatives are", "d_beta is"),
    (MeanOfBlocks, "loss and counts", "not that of judging"),
]


@pytest.mark.parametrize(("judge", "check", "why"), FAULTS, ids=lambda value: getattr(value, "__name__", None))
def test_broken_promises_are_found(checked, judge, check, why):
    status, lines = checked(judge())
    assert status == 1
    failed = [line for line in lines if line.startswith("FAIL")]
    assert any(check in line and why in line for line in failed), lines
    assert re.search(r"[1-9] failed", lines[-1])


def test_a_judge_that_does_not_stop_is_found(checked):
    class Stubborn(mlp.Perceptron):
        def judge(self, model, dataset, positions):
            if len(positions) == 1:
                self.asked = getattr(self, "asked", 0) + 1
                if self.asked > 33:
                    threading.Event().wait(3)
            return super().judge(model, dataset, positions)

    status, lines = checked(Stubborn(), "--timeout", "1")
    assert status == 1
    assert any("given up" in line and "DEADLINE_EXCEEDED" in line for line in lines), lines
