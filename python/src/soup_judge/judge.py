"""What the author of a judge writes."""

from __future__ import annotations

import hashlib
import importlib.metadata
import inspect
import json
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from soup_judge.answers import Answer, Gradient, Loss, Survey
from soup_judge.errors import Refused
from soup_judge.schema import Dataset, Schema, listed
from soup_judge.tensors import Tensors


class Judge:
    """Scores soups. Override `open`, `load` and `judge`; `differentiate` where there are gradients, and `recompute`
    where there are running statistics.

    All are called in one thread, the same for as long as the judge serves. Raise `Refused` for what a run may not
    ask for; any other exception means that the judge is at fault: its samples go elsewhere, and it is started again.

    The same samples and tensors have to give the same answer, on every machine, but for `tolerance`.
    """

    version: str = ""
    """Version of how it scores; change it whenever an answer changes. 1 to 64 letters, digits and _.+- characters."""
    configuration: Mapping[str, Any] = {}
    """Everything else that decides an answer, as JSON can say it: options, texts, digests of files. It goes into the
    digest."""
    numerics: str | None = None
    """Class of the arithmetic, such as torch-2.9.0-cpu-f32; None: numpy's version and the processor's architecture."""
    digest: str | None = None
    """SHA-256 in hexadecimal, or empty for none; None: that of the sources of its class and of this package, and of the
    configuration."""
    tolerance: float = 0.0
    """By how much two workers may differ in a mean loss or figure, relative to it; 0: they give the same bits."""
    datasets: Sequence[str] = ()
    """Names of datasets that it brings along, for people."""
    dataset_options: Sequence[str] = ()
    """Options of datasets that it understands, such as "split". Others are refused before `open`."""
    logits: bool = False
    """Whether its `Outcomes` carry logits."""
    class_subset: bool = False
    """Whether it can take predictions among the classes that a dataset has, when the schema asks for it."""

    _report: Callable[[str], None] | None = None

    def open(self, schema: Schema, datasets: Sequence[Dataset]) -> Survey:
        """Looks at the datasets, and at whether the tensors are the model's.

        `datasets[0]` is the validation set. Whatever is put into `Dataset.data` is there again in `judge`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no open")

    def load(self, tensors: Tensors) -> Any:
        """Makes a model of a soup, which `judge` is given. Two may be there at a time.

        `tensors` are views of a file that stays for as long as the model: keep them in it, rather than copies, and
        nowhere else. They are read-only. What outlives the model has to be a copy: the file is written over then.
        """
        raise NotImplementedError(f"{type(self).__name__} has no load")

    def judge(self, model: Any, dataset: Dataset, positions: NDArray[np.int64]) -> Answer:
        """What happens to a block of samples: those at `positions` of the dataset, counted from 0, in this order."""
        raise NotImplementedError(f"{type(self).__name__} has no judge")

    def differentiate(self, model: Any, dataset: Dataset, positions: NDArray[np.int64], loss: Loss) -> Gradient:
        """The loss and its gradient over a block of samples. Overriding this makes the ability "gradients"."""
        raise NotImplementedError(f"{type(self).__name__} has no differentiate")

    def recompute(
        self, model: Any, dataset: Dataset, blocks: Sequence[NDArray[np.int64]]
    ) -> Mapping[str, NDArray[Any]]:
        """The running statistics of the normalisation layers of a soup, by the names of their tensors, in their shapes:
        what they are on these samples, block by block. Overriding this makes the ability "statistics".

        They are rounded to the tensors' dtypes, written into the soup, and the soup is loaded again with them. The same
        soup has to get the same bits every time, on every machine.
        """
        raise NotImplementedError(f"{type(self).__name__} has no recompute")

    def progress(self, what: str = "") -> None:
        """Tells the worker that the judge is still at it, from anywhere in the methods above, as often as it
        likes.

        A judge that says nothing for longer than its worker waits, a minute unless told otherwise, is taken for dead.
        """
        if self._report is not None:
            self._report(what)

    def abilities(self) -> list[str]:
        """What it can do besides telling what samples add up to."""
        gradients = type(self).differentiate is not Judge.differentiate
        statistics = type(self).recompute is not Judge.recompute
        return ["logits"] * self.logits + ["gradients"] * gradients + ["statistics"] * statistics

    def check_request(self, schema: Schema, datasets: Sequence[Dataset]) -> None:
        """Raises `Refused` for options of datasets that are not declared, and for a subset of classes where it
        cannot."""
        for dataset in datasets:
            unknown = [option for option in sorted(dataset.options) if option not in self.dataset_options]
            if unknown:
                known = listed(self.dataset_options) or "none"
                raise Refused(
                    f"dataset {dataset.name}: this judge does not know the option {listed(unknown)}; it knows {known}"
                )
        if schema.class_subset and not self.class_subset:
            raise Refused("this judge cannot take predictions among the classes that a dataset has (class_subset)")


def default_numerics() -> str:
    """Numpy's version and the processor's architecture."""
    return f"numpy-{np.__version__}-{platform.machine()}"


def default_digest(judge: Judge) -> str:
    """SHA-256 of the sources of the judge's classes, of this package, and of the configuration.

    Raises `ValueError` where a class has no source file.
    """
    package = Path(__file__).resolve().parent
    files = {f"soup_judge/{path.relative_to(package).as_posix()}": path for path in package.rglob("*.py")}
    for cls in type(judge).__mro__[:-1]:
        if cls.__module__.partition(".")[0] in sys.stdlib_module_names - {"__main__"}:
            continue
        try:
            source = inspect.getsourcefile(cls)
        except (OSError, TypeError):
            source = None
        if source is None or not Path(source).is_file():
            raise ValueError(f"{cls.__name__} has no source file to make a digest of: set its `digest`, '' for none")
        if package in Path(source).resolve().parents:
            continue
        # The name of the module is __main__ in a script, and its folder differs between machines.
        files[f"{cls.__qualname__}:{Path(source).name}"] = Path(source)
    whole = hashlib.sha256()
    for name in sorted(files):
        whole.update(f"{name}\0{hashlib.sha256(files[name].read_bytes()).hexdigest()}\n".encode())
    whole.update(json.dumps(judge.configuration, sort_keys=True, separators=(",", ":"), allow_nan=False).encode())
    return whole.hexdigest()


def version_of(distribution: str) -> str:
    """The installed version of a distribution, for `numerics`."""
    return importlib.metadata.version(distribution)


def installed(distribution: str) -> str | None:
    """The installed version of a distribution that may not be there."""
    try:
        return version_of(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
