"""Judge of open_clip's models, with classes by prompts: `python -m soup_judge.open_clip --model ViT-B-32 --prompts
FILE`.

Soups have the tensors of the model's state dict. A class is the mean of its prompts' features, each of length one,
brought to length one again; a logit is its product with the image's features, of length one too, times exp of the
learned scale.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from PIL import Image

from soup_judge.data import IMAGE_OPTIONS, decode_image, read_prompts
from soup_judge.images import CACHE, image_samples
from soup_judge.judge import version_of
from soup_judge.schema import Dataset, Schema, listed
from soup_judge.server import serve
from soup_judge.torch import Arithmetic, Samples, add_arguments, arithmetic_of
from soup_judge.zero_shot import ZeroShot


class OpenClipZeroShot(ZeroShot):
    """`open_clip.create_model` on Parquet with images, with prompts for every class."""

    version = "1"
    dataset_options = IMAGE_OPTIONS

    def __init__(
        self,
        model: str,
        prompts: Path,
        *,
        cache: int = CACHE,
        arithmetic: Arithmetic | None = None,
    ) -> None:
        """`model`: a name of open_clip's; `prompts`: JSON, a list of texts by class; `cache`: bytes of preprocessed
        images.

        Raises `SystemExit` for a model that open_clip does not know.
        """
        super().__init__(arithmetic=arithmetic)
        if model not in open_clip.list_models():
            raise SystemExit(f"soup_judge: --model {model}: open_clip knows {listed(open_clip.list_models())}")
        self.name = model
        self.cache = cache
        self.prompts = read_prompts(prompts)
        self.tokenize = open_clip.get_tokenizer(model)
        self.configuration = {
            **self.configuration,
            "open_clip": version_of("open_clip_torch"),
            "model": model,
            "prompts": [[name, texts] for name, texts in self.prompts.items()],
        }

    def build(self, schema: Schema) -> torch.nn.Module:
        """The model, without a download, and the tokens of the prompts."""
        self.tokens = self.tokenize([text for texts in self.prompts.values() for text in texts])
        model: torch.nn.Module = open_clip.create_model(self.name, pretrained=None)
        return model

    def unused(self, name: str) -> bool:
        """Masks that older files have."""
        return name.endswith("attn_mask")

    def classes(self, schema: Schema) -> int:
        """Those that have prompts."""
        return len(self.prompts)

    def read(self, dataset: Dataset, schema: Schema) -> Samples:
        """Reads encoded images and labels; pixels are made when they are asked for."""
        told = open_clip.transform.PreprocessCfg(**open_clip.get_model_preprocess_cfg(self.module))
        transform = open_clip.transform.image_transform_v2(told, is_train=False)

        def prepare(encoded: Sequence[bytes]) -> NDArray[Any]:
            images = [Image.fromarray(decode_image(each, 3)) for each in encoded]
            values: NDArray[Any] = np.stack([np.asarray(transform(image), np.float32) for image in images])
            return values

        return image_samples(dataset, list(self.prompts), prepare, self.cache, argument=None)

    def text_features(self, module: Any, begin: int, end: int) -> torch.Tensor:
        """Of the text tower."""
        features: torch.Tensor = module.encode_text(self.moved(self.tokens[begin:end]))
        return features

    def image_features(self, module: Any, inputs: Any) -> torch.Tensor:
        """Of the image tower."""
        features: torch.Tensor = module.encode_image(inputs)
        return features


def main(arguments: Sequence[str] | None = None) -> None:
    """Serves until told to end."""
    parser = argparse.ArgumentParser(prog="python -m soup_judge.open_clip", description=(__doc__ or "").splitlines()[0])
    add_arguments(parser)
    parser.add_argument("--model", required=True, metavar="NAME", help="of open_clip, such as ViT-B-32")
    parser.add_argument("--prompts", type=Path, required=True, metavar="FILE", help="JSON: texts by class")
    parser.add_argument("--cache-mib", type=int, default=CACHE >> 20, metavar="N", help="of pixels, each dataset")
    options = parser.parse_args(arguments)
    judge = OpenClipZeroShot(
        options.model,
        options.prompts,
        cache=options.cache_mib << 20,
        arithmetic=arithmetic_of(options),
    )
    serve(judge, options.socket)


if __name__ == "__main__":
    main(sys.argv[1:])
