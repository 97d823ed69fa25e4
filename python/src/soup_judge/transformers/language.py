"""Language models by perplexity."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from soup_judge.answers import Metric, Range, Sums, Survey
from soup_judge.data import TEXT_OPTIONS, read_table
from soup_judge.schema import Dataset, Schema
from soup_judge.transformers.base import TokenizedJudge, vocabulary

CHUNK = 1 << 26
"""Logits that are widened to f64 at a time."""


class CausalPerplexity(TokenizedJudge):
    """`AutoModelForCausalLM` on texts, one a sample, by the perplexity of all tokens but each text's first.

    The figures are `nll`, in nats, and `tokens`; perplexity is exp(nll / tokens).
    """

    version = "1"
    auto = "AutoModelForCausalLM"
    dataset_options = tuple(name for name in TEXT_OPTIONS if name not in ("label-column", "text-pair-column"))

    def open(self, schema: Schema, datasets: Sequence[Dataset]) -> Survey:
        """Builds the model, and makes tokens of all texts."""
        notes = self.prepare(schema)
        for dataset in datasets:
            self.progress(f"reading {dataset.name}")
            table = read_table(dataset)
            texts, pairs = table.texts()
            if pairs is not None:
                table.refuse("a text is expected, not a pair: name its column by text-column")
            inputs, note = self.tokenizer.encode(texts, None, vocabulary(self.config), self.progress)
            if not int(inputs["attention_mask"][:, 1:].sum()):
                table.refuse("no text has a second token")
            dataset.data = {name: inputs[name] for name in ("input_ids", "attention_mask")}
            notes += [f"{dataset.name}: {note}"] if note else []
        return Survey(
            samples=[len(dataset.data["input_ids"]) for dataset in datasets],
            figures=["nll", "tokens"],
            metrics=[
                Metric("perplexity", "nll", by="tokens", exp=True, lower_is_better=True),
                Metric("nll-per-token", "nll", by="tokens", lower_is_better=True),
            ],
            ranges={"nll": Range(least=0.0), "tokens": Range(least=0.0, fixed=True)},
            notes=notes,
        )

    def judge(self, model: Any, dataset: Dataset, positions: NDArray[np.int64]) -> Sums:
        """One forward pass."""
        rows = torch.from_numpy(positions)
        # A text without a second token has nothing to predict, and attention over nothing is not a number.
        rows = rows[dataset.data["attention_mask"][rows].sum(dim=-1) > 1]
        if not len(rows):
            return Sums({"nll": 0.0, "tokens": 0})
        inputs = self.moved({name: tensor[rows] for name, tensor in dataset.data.items()})
        with self.binding.bound(model), torch.inference_mode():
            logits = self.module(**inputs).logits[:, :-1]
            predicted = inputs["attention_mask"][:, 1:] != 0
            targets = inputs["input_ids"][:, 1:][predicted]
            nll = 0.0
            flat = logits[predicted]
            step = max(1, CHUNK // flat.shape[-1])
            for begin in range(0, len(flat), step):
                part = flat[begin : begin + step].double()
                nll += float(torch.nn.functional.cross_entropy(part, targets[begin : begin + step], reduction="sum"))
        # A model that says never of a token is as bad as one that says nothing.
        return Sums({"nll": nll if math.isfinite(nll) else math.nan, "tokens": len(targets)})
