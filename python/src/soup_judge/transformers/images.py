"""Image classifiers on Parquet with images inside, preprocessed by the pool's own image processor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from soup_judge.classes import names_of
from soup_judge.data import IMAGE_OPTIONS, decode_image
from soup_judge.errors import Refused
from soup_judge.images import CACHE, image_samples
from soup_judge.judge import installed
from soup_judge.schema import Dataset, Schema
from soup_judge.torch import Arithmetic, Samples, TorchClassifier
from soup_judge.transformers.base import TransformersJudge, image_processor_of


class ImageClassification(TransformersJudge, TorchClassifier):
    """`AutoModelForImageClassification` on Parquet with images and labels, as Hugging Face datasets are exported."""

    version = "1"
    auto = "AutoModelForImageClassification"
    dataset_options = IMAGE_OPTIONS

    def __init__(self, *, cache: int = CACHE, arithmetic: Arithmetic | None = None) -> None:
        """`cache`: bytes of preprocessed images that are kept, of each dataset."""
        super().__init__(arithmetic=arithmetic)
        self.cache = cache
        self.configuration = {**self.configuration, **{name: installed(name) for name in ("pillow", "torchvision")}}

    def classes(self, schema: Schema) -> int:
        """Those of the config."""
        return len(self.names(schema))

    def names(self, schema: Schema) -> Sequence[str]:
        """Of the classes."""
        return single_label_names(schema)

    def read(self, dataset: Dataset, schema: Schema) -> Samples:
        """Reads encoded images and labels; pixels are made when they are asked for."""
        channels = getattr(getattr(self.config, "vision_config", self.config), "num_channels", 3)
        prepare, notes = processing(schema, channels)
        samples = image_samples(dataset, self.names(schema), prepare, self.cache)
        return replace(samples, notes=[*samples.notes, *notes])


def processing(schema: Schema, channels: int) -> tuple[Callable[[Sequence[bytes]], NDArray[Any]], list[str]]:
    """From encoded images to pixel values, [images, channels, height, width], by the pool's image processor; and what
    people should know of it."""
    processor, notes = image_processor_of(schema)

    def prepare(encoded: Sequence[bytes]) -> NDArray[Any]:
        images = [decode_image(each, channels) for each in encoded]
        # The format is said, not guessed: an image whose height is 1 or 3 would be taken for channels-first.
        batch = processor(images, input_data_format="channels_last", return_tensors="pt")
        values: NDArray[Any] = np.asarray(batch["pixel_values"], np.float32)
        return values

    return prepare, notes


def single_label_names(schema: Schema) -> Sequence[str]:
    """The names of a classifier's classes. Raises `Refused` where a sample has no label, or several."""
    names = names_of(schema.config)
    problem = schema.config.get("problem_type")
    if len(names) < 2 or problem not in (None, "single_label_classification"):
        raise Refused(f"the model is no classifier of one label a sample: {len(names)} classes, problem_type {problem}")
    return names
