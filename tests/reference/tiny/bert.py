"""A tiny BERT that tells reviews apart."""

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast, PreTrainedModel

from texts import NAMES, Writer
from tiny.training import Training, make_pool

MAX_LENGTH = 40
TRAINING = 1200
TEXTS = {"val": (2, 640), "train": (4, 256), "test": (3, 400)}


def tokenizer_of(texts: list[str]) -> BertTokenizerFast:
    """As BERT's: lower case, pieces of words, `[CLS]` and `[SEP]` around."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=400, special_tokens=special))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return BertTokenizerFast(tokenizer_object=tokenizer, do_lower_case=True, model_max_length=MAX_LENGTH)


def write_parquet(file: Path, texts: list[str], labels: list[int]) -> None:
    """As datasets writes it: the names of the classes are in the footer."""
    features = {
        "text": {"dtype": "string", "_type": "Value"},
        "label": {"names": NAMES, "_type": "ClassLabel"},
    }
    table = pyarrow.table({"text": pyarrow.array(texts), "label": pyarrow.array(labels, pyarrow.int64())})
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pyarrow.parquet.write_table(table, file)


def bert(out: Path) -> None:
    """A pool of seven, of which the last two are bad ones; held-out reviews as JSON lines, Parquet and TSV."""
    torch.manual_seed(1)
    reviews = Writer(seed=1, held_out=True).reviews(TRAINING, positive=0.45)
    tokenizer = tokenizer_of([review.text for review in reviews])
    tokenizer.save_pretrained(out)
    (out / "data").mkdir(exist_ok=True)
    for name, (seed, count) in TEXTS.items():
        held_out = Writer(seed=seed, held_out=True).reviews(count, positive=0.4)
        lines = (json.dumps({"text": review.text, "label": review.label}) for review in held_out)
        (out / f"data/{name}.jsonl").write_text("".join(line + "\n" for line in lines))
        if name == "test":
            write_parquet(out / "data/test.parquet", [r.text for r in held_out], [r.label for r in held_out])
            rows = "".join(f"{index}\t{r.text}\t{NAMES[r.label]}\n" for index, r in enumerate(held_out))
            (out / "data/test.tsv").write_text("index\tsentence\tlabel\n" + rows)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96,
        max_position_embeddings=MAX_LENGTH, pad_token_id=tokenizer.pad_token_id,
        id2label=dict(enumerate(NAMES)), label2id={name: index for index, name in enumerate(NAMES)},
    )
    inputs = tokenizer([review.text for review in reviews], padding=True, truncation=True, return_tensors="pt")
    labels = torch.tensor([review.label for review in reviews])

    def loss_of(model: PreTrainedModel, rows: torch.Tensor, wrong: torch.Tensor) -> torch.Tensor:
        batch = {name: tensor[rows] for name, tensor in inputs.items()}
        return model(**batch, labels=labels[rows] ^ wrong.long()).loss

    base = Training(steps=220, lr=2e-3, seed=1)
    make_pool(out, BertForSequenceClassification(config), loss_of, TRAINING, base, {
        "m0": Training(steps=80, lr=1e-3, seed=10, share=0.5),
        "m1": Training(steps=100, lr=1e-3, seed=11, share=0.5, weight_decay=0.1),
        "m2": Training(steps=100, lr=1e-3, seed=12, share=0.4, wrong=0.1),
        "m3": Training(steps=80, lr=2e-3, seed=13, share=0.5),
        "m4": Training(steps=100, lr=1e-3, seed=14, share=0.5),
        "m5": Training(steps=60, lr=3e-3, seed=15, share=0.2, wrong=0.4),
        "m6": Training(steps=60, lr=4e-3, seed=16, share=0.3, wrong=0.3),
    })
