"""The worker's side of the protocol, as far as checks need it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc

from soup_judge._wire import judge_pb2 as wire
from soup_judge._wire import judge_pb2_grpc
from soup_judge.answers import Loss
from soup_judge.checks import PROTOCOL
from soup_judge.schema import Dataset, Tensor
from soup_judge.server import address


class Client:
    """Asks the judge on a socket; a context manager. All calls raise `grpc.RpcError`."""

    def __init__(self, socket: str | os.PathLike[str], timeout: float = 600.0) -> None:
        """`timeout`: seconds that a call may take."""
        self._channel = grpc.insecure_channel(
            address(Path(socket).absolute()),
            options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)],
        )
        self._stub = judge_pb2_grpc.JudgeStub(self._channel)  # type: ignore[no-untyped-call]
        self._timeout = timeout
        self.progress: list[str] = []
        """What the judge was doing, of all calls so far."""

    def wait(self, seconds: float) -> bool:
        """Whether somebody serves within so many seconds."""
        try:
            grpc.channel_ready_future(self._channel).result(seconds)
        except grpc.FutureTimeoutError:
            return False
        return True

    def describe(self, protocol: int = PROTOCOL) -> wire.DescribeResponse:
        """Who it is."""
        told: wire.DescribeResponse
        told = self._stub.Describe(wire.DescribeRequest(protocol=protocol), timeout=self._timeout)
        return told

    def open(
        self,
        session: str,
        tensors: Sequence[Tensor],
        datasets: Sequence[Dataset],
        *,
        config: str = "",
        preprocessor: str = "",
        batch_size: int = 32,
        class_subset: bool = False,
    ) -> wire.Survey:
        """Opens a session."""
        request = wire.OpenRequest(
            session=session,
            tensors=[
                wire.Tensor(name=each.name, dtype=each.dtype, shape=each.shape, recomputed=each.recomputed)
                for each in tensors
            ],
            datasets=[wire.Dataset(name=each.name, source=each.source, options=each.options) for each in datasets],
            model_config_json=config,
            preprocessor_config_json=preprocessor,
            batch_size=batch_size,
            class_subset=class_subset,
        )
        survey: wire.Survey = self._last(self._stub.Open(request, timeout=self._timeout)).survey
        return survey

    def load(
        self,
        session: str,
        generation: int,
        path: str | os.PathLike[str],
        *,
        recompute: wire.Recompute | None = None,
    ) -> None:
        """Hands over a soup, of which running statistics may be recomputed."""
        request = wire.LoadRequest(session=session, generation=generation, path=os.fspath(path), recompute=recompute)
        self._last(self._stub.Load(request, timeout=self._timeout))

    def judge(
        self,
        session: str,
        generation: int,
        dataset: int,
        positions: Sequence[int],
        *,
        block_samples: int = 32,
        logits: bool = False,
    ) -> list[wire.Block]:
        """What happens to samples, block by block."""
        call = self.begin_judging(session, generation, dataset, positions, block_samples=block_samples, logits=logits)
        return [each.block for each in self._due(call)]

    def begin_judging(
        self,
        session: str,
        generation: int,
        dataset: int,
        positions: Sequence[int],
        *,
        block_samples: int = 32,
        logits: bool = False,
    ) -> Any:
        """The call itself: an iterator of messages that can be cancelled."""
        request = wire.JudgeRequest(
            session=session,
            generation=generation,
            dataset=dataset,
            positions=positions,
            block_samples=block_samples,
            logits=logits,
        )
        return self._stub.Judge(request, timeout=self._timeout)

    def differentiate(
        self,
        session: str,
        generation: int,
        dataset: int,
        positions: Sequence[int],
        path: str | os.PathLike[str],
        loss: Loss,
        *,
        block_samples: int = 32,
    ) -> wire.Differentiated:
        """Loss and gradient on samples; the gradient goes to `path`, a file of the right size."""
        request = wire.DifferentiateRequest(
            session=session,
            generation=generation,
            dataset=dataset,
            positions=positions,
            block_samples=block_samples,
            beta=loss.beta,
            label_smoothing=loss.label_smoothing,
            scale=loss.scale,
            path=os.fspath(path),
        )
        answer = self._last(self._stub.Differentiate(request, timeout=self._timeout))
        differentiated: wire.Differentiated = answer.differentiated
        return differentiated

    def release(self, session: str, generation: int) -> None:
        """Forgets a generation."""
        self._stub.Release(wire.ReleaseRequest(session=session, generation=generation), timeout=self._timeout)

    def _due(self, answers: Any) -> Iterator[Any]:
        for answer in answers:
            if answer.WhichOneof("message") == "progress":
                self.progress.append(answer.progress.what)
            else:
                yield answer

    def _last(self, answers: Any) -> Any:
        due = list(self._due(answers))
        if len(due) != 1:
            raise ValueError(f"the judge ended with {len(due)} messages besides progress: expected one")
        return due[0]

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()
