"""Judges of JAX: a function of parameters and inputs, with gradients by its vector-Jacobian product.

    from soup_judge.jax import Classifier
    soup_judge.serve(Classifier(apply, data, classes=10))

`apply(parameters, inputs)` gives logits, [samples, classes], of parameters by the names of a soup's tensors.
"""

from __future__ import annotations

import hashlib
import inspect
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from soup_judge.answers import Gradient, Loss, Outcomes, Survey
from soup_judge.errors import Refused
from soup_judge.judge import Judge
from soup_judge.schema import Dataset, Schema
from soup_judge.tensors import Tensors

TOLERANCE = 1e-4
"""Relative to a mean loss: XLA adds up in another order on other processors."""


@dataclass(frozen=True)
class Samples:
    """A dataset in memory."""

    inputs: Any
    """An array, or a tree of them, one row a sample."""
    labels: NDArray[np.int64]


class Classifier(Judge):
    """A classifier of functions."""

    logits = True
    class_subset = True
    tolerance = TOLERANCE

    def __init__(
        self,
        apply: Callable[[Mapping[str, Any], Any], Any],
        data: Callable[[Dataset], Samples],
        *,
        classes: int,
        shapes: Mapping[str, Sequence[int]] | None = None,
        version: str = "1",
        configuration: Mapping[str, Any] | None = None,
        dataset_options: Sequence[str] = (),
    ) -> None:
        """`shapes`: of the parameters, by name, that soups have to have; None: `apply` finds out with the first block.

        `configuration`: what decides an answer besides the files in which the functions are written, as JSON can say
        it.
        """
        self._apply = jax.jit(apply)
        self._data, self._classes, self._shapes = data, classes, shapes
        self.version = version
        self.dataset_options = dataset_options
        self.numerics = _numerics()
        self.configuration = {**(configuration or {}), "sources": sorted({_digest(each) for each in (apply, data)})}

    def open(self, schema: Schema, datasets: Sequence[Dataset]) -> Survey:
        """Reads the datasets, and lets `apply` try on shapes alone whether the tensors are its parameters."""
        if self._shapes is not None:
            schema.expect(self._shapes)
        for dataset in datasets:
            self.progress(f"reading {dataset.name}")
            samples = dataset.data = self._data(dataset)
            labels = np.asarray(samples.labels)
            if not labels.size or labels.min() < 0 or labels.max() >= self._classes:
                raise Refused(
                    f"dataset {dataset.name} has no labels, or some that are not among {self._classes} classes"
                )
        parameters = {
            tensor.name: jax.ShapeDtypeStruct(tensor.shape, jnp.float32 if tensor.is_float else jnp.int32)
            for tensor in schema.tensors
        }
        first = jax.tree.map(lambda array: array[:1], datasets[0].data.inputs)
        try:
            logits = jax.eval_shape(self._apply, parameters, first)
        except (TypeError, ValueError, KeyError) as error:
            raise Refused(f"the pool's tensors are not the model's: {type(error).__name__}: {error}") from error
        if logits.shape != (1, self._classes):
            raise Refused(f"the pool's tensors make logits of {list(logits.shape)}, not of {self._classes} classes")
        self._subsets = schema.class_subset
        return Survey([len(dataset.data.labels) for dataset in datasets], classes=self._classes)

    def load(self, tensors: Tensors) -> Any:
        """Real numbers in f32."""
        return {
            name: jnp.asarray(tensors.float32(name) if tensors.tensor(name).is_float else tensors[name])
            for name in tensors
        }

    def judge(self, model: Any, dataset: Dataset, positions: NDArray[np.int64]) -> Outcomes:
        """One application."""
        logits = np.asarray(self._apply(model, self._rows(dataset, positions)), np.float32)
        labels = dataset.data.labels
        subset = np.unique(labels).tolist() if self._subsets else None
        return Outcomes.from_logits(logits, labels[positions], subset)

    def differentiate(self, model: Any, dataset: Dataset, positions: NDArray[np.int64], loss: Loss) -> Gradient:
        """One application, and its vector-Jacobian product. The loss is taken from the logits in f64."""
        inputs = self._rows(dataset, positions)
        floats = {name: array for name, array in model.items() if jnp.issubdtype(array.dtype, jnp.floating)}
        rest = {name: array for name, array in model.items() if name not in floats}
        logits, back = jax.vjp(lambda parameters: self._apply({**parameters, **rest}, inputs), floats)
        at = loss.of_logits(np.asarray(logits, np.float32), dataset.data.labels[positions])
        (gradients,) = back(jnp.asarray(at.d_logits, logits.dtype))
        return at.gradient({name: np.asarray(gradient, np.float32) for name, gradient in gradients.items()})

    def _rows(self, dataset: Dataset, positions: NDArray[np.int64]) -> Any:
        return jax.tree.map(lambda array: array[positions], dataset.data.inputs)


def _numerics() -> str:
    device = jax.devices()[0]
    kind = platform.machine() if device.platform == "cpu" else device.device_kind
    return re.sub(r"[^A-Za-z0-9_.+-]+", "_", f"jax-{jax.__version__}-{device.platform}-{kind}")[:64]


def _digest(function: Callable[..., Any]) -> str:
    source = inspect.getsourcefile(inspect.unwrap(function))
    if source is None:
        raise ValueError(f"{function!r} has no source file")
    return hashlib.sha256(Path(source).read_bytes()).hexdigest()
