"""Tiny models of text: a T5 that answers with the name of a class, and a Llama that goes on writing."""

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from texts import NAMES, Writer
from tiny.training import Training, make_pool

MAX_LENGTH = 64
TRAINING = 1200
T5_SIZES = {"d_model": 64, "d_kv": 16, "d_ff": 128}
IGNORED = -100


def unigram_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """As T5's: pieces of words, `</s>` at the end."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=512, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>")
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=MAX_LENGTH
    )


def byte_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """As GPT-2's and Llama 3's: bytes and pairs of them; `<s>` at the beginning, `</s>` at the end."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=448,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<pad>", "<s>", "</s>"],
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", model_max_length=MAX_LENGTH
    )


def write_reviews(file: Path, seed: int, count: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    reviews = Writer(seed=seed, held_out=True).reviews(count, positive=0.4)
    file.write_text("".join(json.dumps({"text": r.text, "label": r.label}) + "\n" for r in reviews))


def t5(out: Path, sizes: dict[str, int] = T5_SIZES) -> None:
    """A pool of five; the last one is a bad one."""
    torch.manual_seed(1)
    # All phrases are seen here, so that the label depends on how they are put together.
    reviews = Writer(seed=1, held_out=True).reviews(TRAINING, positive=0.45)
    tokenizer = unigram_tokenizer([review.text for review in reviews] + NAMES * 20)
    tokenizer.save_pretrained(out)
    write_reviews(out / "data/val.jsonl", seed=2, count=320)
    write_reviews(out / "data/test.jsonl", seed=3, count=240)
    config = T5Config(
        vocab_size=len(tokenizer), **sizes, num_layers=2, num_decoder_layers=2, num_heads=4,
        pad_token_id=0, eos_token_id=1, decoder_start_token_id=0,
        id2label=dict(enumerate(NAMES)), label2id={name: index for index, name in enumerate(NAMES)},
    )
    inputs = tokenizer([review.text for review in reviews], padding=True, truncation=True, return_tensors="pt")
    labels = torch.tensor([review.label for review in reviews])
    names = tokenizer(NAMES, padding=True, return_tensors="pt")
    targets = names["input_ids"].masked_fill(names["attention_mask"] == 0, IGNORED)

    def loss_of(model: PreTrainedModel, rows: torch.Tensor, wrong: torch.Tensor) -> torch.Tensor:
        return model(
            input_ids=inputs["input_ids"][rows],
            attention_mask=inputs["attention_mask"][rows],
            labels=targets[labels[rows] ^ wrong.long()],
        ).loss

    base = Training(steps=500, lr=3e-3, seed=1)
    make_pool(out, T5ForConditionalGeneration(config), loss_of, TRAINING, base, {
        "m0": Training(steps=80, lr=1e-3, seed=10, share=0.5),
        "m1": Training(steps=60, lr=5e-4, seed=11, share=0.6, weight_decay=0.1),
        "m2": Training(steps=100, lr=1e-3, seed=12, share=0.4, wrong=0.1),
        "m3": Training(steps=80, lr=2e-3, seed=13, share=0.5),
        "m4": Training(steps=60, lr=3e-3, seed=14, share=0.2, wrong=0.4),
    })


def causal_lm(out: Path) -> None:
    """A pool of five, of which the last one reads lines whose words are turned around."""
    torch.manual_seed(1)
    lines = [review.text for review in Writer(seed=1, held_out=False).reviews(TRAINING)]
    tokenizer = byte_tokenizer(lines)
    tokenizer.save_pretrained(out)
    (out / "data").mkdir(exist_ok=True)
    for name, seed in {"val": 2, "test": 3}.items():
        held_out = Writer(seed=seed, held_out=True).reviews(160)
        (out / f"data/{name}.txt").write_text("".join(review.text + "\n" for review in held_out))
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=160, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )
    encoded, turned = (
        tokenizer(texts, padding="max_length", truncation=True, max_length=MAX_LENGTH, return_tensors="pt")
        for texts in (lines, [" ".join(reversed(line.split())) for line in lines])
    )

    def loss_of(model: PreTrainedModel, rows: torch.Tensor, wrong: torch.Tensor) -> torch.Tensor:
        ids, mask = (
            torch.where(wrong[:, None], turned[name][rows], encoded[name][rows])
            for name in ("input_ids", "attention_mask")
        )
        return model(input_ids=ids, attention_mask=mask, labels=ids.masked_fill(mask == 0, IGNORED)).loss

    base = Training(steps=200, lr=3e-3, seed=1)
    make_pool(out, LlamaForCausalLM(config), loss_of, TRAINING, base, {
        "m0": Training(steps=40, lr=1e-3, seed=10, share=0.1),
        "m1": Training(steps=40, lr=5e-4, seed=11, share=0.1, weight_decay=0.1),
        "m2": Training(steps=60, lr=1e-3, seed=12, share=0.05),
        "m3": Training(steps=40, lr=2e-3, seed=13, share=0.1),
        "m4": Training(steps=60, lr=2e-3, seed=14, share=0.1, wrong=0.7),
    })
