"""Language models: `AutoModelForCausalLM` on lines of text, by the perplexity of what follows each line's first token."""

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BatchEncoding

from kinds.base import Judge, Options, encode
from tallies import Metric, Sums

IGNORED = -100


class CausalLmJudge(Judge[BatchEncoding]):
    metric = Metric.PERPLEXITY

    def __init__(self, pool: Path, options: Options):
        super().__init__(pool, options)
        self.model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(pool))
        self.tokenizer = AutoTokenizer.from_pretrained(pool)

    def read(self, file: Path) -> BatchEncoding:
        lines = [line for line in file.read_text().splitlines() if line.strip()]
        return encode(self.tokenizer, lines, self.options)

    def tally(self, samples: BatchEncoding) -> Sums:
        nll, tokens = 0.0, 0
        ids, mask = samples["input_ids"], samples["attention_mask"]
        for block in self.blocks(len(ids)):
            logits = self.model(input_ids=ids[block], attention_mask=mask[block]).logits[:, :-1].double()
            targets = ids[block, 1:].masked_fill(mask[block, 1:] == 0, IGNORED)
            nll += float(
                torch.nn.functional.cross_entropy(
                    logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum"
                )
            )
            tokens += int((targets != IGNORED).sum())
        return Sums(len(ids), {"nll": nll, "tokens": float(tokens)})
