"""Text-to-text classifiers: `AutoModelForSeq2SeqLM` on JSON lines, with a text for every label.

The texts are the names of the classes in the pool's configuration. What a label scores is the log-probability of its
text, end of sequence included; the label that scores highest is the prediction, and scores are logits to the loss.
"""

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoTokenizer

from kinds.base import Judge, Labelled, Options, add_logits, encode, read_lines
from tallies import Counts

IGNORED = -100


class Seq2SeqJudge(Judge[Labelled]):
    def __init__(self, pool: Path, options: Options):
        super().__init__(pool, options)
        config = AutoConfig.from_pretrained(pool)
        self.model = AutoModelForSeq2SeqLM.from_config(config)
        self.tokenizer = AutoTokenizer.from_pretrained(pool)
        names = [config.id2label[index] for index in range(len(config.id2label))]
        encoded = self.tokenizer(text_target=names, padding=True, return_tensors="pt")
        self.targets = encoded["input_ids"].masked_fill(encoded["attention_mask"] == 0, IGNORED)

    def read(self, file: Path) -> Labelled:
        texts, labels = read_lines(file)
        encoded = encode(self.tokenizer, texts, self.options)
        return Labelled({name: encoded[name] for name in ("input_ids", "attention_mask")}, labels)

    def score_of(self, inputs: dict[str, torch.Tensor], target: torch.Tensor) -> torch.Tensor:
        """The log-probability of one text for every sample."""
        targets = target.repeat(len(inputs["input_ids"]), 1)
        logits = self.model(**inputs, labels=targets).logits.double()
        losses = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="none"
        )
        return -losses.view(targets.shape).sum(dim=-1)

    def tally(self, samples: Labelled) -> Counts:
        counts = Counts()
        for block in self.blocks(len(samples.labels)):
            inputs = {name: tensor[block] for name, tensor in samples.inputs.items()}
            scores = torch.stack([self.score_of(inputs, target) for target in self.targets], dim=-1)
            add_logits(counts, samples.labels[block], scores)
        return counts
