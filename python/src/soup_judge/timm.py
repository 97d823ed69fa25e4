"""Judge of timm's image classifiers: `python -m soup_judge.timm`.

The pool's config.json is timm's: `architecture`, `num_classes`, and `pretrained_cfg` with how images are preprocessed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import timm
import timm.data
import torch
from numpy.typing import NDArray
from PIL import Image

from soup_judge.data import IMAGE_OPTIONS, decode_image
from soup_judge.errors import Refused
from soup_judge.images import CACHE, image_samples
from soup_judge.schema import Dataset, Schema
from soup_judge.server import serve
from soup_judge.torch import Arithmetic, Samples, TorchClassifier, add_arguments, arithmetic_of


class TimmClassifier(TorchClassifier):
    """`timm.create_model` on Parquet with images and labels, as Hugging Face datasets are exported."""

    version = "1"
    dataset_options = IMAGE_OPTIONS

    def __init__(self, *, cache: int = CACHE, arithmetic: Arithmetic | None = None) -> None:
        """`cache`: bytes of preprocessed images that are kept, of each dataset."""
        super().__init__(arithmetic=arithmetic)
        self.cache = cache
        self.configuration = {**self.configuration, "timm": timm.__version__}

    def build(self, schema: Schema) -> torch.nn.Module:
        """The architecture of the config, without a download."""
        config = schema.config
        architecture = config.get("architecture")
        if not isinstance(architecture, str) or not timm.is_model(architecture):
            raise Refused(f"the pool's config.json: timm has no architecture {architecture!r}")
        options = dict(config.get("model_args") or {})
        if config.get("global_pool"):
            options["global_pool"] = config["global_pool"]
        try:
            model: torch.nn.Module = timm.create_model(
                architecture, pretrained=False, num_classes=self.classes(schema), **options
            )
        except (TypeError, ValueError, RuntimeError) as error:
            raise Refused(f"the pool's config.json: {architecture}: {error}") from error
        return model

    def classes(self, schema: Schema) -> int:
        """Those of the config."""
        classes = schema.config.get("num_classes", (schema.config.get("pretrained_cfg") or {}).get("num_classes"))
        if not isinstance(classes, int) or classes < 1:
            raise Refused(f"the pool's config.json: num_classes is {classes!r}")
        return classes

    def read(self, dataset: Dataset, schema: Schema) -> Samples:
        """Reads encoded images and labels; pixels are made when they are asked for."""
        told = schema.config.get("pretrained_cfg")
        missing = [key for key in ("input_size", "mean", "std", "interpolation") if key not in (told or {})]
        if missing:
            raise Refused(
                f"the pool's config.json does not say how images are preprocessed: pretrained_cfg lacks {missing}"
            )
        resolved = timm.data.resolve_data_config({}, pretrained_cfg=told)
        transform = timm.data.create_transform(**resolved, is_training=False)
        channels = resolved["input_size"][0]

        def prepare(encoded: Sequence[bytes]) -> NDArray[Any]:
            pixels = [decode_image(each, channels) for each in encoded]
            images = [Image.fromarray(each[..., 0] if channels == 1 else each) for each in pixels]
            values: NDArray[Any] = np.stack([np.asarray(transform(image), np.float32) for image in images])
            return values

        return image_samples(dataset, self.names(schema), prepare, self.cache, argument=None)

    def names(self, schema: Schema) -> Sequence[str]:
        """Of the config, or numbers."""
        classes = self.classes(schema)
        names = schema.config.get("label_names") or [str(index) for index in range(classes)]
        if not isinstance(names, list) or len(names) != classes:
            raise Refused(f"the pool's config.json: label_names is not a list of {classes}")
        return [str(name) for name in names]


def main(arguments: Sequence[str] | None = None) -> None:
    """Serves until told to end."""
    parser = argparse.ArgumentParser(prog="python -m soup_judge.timm", description=(__doc__ or "").splitlines()[0])
    add_arguments(parser)
    parser.add_argument("--cache-mib", type=int, default=CACHE >> 20, metavar="N", help="of pixels, each dataset")
    options = parser.parse_args(arguments)
    judge = TimmClassifier(cache=options.cache_mib << 20, arithmetic=arithmetic_of(options))
    serve(judge, options.socket)


if __name__ == "__main__":
    main(sys.argv[1:])
