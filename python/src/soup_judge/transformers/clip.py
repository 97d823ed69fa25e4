"""CLIP: classes by prompts, or by a linear layer over the features of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.nn.functional import normalize

from soup_judge.classes import names_of
from soup_judge.data import read_prompts
from soup_judge.errors import Refused
from soup_judge.images import CACHE
from soup_judge.layout import Slot, same
from soup_judge.schema import Schema
from soup_judge.torch import Arithmetic, empty_parameters
from soup_judge.transformers.base import VERSION, Tokenizer, config_of, refusing
from soup_judge.transformers.images import ImageClassification
from soup_judge.zero_shot import ZeroShot

HEAD = "classification_head"


class ClipZeroShot(ZeroShot, ImageClassification):
    """`CLIPModel` on Parquet with images, with prompts for every class.

    A class is the mean of its prompts' features, each of length one, brought to length one again; a logit is its
    product with the image's features, of length one too, times exp of the learned scale.
    """

    version = "1"
    auto = "AutoModel"

    def __init__(
        self,
        tokenizer: Path,
        prompts: Path,
        *,
        max_length: int | None = None,
        cache: int = CACHE,
        arithmetic: Arithmetic | None = None,
    ) -> None:
        """`prompts`: JSON, a list of texts by the name of the class, in the order of the classes."""
        super().__init__(cache=cache, arithmetic=arithmetic)
        self.tokenizer = Tokenizer(tokenizer, max_length)
        self.prompts = read_prompts(prompts)
        self.configuration = {
            **self.configuration,
            **self.tokenizer.configuration,
            "prompts": [[name, texts] for name, texts in self.prompts.items()],
        }

    def build(self, schema: Schema) -> torch.nn.Module:
        """The model, and the tokens of all prompts."""
        model = super().build(schema)
        wanted = ("get_text_features", "get_image_features", "logit_scale")
        if not all(hasattr(model, name) for name in wanted) or hasattr(model, "logit_bias"):
            raise Refused(f"the model, {self.config.model_type}, is not one of the kind of CLIP")
        longest = self.config.text_config.max_position_embeddings
        if self.tokenizer.max_length > longest:
            raise Refused(
                f"texts may have {self.tokenizer.max_length} tokens, the model's {longest}: give --max-length"
            )
        texts = [text for prompts in self.prompts.values() for text in prompts]
        self.tokens, note = self.tokenizer.encode(texts, None, self.config.text_config.vocab_size, self.progress)
        self.tokens = {name: self.tokens[name] for name in ("input_ids", "attention_mask")}
        if note:
            raise Refused(f"prompts: {note}")
        return model

    def names(self, schema: Schema) -> Sequence[str]:
        """Those that have prompts."""
        return list(self.prompts)

    def text_features(self, module: Any, begin: int, end: int) -> torch.Tensor:
        """Of the text tower."""
        tokens = {name: each[begin:end] for name, each in self.tokens.items()}
        return _features(module.get_text_features(**self.moved(tokens)))

    def image_features(self, module: Any, inputs: Any) -> torch.Tensor:
        """Of the image tower."""
        return _features(module.get_image_features(**inputs))


class _Linear(torch.nn.Module):  # type: ignore[misc]
    def __init__(self, config: Any, classes: int, bias: bool, normalized: bool) -> None:
        super().__init__()
        vision = transformers.CLIPVisionModelWithProjection(config)
        self.vision_model = vision.vision_model
        self.visual_projection = vision.visual_projection
        self.classification_head = torch.nn.Linear(config.projection_dim, classes, bias=bias)
        self.normalized = normalized

    def forward(self, pixel_values: torch.Tensor) -> Any:
        features = self.visual_projection(self.vision_model(pixel_values=pixel_values).pooler_output)
        return self.classification_head(normalize(features, dim=-1) if self.normalized else features)


class ClipLinear(ImageClassification):
    """A linear layer, `classification_head`, over the features of `CLIPModel`'s images.

    Soups have the tensors of `vision_model` and `visual_projection`, `classification_head.weight` [classes, features],
    and maybe `classification_head.bias`. Those of the text's side may be there; they are not used.
    """

    version = "1"

    def __init__(
        self,
        *,
        normalized: bool = True,
        cache: int = CACHE,
        arithmetic: Arithmetic | None = None,
    ) -> None:
        """`normalized`: whether features are brought to length one first."""
        super().__init__(cache=cache, arithmetic=arithmetic)
        self.normalized = normalized
        self.configuration = {**self.configuration, "normalized": normalized}

    def build(self, schema: Schema) -> torch.nn.Module:
        """The image's side, and the head."""
        whole = config_of(schema)
        if whole.model_type not in ("clip", "clip_vision_model"):
            raise Refused(f"the model, {whole.model_type}, is not CLIP")
        self.config = whole
        vision = getattr(whole, "vision_config", whole)
        vision.projection_dim = whole.projection_dim
        head = schema.by_name.get(f"{HEAD}.weight")
        if head is None or len(head.shape) != 2:
            raise Refused(f"the pool has no matrix {HEAD}.weight: which classes are meant?")
        self._count = head.shape[0]
        self._vision = vision
        with refusing("the pool's config.json"), empty_parameters():
            return _Linear(vision, self._count, f"{HEAD}.bias" in schema.by_name, self.normalized)

    def layout(self, schema: Schema) -> Mapping[str, Slot] | None:
        """Of the image's side, and the head as it is."""
        if VERSION == 4:
            return None
        head = {name: slot for name, slot in self.module.state_dict().items() if name.startswith(f"{HEAD}.")}
        others = [each for each in schema.tensors if each.name not in head and not self.unused(each.name)]
        found = self.loaded_by(transformers.CLIPVisionModelWithProjection, self._vision, others)
        return found | {name: same(name, slot.shape) for name, slot in head.items() if name in schema.by_name}

    def unused(self, name: str) -> bool:
        """The text's side."""
        return name.startswith(("text_model.", "text_projection.")) or name == "logit_scale"

    def names(self, schema: Schema) -> Sequence[str]:
        """Of the config, where it has as many as the head."""
        names = names_of(schema.config)
        if "id2label" in schema.config and len(names) != self._count:
            raise Refused(f"{HEAD} has {self._count} classes, the pool's config.json {len(names)} names")
        return names if len(names) == self._count else [str(index) for index in range(self._count)]


def _features(answer: Any) -> torch.Tensor:
    """What newer versions wrap."""
    features: torch.Tensor = getattr(answer, "pooler_output", answer)
    return features
