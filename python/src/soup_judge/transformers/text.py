"""Classifiers of texts, and of pairs of texts."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from soup_judge.classes import align, are_made_up, names_of
from soup_judge.data import TEXT_OPTIONS, read_table
from soup_judge.errors import Refused
from soup_judge.schema import Dataset, Schema
from soup_judge.torch import Arithmetic, Samples, TorchClassifier
from soup_judge.transformers.base import TokenizedJudge, accepted, refusing, vocabulary
from soup_judge.transformers.images import single_label_names

IGNORED = -100
"""What transformers takes for no token in labels."""


class TextClassifier(TokenizedJudge, TorchClassifier):
    """What classifiers of texts have in common. The tokenizer is that of a folder."""

    version = "1"
    dataset_options = TEXT_OPTIONS

    def names(self, schema: Schema) -> Sequence[str]:
        """Of the classes."""
        return single_label_names(schema)

    def classes(self, schema: Schema) -> int:
        """Those that have names."""
        return len(self.names(schema))

    def read(self, dataset: Dataset, schema: Schema) -> Samples:
        """Reads texts and labels, and makes tokens of all texts."""
        table = read_table(dataset)
        values, theirs = table.labels()
        labels = align(dataset.name, values, theirs, self.names(schema))
        texts, pairs = table.texts()
        inputs, note = self.tokenizer.encode(texts, pairs, vocabulary(self.config), self.progress)
        return Samples(accepted(self.module, inputs), labels.labels, labels.classes.tolist(), [labels.note, note])


class SequenceClassification(TextClassifier):
    """`AutoModelForSequenceClassification` on tables with texts, or pairs of texts, and labels."""

    auto = "AutoModelForSequenceClassification"

    def build(self, schema: Schema) -> torch.nn.Module:
        """The model; one that looks for the end of a text by its padding has to know the padding token."""
        model = super().build(schema)
        if getattr(self.config, "pad_token_id", None) is None:
            # Models that have a token of their own for the class do not look.
            self.config.pad_token_id = self.tokenizer.tokenizer.pad_token_id
        return model


class T5LabelText(TextClassifier):
    """`AutoModelForSeq2SeqLM` with a text for every label.

    What a label scores is the log-likelihood of its text, end of sequence included; scores are logits to the loss.
    """

    auto = "AutoModelForSeq2SeqLM"

    def __init__(
        self,
        tokenizer: Path,
        labels: Sequence[str] | None = None,
        *,
        max_length: int | None = None,
        arithmetic: Arithmetic | None = None,
    ) -> None:
        """`labels`: texts by class; None: the names of the classes in the pool's config.json."""
        super().__init__(tokenizer, max_length=max_length, arithmetic=arithmetic)
        self.labels = labels
        self.configuration = {**self.configuration, "labels": list(labels) if labels is not None else None}
        if labels is not None and (len(set(labels)) != len(labels) or len(labels) < 2 or not all(labels)):
            raise SystemExit("soup_judge: --labels: expected at least two different texts")

    def names(self, schema: Schema) -> Sequence[str]:
        """The texts of the labels."""
        if self.labels is not None:
            return self.labels
        names = names_of(schema.config)
        if are_made_up(names):
            raise Refused("the pool's config.json has no names of classes: start the judge with --labels")
        return names

    def build(self, schema: Schema) -> torch.nn.Module:
        """The model, and the tokens of the labels."""
        with refusing("the texts of the labels"):
            encoded = self.tokenizer.tokenizer(text_target=list(self.names(schema)), padding=True, return_tensors="pt")
        self.targets = encoded["input_ids"].masked_fill(encoded["attention_mask"] == 0, IGNORED)
        model = super().build(schema)
        if not self.config.is_encoder_decoder:
            raise Refused(f"the model, {self.config.model_type}, has no decoder to tell labels with")
        if _scales_in_spite_of(schema, self.config, type(model)):
            raise Refused(
                f"transformers {transformers.__version__} overrides the config's tie_word_embeddings for "
                f"{self.config.model_type}, and scales what the decoder says: judge with another version of it"
            )
        if int(self.targets.max()) >= vocabulary(self.config):
            raise Refused("the tokenizer is another model's: its tokens are beyond the vocabulary")
        return model

    def forward(self, module: torch.nn.Module, inputs: Any) -> torch.Tensor:
        """The texts go through the encoder once, and for each label through the decoder."""
        inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        encoded = module.get_encoder()(**inputs)
        scores = []
        for target in self.targets.to(self.device):
            labels = target.expand(len(inputs["input_ids"]), -1).contiguous()
            logits = module(encoder_outputs=encoded, attention_mask=inputs["attention_mask"], labels=labels).logits
            told = torch.log_softmax(logits.double(), dim=-1)
            each = told.gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
            scores.append(each.masked_fill(labels == IGNORED, 0.0).sum(dim=-1))
        return torch.stack(scores, dim=-1)


def _scales_in_spite_of(schema: Schema, config: Any, kind: type[Any]) -> bool:
    """Whether a model multiplies the decoder's states as those with tied embeddings do although the pool's config says
    that they are not: some versions 5 take all of a family for tied, and only later ones remember what was said."""
    if schema.config.get("tie_word_embeddings") is not False or not config.tie_word_embeddings:
        return False
    scales = getattr(config, "scale_decoder_outputs", None)
    return bool(scales) if scales is not None else "config.tie_word_embeddings" in inspect.getsource(kind.forward)
