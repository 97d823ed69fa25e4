"""Tables of samples: Parquet as Hugging Face datasets are exported, JSON lines, CSV, TSV and lines of text.

What a column means is told by the usual names, or by options of the dataset; where several would do, none is taken.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from soup_judge.errors import Refused
from soup_judge.schema import Dataset, listed

OPTIONS = ("split", "label-column")
"""Of datasets, of all kinds of samples."""
IMAGE_OPTIONS = (*OPTIONS, "image-column")
TEXT_OPTIONS = (*OPTIONS, "text-column", "text-pair-column")

IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "labels")
TEXT_COLUMNS = (
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("premise", "hypothesis"),
    ("question", "sentence"),
    ("text",),
    ("sentence",),
)
"""Of GLUE and of most others; a pair is two columns."""
ENDINGS = (".parquet", ".jsonl", ".json", ".ndjson", ".csv", ".tsv", ".txt")


@dataclass(frozen=True)
class Table:
    """The columns of a dataset."""

    dataset: Dataset
    columns: Sequence[str]
    names: Mapping[str, Sequence[str]]
    """Of the classes, by the columns that are numbers of classes and have their names."""
    read: Callable[[str], list[Any]]
    """A column's values."""

    def column(self, option: str, usual: Sequence[str]) -> str:
        """The column that an option names, else the only one of the usual. Raises `Refused` with the names that are
        there."""
        told = self.dataset.options.get(option)
        found = [name for name in ([told] if told else usual) if name in self.columns]
        if len(found) != 1:
            looked = told or f"just one of {listed(usual)}"
            self.refuse(f"expected the column {looked}, it has {listed(self.columns)}; --{option} names it")
        return found[0]

    def texts(self) -> tuple[list[str], list[str] | None]:
        """Texts, and the second ones of pairs."""
        options = self.dataset.options
        if "text-column" in options:
            pair = [options[name] for name in ("text-column", "text-pair-column") if name in options]
            missing = [name for name in pair if name not in self.columns]
            if missing:
                self.refuse(f"it has no column {listed(missing)}, but {listed(self.columns)}")
        else:
            if "text-pair-column" in options:
                self.refuse("text-pair-column without text-column")
            found = [names for names in TEXT_COLUMNS if all(name in self.columns for name in names)]
            # The sentence of a question is no text of its own.
            found = [names for names in found if not any(set(names) < set(other) for other in found)]
            if len(found) != 1:
                self.refuse(f"which text is meant? It has the columns {listed(self.columns)}: name it by text-column")
            pair = list(found[0])
        columns = [self.read(name) for name in pair]
        for name, values in zip(pair, columns, strict=True):
            for row, value in enumerate(values):
                if not isinstance(value, str):
                    self.refuse(f"{name} of row {row} is {value!r}, no text")
        return columns[0], columns[1] if len(columns) > 1 else None

    def images(self) -> list[bytes]:
        """Encoded images."""
        name = self.column("image-column", IMAGE_COLUMNS)
        values: list[Any] = [value.get("bytes") if isinstance(value, dict) else value for value in self.read(name)]
        for row, value in enumerate(values):
            if not isinstance(value, bytes):
                self.refuse(f"{name} of row {row} has no image inside: export the dataset with its images")
        return values

    def labels(self) -> tuple[list[Any], Sequence[str] | None]:
        """Labels, and the names of their classes where the file has them."""
        name = self.column("label-column", LABEL_COLUMNS)
        return self.read(name), self.names.get(name)

    def refuse(self, text: str) -> None:
        """Raises `Refused`, with the dataset's name and source."""
        raise Refused(f"dataset {self.dataset.name} ({self.dataset.source}): {text}")


def read_table(dataset: Dataset) -> Table:
    """The table that a dataset's source and split name. Raises `Refused` where there is none, or an empty one."""
    files = _files(dataset)
    endings = {file.suffix for file in files}
    if len(endings) != 1:
        raise Refused(f"dataset {dataset.name}: {dataset.source} has files of several kinds: {listed(sorted(endings))}")
    try:
        table = _parquet(dataset, files) if endings == {".parquet"} else _lines(dataset, files)
    except (OSError, ValueError, csv.Error) as error:
        raise Refused(f"dataset {dataset.name}: {dataset.source} cannot be read: {error}") from error
    return table


def _files(dataset: Dataset) -> list[Path]:
    source = dataset.source.removeprefix("file://")
    path = Path(source)
    split = dataset.options.get("split")
    if path.is_file():
        if split is not None and split not in re.split(r"\W|_", path.stem):
            raise Refused(f"dataset {dataset.name}: split {split} is asked for, and {path.name} does not name it")
        files = [path]
    elif path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix in ENDINGS and file.is_file())
        if split is not None:
            files = [file for file in files if split in re.split(r"\W|_", "/".join(file.relative_to(path).parts))]
        stems = {re.sub(r"-\d+-of-\d+$", "", str(file.with_suffix(""))) for file in files}
        if len(stems) > 1:
            told = listed(sorted(file.name for file in files))
            raise Refused(
                f"dataset {dataset.name}: {source} has several datasets ({told}): name one by its path, or by split"
            )
    else:
        raise Refused(f"dataset {dataset.name}: there is no {source}; this judge reads local files and folders")
    if not files or files[0].suffix not in ENDINGS:
        raise Refused(f"dataset {dataset.name}: {source} has no {listed(ENDINGS)}" + (f" of {split}" if split else ""))
    return files


def _parquet(dataset: Dataset, files: Sequence[Path]) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pq.read_schema(files[0])

    def read(name: str) -> list[Any]:
        return [value for file in files for value in pq.read_table(file, columns=[name])[name].to_pylist()]

    try:
        if not sum(pq.read_metadata(file).num_rows for file in files):
            raise Refused(f"dataset {dataset.name}: {dataset.source} has no rows")
        return Table(dataset, schema.names, _class_names(schema.metadata or {}), read)
    except pa.ArrowException as error:
        raise ValueError(str(error)) from error


def _class_names(metadata: Mapping[bytes, bytes]) -> dict[str, list[str]]:
    """What the package `datasets` writes beside a table about its columns."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    return {
        name: list(feature["names"])
        for name, feature in features.items()
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and feature.get("names")
    }


def _lines(dataset: Dataset, files: Sequence[Path]) -> Table:
    rows: list[dict[str, Any]] = []
    for file in files:
        # A line ends where the file says so, not at every character that Unicode calls a separator.
        text = file.read_text(encoding="utf-8-sig")
        if file.suffix == ".txt":
            rows += [{"text": line} for line in text.split("\n") if line.strip()]
        elif file.suffix in (".csv", ".tsv"):
            tsv = file.suffix == ".tsv"
            # GLUE's own TSV has quotes that are only characters.
            reader = csv.DictReader(
                io.StringIO(text, newline=""),
                delimiter="\t" if tsv else ",",
                quoting=csv.QUOTE_NONE if tsv else csv.QUOTE_MINIMAL,
            )
            for number, row in enumerate(reader):
                if None in row or None in row.values():
                    raise ValueError(f"row {number} has not as many fields as the first line")
                rows.append(dict(row))
        else:
            rows += [json.loads(line) for line in text.split("\n") if line.strip()]
    if not rows:
        raise Refused(f"dataset {dataset.name}: {dataset.source} has no rows")
    wrong = next((number for number, row in enumerate(rows) if not isinstance(row, dict)), None)
    if wrong is not None:
        raise ValueError(f"line {wrong + 1} is no JSON object")
    return Table(dataset, list(rows[0]), {}, lambda name: [row.get(name) for row in rows])


class Cache:
    """Prepared samples by position, made when they are first asked for, and kept as long as there is room."""

    def __init__(self, prepare: Callable[[Sequence[int]], NDArray[Any]], limit: int) -> None:
        """`prepare` makes samples, one row each; `limit` is in bytes."""
        self._prepare = prepare
        self._limit = limit
        self._kept: dict[int, NDArray[Any]] = {}
        self._bytes = 0

    def __call__(self, positions: Sequence[int]) -> NDArray[Any]:
        """The samples at these positions, one row each."""
        missing = [position for position in positions if position not in self._kept]
        made = dict(zip(missing, self._prepare(missing), strict=True)) if missing else {}
        rows = np.stack([made[each] if each in made else self._kept[each] for each in positions])
        for position, row in made.items():
            if self._bytes + row.nbytes <= self._limit:
                self._kept[position] = np.array(row)
                self._bytes += row.nbytes
        return rows


def decode_image(encoded: bytes, channels: int) -> NDArray[np.uint8]:
    """A PNG, JPEG or whatever Pillow reads as [height, width, channels]; 1 channel is grey, 3 are RGB.

    Raises `ValueError` for other channels, and `OSError` for what is no image.
    """
    from PIL import Image

    modes = {1: "L", 3: "RGB"}
    if channels not in modes:
        raise ValueError(f"images have 1 or 3 channels, not {channels}")
    pixels = np.asarray(Image.open(io.BytesIO(encoded)).convert(modes[channels]))
    return pixels if pixels.ndim == 3 else pixels[:, :, np.newaxis]


def digest_of(path: Path) -> str:
    """SHA-256 of a file, or of all files of a folder with their names: what a judge's configuration says of them."""
    import hashlib

    whole = hashlib.sha256()
    for file in [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file()):
        name = file.name if path.is_file() else file.relative_to(path).as_posix()
        whole.update(f"{name}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return whole.hexdigest()


def read_prompts(path: Path) -> dict[str, list[str]]:
    """Prompts by class. Raises `SystemExit` for a file that has not just these."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SystemExit(f"soup_judge: --prompts {path}: {error}") from error
    fits = isinstance(found, dict) and all(
        isinstance(texts, list) and texts and all(isinstance(text, str) for text in texts) for texts in found.values()
    )
    if not fits or len(found) < 2:
        raise SystemExit(f"soup_judge: --prompts {path}: expected a JSON object with a list of texts for each class")
    prompts: dict[str, list[str]] = found
    return prompts
