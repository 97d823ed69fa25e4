"""Which tensors of a soup a module of PyTorch is made of, and giving them to it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from soup_judge.errors import Refused
from soup_judge.layout import Slot, same
from soup_judge.schema import Schema, listed
from soup_judge.tensors import Tensors

_TORCH = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "I16": torch.int16, "I32": torch.int32, "I64": torch.int64,
    "F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64, "C64": torch.complex64,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip


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
