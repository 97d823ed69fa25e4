"""Text-to-text classifiers: `AutoModelForSeq2SeqLM` on JSON lines, with a text for every label.

The texts are the names of the classes in the pool's configuration. What a label scores is the log-probability of its
text, end of sequence included; the label that scores highest is the prediction, and scores are logits to the loss.

Or the model is taken at its word (`WrittenJudge`): the prediction is the label that it writes, token by token the most probable
one, and one more class where it writes anything else.
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

    def scores(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Those of all labels."""
        return torch.stack([self.score_of(inputs, target) for target in self.targets], dim=-1)

    def add(self, counts: Counts, labels: torch.Tensor, inputs: dict[str, torch.Tensor]) -> None:
        add_logits(counts, labels, self.scores(inputs))

    def tally(self, samples: Labelled) -> Counts:
        counts = Counts()
        for block in self.blocks(len(samples.labels)):
            self.add(counts, samples.labels[block], {name: tensor[block] for name, tensor in samples.inputs.items()})
        return counts


class WrittenJudge(Seq2SeqJudge):
    def add(self, counts: Counts, labels: torch.Tensor, inputs: dict[str, torch.Tensor]) -> None:
        targets = [[int(token) for token in target if token != IGNORED] for target in self.targets]
        # What is longer than the longest label is none.
        longest = max(len(target) for target in targets) + 1
        written = self.model.generate(**inputs, do_sample=False, num_beams=1, max_new_tokens=longest)
        losses = torch.nn.functional.cross_entropy(self.scores(inputs), labels, reduction="none")
        end = self.model.config.eos_token_id
        for label, tokens, loss in zip(labels.tolist(), written[:, 1:].tolist(), losses.tolist(), strict=True):
            # Behind its end an answer is padded, where others are longer.
            answer = tokens[: tokens.index(end) + 1] if end in tokens else tokens
            counts.add(label, targets.index(answer) if answer in targets else len(targets), loss)
