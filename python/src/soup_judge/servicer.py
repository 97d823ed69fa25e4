"""The protocol: sessions, generations, and what a judge is asked about them."""

from __future__ import annotations

import gc
import sys
import threading
import traceback
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import grpc
import numpy as np
from numpy.typing import NDArray

from soup_judge import checks
from soup_judge._wire import judge_pb2 as wire
from soup_judge._wire import judge_pb2_grpc
from soup_judge.answers import Gradient, Loss
from soup_judge.errors import Forgotten, Refused
from soup_judge.judge import Judge
from soup_judge.schema import Dataset, Schema, Tensor
from soup_judge.tensors import Tensors, open_tensors
from soup_judge.thread import Call, JudgeThread

MOST_TEXT = 2000
"""Characters of an error that are sent: a status travels in headers, which are small."""
KEPT_VIEWS = "the judge keeps views of the tensors of a soup that is to be forgotten: copy what has to stay"


class _Loaded:
    """A generation. Whoever computes with its model holds `busy`."""

    def __init__(self, model: Any, tensors: Tensors) -> None:
        self.model = model
        self.mapped = weakref.ref(tensors.mapped)
        self.busy = threading.Lock()
        self.gone = False

    def forget(self) -> bool:
        """Waits until nobody computes with the model, and lets go of it and of its file. Whether the file is let go:
        whoever has kept a view of it would see the next soup there."""
        with self.busy:
            self.gone = True
            self.model = None
        if self.mapped() is not None:
            # Models are often in cycles, and the file would stay mapped until something else collects them.
            gc.collect()
        return self.mapped() is None


@dataclass
class _Session:
    name: str
    schema: Schema
    datasets: list[Dataset]
    survey: wire.Survey
    generations: dict[int, _Loaded] = field(default_factory=dict)


class Servicer(judge_pb2_grpc.JudgeServicer):
    """Answers calls with a judge, of which everything runs in the judge's thread."""

    def __init__(self, judge: Judge, thread: JudgeThread) -> None:
        """Raises `WrongAnswer` where the judge does not say properly who it is."""
        self._judge = judge
        self._thread = thread
        self._description = checks.description(judge)
        self._lock = threading.Lock()
        self._session: _Session | None = None

    def Describe(self, request: wire.DescribeRequest, context: grpc.ServicerContext) -> wire.DescribeResponse:
        """Who this is."""
        if request.protocol != checks.PROTOCOL:
            text = f"this judge speaks version {checks.PROTOCOL} of the protocol, not {request.protocol}"
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, text)
        return self._description

    def Open(self, request: wire.OpenRequest, context: grpc.ServicerContext) -> Iterator[wire.OpenResponse]:
        """Looks at datasets and tensors."""

        def job(call: Call) -> None:
            self._forget_session()
            datasets = [Dataset(each.name, each.source, dict(each.options)) for each in request.datasets]
            if not datasets:
                raise Refused("a session needs at least one dataset")
            schema = Schema(
                tensors=tuple(
                    Tensor(each.name, each.dtype, tuple(each.shape), each.recomputed) for each in request.tensors
                ),
                config_text=request.model_config_json,
                preprocessor_text=request.preprocessor_config_json,
                batch_size=max(1, request.batch_size),
                class_subset=request.class_subset,
            )
            self._judge.check_request(schema, datasets)
            survey = checks.survey(self._judge, self._judge.open(schema, datasets), datasets)
            call.check()
            with self._lock:
                self._session = _Session(request.session, schema, datasets, survey)
            call.send(wire.OpenResponse(survey=survey))

        return self._answers(context, job, lambda what: wire.OpenResponse(progress=what))

    def Load(self, request: wire.LoadRequest, context: grpc.ServicerContext) -> Iterator[wire.LoadResponse]:
        """Takes a soup."""

        def job(call: Call) -> None:
            session = self._session_of(request.session)
            if request.generation == 0 or request.generation in session.generations:
                raise Refused(
                    f"generation {request.generation} is loaded already, or none: they count from 1, each used once"
                )
            tensors = open_tensors(request.path, session.schema.tensors)
            model = self._judge.load(tensors)
            if request.HasField("recompute"):
                tensors = self._recomputed(request.recompute, session, model, tensors)
                model = None
                call.check()
                model = self._judge.load(tensors)
            loaded = _Loaded(model, tensors)
            call.check()
            with self._lock:
                session.generations[request.generation] = loaded
            call.send(wire.LoadResponse(loaded=wire.Loaded()))

        return self._answers(context, job, lambda what: wire.LoadResponse(progress=what))

    def Judge(self, request: wire.JudgeRequest, context: grpc.ServicerContext) -> Iterator[wire.JudgeResponse]:
        """What happens to samples, block by block."""

        def job(call: Call) -> None:
            if request.logits and "logits" not in self._description.abilities:
                raise Refused("logits are wanted, which this judge does not tell")
            with self._using(request) as (session, dataset, model):
                for index, positions in enumerate(_blocks(request, session)):
                    call.check()
                    answer = self._judge.judge(model, dataset, positions)
                    block = checks.block(index, answer, session.survey, len(positions), request.logits)
                    call.send(wire.JudgeResponse(generation=request.generation, block=block))

        return self._answers(
            context, job, lambda what: wire.JudgeResponse(generation=request.generation, progress=what)
        )

    def Differentiate(
        self, request: wire.DifferentiateRequest, context: grpc.ServicerContext
    ) -> Iterator[wire.DifferentiateResponse]:
        """Loss and gradient on samples."""

        def job(call: Call) -> None:
            if "gradients" not in self._description.abilities:
                raise Refused("a gradient is wanted, which this judge does not tell")
            if not 0 <= request.label_smoothing <= 1:
                raise Refused(f"label smoothing {request.label_smoothing} is out of range: 0 to 1")
            loss = Loss(request.beta, request.label_smoothing, request.scale)
            with self._using(request) as (session, dataset, model):
                sums = _Gradients(Path(request.path), session.schema)
                for positions in _blocks(request, session):
                    call.check()
                    sums.add(self._judge.differentiate(model, dataset, positions, loss), len(positions))
                answer = sums.finish()
            call.send(wire.DifferentiateResponse(generation=request.generation, differentiated=answer))

        return self._answers(
            context, job, lambda what: wire.DifferentiateResponse(generation=request.generation, progress=what)
        )

    def Release(self, request: wire.ReleaseRequest, context: grpc.ServicerContext) -> wire.ReleaseResponse:
        """Forgets a generation. Waits for a call that computes with it, since its file goes away after the answer."""
        with self._lock:
            session = self._session
            known = session is not None and session.name == request.session
            loaded = session.generations.pop(request.generation, None) if session is not None and known else None
        if loaded is not None and not loaded.forget():
            print(KEPT_VIEWS, file=sys.stderr, flush=True)
            context.abort(grpc.StatusCode.INTERNAL, KEPT_VIEWS)
        return wire.ReleaseResponse()

    def _answers(
        self, context: grpc.ServicerContext, job: Callable[[Call], None], progress: Callable[[wire.Progress], Any]
    ) -> Iterator[Any]:
        call = Call()
        if not context.add_callback(call.cancel):
            return

        def reporting(call: Call) -> None:
            self._judge._report = lambda what: call.offer(progress(wire.Progress(what=" ".join(what.split()))))
            try:
                job(call)
            finally:
                self._judge._report = None

        self._thread.submit(call, reporting)
        yield from call.messages()
        if call.error is not None:
            _abort(context, call.error)

    def _recomputed(self, request: wire.Recompute, session: _Session, model: Any, tensors: Tensors) -> Tensors:
        """The soup with recomputed statistics, which are in the worker's file then."""
        if "statistics" not in self._description.abilities:
            raise Refused("running statistics are to be recomputed, which this judge cannot do")
        if request.dataset >= len(session.datasets):
            raise Refused(f"dataset {request.dataset} is unknown: the session has {len(session.datasets)}")
        dataset, known = session.datasets[request.dataset], session.survey.samples[request.dataset]
        if not 1 <= request.samples <= known or request.block_samples == 0:
            raise Refused(f"dataset {dataset.name} has {known} samples: {request.samples} of it were asked for")
        ordered = np.arange(request.samples, dtype=np.int64)
        blocks = [ordered[at : at + request.block_samples] for at in range(0, len(ordered), request.block_samples)]
        found = checks.statistics(self._judge.recompute(model, dataset, blocks), session.schema)
        values = b"".join(each.tobytes() for each in found.values())
        path = Path(request.path)
        if path.stat().st_size != len(values):
            raise Refused(f"{path} has {path.stat().st_size} bytes: the statistics are {len(values)}")
        with path.open("r+b") as file:
            file.write(values)
        return tensors.replaced(found)

    def _session_of(self, name: str) -> _Session:
        with self._lock:
            if self._session is None or self._session.name != name:
                raise Forgotten(f"session {name} is not open")
            return self._session

    def _forget_session(self) -> None:
        with self._lock:
            session, self._session = self._session, None
        kept = [not loaded.forget() for loaded in session.generations.values()] if session is not None else []
        if any(kept):
            raise RuntimeError(KEPT_VIEWS)

    @contextmanager
    def _using(self, request: wire.JudgeRequest | wire.DifferentiateRequest) -> Iterator[tuple[_Session, Dataset, Any]]:
        session = self._session_of(request.session)
        with self._lock:
            loaded = session.generations.get(request.generation)
        if loaded is None:
            raise Forgotten(f"generation {request.generation} is not loaded")
        if request.dataset >= len(session.datasets):
            raise Refused(f"dataset {request.dataset} is unknown: the session has {len(session.datasets)}")
        with loaded.busy:
            if loaded.gone:
                raise Forgotten(f"generation {request.generation} is not loaded any more")
            yield session, session.datasets[request.dataset], loaded.model


def _blocks(request: wire.JudgeRequest | wire.DifferentiateRequest, session: _Session) -> list[NDArray[np.int64]]:
    positions = np.fromiter(request.positions, np.uint64, len(request.positions))
    samples = session.survey.samples[request.dataset]
    beyond = positions[positions >= samples]
    if beyond.size:
        name = session.datasets[request.dataset].name
        raise Refused(f"dataset {name} has no sample {beyond[0]}: it has {samples}, counted from 0")
    if request.block_samples == 0:
        raise Refused("a block needs at least one sample")
    ordered = positions.astype(np.int64)
    return [ordered[begin : begin + request.block_samples] for begin in range(0, len(ordered), request.block_samples)]


class _Gradients:
    """What blocks add up to: the numbers here, the gradients in the worker's file, in f32 and in the order of the
    blocks."""

    def __init__(self, path: Path, schema: Schema) -> None:
        self._schema = schema
        self._begins: dict[str, int] = {}
        elements = 0
        for tensor in schema.tensors:
            self._begins[tensor.name] = elements
            elements += tensor.elements
        size = path.stat().st_size
        if size != 4 * elements:
            raise Refused(f"{path} has {size} bytes: a gradient of {elements} elements needs {4 * elements}")
        self._target: NDArray[np.float32] = (
            np.memmap(path, dtype="<f4", mode="r+", shape=(elements,)) if elements else np.empty(0, "<f4")
        )
        self._written: set[str] = set()
        self._sums = wire.Differentiated()

    def add(self, answer: Gradient, samples: int) -> None:
        for name, values in checks.gradient(answer, self._schema, samples):
            begin = self._begins[name]
            part = self._target[begin : begin + values.size]
            # What is too large for f32 becomes infinite, as it would in the model.
            with np.errstate(over="ignore", invalid="ignore"):
                if name in self._written:
                    part += values.reshape(-1).astype(np.float32, copy=False)
                else:
                    part[:] = values.reshape(-1)
            self._written.add(name)
        self._sums.loss += float(answer.loss)
        self._sums.d_beta += float(answer.d_beta)
        self._sums.correct += int(answer.correct)
        self._sums.total += samples

    def finish(self) -> wire.Differentiated:
        # The worker maps the same pages: nothing has to reach a disk.
        self._target = np.empty(0, "<f4")
        return self._sums


def _abort(context: grpc.ServicerContext, error: BaseException) -> NoReturn:
    if isinstance(error, Refused):
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error)[:MOST_TEXT])
    if isinstance(error, Forgotten):
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error)[:MOST_TEXT])
    traceback.print_exception(error, file=sys.stderr)
    sys.stderr.flush()
    context.abort(grpc.StatusCode.UNKNOWN, f"{type(error).__name__}: {error}"[:MOST_TEXT])
    raise AssertionError("abort raises")
