"""Judge of open_clip's models, with classes by prompts: `python -m soup_judge.open_clip --model ViT-B-32 --prompts
FILE`.

Soups have the tensors of the model's state dict. A class is the mean of its prompts' features, each of length one,
brought to length one again; a logit is its product with the image's features, of length one too, times exp of the
learned scale.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn.functional import normalize

from soup_judge.answers import Outcomes
from soup_judge.data import IMAGE_OPTIONS, decode_image, read_prompts
from soup_judge.images import CACHE, image_samples
from soup_judge.judge import version_of
from soup_judge.schema import Dataset, Schema, listed
from soup_judge.server import serve
from soup_judge.tensors import Tensors
from soup_judge.torch import Arithmetic, Samples, TorchClassifier, add_arguments, arithmetic_of

PROMPTS_AT_A_TIME = 256


@dataclass(frozen=True)
class _Zero:
    weights: Mapping[str, torch.Tensor]
    classes: torch.Tensor


class OpenClipZeroShot(TorchClassifier):
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
        batch_norm: str | None = None,
    ) -> None:
        """`model`: a name of open_clip's; `prompts`: JSON, a list of texts by class; `cache`: bytes of preprocessed
        images.

        Raises `SystemExit` for a model that open_clip does not know.
        """
        super().__init__(arithmetic=arithmetic, batch_norm=batch_norm)
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

    def load(self, tensors: Tensors) -> Any:
        """The tensors, and what they make of the prompts."""
        weights = super().load(tensors)
        with self.binding.bound(weights), torch.inference_mode():
            return _Zero(weights, self._classes())

    def judge(self, model: Any, dataset: Dataset, positions: NDArray[np.int64]) -> Outcomes:
        """Images only: the classes are there."""
        self._known = model.classes
        try:
            return super().judge(model.weights, dataset, positions)
        finally:
            self._known = None

    def differentiate(self, model: Any, *arguments: Any) -> Any:
        """All prompts go through the model again, with gradients."""
        return super().differentiate(model.weights, *arguments)

    def forward(self, module: Any, inputs: Any) -> torch.Tensor:
        """Logits of images."""
        classes = self._known if self._known is not None else self._classes()
        images = normalize(module.encode_image(inputs), dim=-1)
        logits: torch.Tensor = images @ classes.T * module.logit_scale.exp()
        return logits

    _known: torch.Tensor | None = None

    def _classes(self) -> torch.Tensor:
        module: Any = self.module
        parts = []
        for begin in range(0, len(self.tokens), PROMPTS_AT_A_TIME):
            self.progress(f"features of {begin} prompts")
            tokens = self.moved(self.tokens[begin : begin + PROMPTS_AT_A_TIME])
            parts.append(normalize(module.encode_text(tokens), dim=-1))
        features = torch.cat(parts).split([len(texts) for texts in self.prompts.values()])
        return normalize(torch.stack([each.mean(dim=0) for each in features]), dim=-1)


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
        batch_norm=options.batch_norm,
    )
    serve(judge, options.socket)


if __name__ == "__main__":
    main(sys.argv[1:])
