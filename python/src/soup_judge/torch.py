"""Judges of PyTorch: any module whose tensors a soup has, with gradients by autograd.

A module is built once and holds no parameters of its own. For as long as something is computed it is given those of a
soup, which are views of the mapped file where its dtype is the soup's and its device the processor.
"""

from __future__ import annotations

import argparse
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.utils.deterministic
from numpy.typing import NDArray

from soup_judge.answers import Gradient, Loss, Outcomes, Survey
from soup_judge.errors import Refused
from soup_judge.judge import Judge
from soup_judge.layout import Slot, same
from soup_judge.schema import Dataset, Schema, listed
from soup_judge.tensors import Tensors

DTYPES = {"f32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
TOLERANCES = {"f32": 1e-4, "tf32": 1e-3, "bf16": 2e-2, "f16": 1e-2}
"""Relative to a mean loss. Kernels differ between processors, and add up in another order with other numbers of
threads."""

_TORCH = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "I16": torch.int16, "I32": torch.int32, "I64": torch.int64,
    "F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64, "C64": torch.complex64,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip


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


class Binding:
    """Which tensors of a soup are which parameters and buffers of a module.

    Several slots of a module may share one parameter (tied weights). A soup has to have at least one of their names,
    and where it has several they have to be equal.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        schema: Schema,
        *,
        unused: Callable[[str], bool] = lambda name: False,
        layout: Mapping[str, Slot] | None = None,
    ) -> None:
        """Takes the module's own parameters away. Raises `Refused`, with names, unless the soup's tensors are the
        module's.

        `unused` tells of tensors that a soup may have besides. `layout` tells what slots are made of; None: each of the
        soup's tensor of its name, and of its shape.
        """
        groups: dict[int, list[str]] = {}
        own = module.state_dict(keep_vars=True)
        for name, tensor in own.items():
            groups.setdefault(id(tensor), []).append(name)
        # Counters are of training only, and older files do not have them.
        optional = {name for name in own if name.endswith("num_batches_tracked")}
        buffers = dict(module.named_buffers())
        made = {name: same(name, tuple(own[name].shape)) for name in own if name in schema.by_name}
        apart = layout is not None
        if layout is not None:
            made = dict(layout)
            strange = [name for name, slot in made.items() if name not in own or own[name].shape != slot.shape]
            if strange:
                raise RuntimeError(f"the layout is of another module, which has {listed(strange)}")
        used = {piece.name for slot in made.values() for piece in slot.pieces}
        surplus = [name for name in schema.by_name if name not in used]
        self.ignored = [name for name in surplus if unused(name) or (name in buffers and name not in own)]
        missing = [names[0] for names in groups.values() if not any(each in made or each in optional for each in names)]
        _expect(schema, {name: tuple(tensor.shape) for name, tensor in own.items()}, made, missing, self.ignored)
        self.slots: dict[str, Slot] = {}
        """What is made of the soup's tensors."""
        self.ties: dict[str, list[str]] = {}
        """Names of the slots that have the same tensor, by the first that is made."""
        self.equal: list[tuple[str, str]] = []
        """Names of tensors that share a slot."""
        self.untied: list[str] = []
        """Names of slots that the module ties, and that are made of different tensors all the same."""
        for tied in groups.values():
            alike = _alike(tied, made) if apart else [tied]
            self.untied += tied if len(alike) > 1 else []
            for names in alike:
                present = [name for name in names if name in made]
                if present:
                    self.ties[present[0]] = names
                    self.slots[present[0]] = made[present[0]]
                    self.equal += [(present[0], other) for other in present[1:] if not apart]
        self._shapes = {name: tensor.shape for name, tensor in schema.by_name.items()}
        self._places = {
            name: [(module.get_submodule(slot.rpartition(".")[0]), slot.rpartition(".")[2]) for slot in slots]
            for name, slots in self.ties.items()
        }
        self.parameters = {name for name in self.ties if isinstance(own[name], torch.nn.Parameter)}
        self._placeholders = {
            name: torch.empty(own[name].shape, dtype=own[name].dtype, device="meta") for name in self.ties
        }
        self._give(self._placeholders, False)

    def load(self, tensors: Tensors, device: torch.device, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        """The tensors that the module uses, real numbers in `dtype`; views of the file where nothing has to be done."""
        for one, other in self.equal:
            if not np.array_equal(tensors.bits(one), tensors.bits(other)):
                raise Refused(f"the model ties {one} and {other}, but the soup has different values for them")
        found = {}
        for name, slot in self.slots.items():
            parts = {piece.name: torch_view(tensors, piece.name) for piece in slot.pieces}
            real = all(part.is_floating_point() for part in parts.values())
            found[name] = slot.made(parts, dtype if real else None).to(device, dtype if real else None)
        return found

    def of_file(self, gradients: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Gradients of the soup's tensors, of those of the module's."""
        found: dict[str, NDArray[Any]] = {}
        for name, gradient in gradients.items():
            self.slots[name].add_gradient(gradient, found, self._shapes)
        return found

    def places(self, name: str) -> Sequence[tuple[torch.nn.Module, str]]:
        """The modules that have a tensor of the soup, and what it is called there."""
        return self._places[name]

    @contextmanager
    def bound(self, weights: Mapping[str, torch.Tensor], *, gradients: bool = False) -> Iterator[dict[str, Any]]:
        """Within, the module has these weights. Gives its parameters by name, which want gradients if told so."""
        try:
            yield self._give(weights, gradients)
        finally:
            # Else the module would keep a soup that is forgotten.
            self._give(self._placeholders, False)

    def _give(self, weights: Mapping[str, torch.Tensor], gradients: bool) -> dict[str, Any]:
        parameters = {}
        for name, tensor in weights.items():
            given: torch.Tensor = tensor
            if name in self.parameters:
                wanted = gradients and tensor.is_floating_point()
                given = parameters[name] = torch.nn.Parameter(tensor.detach(), requires_grad=wanted)
            for owner, leaf in self._places[name]:
                setattr(owner, leaf, given)
        return parameters


def _expect(
    schema: Schema,
    shapes: Mapping[str, tuple[int, ...]],
    layout: Mapping[str, Slot],
    missing: Sequence[str],
    ignored: Sequence[str],
) -> None:
    """Raises `Refused`, with names, where something is missing, surplus, or of another shape. Parts of slots have been
    there: only a tensor that is a slot by itself can be of another shape."""
    wanted = {name: shapes[name] for name in missing}
    wanted |= {slot.pieces[0].name: shapes[name] for name, slot in layout.items() if slot.whole is not None}
    lost = [name for name in missing if name in schema.by_name]
    if lost:
        raise Refused(f"the model has {listed(lost)}, as the pool has, but it is not loaded from there")
    joined = {piece.name for slot in layout.values() for piece in slot.pieces} - set(wanted)
    schema.expect(wanted, unused={*ignored, *joined})


def _alike(tied: Sequence[str], made: Mapping[str, Slot]) -> list[list[str]]:
    """Tied slots by what they are made of. What is made of nothing goes with the first."""
    found: dict[Slot, list[str]] = {}
    for name in tied:
        if name in made:
            found.setdefault(made[name], []).append(name)
    first, *others = found.values() if found else [[]]
    return [first + [name for name in tied if name not in made], *others]


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


def torch_view(tensors: Tensors, name: str) -> torch.Tensor:
    """A soup's tensor over the mapped file; it may not be written. Raises `Refused` for a dtype that PyTorch has
    not."""
    dtype = tensors.tensor(name).dtype
    if dtype not in _TORCH:
        raise Refused(f"{name} is {dtype}, which PyTorch does not have")
    bits = tensors.bits(name)
    with warnings.catch_warnings():
        # That the array is read-only is just what is wanted: nothing here writes to a parameter.
        warnings.filterwarnings("ignore", message=".*not writable.*")
        return torch.from_numpy(bits.view(f"<i{bits.itemsize}")).view(_TORCH[dtype])


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
