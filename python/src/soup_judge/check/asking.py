"""What all checks are made of: asking a judge, soups to ask about, and comparing its answers."""

from __future__ import annotations

import argparse
import itertools
import math
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np
from numpy.typing import NDArray

from soup_judge._wire import judge_pb2 as wire
from soup_judge.answers import Loss
from soup_judge.client import Client
from soup_judge.schema import Dataset, Tensor
from soup_judge.tensors import Tensors, open_tensors, read_schema, write_tensors

Array = NDArray[np.float64]
MOVABLE = ("F64", "F32", "F16", "BF16")
"""Dtypes whose numbers can be nudged."""


class Failed(Exception):
    """A promise is broken."""


class Skipped(Exception):
    """A check that cannot be made, or need not."""


class Asking:
    """One judge, one session, and the soup that it is asked about."""

    def __init__(self, client: Client, arguments: argparse.Namespace, folder: Path) -> None:
        self.client = client
        self.folder = folder
        self.config = arguments.config.read_text() if arguments.config else ""
        self.preprocessor = arguments.preprocessor.read_text() if arguments.preprocessor else ""
        options = dict(each.split("=", 1) for each in arguments.option)
        self.datasets = [Dataset(f"dataset{n}", source, options) for n, source in enumerate(arguments.source)]
        self.batch_size: int = arguments.batch_size
        self.most: int = arguments.samples
        self.session = uuid.uuid4().hex
        self.soup = folder / "soup"
        self.generations = itertools.count(1)
        self.generation = 0
        self.numbers = itertools.count(1)
        self.told = wire.DescribeResponse()
        self.survey: wire.Survey | None = None
        self.first: list[wire.Block] | None = None
        self.tensors: list[Tensor] = []
        self.weights: Tensors | None = None
        if arguments.weights:
            self.tensors = read_schema(arguments.weights)
            given = open_tensors(arguments.weights)
            write_tensors(self.soup, [(tensor, given.bits(tensor.name)) for tensor in self.tensors])
            self.weights = open_tensors(self.soup, self.tensors)

    def _open(self, session: str, tensors: Sequence[Tensor], datasets: Sequence[Dataset]) -> wire.Survey:
        return self.client.open(
            session,
            tensors,
            datasets,
            config=self.config,
            preprocessor=self.preprocessor,
            batch_size=self.batch_size,
        )

    def _load(self, path: Path) -> int:
        generation = next(self.generations)
        self.client.load(self.session, generation, path)
        return generation

    def _judge(
        self,
        generation: int,
        *,
        dataset: int = 0,
        positions: Sequence[int] | None = None,
        block_samples: int = 0,
        logits: bool = False,
    ) -> list[wire.Block]:
        positions = self._positions(dataset) if positions is None else positions
        block_samples = block_samples or self.batch_size
        blocks = self.client.judge(
            self.session, generation, dataset, positions, block_samples=block_samples, logits=logits
        )
        expected = math.ceil(len(positions) / block_samples)
        require(len(blocks) == expected, f"{len(blocks)} blocks instead of {expected}")
        for index, block in enumerate(blocks):
            samples = min(block_samples, len(positions) - index * block_samples)
            require(block.block == index, f"block {block.block} comes as number {index}")
            require(logits or not block.logits, "logits came without being asked for")
            self._check_block(block, samples)
        return blocks

    def _check_block(self, block: wire.Block, samples: int) -> None:
        assert self.survey is not None
        if self.survey.values:
            require(block.WhichOneof("judged") == "values", "the survey tells of values, the block not of them")
            truths, predictions = block.values.truths, block.values.predictions
            require(len(truths) == len(predictions) == samples, f"columns are not of {samples} samples")
            require(all(math.isfinite(truth) for truth in truths), "a true number is not finite")
            require(not any(math.isinf(each) for each in predictions), "a prediction is infinite")
            return
        if not self._classes():
            require(block.WhichOneof("judged") == "sums", "the survey tells of figures, the block not of sums")
            require(block.sums.samples == samples, f"sums of {block.sums.samples} samples, not {samples}")
            count = len(self.survey.figures.names)
            require(not any(math.isinf(value) for value in block.sums.values), "a sum is infinite")
            require(len(block.sums.values) == count, f"{len(block.sums.values)} values for {count} figures")
            sums = dict(zip(self.survey.figures.names, block.sums.values))  # noqa: B905
            for each in self.survey.figures.ranges:
                # So much rounding a worker allows, too; not a number is outside of every range, and allowed.
                slack = 4 * np.finfo(np.float64).eps * samples**2 * max(abs(each.least), abs(each.most))
                low = each.HasField("least") and sums[each.figure] < samples * each.least - slack
                high = each.HasField("most") and sums[each.figure] > samples * each.most + slack
                require(not low and not high, f"{each.figure} is {sums[each.figure]}, outside of its range")
            return
        require(block.WhichOneof("judged") == "outcomes", "the survey tells of classes, the block not of outcomes")
        told = block.outcomes
        columns = (told.labels, told.predictions, told.losses)
        require(all(len(column) == samples for column in columns), f"columns are not of {samples} samples")
        require(all(label < self._classes() for label in told.labels), "a label is no class")
        require(all(each < self._classes() for each in told.predictions), "a prediction is no class")

    def _same(self, one: list[wire.Block], other: list[wire.Block], tolerance: float) -> None:
        assert self.survey is not None
        if self._classes():
            labels = [[label for block in blocks for label in block.outcomes.labels] for blocks in (one, other)]
            require(labels[0] == labels[1], "labels differ")
            losses = [[value for block in blocks for value in block.outcomes.losses] for blocks in (one, other)]
            close(sum(losses[0]), sum(losses[1]), tolerance, "losses differ")
            correct = [
                sum(int(a == b) for block in blocks for a, b in zip(block.outcomes.labels, block.outcomes.predictions))  # noqa: B905
                for blocks in (one, other)
            ]
            # Logits that are nearly equal may change places.
            slack = math.ceil(tolerance * len(labels[0]))
            require(abs(correct[0] - correct[1]) <= slack, f"{correct[0]} and {correct[1]} samples are right")
            return
        if self.survey.values:
            truths = [[truth for block in blocks for truth in block.values.truths] for blocks in (one, other)]
            require(truths[0] == truths[1], "true numbers differ")
            told = [[each for block in blocks for each in block.values.predictions] for blocks in (one, other)]
            close(math.hypot(*told[0]), math.hypot(*told[1]), tolerance, "predictions differ")
            return
        for index, name in enumerate(self.survey.figures.names):
            sums = [sum(block.sums.values[index] for block in blocks) for blocks in (one, other)]
            close(sums[0], sums[1], tolerance, f"{name} differs")

    def _differentiate(self, generation: int, loss: Loss, block_samples: int = 0) -> tuple[wire.Differentiated, Array]:
        path = self.folder / "gradient"
        path.write_bytes(bytes(4 * sum(tensor.elements for tensor in self.tensors)))
        block_samples = block_samples or self.batch_size
        told = self.client.differentiate(
            self.session, generation, 0, self._few(), path, loss, block_samples=block_samples
        )
        return told, np.fromfile(path, "<f4").astype(np.float64)

    def _positions(self, dataset: int = 0) -> list[int]:
        assert self.survey is not None
        return list(range(min(self.most, self.survey.samples[dataset])))

    def _few(self) -> list[int]:
        return self._positions()[:8]

    def _classes(self) -> int:
        assert self.survey is not None
        return self.survey.classes if self.survey.WhichOneof("tallies") == "classes" else 0

    def _tensor(self, name: str) -> Tensor:
        assert self.weights is not None
        return self.weights.tensor(name)

    def _begins(self) -> dict[str, int]:
        ends = itertools.accumulate((tensor.elements for tensor in self.tensors), initial=0)
        return {tensor.name: begin for tensor, begin in zip(self.tensors, ends)}  # noqa: B905

    def _movable(self) -> dict[str, tuple[tuple[int, ...], float]]:
        """Shapes and root mean squares of the tensors that can be nudged."""
        assert self.weights is not None
        found = {}
        for tensor in self.tensors:
            if tensor.dtype in MOVABLE and tensor.elements:
                values = self.weights.float32(tensor.name)
                size = math.sqrt(float((values.astype(np.float64) ** 2).mean()))
                found[tensor.name] = tensor.shape, size or 1e-2
        return found

    def _write(self, name: str, nudges: dict[str, Array]) -> Path:
        """A soup that is off from the given one."""
        assert self.weights is not None
        pairs = []
        for tensor in self.tensors:
            values = self.weights.bits(tensor.name)
            if tensor.name in nudges:
                if tensor.dtype == "BF16":
                    wide = (self.weights.float32(tensor.name) + nudges[tensor.name]).astype("<f4")
                    values = ((wide.view("<u4") + np.uint32(1 << 15)) >> 16).astype("<u2")
                else:
                    values = self.weights[tensor.name]
                    values = (values + nudges[tensor.name]).astype(values.dtype)
            pairs.append((tensor, values))
        path = self.folder / f"{name}{next(self.numbers)}"
        write_tensors(path, pairs)
        return path

    def _needs_files(self) -> None:
        if self.weights is None or not self.datasets:
            raise Skipped("needs --weights and --source")

    def _needs_session(self) -> None:
        if self.survey is None:
            raise Skipped("needs an open session")

    def _needs_answers(self) -> list[wire.Block]:
        if self.first is None:
            raise Skipped("needs a soup that is judged")
        return self.first

    def _needs_ability(self, ability: str) -> None:
        if ability not in self.told.abilities:
            raise Skipped(f"the judge has not the ability {ability}")


def require(kept: object, text: str) -> None:
    """Raises `Failed` with `text` unless `kept`."""
    if not kept:
        raise Failed(text)


def close(one: float, other: float, tolerance: float, text: str) -> None:
    """Raises `Failed` where two numbers differ by more than `tolerance`, relatively. Two that are no numbers do not."""
    same = one == other or (math.isnan(one) and math.isnan(other))
    if not same and not abs(one - other) <= tolerance * max(abs(one), abs(other)):
        raise Failed(f"{text}: {one!r} and {other!r}")


@contextmanager
def status(code: grpc.StatusCode, word: str = "") -> Iterator[None]:
    """Expects a call to end with a status, and with a text that has `word`."""
    try:
        yield
    except grpc.RpcError as error:
        require(error.code() is code, f"expected {code.name}, got {error.code().name}: {error.details()}")
        require(word in (error.details() or ""), f"the text does not name {word}: {error.details()}")
        return
    raise Failed(f"expected {code.name}, got an answer")
