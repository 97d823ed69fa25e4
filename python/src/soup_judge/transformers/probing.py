"""Where transformers 5 puts the tensors of a file.

From version 5 on a model's tensors may have other names in memory than in files, and be joined or split there; which
ones differs between models and versions. This is found out rather than looked up: transformers' own loader is given
probes under the file's names, tensors whose elements say which tensor they are of, and then where in it they were. What
it made of them is read from the model. A layout is complete, or there is none: every element is accounted for.

Probes take no memory, and neither do slots that are a tensor of the file; those that are joined take f32 for as long as
they are looked at.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers

from soup_judge.errors import Refused
from soup_judge.layout import Piece, Slot, Strided, dense, same
from soup_judge.schema import Tensor, listed

FIRST = 1 << 23
"""The number of the first tensor: nothing that a model begins with is as large."""
APART = 2
"""How far numbers of tensors are apart: one to which something is added is no other's, or not within its bounds."""
MOST = 1 << 24
"""Integers up to here are exact in f32."""

_COLOURS = re.compile("\x1b\\[[0-9;]*m")
_TORN = re.compile(r"(\S+)\s*\|\s*CONVERSION")
"""In what transformers tells when the tensors that it joins do not fit."""

Load = Callable[[Mapping[str, torch.Tensor]], tuple[torch.nn.Module, Mapping[str, Any]]]
"""Loads a state dict into a new model; with it, what transformers tells of that."""


@dataclass
class _Region:
    """The elements of a slot that come from one tensor: a box, in steps, along the slot's axes."""

    tensor: Tensor
    begin: tuple[int, ...]
    steps: tuple[int, ...]
    counts: tuple[int, ...]
    first: int = 0
    """Where in the tensor the box's first element comes from."""
    along: list[torch.Tensor] = field(default_factory=list)
    """For each axis of the box, how much further in the tensor elements along it are."""

    def of(self, slot: torch.Tensor) -> torch.Tensor:
        """The box. Axes along which memory says that all is the same have one element."""
        for axis, (begin, step, count) in enumerate(zip(self.begin, self.steps, self.counts, strict=True)):
            slot = slot.narrow(axis, begin, (count - 1) * step + 1)
            index = [slice(None)] * slot.ndim
            index[axis] = slice(None, None, step)
            slot = slot[tuple(index)]
        return _narrowed(slot)


class _NotUnderstood(Exception):
    """A slot is made of a file in a way that pieces cannot say."""


def loader(model: type[Any], config: Any) -> Load:
    """transformers' own, without a word to anybody."""

    def load(probes: Mapping[str, torch.Tensor]) -> tuple[torch.nn.Module, Mapping[str, Any]]:
        with _silent() as said:
            try:
                found, told = model.from_pretrained(
                    None,
                    config=config,
                    state_dict=dict(probes),
                    dtype=torch.float32,
                    ignore_mismatched_sizes=True,
                    local_files_only=True,
                    output_loading_info=True,
                )
            except RuntimeError as error:
                torn = sorted({name for text in said for name in _TORN.findall(_COLOURS.sub("", text))})
                if not torn:
                    raise
                raise Refused(
                    f"the pool's tensors are not the model's: those that make {listed(torn)} do not fit together, or "
                    "one is missing"
                ) from error
        return found, told

    return load


def layout_of(load: Load, tensors: Sequence[Tensor], progress: Callable[[str], None]) -> dict[str, Slot]:
    """The slots of the model that are made of these tensors. Raises `Refused`, with names, where a tensor has another
    shape than the model's, or where it cannot be told what becomes of it."""
    tensors = [tensor for tensor in tensors if tensor.elements]
    large = [tensor.name for tensor in tensors if max(tensor.shape, default=1) >= MOST]
    if large or APART * len(tensors) >= MOST - FIRST:
        raise Refused(f"{listed(large) or len(tensors)}: more than this judge can follow into transformers 5")
    progress("looking for the pool's tensors in the model")
    model, told = load({tensor.name: _probe(tensor, FIRST + APART * at) for at, tensor in enumerate(tensors)})
    wrong = [f"{name} of {list(got)} instead of {list(want)}" for name, got, want in sorted(told["mismatched_keys"])]
    if wrong:
        raise Refused(f"the pool's tensors are not the model's: it has {listed(wrong)}")
    filled = {n: slot for n, slot in _slots(model).items() if slot.numel() and n not in told["missing_keys"]}
    shapes = {name: tuple(slot.shape) for name, slot in filled.items()}
    regions = {}
    for name, slot in filled.items():
        with _telling(name):
            regions[name] = _regions(slot, tensors)
    for axis in range(max((len(tensor.shape) for tensor in tensors), default=0)):
        del model, filled  # Joined slots take memory.
        progress(f"looking for the pool's tensors in the model: axis {axis}")
        model, _ = load({tensor.name: _probe(tensor, FIRST, axis) for tensor in tensors})
        filled = _slots(model)
        for name, found in regions.items():
            with _telling(name):
                for region in found:
                    _follow(region, filled[name], axis)
    layout = {}
    for name, found in regions.items():
        with _telling(name):
            if found:
                layout[name] = _slot(found, shapes[name])
    _check_all_is_used(layout, tensors)
    return layout


def _slots(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: slot for name, slot in model.state_dict().items() if isinstance(slot, torch.Tensor)}


def _probe(tensor: Tensor, value: int, axis: int | None = None) -> torch.Tensor:
    """The value everywhere, or each element's place along the axis."""
    dtype = torch.float32 if tensor.is_float else torch.int64
    if axis is None or axis >= len(tensor.shape):
        return torch.full((), value, dtype=dtype).expand(tensor.shape)
    places = torch.arange(tensor.shape[axis], dtype=dtype)
    return places.view([-1 if each == axis else 1 for each in range(len(tensor.shape))]).expand(tensor.shape)


def _narrowed(slot: torch.Tensor) -> torch.Tensor:
    """Without what has no strides, and is the same."""
    for axis, stride in enumerate(slot.stride()):
        if stride == 0 and slot.shape[axis] > 1:
            slot = slot.narrow(axis, 0, 1)
    return slot


def _regions(slot: torch.Tensor, tensors: Sequence[Tensor]) -> list[_Region]:
    """Which parts of a slot are of which tensor; none, where nothing is of any."""
    small = _narrowed(slot)
    if small.dtype not in (torch.float32, torch.float64, torch.int64, torch.int32):
        raise _NotUnderstood(f"it is {small.dtype} there")
    for axis in reversed(range(small.ndim)):
        least = small.amin(axis, keepdim=True)
        if torch.equal(least, small.amax(axis, keepdim=True)):
            small = least
    values = [value - FIRST for value in torch.unique(small).tolist()]
    numbers = [int(value) // APART if value in range(0, APART * len(tensors), APART) else -1 for value in values]
    if max(numbers) < 0:
        return []
    regions = []
    for number in numbers:
        if number < 0:
            raise _NotUnderstood("a part of it is of no tensor of the pool")
        mask = small == FIRST + APART * number
        boxes = [_steps(mask, axis, slot.shape[axis]) for axis in range(small.ndim)]
        if int(mask.sum()) != math.prod(1 if small.shape[axis] == 1 else box[2] for axis, box in enumerate(boxes)):
            raise _NotUnderstood("parts of it are no boxes")
        begin, steps, counts = zip(*boxes, strict=True) if boxes else ((), (), ())
        along = [torch.zeros(count, dtype=torch.int64) for count in counts]
        regions.append(_Region(tensors[number], begin, steps, counts, 0, along))
    return regions


def _steps(mask: torch.Tensor, axis: int, whole: int) -> tuple[int, int, int]:
    """Begin, step and count of the places along an axis at which there is anything of a mask; all of one that was
    dropped because everything along it is the same."""
    if mask.shape[axis] == 1:
        return 0, 1, whole
    others = [each for each in range(mask.ndim) if each != axis]
    places = (mask.sum(dim=others) if others else mask).nonzero().flatten()
    step = int(places[1] - places[0]) if len(places) > 1 else 1
    if not torch.equal(places, places[0] + step * torch.arange(len(places))):
        raise _NotUnderstood("parts of it are at irregular places")
    return int(places[0]), step, len(places)


def _follow(region: _Region, slot: torch.Tensor, axis: int) -> None:
    """Learns where the elements of a region are along an axis of their tensor: a number for each step along each of the
    slot's axes, and their sum for an element."""
    if axis >= len(region.tensor.shape):
        return
    stride = dense(region.tensor.shape)[axis]
    box = region.of(slot)
    expected = origin = box[(0,) * box.ndim]
    least = most = float(origin)
    for each in range(box.ndim):
        index: list[Any] = [0] * box.ndim
        index[each] = slice(None)
        line = box[tuple(index)] - origin
        expected = expected + line.view([-1 if other == each else 1 for other in range(box.ndim)])
        least, most = least + float(line.min()), most + float(line.max())
        region.along[each] += line.to(torch.int64) * stride
    ordered = torch.equal(box, expected.expand(box.shape)) and torch.equal(box, box.round())
    if not ordered or least < 0 or most >= region.tensor.shape[axis]:
        raise _NotUnderstood(f"elements of {region.tensor.name} are in no order that this judge knows, or changed")
    region.first += int(origin) * stride


def _slot(regions: Sequence[_Region], shape: tuple[int, ...]) -> Slot:
    """What was learned of a slot."""
    first = regions[0]
    plain = [torch.arange(count) * stride for count, stride in zip(shape, dense(shape), strict=True)]
    if first.counts == shape == first.tensor.shape and not first.first and all(map(torch.equal, first.along, plain)):
        return same(first.tensor.name, shape)
    return Slot(shape, tuple(_piece(region, dense(shape)) for region in regions))


def _piece(region: _Region, strides: Sequence[int]) -> Piece:
    """What was learned of a region of a slot with these strides."""
    sizes: list[int] = []
    here: list[int] = []
    there: list[int] = []
    for step, stride, along in zip(region.steps, strides, region.along, strict=True):
        counts, theirs = _loops(along)
        sizes += counts
        here += [step * stride * inner for inner in dense(counts)]
        there += theirs
    offset = sum(begin * stride for begin, stride in zip(region.begin, strides, strict=True))
    return Piece(region.tensor.name, tuple(sizes), Strided(tuple(here), offset), Strided(tuple(there), region.first))


def _loops(places: torch.Tensor) -> tuple[list[int], list[int]]:
    """Counts and strides of nested loops that give these places, the outermost first."""
    if len(places) == 1:
        return [], []
    stride = int(places[1])
    off = (places != stride * torch.arange(len(places))).nonzero()
    count = int(off[0]) if len(off) else len(places)
    if stride < 0:
        raise _NotUnderstood("its elements are in reverse order")
    rows = places.view(-1, count) if len(places) % count == 0 else places.view(1, -1)
    if not torch.equal(rows, rows[:, :1] + stride * torch.arange(rows.shape[1])):
        raise _NotUnderstood("its elements are in no regular order")
    counts, strides = _loops(rows[:, 0])
    return [*counts, count], [*strides, stride]


def _check_all_is_used(layout: Mapping[str, Slot], tensors: Sequence[Tensor]) -> None:
    """Raises `Refused` where only a part of a tensor is in the model, or an element is twice in a piece."""
    whole = {slot.whole for slot in layout.values()}
    used: dict[str, torch.Tensor] = {}
    sizes = {tensor.name: tensor.elements for tensor in tensors}
    for name, slot in layout.items():
        for piece in slot.pieces:
            if piece.name in whole:
                continue
            mark = torch.zeros(sizes[piece.name], dtype=torch.bool)
            mark.as_strided(piece.shape, piece.file.strides, piece.file.offset).fill_(True)
            if int(mark.sum()) != math.prod(piece.shape):
                raise Refused(f"transformers {transformers.__version__} repeats elements of {piece.name} in {name}")
            used[piece.name] = used[piece.name] | mark if piece.name in used else mark
    partly = [name for name, mark in used.items() if not bool(mark.all())]
    if partly:
        raise Refused(f"transformers {transformers.__version__} uses only a part of {listed(partly)}")


@contextmanager
def _telling(slot: str) -> Iterator[None]:
    try:
        yield
    except _NotUnderstood as error:
        raise Refused(
            f"transformers {transformers.__version__} makes {slot} of the pool's tensors in a way that this judge "
            f"cannot follow ({error}): judge with another version of it"
        ) from None


class _Said(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


@contextmanager
def _silent() -> Iterator[list[str]]:
    """Within, transformers draws nothing, and what it logs is in the list."""
    told, logger = _Said(), logging.getLogger("transformers")
    before = logger.handlers, logger.level, logger.propagate
    drawing = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    logger.handlers, logger.propagate = [told], False
    logger.setLevel(logging.WARNING)
    try:
        yield told.texts
    finally:
        logger.handlers, _, logger.propagate = before
        logger.setLevel(before[1])
        if drawing:
            transformers.utils.logging.enable_progress_bar()
