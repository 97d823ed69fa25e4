"""Text classifiers: `AutoModelForSequenceClassification` on JSON lines with `text` and `label`."""

from pathlib import Path

from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from kinds.base import Judge, Labelled, Options, add_logits, encode, read_lines
from tallies import Counts


class TextJudge(Judge[Labelled]):
    def __init__(self, pool: Path, options: Options):
        super().__init__(pool, options)
        self.model = AutoModelForSequenceClassification.from_config(AutoConfig.from_pretrained(pool))
        self.tokenizer = AutoTokenizer.from_pretrained(pool)

    def read(self, file: Path) -> Labelled:
        texts, labels = read_lines(file)
        return Labelled(dict(encode(self.tokenizer, texts, self.options)), labels)

    def tally(self, samples: Labelled) -> Counts:
        counts = Counts()
        for block in self.blocks(len(samples.labels)):
            inputs = {name: tensor[block] for name, tensor in samples.inputs.items()}
            add_logits(counts, samples.labels[block], self.model(**inputs).logits)
        return counts
