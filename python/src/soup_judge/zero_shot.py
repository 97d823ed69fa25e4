"""Classifiers whose classes are texts: what a soup makes of these is computed once, when it is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import normalize

from soup_judge.answers import Outcomes
from soup_judge.schema import Dataset
from soup_judge.tensors import Tensors
from soup_judge.torch import TorchClassifier

PROMPTS_AT_A_TIME = 256


@dataclass(frozen=True)
class _Soup:
    weights: Mapping[str, torch.Tensor]
    classes: torch.Tensor


class ZeroShot(TorchClassifier):
    """A class is the mean of its prompts' features, each of length one, brought to length one again; a logit is its
    product with the image's features, of length one too, times exp of the learned scale.

    Needs `text_features` and `image_features`.
    """

    prompts: Mapping[str, Sequence[str]]
    """Texts by the name of the class, in the order of the classes."""

    _known: torch.Tensor | None = None

    def text_features(self, module: Any, begin: int, end: int) -> torch.Tensor:
        """Features of the prompts from `begin` to `end`, [prompts, features]."""
        raise NotImplementedError

    def image_features(self, module: Any, inputs: Any) -> torch.Tensor:
        """Features of images, [images, features]."""
        raise NotImplementedError

    def load(self, tensors: Tensors) -> Any:
        """The tensors, and what they make of the prompts."""
        weights = super().load(tensors)
        with self.binding.bound(weights), torch.inference_mode():
            return _Soup(weights, self._classes())

    def judge(self, model: Any, dataset: Dataset, positions: NDArray[np.int64]) -> Outcomes:
        """Images only: the classes are there."""
        self._known = model.classes
        try:
            return super().judge(model.weights, dataset, positions)
        finally:
            self._known = None

    def differentiate(self, model: Any, *arguments: Any) -> Any:
        """All prompts go through the model again, with gradients."""
        return super().differentiate(model.weights, *arguments)

    def forward(self, module: Any, inputs: Any) -> torch.Tensor:
        """Logits of images."""
        classes = self._known if self._known is not None else self._classes()
        images = normalize(self.image_features(module, inputs), dim=-1)
        logits: torch.Tensor = images @ classes.T * module.logit_scale.exp()
        return logits

    def _classes(self) -> torch.Tensor:
        """One row a class, of length one."""
        counts = [len(texts) for texts in self.prompts.values()]
        parts = []
        for begin in range(0, sum(counts), PROMPTS_AT_A_TIME):
            self.progress(f"features of {begin} prompts")
            end = min(begin + PROMPTS_AT_A_TIME, sum(counts))
            parts.append(normalize(self.text_features(self.module, begin, end), dim=-1))
        features = torch.cat(parts).split(counts)
        return normalize(torch.stack([each.mean(dim=0) for each in features]), dim=-1)
