"""Soups as files: safetensors that are mapped, not read.

Nothing is copied: an array is a view of the page cache, and pages that no computation touches are never read.
"""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from soup_judge.errors import Refused
from soup_judge.schema import ITEM_SIZES, Tensor, listed

HEADER_LIMIT = 100 << 20
"""Bytes; what the format allows."""

_NUMPY = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "F16": "<f2", "U32": "<u4", "I32": "<i4",
    "F32": "<f4", "U64": "<u8", "I64": "<i8", "F64": "<f8", "C64": "<c8",
}  # fmt: skip
_ML_DTYPES = {"BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"}


class Tensors(Mapping[str, NDArray[Any]]):
    """A soup's tensors by name, in canonical order: read-only arrays over the mapped file, which stays while one of
    them does.

    `tensors[name]` has the file's dtype. BF16 and F8 are dtypes of the package ml_dtypes; without it they raise
    `TypeError`, and `bits` and `float32` still work.
    """

    def __init__(self, tensors: Sequence[Tensor], offsets: Mapping[str, int], mapped: mmap.mmap) -> None:
        self._tensors = {tensor.name: tensor for tensor in tensors}
        self._offsets = offsets
        self._replaced: dict[str, NDArray[np.uint8]] = {}
        self.mapped = mapped

    def replaced(self, values: Mapping[str, NDArray[np.uint8]]) -> Tensors:
        """The same tensors, some of which have these bytes."""
        other = Tensors(list(self._tensors.values()), self._offsets, self.mapped)
        other._replaced = self._replaced | dict(values)
        return other

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._view(name, numpy_dtype(self._tensors[name]))

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def tensor(self, name: str) -> Tensor:
        """Name, dtype as in safetensors, and shape."""
        return self._tensors[name]

    def bits(self, name: str) -> NDArray[Any]:
        """The tensor as unsigned integers of the same width, in its shape: what a BF16 is without ml_dtypes. No
        copy."""
        return self._view(name, np.dtype(f"<u{ITEM_SIZES[self._tensors[name].dtype]}"))

    def float32(self, name: str) -> NDArray[np.float32]:
        """The tensor as f32: the view itself where it is F32, else a copy. BF16 needs no ml_dtypes here; it is widened
        exactly."""
        if self._tensors[name].dtype == "BF16":
            return (self.bits(name).astype("<u4") << 16).view("<f4")
        return self[name].astype(np.float32, copy=False)

    def _view(self, name: str, dtype: np.dtype[Any]) -> NDArray[Any]:
        if name in self._replaced:
            return self._replaced[name].view(dtype).reshape(self._tensors[name].shape)
        # Over a mapping that may only be read, numpy's arrays are read-only too.
        view: NDArray[Any] = np.ndarray(
            self._tensors[name].shape, dtype, buffer=self.mapped, offset=self._offsets[name]
        )
        return view


def rounded(tensor: Tensor, values: NDArray[Any]) -> NDArray[np.uint8]:
    """The bytes of a tensor of real numbers with these values, each rounded to its dtype once, ties to even."""
    if tensor.dtype == "BF16":
        # By way of f32, to odd: what is inexact gets an odd last bit, so that it is no tie of the second step.
        wide = np.asarray(values, np.float64)
        nearest = wide.astype(np.float32)
        bits = nearest.view(np.uint32) - (np.abs(nearest.astype(np.float64)) > np.abs(wide)).astype(np.uint32)
        bits |= (nearest.astype(np.float64) != wide).astype(np.uint32)
        narrow = ((bits.astype(np.uint64) + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
    else:
        narrow = np.asarray(values).astype(numpy_dtype(tensor))
    found: NDArray[np.uint8] = np.frombuffer(np.ascontiguousarray(narrow).tobytes(), np.uint8)
    return found


def numpy_dtype(tensor: Tensor) -> np.dtype[Any]:
    """The dtype of a tensor's array. Raises `TypeError` where numpy has none."""
    if tensor.dtype in _NUMPY:
        return np.dtype(_NUMPY[tensor.dtype])
    try:
        import ml_dtypes
    except ImportError:
        raise TypeError(
            f"{tensor.name} is {tensor.dtype}, which numpy does not have: install ml_dtypes, or use "
            "tensors.float32(name) or tensors.bits(name)"
        ) from None
    found: np.dtype[Any] = np.dtype(getattr(ml_dtypes, _ML_DTYPES[tensor.dtype]))
    return found


def open_tensors(path: str | os.PathLike[str], expected: Sequence[Tensor] | None = None) -> Tensors:
    """Maps a soup. Raises `Refused` where it has not just the tensors that are expected, in their order, if any are."""
    mapped = _map(path)
    found, offsets = read_header(mapped, path)
    if expected is not None and found != list(expected):
        told = [f"{t.name} ({t.dtype} {list(t.shape)})" for t in found if t not in expected]
        lacking = [t.name for t in expected if t not in found]
        if told or lacking:
            raise Refused(
                f"{path} is of another model: missing {listed(lacking) or '-'}, unknown {listed(told) or '-'}"
            )
        raise Refused(f"{path} has the tensors of the run in another order")
    return Tensors(found, offsets, mapped)


def read_schema(path: str | os.PathLike[str]) -> list[Tensor]:
    """The tensors of a safetensors file in canonical order: wider elements first, then by name."""
    found, _ = read_header(_map(path), path)
    return sorted(found, key=lambda tensor: (-ITEM_SIZES[tensor.dtype], tensor.name.encode()))


def _map(path: str | os.PathLike[str]) -> mmap.mmap:
    with Path(path).open("rb") as file:
        if os.fstat(file.fileno()).st_size < 8:
            raise Refused(f"{path} is not a safetensors file: it is shorter than 8 bytes")
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def read_header(mapped: mmap.mmap, path: str | os.PathLike[str]) -> tuple[list[Tensor], dict[str, int]]:
    """The tensors of a file in the order of their data, and where in the file each begins.

    Raises `Refused` for what is no safetensors file: nothing outside of the file is ever in a tensor.
    """
    try:
        return _header(mapped)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise Refused(f"{path} is not a safetensors file that can be read: {error}") from None


def _header(mapped: mmap.mmap) -> tuple[list[Tensor], dict[str, int]]:
    length = int.from_bytes(mapped[:8], "little")
    begin = 8 + length
    if length > HEADER_LIMIT or begin > len(mapped):
        raise ValueError(f"its header claims {length} bytes")
    header = json.loads(mapped[8:begin], object_pairs_hook=_without_repeats)
    if not isinstance(header, dict):
        raise ValueError("its header is no JSON object")
    header.pop("__metadata__", None)
    ranges = []
    for name, entry in header.items():
        tensor = Tensor(name, str(entry["dtype"]), tuple(entry["shape"]))
        first, end = entry["data_offsets"]
        if tensor.dtype not in ITEM_SIZES:
            raise ValueError(f"{name} is {tensor.dtype}, which is not understood")
        if not all(type(n) is int and n >= 0 for n in (first, end, *tensor.shape)):
            raise ValueError(f"{name} has numbers that are no counts")
        if end - first != tensor.elements * ITEM_SIZES[tensor.dtype] or end > len(mapped) - begin:
            raise ValueError(f"the data of {name} is not where its shape and dtype say")
        ranges.append((first, end, tensor))
    # An empty tensor begins where the next one does.
    ranges.sort(key=lambda each: each[:2])
    return [tensor for *_, tensor in ranges], {tensor.name: begin + first for first, _, tensor in ranges}


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is twice in its header")
    return found


def write_tensors(path: str | os.PathLike[str], tensors: Sequence[tuple[Tensor, NDArray[Any]]]) -> None:
    """Writes a safetensors file, tensors in the order given, each aligned to its elements if wider ones come first."""
    header: dict[str, Any] = {}
    end = 0
    for tensor, values in tensors:
        if values.nbytes != tensor.elements * ITEM_SIZES[tensor.dtype]:
            raise ValueError(f"{tensor.name}: {values.nbytes} bytes do not make {tensor.dtype} {list(tensor.shape)}")
        header[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [end, end + values.nbytes],
        }
        end += values.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with Path(path).open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, values in tensors:
            file.write(np.ascontiguousarray(values).tobytes())
