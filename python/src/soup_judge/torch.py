"""Judges of PyTorch: any module whose tensors a soup has, with gradients by autograd.

A module is built once and holds no parameters of its own. For as long as something is computed it is given those of a
soup, which are views of the mapped file where its dtype is the soup's and its device the processor.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.utils.deterministic
from numpy.typing import NDArray

from soup_judge.answers import Gradient, Loss, Outcomes, Survey
from soup_judge.binding import Binding
from soup_judge.errors import Refused
from soup_judge.judge import Judge
from soup_judge.layout import Slot
from soup_judge.schema import Dataset, Schema, listed
from soup_judge.tensors import Tensors

DTYPES = {"f32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
TOLERANCES = {"f32": 1e-4, "tf32": 1e-3, "bf16": 2e-2, "f16": 1e-2}
"""Relative to a mean loss. Kernels differ between processors, and add up in another order with other numbers of
threads."""


@dataclass(frozen=True)
class Arithmetic:
    """Where and how exactly a judge computes."""

    device: str = "cpu"
    dtype: str = "f32"
    """f32, tf32 (CUDA's matrix products with less of each factor), bf16 or f16."""
    threads: int | None = None
    """Of the processor; None: as many as PyTorch takes."""

    def apply(self) -> None:
        """Sets PyTorch up for it, for the whole process. Raises `SystemExit` for what this machine cannot do."""
        if self.dtype not in DTYPES:
            raise SystemExit(f"soup_judge: no arithmetic {self.dtype}: expected {listed(DTYPES)}")
        kind = torch.device(self.device).type
        if kind == "cuda" and not torch.cuda.is_available():
            raise SystemExit(f"soup_judge: PyTorch finds no CUDA device for --device {self.device}")
        if kind != "cuda" and self.dtype == "tf32":
            raise SystemExit("soup_judge: tf32 needs a CUDA device")
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        # cuBLAS reads this when it begins.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        # Nothing here reads memory that was not written.
        torch.utils.deterministic.fill_uninitialized_memory = False
        torch.backends.cudnn.benchmark = False
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = self.dtype == "tf32"

    @property
    def numerics(self) -> str:
        """Its class: PyTorch's version, the kind of device, and the dtype."""
        device = torch.device(self.device)
        kind = device.type
        if kind == "cuda":
            major, minor = torch.cuda.get_device_capability(device)
            kind = f"cuda-sm{major}{minor}"
        return re.sub(r"[^A-Za-z0-9_.+-]", "_", f"torch-{torch.__version__}-{kind}-{self.dtype}")[:64]


@contextmanager
def empty_parameters() -> Iterator[None]:
    """Within, modules are built with parameters that take no memory and no time; their buffers are real."""
    register = torch.nn.Module.register_parameter

    def emptied(module: torch.nn.Module, name: str, parameter: torch.nn.Parameter | None) -> None:
        # One that is empty already is assigned to a second place: it stays tied.
        if parameter is not None and parameter.device.type != "meta":
            parameter = torch.nn.Parameter(parameter.detach().to("meta"), requires_grad=parameter.requires_grad)
        register(module, name, parameter)

    torch.nn.Module.register_parameter = emptied
    try:
        yield
    finally:
        torch.nn.Module.register_parameter = register


class _Averaged:
    """Within, BatchNorm layers normalise by the statistics of what they are given, and those are averaged over all
    passes, in f64. Everything else is as in evaluation."""

    def __init__(self, module: torch.nn.Module, binding: Binding) -> None:
        """The module has a soup's tensors already. Raises `Refused` for running statistics of other layers."""
        self._names: dict[torch.nn.Module, dict[str, str]] = {}
        for name in binding.ties:
            for owner, leaf in binding.places(name):
                if leaf in ("running_mean", "running_var"):
                    if not isinstance(owner, torch.nn.modules.batchnorm._BatchNorm):
                        raise Refused(
                            f"{name} is a running statistic of {type(owner).__name__}, and only those of BatchNorm can "
                            "be recomputed: take --batch-norm average or first"
                        )
                    whole = binding.slots[name].whole
                    if whole is None:
                        raise Refused(f"{name} is no tensor of the pool by itself: take --batch-norm average or first")
                    self._names.setdefault(owner, {})[leaf] = whole
        self._sums: dict[str, torch.Tensor] = {}
        self._passes: dict[str, int] = {}
        self._before: list[tuple[Any, Any, Any, Any]] = []

    def __enter__(self) -> _Averaged:
        for each in self._names:
            layer: Any = each
            self._before.append(
                (layer, layer.momentum, layer.num_batches_tracked, layer.register_forward_hook(self._add))
            )
            # What the soup has is mapped, and may not be written; and all of an update is to be the block's.
            for leaf in ("running_mean", "running_var"):
                setattr(layer, leaf, torch.zeros_like(getattr(layer, leaf)))
            layer.momentum, layer.num_batches_tracked = 1.0, None
            layer.train()
        return self

    def __exit__(self, *_: object) -> None:
        for layer, momentum, counter, handle in self._before:
            handle.remove()
            layer.momentum, layer.num_batches_tracked = momentum, counter
            layer.eval()

    def _add(self, layer: torch.nn.Module, *_: Any) -> None:
        for leaf, name in self._names[layer].items():
            values = getattr(layer, leaf).double()
            self._sums[name] = self._sums[name] + values if name in self._sums else values
            self._passes[name] = self._passes.get(name, 0) + 1

    def statistics(self) -> dict[str, NDArray[Any]]:
        """The means. Raises `Refused` for a layer that nothing went through."""
        idle = [name for names in self._names.values() for name in names.values() if name not in self._sums]
        if idle:
            raise Refused(f"no sample of the calibration set goes through the layer of {listed(idle)}")
        return {name: (each / self._passes[name]).cpu().numpy() for name, each in self._sums.items()}


@dataclass(frozen=True)
class Samples:
    """A dataset in memory, or a way to make its samples."""

    inputs: torch.Tensor | Mapping[str, torch.Tensor] | Callable[[Sequence[int]], Any]
    """Of the module, one row a sample; a mapping has its arguments by name. A function makes either, of positions."""
    labels: NDArray[np.int64]
    classes: Sequence[int] | None = None
    """Those that the dataset has; None: those that occur."""
    notes: Sequence[str] = field(default_factory=tuple)

    def at(self, positions: NDArray[np.int64]) -> Any:
        """Inputs of a block."""
        if callable(self.inputs):
            return self.inputs(positions.tolist())
        rows = torch.from_numpy(positions)
        if isinstance(self.inputs, torch.Tensor):
            return self.inputs[rows]
        return {name: tensor[rows] for name, tensor in self.inputs.items()}


class TorchJudge(Judge):
    """A judge with a module that is built once, and a soup's tensors as its model. Override `build`."""

    def __init__(self, *, arithmetic: Arithmetic | None = None) -> None:
        """`arithmetic`: by default f32 on the processor."""
        self.arithmetic = arithmetic or Arithmetic()
        self.arithmetic.apply()
        self.device = torch.device(self.arithmetic.device)
        self.dtype = DTYPES[self.arithmetic.dtype]
        self.numerics = self.arithmetic.numerics
        self.tolerance = TOLERANCES[self.arithmetic.dtype]

    def build(self, schema: Schema) -> torch.nn.Module:
        """The module, of whatever parameters; its state dict has the names and shapes of the soup's tensors."""
        raise NotImplementedError

    def unused(self, name: str) -> bool:
        """Whether a soup may have this tensor although the module has not."""
        return False

    def layout(self, schema: Schema) -> Mapping[str, Slot] | None:
        """What the module's tensors are made of, where these are not the soup's under the same names."""
        return None

    def prepare(self, schema: Schema) -> list[str]:
        """Builds `self.module` and compares its tensors with the soup's; what people should know."""
        self.progress("building the model")
        self.module = self.build(schema).eval()
        # Parameters come with soups. What else there is keeps its dtype: frequencies and the like are exact on purpose.
        for each in self.module.modules():
            for name, buffer in each.named_buffers(recurse=False):
                setattr(each, name, buffer.to(self.device))
        self.binding = Binding(self.module, schema, unused=self.unused, layout=self.layout(schema))
        notes = [f"the model does not use {listed(self.binding.ignored)}"] if self.binding.ignored else []
        if self.binding.untied:
            notes.append(
                f"{listed(self.binding.untied)}: the model ties them, but the pool has them apart, which counts"
            )
        return notes

    def load(self, tensors: Tensors) -> Any:
        """The module's tensors."""
        return self.binding.load(tensors, self.device, self.dtype)

    def moved(self, inputs: Any) -> Any:
        """Inputs on the device, real numbers in the judge's dtype."""
        if isinstance(inputs, Mapping):
            return {name: self.moved(tensor) for name, tensor in inputs.items()}
        return inputs.to(self.device, self.dtype if inputs.is_floating_point() else None)


class TorchClassifier(TorchJudge):
    """A classifier whose logits a module computes. Override `build`, `read` and `classes`, and what else is
    different."""

    logits = True
    class_subset = True

    def read(self, dataset: Dataset, schema: Schema) -> Samples:
        """The samples of a dataset. `self.module` is there already. Raises `Refused` for one that there is not."""
        raise NotImplementedError

    def classes(self, schema: Schema) -> int:
        """How many logits a sample has."""
        raise NotImplementedError

    def forward(self, module: torch.nn.Module, inputs: Any) -> torch.Tensor:
        """Logits, [samples, classes], of what `Samples.at` gives."""
        answer = module(**inputs) if isinstance(inputs, Mapping) else module(inputs)
        logits: torch.Tensor = getattr(answer, "logits", answer)
        return logits

    def open(self, schema: Schema, datasets: Sequence[Dataset]) -> Survey:
        """Builds the module, compares its tensors with the soup's, and reads the datasets."""
        notes = self.prepare(schema)
        classes = self.classes(schema)
        for dataset in datasets:
            self.progress(f"reading {dataset.name}")
            samples = self.read(dataset, schema)
            if not len(samples.labels):
                raise Refused(f"dataset {dataset.name} has no samples")
            if samples.labels.min() < 0 or samples.labels.max() >= classes:
                raise Refused(f"dataset {dataset.name} has labels that are not among the model's {classes} classes")
            dataset.data = samples
            notes += [f"{dataset.name}: {note}" for note in samples.notes if note]
        self.subsets = schema.class_subset
        return Survey([len(dataset.data.labels) for dataset in datasets], classes=classes, notes=notes)

    def judge(self, model: Any, dataset: Dataset, positions: NDArray[np.int64]) -> Outcomes:
        """One forward pass, without gradients."""
        samples: Samples = dataset.data
        with self.binding.bound(model), torch.inference_mode():
            logits = host(self.forward(self.module, self.moved(samples.at(positions))))
        labels = samples.labels[positions]
        subset = samples.classes if samples.classes is not None else np.unique(samples.labels).tolist()
        return Outcomes.from_logits(logits, labels, subset if self.subsets else None)

    def recompute(
        self, model: Any, dataset: Dataset, blocks: Sequence[NDArray[np.int64]]
    ) -> Mapping[str, NDArray[Any]]:
        """One forward pass a block, in which BatchNorm layers normalise by the block's own statistics. Those are
        averaged over the blocks, as `torch.optim.swa_utils.update_bn` does."""
        samples: Samples = dataset.data
        with self.binding.bound(model), torch.inference_mode(), _Averaged(self.module, self.binding) as averaged:
            for done, positions in enumerate(blocks):
                self.progress(f"running statistics: {done} of {len(blocks)} blocks")
                try:
                    self.forward(self.module, self.moved(samples.at(positions)))
                except ValueError as error:
                    if "more than 1 value per channel" not in str(error):
                        raise
                    raise Refused(
                        f"a block of {len(positions)} calibration samples has no variance ({error}): take another "
                        "number of them (limit), or another --batch-size, so that no block has one sample"
                    ) from None
        return averaged.statistics()

    def differentiate(self, model: Any, dataset: Dataset, positions: NDArray[np.int64], loss: Loss) -> Gradient:
        """One pass forward and one backward. The loss is taken from the logits in f64."""
        samples: Samples = dataset.data
        with self.binding.bound(model, gradients=True) as parameters, torch.enable_grad():
            logits = self.forward(self.module, self.moved(samples.at(positions)))
            at = loss.of_logits(host(logits.detach()), samples.labels[positions])
            wanted = {name: parameter for name, parameter in parameters.items() if parameter.requires_grad}
            found = torch.autograd.grad(
                logits,
                list(wanted.values()),
                grad_outputs=torch.from_numpy(at.d_logits).to(logits.device, logits.dtype),
                allow_unused=True,
            )
        told = {name: host(each) for name, each in zip(wanted, found, strict=True) if each is not None}
        return at.gradient(self.binding.of_file(told))


class Classifier(TorchClassifier):
    """A classifier of functions: any module, any data."""

    def __init__(
        self,
        model: Callable[[Schema], torch.nn.Module],
        data: Callable[[Dataset], Samples],
        *,
        classes: int,
        version: str = "1",
        configuration: Mapping[str, Any] | None = None,
        dataset_options: Sequence[str] = (),
        arithmetic: Arithmetic | None = None,
    ) -> None:
        """`configuration`: what decides an answer besides the file in which `model` is written, as JSON can say it."""
        super().__init__(arithmetic=arithmetic)
        self.version = version
        self.dataset_options = dataset_options
        self._model, self._data, self._classes = model, data, classes
        self.configuration = {
            **self.configuration,
            **(configuration or {}),
            "sources": sorted({_source_digest(function) for function in (model, data)}),
        }

    def build(self, schema: Schema) -> torch.nn.Module:
        """The function's."""
        return self._model(schema)

    def read(self, dataset: Dataset, schema: Schema) -> Samples:
        """The function's."""
        return self._data(dataset)

    def classes(self, schema: Schema) -> int:
        """As told."""
        return self._classes


def host(tensor: torch.Tensor) -> NDArray[np.float32]:
    """A tensor as f32 in the processor's memory."""
    array: NDArray[np.float32] = tensor.to("cpu", torch.float32).numpy()
    return array


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What all judges of PyTorch are told on the command line."""
    parser.add_argument("--socket", metavar="PATH", help="where to serve; a worker sets SOUP_JUDGE_SOCKET instead")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (cpu)")
    parser.add_argument("--dtype", default="f32", choices=list(DTYPES), help="of the arithmetic (f32)")
    parser.add_argument("--threads", type=int, metavar="N", help="of the processor")


def arithmetic_of(arguments: argparse.Namespace) -> Arithmetic:
    """The arithmetic that the command line tells."""
    return Arithmetic(arguments.device, arguments.dtype, arguments.threads)


def _source_digest(function: Callable[..., Any]) -> str:
    import hashlib
    import inspect
    from pathlib import Path

    try:
        source = inspect.getsourcefile(function)
    except TypeError:
        source = None
    if source is None:
        raise ValueError(f"{function!r} has no source file: set `digest` of the judge")
    return hashlib.sha256(Path(source).read_bytes()).hexdigest()
