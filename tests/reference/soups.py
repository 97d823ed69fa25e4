"""Pools and soups: what every script that averages does, once, in one order.

A mean is summed in f64 in pool order, divided once, rounded once. Tensors of integers are the first ingredient's of the
pool, whichever ingredients a soup has.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import load_file

StateDict = dict[str, torch.Tensor]
Pool = dict[str, StateDict]


def find_data(path: Path, pool: Path) -> Path:
    """The path as given if there is such a file, else the one inside the pool."""
    for candidate in (path, pool / path):
        if candidate.is_file():
            return candidate
    raise SystemExit(f"no file {path}, neither here nor in {pool}")


def load_pool(pool: Path) -> Pool:
    """All ingredients in pool order (by name), as state dicts by name."""
    folder = pool / "ingredients"
    files = sorted((folder if folder.is_dir() else pool).glob("*.safetensors"))
    if not files:
        raise SystemExit(f"no *.safetensors in {pool}")
    return {file.stem: load_file(file) for file in files}


def mean_of(state_dicts: list[StateDict], others: StateDict | None = None) -> StateDict:
    """The mean in the given order; what is not averaged is taken from `others`, or else from the first."""
    mean = {}
    for name, first in state_dicts[0].items():
        if not first.is_floating_point():
            mean[name] = (others or state_dicts[0])[name]
            continue
        total = first.to(torch.float64)
        for other in state_dicts[1:]:
            total += other[name].to(torch.float64)
        mean[name] = (total / len(state_dicts)).to(first.dtype)
    return mean


def soup_of(pool: Pool, members: Iterable[str]) -> StateDict:
    """The mean of some of the pool's ingredients."""
    chosen = set(members)
    first = next(iter(pool.values()))
    return mean_of([state_dict for name, state_dict in pool.items() if name in chosen], first)


def sha256_of(state_dict: StateDict) -> str:
    """The digest of the tensor data as soupctl reports it: wider elements first, then by name, end to end."""
    digest = hashlib.sha256()
    for name in sorted(state_dict, key=lambda name: (-state_dict[name].element_size(), name)):
        digest.update(state_dict[name].contiguous().numpy().tobytes())
    return digest.hexdigest()
