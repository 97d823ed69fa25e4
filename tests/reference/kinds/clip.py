"""Zero-shot classifiers: `CLIPModel` on Parquet, with prompts for every class.

`prompts.json` of the pool has a list of prompts by class, in the order of the labels; or `classes` and `templates`, in which `{}`
stands for the name of a class. A class is the mean of its prompts'
embeddings, each of length one, brought to length one again; a logit is its product with the image's embedding, of length
one too, times exp of the learned scale.
"""

import json
from pathlib import Path

import torch
from torch.nn.functional import normalize
from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer, CLIPModel

from held_out import read_held_out
from kinds.base import Judge, Labelled, Options, add_logits
from tallies import Counts


class ClipJudge(Judge[Labelled]):
    model: CLIPModel

    def __init__(self, pool: Path, options: Options):
        super().__init__(pool, options)
        self.config = AutoConfig.from_pretrained(pool)
        self.model = CLIPModel(self.config)
        self.processor = AutoImageProcessor.from_pretrained(pool, use_fast=False)
        tokenizer = AutoTokenizer.from_pretrained(pool)
        prompts = prompts_of(pool / "prompts.json")
        length = self.config.text_config.max_position_embeddings
        self.prompts = [
            tokenizer(texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
            for texts in prompts.values()
        ]

    def read(self, file: Path) -> Labelled:
        pixels, labels = read_held_out(file, self.processor, self.config.vision_config.num_channels)
        return Labelled({"pixel_values": pixels}, labels)

    def classes(self) -> torch.Tensor:
        """One row a class, of length one."""
        means = [normalize(self.model.get_text_features(**prompts), dim=-1).mean(dim=0) for prompts in self.prompts]
        return normalize(torch.stack(means), dim=-1)

    def tally(self, samples: Labelled) -> Counts:
        counts = Counts()
        classes = self.classes() * self.model.logit_scale.exp()
        for block in self.blocks(len(samples.labels)):
            logits = self.images(samples.inputs["pixel_values"][block]) @ classes.T
            add_logits(counts, samples.labels[block], logits)
        return counts

    def images(self, pixels: torch.Tensor) -> torch.Tensor:
        """One row an image, of length one."""
        return normalize(self.model.get_image_features(pixel_values=pixels), dim=-1)


def prompts_of(file: Path) -> dict[str, list[str]]:
    """Prompts by class, of either form of the file."""
    said = json.loads(file.read_text())
    if set(said) != {"classes", "templates"}:
        return said
    return {name: [template.replace("{}", name) for template in said["templates"]] for name in said["classes"]}
