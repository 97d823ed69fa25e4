"""Image classifiers: `AutoModelForImageClassification` on Parquet, with the pool's own image processor."""

from pathlib import Path

from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageClassification

from held_out import read_held_out
from kinds.base import Judge, Labelled, Options, add_logits
from tallies import Counts


class ImageJudge(Judge[Labelled]):
    def __init__(self, pool: Path, options: Options):
        super().__init__(pool, options)
        self.config = AutoConfig.from_pretrained(pool)
        self.model = AutoModelForImageClassification.from_config(self.config)
        self.processor = AutoImageProcessor.from_pretrained(pool, use_fast=False)

    def read(self, file: Path) -> Labelled:
        pixels, labels = read_held_out(file, self.processor, self.config.num_channels)
        return Labelled({"pixel_values": pixels}, labels)

    def tally(self, samples: Labelled) -> Counts:
        counts = Counts()
        for block in self.blocks(len(samples.labels)):
            logits = self.model(pixel_values=samples.inputs["pixel_values"][block]).logits
            add_logits(counts, samples.labels[block], logits)
        return counts
