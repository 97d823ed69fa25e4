"""What all kinds of models have in common: a model that takes soups, samples in blocks, and what they add up to."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import torch
from transformers import BatchEncoding, PreTrainedTokenizerBase

from soups import StateDict
from tallies import Counts, Tally

Samples = TypeVar("Samples")


@dataclass(frozen=True)
class Options:
    """What a judge has to know besides the pool."""

    batch_size: int
    """Samples in a block. Blocks are cut at fixed positions, in the order of the file."""
    max_length: int | None = None
    """Every text is cut or padded to so many tokens (those that the tokenizer tells of, unless said): a sample's figures
    do not depend on its neighbours."""


@dataclass(frozen=True)
class Labelled:
    """Samples of a classifier, as the model takes them."""

    inputs: dict[str, torch.Tensor]
    labels: torch.Tensor


class Judge(ABC, Generic[Samples]):
    """A model without parameters of its own, and how it scores those that it is given."""

    metric = "accuracy"
    """By which soups are compared unless another one is asked for."""
    model: torch.nn.Module

    def __init__(self, pool: Path, options: Options):
        self.pool = pool
        self.options = options

    @abstractmethod
    def read(self, file: Path) -> Samples:
        """All samples of a file, once."""

    @abstractmethod
    def tally(self, samples: Samples) -> Tally:
        """What the samples add up to under the parameters that were loaded last."""

    @torch.inference_mode()
    def score(self, state_dict: StateDict, samples: Samples) -> Tally:
        """What the samples add up to under these parameters."""
        load(self.model, state_dict)
        return self.tally(samples)

    def blocks(self, count: int) -> Iterator[slice]:
        """The positions of every block; the last one may be short."""
        for begin in range(0, count, self.options.batch_size):
            yield slice(begin, min(begin + self.options.batch_size, count))


def load(model: torch.nn.Module, state_dict: StateDict) -> None:
    """Gives the model exactly these parameters: none left over, and none missing but for other names of the same ones."""
    found = model.load_state_dict(state_dict, strict=False)
    own = model.state_dict()
    given = {own[name].data_ptr() for name in state_dict if name in own}
    missing = [name for name in found.missing_keys if own[name].data_ptr() not in given]
    if missing or found.unexpected_keys:
        raise SystemExit(f"not this model's tensors: missing {missing}, unexpected {found.unexpected_keys}")
    model.eval()


def encode(tokenizer: PreTrainedTokenizerBase, texts: list[str], options: Options) -> BatchEncoding:
    """Texts as the model takes them, all of one length."""
    length = options.max_length or tokenizer.model_max_length
    return tokenizer(texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt")


def add_logits(counts: Counts, labels: torch.Tensor, logits: torch.Tensor) -> None:
    """Counts a block: the first class with the largest logit, and the cross-entropy in f64."""
    losses = torch.nn.functional.cross_entropy(logits.double(), labels, reduction="none")
    for label, prediction, loss in zip(labels.tolist(), logits.argmax(dim=-1).tolist(), losses.tolist(), strict=True):
        counts.add(label, prediction, loss)


def read_lines(file: Path) -> tuple[list[str], torch.Tensor]:
    """Texts and labels of a file of JSON lines."""
    rows = [json.loads(line) for line in file.read_text().splitlines() if line.strip()]
    return [row["text"] for row in rows], torch.tensor([row["label"] for row in rows], dtype=torch.int64)
