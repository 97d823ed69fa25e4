"""A judge in one file, with numpy alone: a perceptron of two layers on samples in an .npz file, with gradients by
hand.

Its soups have `hidden.weight` [hidden, features], `hidden.bias`, `output.weight` [classes, hidden] and `output.bias`.
A dataset is an .npz file with `x` [samples, features] and `y` [samples]. Serve it by

    python mlp.py --socket /tmp/judge.sock
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

import soup_judge

Array = NDArray[np.float32]


class Perceptron(soup_judge.Judge):
    """relu between two linear layers."""

    version = "1"
    logits = True
    class_subset = True

    def open(self, schema: soup_judge.Schema, datasets: Sequence[soup_judge.Dataset]) -> soup_judge.Survey:
        """Reads the samples, and compares their width and classes with the tensors."""
        shape = {tensor.name: tensor.shape for tensor in schema.tensors}
        if len(shape.get("hidden.weight", ())) != 2 or len(shape.get("output.weight", ())) != 2:
            raise soup_judge.Refused("expected the matrices hidden.weight and output.weight")
        hidden, features = shape["hidden.weight"]
        classes = shape["output.weight"][0]
        schema.expect(
            {
                "hidden.weight": (hidden, features),
                "hidden.bias": (hidden,),
                "output.weight": (classes, hidden),
                "output.bias": (classes,),
            }
        )
        for dataset in datasets:
            self.progress(f"reading {dataset.name}")
            try:
                with np.load(dataset.source) as file:
                    x, y = file["x"].astype(np.float32), file["y"].astype(np.int64)
            except (OSError, KeyError, ValueError) as error:
                raise soup_judge.Refused(f"dataset {dataset.name}: {dataset.source}: {error}") from error
            if x.shape != (len(y), features) or not ((y >= 0) & (y < classes)).all():
                raise soup_judge.Refused(
                    f"dataset {dataset.name}: x is {list(x.shape)} and y {list(y.shape)}: expected {features} features "
                    f"and {classes} classes"
                )
            dataset.data = x, y, np.unique(y) if schema.class_subset else None
        return soup_judge.Survey(samples=[len(dataset.data[1]) for dataset in datasets], classes=classes)

    def load(self, tensors: soup_judge.Tensors) -> dict[str, Array]:
        """Views of the file; BF16 and F16 are widened."""
        return {name: tensors.float32(name) for name in tensors}

    def judge(
        self, model: dict[str, Array], dataset: soup_judge.Dataset, positions: NDArray[np.int64]
    ) -> soup_judge.Outcomes:
        """One forward pass."""
        x, y, classes = dataset.data
        return soup_judge.Outcomes.from_logits(forward(model, x[positions])[1], y[positions], classes)

    def differentiate(
        self, model: dict[str, Array], dataset: soup_judge.Dataset, positions: NDArray[np.int64], loss: soup_judge.Loss
    ) -> soup_judge.Gradient:
        """The loss gives the derivatives by the logits; the rest is the chain rule."""
        x, y, _ = dataset.data
        hidden, logits = forward(model, x[positions])
        at = loss.of_logits(logits, y[positions])
        below = (at.d_logits @ model["output.weight"]) * (hidden > 0)
        return at.gradient(
            {
                "output.weight": at.d_logits.T @ hidden,
                "output.bias": at.d_logits.sum(axis=0),
                "hidden.weight": below.T @ x[positions],
                "hidden.bias": below.sum(axis=0),
            }
        )


def forward(model: dict[str, Array], x: Array) -> tuple[Array, Array]:
    """The hidden layer's values and the logits."""
    hidden: Any = np.maximum(x @ model["hidden.weight"].T + model["hidden.bias"], 0)
    return hidden, hidden @ model["output.weight"].T + model["output.bias"]


if __name__ == "__main__":
    soup_judge.serve(Perceptron())
