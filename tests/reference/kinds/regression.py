"""Models of pairs of texts that predict a number: `AutoModelForSequenceClassification` on JSON lines with `sentence1`,
`sentence2` and `score`."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from kinds.base import Judge, Options
from tallies import Values


@dataclass(frozen=True)
class Scored:
    """Pairs as the model takes them, and their true numbers."""

    inputs: dict[str, torch.Tensor]
    scores: list[float]


class RegressionJudge(Judge[Scored]):
    metric = "pearson+spearman"

    def __init__(self, pool: Path, options: Options):
        super().__init__(pool, options)
        self.model = AutoModelForSequenceClassification.from_config(AutoConfig.from_pretrained(pool))
        self.tokenizer = AutoTokenizer.from_pretrained(pool)

    def read(self, file: Path) -> Scored:
        rows = [json.loads(line) for line in file.read_text().splitlines() if line.strip()]
        firsts, seconds = ([row[name] for row in rows] for name in ("sentence1", "sentence2"))
        length = self.options.max_length or self.tokenizer.model_max_length
        inputs = self.tokenizer(
            firsts, seconds, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        )
        return Scored(dict(inputs), [float(row["score"]) for row in rows])

    def tally(self, samples: Scored) -> Values:
        values = Values(truths=samples.scores)
        for block in self.blocks(len(samples.scores)):
            inputs = {name: tensor[block] for name, tensor in samples.inputs.items()}
            values.predictions.extend(self.model(**inputs).logits.squeeze(-1).tolist())
        return values
