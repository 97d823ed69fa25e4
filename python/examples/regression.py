"""A judge that is no classifier: linear regression, told as sums of figures and compared by two metrics.

Its soups have `weight` [features] and `bias` []. A dataset is an .npz file with `x` [samples, features] and `y`
[samples]. Serve it by

    python regression.py --socket /tmp/judge.sock
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

import soup_judge


class Regression(soup_judge.Judge):
    """Squared and absolute errors of x · weight + bias."""

    version = "1"

    def open(self, schema: soup_judge.Schema, datasets: Sequence[soup_judge.Dataset]) -> soup_judge.Survey:
        """Reads the samples."""
        if "weight" not in schema.by_name:
            raise soup_judge.Refused("expected the tensor weight")
        schema.expect({"weight": schema.by_name["weight"].shape, "bias": ()})
        for dataset in datasets:
            try:
                with np.load(dataset.source) as file:
                    dataset.data = file["x"].astype(np.float64), file["y"].astype(np.float64)
            except (OSError, KeyError, ValueError) as error:
                raise soup_judge.Refused(f"dataset {dataset.name}: {dataset.source}: {error}") from error
            x, y = dataset.data
            if x.shape != (len(y), *schema.by_name["weight"].shape):
                raise soup_judge.Refused(f"dataset {dataset.name}: x is {list(x.shape)}, y has {len(y)}")
        return soup_judge.Survey(
            samples=[len(dataset.data[1]) for dataset in datasets],
            figures=["squared-error", "absolute-error", "squared-label"],
            metrics=[
                soup_judge.Metric("mean-squared-error", "squared-error", lower_is_better=True),
                soup_judge.Metric("mean-absolute-error", "absolute-error", lower_is_better=True),
                soup_judge.Metric("unexplained", "squared-error", by="squared-label", lower_is_better=True),
            ],
        )

    def load(self, tensors: soup_judge.Tensors) -> tuple[NDArray[np.float64], float]:
        """Both in f64: there are few."""
        return tensors.float32("weight").astype(np.float64), float(tensors.float32("bias"))

    def judge(
        self, model: tuple[NDArray[np.float64], float], dataset: soup_judge.Dataset, positions: NDArray[np.int64]
    ) -> soup_judge.Sums:
        """Adds up the errors."""
        weight, bias = model
        x, y = dataset.data
        errors = x[positions] @ weight + bias - y[positions]
        return soup_judge.Sums(
            {
                "squared-error": (errors**2).sum(),
                "absolute-error": np.abs(errors).sum(),
                "squared-label": (y[positions] ** 2).sum(),
            }
        )


if __name__ == "__main__":
    soup_judge.serve(Regression())
