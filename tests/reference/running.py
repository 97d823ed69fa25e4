"""Running statistics of BatchNorm in a soup: averaged like parameters, those of the first member, or recomputed.

Recomputing is what `torch.optim.swa_utils.update_bn` does: every block of the calibration set goes through the model in
training mode, and the statistics of the blocks are averaged; here in f64, and rounded once.
"""

from collections.abc import Callable

import torch

from kinds.base import Judge, Labelled, load
from soups import Pool, StateDict

CHOICES = ["average", "first", "recompute"]
Finish = Callable[[StateDict, frozenset[str]], StateDict]


def of_first(pool: Pool) -> Finish:
    """Soups have the statistics of their first member in pool order."""

    def finish(soup: StateDict, members: frozenset[str]) -> StateDict:
        first = next(state_dict for name, state_dict in pool.items() if name in members)
        return {name: first[name] if is_statistic(name) else tensor for name, tensor in soup.items()}

    return finish


def recomputed(judge: Judge[Labelled], samples: Labelled) -> Finish:
    """Soups have the statistics that they have on the samples."""

    @torch.inference_mode()
    def finish(soup: StateDict, _: frozenset[str]) -> StateDict:
        load(judge.model, soup)
        layers = {name: each for name, each in judge.model.named_modules() if isinstance(each, torch.nn.BatchNorm2d)}
        usual = {name: layer.momentum for name, layer in layers.items()}
        for layer in layers.values():
            # All of the block's, nothing of before.
            layer.momentum = 1.0
            layer.train()
        blocks: list[StateDict] = []
        for block in judge.blocks(len(samples.labels)):
            judge.model(**{name: values[block] for name, values in samples.inputs.items()})
            blocks.append({
                f"{name}.{leaf}": getattr(layer, leaf).double().clone()
                for name, layer in layers.items()
                for leaf in ("running_mean", "running_var")
            })
        for name, layer in layers.items():
            layer.momentum = usual[name]
        found = dict(soup)
        for name in blocks[0]:
            total = sum(block[name] for block in blocks)
            found[name] = (total / len(blocks)).to(soup[name].dtype)
        return found

    return finish


def is_statistic(name: str) -> bool:
    """Whether PyTorch calls a running statistic so."""
    return name.endswith(("running_mean", "running_var"))
