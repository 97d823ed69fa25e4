"""Soups in files, the examples as modules, and judges that do what a test says."""

import importlib.util
import sys
import threading
from pathlib import Path

import numpy as np

import soup_judge
from soup_judge.tensors import write_tensors

EXAMPLES = Path(__file__).parent.parent / "examples"
DTYPES = {"float64": "F64", "float32": "F32", "float16": "F16", "int64": "I64", "bfloat16": "BF16", "uint8": "U8"}


def example(name):
    """An example's module."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def canonical(arrays):
    """Arrays with their tensors, in canonical order."""
    pairs = [(soup_judge.Tensor(name, DTYPES[str(a.dtype)], a.shape), a) for name, a in arrays.items()]
    return sorted(pairs, key=lambda pair: (-pair[1].itemsize, pair[0].name))


class Pool:
    """Soups of one schema, and where they lie."""

    def __init__(self, folder, arrays):
        self.folder = folder
        self.tensors = [tensor for tensor, _ in canonical(arrays)]

    def write(self, name, arrays):
        path = self.folder / f"{name}.safetensors"
        write_tensors(path, canonical(arrays))
        return path


def gradient_file(tmp_path, elements):
    path = tmp_path / "gradient"
    path.write_bytes(bytes(4 * elements))
    return path


class Scripted(soup_judge.Judge):
    """Does what a test says; without a word, two classes and label 0 for everybody."""

    version = "1"

    def __init__(self, **scripts):
        self.scripts = scripts
        self.threads = set()

    def _play(self, name, default, *arguments):
        self.threads.add(threading.current_thread().name)
        script = self.scripts.get(name)
        return script(self, *arguments) if callable(script) else default if script is None else script

    def open(self, schema, datasets):
        return self._play("open", soup_judge.Survey([10] * len(datasets), classes=2), schema, datasets)

    def load(self, tensors):
        return self._play("load", "model", tensors)

    def judge(self, model, dataset, positions):
        zeros = np.zeros(len(positions), int)
        return self._play("judge", soup_judge.Outcomes(zeros, zeros, zeros + 0.5), model, dataset, positions)


class Differentiable(Scripted):
    logits = True

    def differentiate(self, model, dataset, positions, loss):
        return self._play("differentiate", soup_judge.Gradient(1.0, 2.0, 0, {}), model, dataset, positions, loss)
