"""The checks: what the protocol promises, in the order in which a worker comes to rely on it."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
import uuid
from collections.abc import Sequence

import grpc
import numpy as np

from soup_judge._wire import judge_pb2 as wire
from soup_judge.answers import Loss
from soup_judge.check.asking import Array, Asking, Failed, Skipped, close, require, status
from soup_judge.schema import ITEM_SIZES, Dataset, Tensor

ROUNDING = 1e-4
"""How far sums may differ, relatively, between blocks of other sizes: kernels may add up in another order."""
SLOPE = 0.05
"""How far derivatives may be from differences, relative to the size of the gradient."""
STEPS = (1e-2, 3e-3, 1e-3)
"""Of differences, relative to a tensor's root mean square. The best counts: one is too long for the curve, one for f32
too short."""
DIRECTIONS = 8


class Suite(Asking):
    """Methods that begin with `check_` are the checks; the first line of their docstrings is what is printed."""

    def check_describe(self) -> None:
        """describe: the judge says who it is"""
        self.told = told = self.client.describe()
        require(told.protocol == 1, f"protocol is {told.protocol}, not 1")
        for what, word in (("version", told.version), ("numerics", told.numerics)):
            require(re.fullmatch(r"[A-Za-z0-9_.+-]{1,64}", word), f"{what} is {word!r}")
        require(re.fullmatch(r"([0-9a-fA-F]{64})?", told.digest), f"digest is {told.digest!r}, no SHA-256")
        unknown = set(told.abilities) - {"logits", "gradients", "statistics"}
        require(not unknown, f"abilities are unknown: {', '.join(unknown)}")
        require(math.isfinite(told.tolerance) and told.tolerance >= 0, f"tolerance is {told.tolerance}")

    def check_unknown_session(self) -> None:
        """order: an unknown session is FAILED_PRECONDITION"""
        with status(grpc.StatusCode.FAILED_PRECONDITION):
            self.client.judge(uuid.uuid4().hex, 1, 0, [0])
        with status(grpc.StatusCode.FAILED_PRECONDITION):
            self.client.load(uuid.uuid4().hex, 1, self.soup)
        self.client.release(uuid.uuid4().hex, 1)

    def check_options(self) -> None:
        """open: an unknown option of a dataset is INVALID_ARGUMENT, by name"""
        self._needs_files()
        option = "no-judge-knows-this"
        with status(grpc.StatusCode.INVALID_ARGUMENT, option):
            datasets = [Dataset(each.name, each.source, {**each.options, option: "x"}) for each in self.datasets]
            self._open(uuid.uuid4().hex, self.tensors, datasets)

    def check_tensors(self) -> None:
        """open: tensors that are not the model's are INVALID_ARGUMENT"""
        self._needs_files()
        first = self.tensors[0]
        other = [Tensor(f"{first.name}.of.another", first.dtype, first.shape), *self.tensors[1:]]
        with status(grpc.StatusCode.INVALID_ARGUMENT):
            self._open(uuid.uuid4().hex, other, self.datasets)

    def check_open(self) -> None:
        """open: the survey is complete"""
        self._needs_files()
        survey = self._open(self.session, self.tensors, self.datasets)
        counts = list(survey.samples)
        require(len(counts) == len(self.datasets), f"{len(counts)} counts for {len(self.datasets)} datasets")
        require(min(counts) >= 1, "a dataset has no samples")
        tallies = survey.WhichOneof("tallies")
        require(tallies is not None, "neither classes nor figures nor values")
        if tallies == "classes":
            require(survey.classes >= 1, "no classes")
        elif tallies == "values":
            require(survey.values == 1, f"{survey.values} numbers of each sample")
        else:
            names = list(survey.figures.names)
            require(1 <= len(names) <= 64 and len(set(names)) == len(names), f"figures are {names}")
            require(all(re.fullmatch(r"[a-z0-9_-]+", name) for name in names), f"figures are {names}")
            for metric in survey.figures.metrics:
                mean = metric.formula == wire.Metric.FORMULA_MEAN
                require(metric.formula, f"metric {metric.name} has no formula")
                require(metric.figure in names, f"metric {metric.name} is made of {metric.figure}")
                require(metric.by in ([""] if mean else names), f"metric {metric.name} is by {metric.by!r}")
            promised = [each.figure for each in survey.figures.ranges]
            require(set(promised) <= set(names) and len(set(promised)) == len(promised), f"ranges of {promised}")
        self.survey = survey

    def check_unknown_generation(self) -> None:
        """load: an unknown generation is FAILED_PRECONDITION"""
        self._needs_session()
        with status(grpc.StatusCode.FAILED_PRECONDITION):
            self.client.judge(self.session, 10**6, 0, [0])

    def check_judge(self) -> None:
        """judge: blocks come in order, and each has what the survey says"""
        self._needs_session()
        self.generation = self._load(self.soup)
        self.first = self._judge(self.generation)
        again = self._judge(self.generation, positions=self._positions()[::-1])
        if self._classes():
            labels = [label for block in again for label in block.outcomes.labels]
            expected = [label for block in self.first for label in block.outcomes.labels]
            require(
                labels == expected[::-1], "labels do not follow their samples when these are asked in another order"
            )

    def check_every_dataset(self) -> None:
        """judge: every dataset can be asked about"""
        first = self._needs_answers()
        require(first, "no answer")
        for dataset in range(len(self.datasets)):
            self._judge(self.generation, dataset=dataset)

    def check_additivity(self) -> None:
        """judge: the size of blocks does not matter"""
        first = self._needs_answers()
        for block_samples in (1, 3, self.most):
            blocks = self._judge(self.generation, block_samples=block_samples)
            self._same(first, blocks, max(ROUNDING, self.told.tolerance))

    def check_determinism(self) -> None:
        """judge: the same again gives the same"""
        first = self._needs_answers()
        self._same(first, self._judge(self.generation), self.told.tolerance)

    def check_logits(self) -> None:
        """judge: logits are rows of classes, and the largest is the prediction"""
        self._needs_answers()
        self._needs_ability("logits")
        for block in self._judge(self.generation, logits=True):
            samples = len(block.outcomes.labels)
            classes = self._classes()
            require(
                len(block.logits) == 4 * samples * classes,
                f"{len(block.logits)} bytes: not f32 of {samples} x {classes}",
            )
            rows = np.frombuffer(block.logits, "<f4").reshape(samples, classes)
            finite = np.isfinite(rows).all(axis=1)
            predictions = np.array(block.outcomes.predictions)
            require((rows.argmax(axis=1) == predictions)[finite].all(), "a prediction is not the first largest logit")

    def check_requests(self) -> None:
        """judge: an unknown dataset and a sample beyond the last are INVALID_ARGUMENT"""
        self._needs_answers()
        with status(grpc.StatusCode.INVALID_ARGUMENT):
            self.client.judge(self.session, self.generation, len(self.datasets), [0])
        assert self.survey is not None
        with status(grpc.StatusCode.INVALID_ARGUMENT):
            self.client.judge(self.session, self.generation, 0, [self.survey.samples[0]])

    def check_cancellation(self) -> None:
        """judge: a call that is given up does not keep the next one waiting"""
        first = self._needs_answers()
        call = self.client.begin_judging(self.session, self.generation, 0, self._positions() * 100, block_samples=1)
        next(iter(call))
        call.cancel()
        self._same(first, self._judge(self.generation), self.told.tolerance)

    def check_generations(self) -> None:
        """load: two generations at a time, and the answers are those of their weights"""
        first = self._needs_answers()
        random = np.random.default_rng(0)
        nudges = {name: 0.5 * random.standard_normal(shape) * size for name, (shape, size) in self._movable().items()}
        if not nudges:
            raise Skipped("the soup has no F64, F32, F16 or BF16")
        other = self._load(self._write("other", nudges))
        require(self._judge(other) != first, "other weights give the same answers")
        self._same(first, self._judge(self.generation), self.told.tolerance)
        self.client.release(self.session, other)
        same = self._load(self.soup)
        self._same(first, self._judge(same), self.told.tolerance)
        self.client.release(self.session, same)

    def check_gradient_sums(self) -> None:
        """differentiate: loss and counts are those of judging, and parts add up"""
        first = self._needs_answers()
        self._needs_ability("gradients")
        loss, whole = self._differentiate(self.generation, Loss(1.0, 0.0, 1.0))
        losses = [value for block in first for value in block.outcomes.losses]
        pairs = [
            each for block in first for each in zip(block.outcomes.labels, block.outcomes.predictions, strict=True)
        ]
        few = len(self._few())
        close(loss.loss, sum(losses[:few]), 1e-3, "the loss is not that of judging")
        correct = sum(label == prediction for label, prediction in pairs[:few])
        require(
            (loss.correct, loss.total) == (correct, few), f"{loss.correct}/{loss.total} correct: not {correct}/{few}"
        )
        parts, in_parts = self._differentiate(self.generation, Loss(1.0, 0.0, 1.0), block_samples=1)
        close(parts.loss, loss.loss, 1e-3, "the loss depends on the size of blocks")
        size = np.linalg.norm(whole)
        require(np.linalg.norm(in_parts - whole) <= 1e-3 * size, "the gradient depends on the size of blocks")
        halved, half = self._differentiate(self.generation, Loss(1.0, 0.0, 0.5))
        close(halved.loss, loss.loss / 2, 1e-3, "the loss does not follow the scale")
        require(np.linalg.norm(2 * half - whole) <= 1e-3 * size, "the gradient does not follow the scale")

    def check_gradients(self) -> None:
        """differentiate: derivatives are those of the loss, by differences"""
        self._needs_answers()
        self._needs_ability("gradients")
        at = Loss(beta=0.8, label_smoothing=0.1, scale=1 / len(self._few()))
        told, gradient = self._differentiate(self.generation, at)
        ends = [self._differentiate(self.generation, Loss(0.8 + s, 0.1, at.scale))[0].loss for s in (1e-3, -1e-3)]
        require(
            abs((ends[0] - ends[1]) / 2e-3 - told.d_beta) <= 1e-2 * max(abs(told.d_beta), 1e-2),
            f"d_beta is {told.d_beta:.6g}, by differences {(ends[0] - ends[1]) / 2e-3:.6g}",
        )
        self._without_gradient(gradient)
        # By running statistics frameworks have no gradient.
        movable = [
            name
            for name in self._movable()
            if self._tensor(name).dtype in ("F32", "F64") and not self._tensor(name).is_statistic
        ]
        if not movable:
            raise Skipped(
                "d_beta is right; the soup has no F32 or F64, and narrower ones are too coarse for differences"
            )
        for group in range(min(DIRECTIONS, len(movable))):
            self._along(movable[group::DIRECTIONS], gradient, at, told.loss)

    def check_statistics(self) -> None:
        """load: running statistics are recomputed to the same bits again, whatever they were"""
        self._needs_answers()
        self._needs_ability("statistics")
        statistics = [tensor for tensor in self.tensors if tensor.is_statistic]
        if not statistics:
            raise Skipped("the soup has no running statistics")
        session = uuid.uuid4().hex
        marked = [dataclasses.replace(tensor, recomputed=tensor.is_statistic) for tensor in self.tensors]
        self._open(session, marked, self.datasets)
        nudges = {tensor.name: np.full(tensor.shape, 0.125) for tensor in statistics}
        found: list[bytes] = []
        judged: list[list[wire.Block]] = []
        for path in (self.soup, self._write("nudged", nudges)):
            target = self.folder / "statistics"
            target.write_bytes(bytes(sum(t.elements * ITEM_SIZES[t.dtype] for t in statistics)))
            request = wire.Recompute(
                dataset=0, samples=len(self._positions()), block_samples=self.batch_size, path=str(target)
            )
            generation = len(found) + 1
            self.client.load(session, generation, path, recompute=request)
            found.append(target.read_bytes())
            judged.append(self.client.judge(session, generation, 0, self._positions(), block_samples=self.batch_size))
        require(any(found[0]), "nothing was written")
        require(found[0] == found[1], "statistics depend on those that the soup had, or change from time to time")
        self._same(judged[0], judged[1], self.told.tolerance)
        # The checks that follow go on where this one began.
        self.session, self.generations = uuid.uuid4().hex, itertools.count(1)
        self._open(self.session, self.tensors, self.datasets)
        self.generation = self._load(self.soup)

    def check_release(self) -> None:
        """release: a generation is forgotten, twice is no error, and its file may go"""
        self._needs_answers()
        path = self._write("passing", {})
        generation = self._load(path)
        self.client.release(self.session, generation)
        path.unlink()
        self.client.release(self.session, generation)
        with status(grpc.StatusCode.FAILED_PRECONDITION):
            self.client.judge(self.session, generation, 0, [0])

    def check_replacement(self) -> None:
        """open: another session replaces the one before"""
        first = self._needs_answers()
        before, self.session = self.session, uuid.uuid4().hex
        self._open(self.session, self.tensors, self.datasets)
        with status(grpc.StatusCode.FAILED_PRECONDITION):
            self.client.judge(before, self.generation, 0, [0])
        self.generations = itertools.count(1)
        self._same(first, self._judge(self._load(self.soup)), self.told.tolerance)

    def _along(self, names: Sequence[str], gradient: Array, at: Loss, loss: float) -> None:
        random = np.random.default_rng(len(names))
        movable = self._movable()
        along = {name: random.standard_normal(movable[name][0]) * movable[name][1] for name in names}
        parts = {name: gradient[begin : begin + self._tensor(name).elements] for name, begin in self._begins().items()}
        slope = float(sum((along[name].ravel() * parts[name]).sum() for name in names))
        # How large a slope in such a direction usually is.
        size = math.sqrt(sum(float((parts[name] ** 2).sum()) * movable[name][1] ** 2 for name in names))
        found = []
        for step in STEPS:
            ends = []
            for sign in (step, -step):
                generation = self._load(self._write("nudged", {name: sign * nudge for name, nudge in along.items()}))
                ends.append(self._differentiate(generation, at)[0].loss)
                self.client.release(self.session, generation)
            found.append((ends[0] - ends[1]) / (2 * step))
            if abs(found[-1] - slope) <= SLOPE * size + 4e-6 * abs(loss) / step:
                return
        values = ", ".join(f"{value:.6g}" for value in found)
        raise Failed(f"along {', '.join(names[:3])}… the gradient says {slope:.6g}, differences say {values}")

    def _without_gradient(self, gradient: Array) -> None:
        for name, begin in self._begins().items():
            tensor = self._tensor(name)
            if not tensor.is_float:
                require(not gradient[begin : begin + tensor.elements].any(), f"{name} of integers has a gradient")
