"""A judge of PyTorch in twenty lines: a module, a function that reads data, and gradients that come by themselves.

Its soups have the tensors of `model().state_dict()`. A dataset is an .npz file with `x` [samples, 1, 28, 28] and `y`.
Serve it by

    python torch_classifier.py --socket /tmp/judge.sock
"""

from __future__ import annotations

import numpy as np
import torch

import soup_judge
from soup_judge.torch import Classifier, Samples


def model(schema: soup_judge.Schema) -> torch.nn.Module:
    """A small convolutional network of ten classes."""
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 8, 3, stride=2), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(8 * 13 * 13, 10)
    )


def data(dataset: soup_judge.Dataset) -> Samples:
    """Both arrays of the file."""
    try:
        with np.load(dataset.source) as file:
            return Samples(torch.from_numpy(file["x"]).float(), file["y"].astype(np.int64))
    except (OSError, KeyError, ValueError) as error:
        raise soup_judge.Refused(f"dataset {dataset.name}: {dataset.source}: {error}") from error


if __name__ == "__main__":
    soup_judge.serve(Classifier(model, data, classes=10))
