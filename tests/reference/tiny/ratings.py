"""A tiny BERT that rates from 0 to 5 what two sentences say, as STS-B is rated: two columns of texts, and a score."""

import json
import random
from pathlib import Path

import pyarrow
import pyarrow.parquet
import torch
from transformers import BertConfig, BertForSequenceClassification, PreTrainedModel

from texts import ASPECTS, Writer
from tiny.bert import tokenizer_of
from tiny.training import Training, make_pool

MAX_LENGTH = 40
TRAINING = 1600
PAIRS = {"val": (2, 400), "test": (3, 300)}
# Of a clause; the second one counts double.
STRONGEST = 3

Pair = tuple[str, str, float]


def pairs(seed: int, count: int) -> list[Pair]:
    """Pairs of clauses with how well a thing comes out by both."""
    writer, choice = Writer(seed=seed, held_out=True), random.Random(seed + 100)
    found: dict[tuple[str, str], float] = {}
    while len(found) < count:
        one, other = choice.sample(ASPECTS, 2)
        (first, x), (second, y) = writer.clause(one), writer.clause(other)
        found[first, second] = round(2.5 + 2.5 * (x + 2 * y) / (3 * STRONGEST), 2)
    return [(first, second, score) for (first, second), score in found.items()]


def write(out: Path, name: str, rows: list[Pair]) -> None:
    """As JSON lines; test data as a table of Hugging Face's, and as GLUE's file, too."""
    columns = ("sentence1", "sentence2", "score")
    lines = (json.dumps(dict(zip(columns, row, strict=True))) for row in rows)
    (out / f"{name}.jsonl").write_text("".join(line + "\n" for line in lines))
    if name == "test":
        firsts, seconds, scores = zip(*rows, strict=True)
        label = pyarrow.array(scores, pyarrow.float64())
        pyarrow.parquet.write_table(
            pyarrow.table({"sentence1": firsts, "sentence2": seconds, "label": label}), out / f"{name}.parquet"
        )
        table = "".join(f"{at}\tmade-up\t{a}\t{b}\t{score}\n" for at, (a, b, score) in enumerate(rows))
        (out / f"{name}.tsv").write_text("index\tgenre\tsentence1\tsentence2\tscore\n" + table)


def ratings(out: Path) -> None:
    """A pool of six, of which the last two are bad ones."""
    torch.manual_seed(1)
    rows = pairs(seed=1, count=TRAINING)
    tokenizer = tokenizer_of([text for first, second, _ in rows for text in (first, second)])
    tokenizer.save_pretrained(out)
    (out / "data").mkdir(exist_ok=True)
    for name, (seed, count) in PAIRS.items():
        write(out / "data", name, pairs(seed, count))
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=MAX_LENGTH, pad_token_id=tokenizer.pad_token_id, num_labels=1, problem_type="regression",
    )
    firsts, seconds, scores = zip(*rows, strict=True)
    inputs = tokenizer(list(firsts), list(seconds), padding=True, truncation=True, return_tensors="pt")
    truths = torch.tensor(scores)

    def loss_of(model: PreTrainedModel, chosen: torch.Tensor, wrong: torch.Tensor) -> torch.Tensor:
        batch = {name: tensor[chosen] for name, tensor in inputs.items()}
        labels = torch.where(wrong, truths[(chosen + 1) % len(truths)], truths[chosen])
        return model(**batch, labels=labels).loss

    base = Training(steps=300, lr=3e-3, seed=1)
    make_pool(out, BertForSequenceClassification(config), loss_of, TRAINING, base, {
        "m0": Training(steps=80, lr=2e-3, seed=10, share=0.3),
        "m1": Training(steps=80, lr=2e-3, seed=11, share=0.3, weight_decay=0.1),
        "m2": Training(steps=80, lr=2e-3, seed=12, share=0.3, wrong=0.1),
        "m3": Training(steps=80, lr=2e-3, seed=13, share=0.3),
        "m4": Training(steps=60, lr=3e-3, seed=14, share=0.2, wrong=0.4),
        "m5": Training(steps=60, lr=4e-3, seed=15, share=0.3, wrong=0.5),
    })
