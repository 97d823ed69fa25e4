"""Where a module's tensors come from, when a file's are not simply the module's under the same names.

A slot of a module is made of pieces, each of which is a part of a tensor of the file: all of it under another name, a
slice, one of several that are stacked, elements in another order. All of these are views with strides of both sides, so
one description serves the way in, for weights, and the way back, for gradients.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


@dataclass(frozen=True)
class Strided:
    """Elements of a flat tensor."""

    strides: tuple[int, ...]
    offset: int = 0


@dataclass(frozen=True)
class Piece:
    """Elements of a slot, in the order of `shape`, and the elements of a file's tensor that they are."""

    name: str
    """The file's tensor."""
    shape: tuple[int, ...]
    slot: Strided
    file: Strided


@dataclass(frozen=True)
class Slot:
    """A module's tensor."""

    shape: tuple[int, ...]
    pieces: tuple[Piece, ...]
    """Together all of its elements, each once."""

    whole: str | None = None
    """The file's tensor that it is, element by element; None: it is made of something else, or of a part of one."""

    def made(self, tensors: Mapping[str, torch.Tensor], dtype: torch.dtype | None = None) -> torch.Tensor:
        """The slot's tensor, of the file's tensors: a view of them if it can be one."""
        first = self.pieces[0]
        if len(self.pieces) == 1 and first.slot == Strided(dense(first.shape)):
            return _view(tensors[first.name], first.shape, first.file).reshape(self.shape).contiguous()
        made = torch.empty(self.shape, dtype=dtype or tensors[first.name].dtype)
        for piece in self.pieces:
            target = _view(made, piece.shape, piece.slot)
            target.copy_(_view(tensors[piece.name], piece.shape, piece.file))
        return made

    def add_gradient(self, gradient: NDArray[Any], found: dict[str, Any], shapes: Mapping[str, Sequence[int]]) -> None:
        """Adds the slot's gradient to those of the file's tensors that it is made of."""
        whole = self.whole
        if whole is not None and whole not in found:
            found[whole] = gradient
            return
        source = torch.from_numpy(np.ascontiguousarray(gradient))
        for piece in self.pieces:
            before = found.get(piece.name)
            total = np.zeros(tuple(shapes[piece.name]), np.float32) if before is None else np.array(before)
            target = _view(torch.from_numpy(total), piece.shape, piece.file)
            target.add_(_view(source, piece.shape, piece.slot))
            found[piece.name] = total


def same(name: str, shape: Sequence[int]) -> Slot:
    """The slot of a tensor that is in the file as it is in the module."""
    shape = tuple(shape)
    plain = Strided(dense(shape))
    return Slot(shape, (Piece(name, shape, plain, plain),), name)


def dense(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides of a contiguous tensor."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def _view(tensor: torch.Tensor, shape: Sequence[int], strided: Strided) -> torch.Tensor:
    return tensor.as_strided(shape, strided.strides, tensor.storage_offset() + strided.offset)
