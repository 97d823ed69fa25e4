"""A tiny CLIP: pictures of shapes, and captions that name them."""

import json
import random
import re
from pathlib import Path

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTextConfig, CLIPTokenizerFast, CLIPVisionConfig

from tiny.shapes import NAMES, SIZE, training_set, write_held_out
from tiny.training import Loss, Training, make_pool

TRAINING = 960
NOISE = 20.0
LENGTH = 12
BEGIN, END = "<|startoftext|>", "<|endoftext|>"
PROMPTS = ["a photo of a {}.", "a drawing of one {}.", "there is a {} in the picture."]
CAPTIONS = [*PROMPTS, "a noisy picture of a {}.", "one {} before a plain background.", "a small {}."]
# By class.
TEXTS = [[text.format(name) for text in CAPTIONS] for name in NAMES]


def byte_pairs(texts: list[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A vocabulary, and the pairs that words are put together of, from the front: the same ones every time, which a trainer's are not."""
    words = sorted({word for text in texts for word in re.findall(r"[a-z]+|[^\sa-z]", text.lower())})
    pairs: dict[tuple[str, str], None] = {}
    for word in words:
        left, *others = [*word[:-1], f"{word[-1]}</w>"]
        for right in others:
            pairs[left, right] = None
            left += right
    ends = sorted({f"{word[-1]}</w>" for word in words})
    tokens = [BEGIN, END, *sorted(pre_tokenizers.ByteLevel.alphabet()), *ends, *(left + right for left, right in pairs)]
    return {token: place for place, token in enumerate(dict.fromkeys(tokens))}, list(pairs)


def tokenizer_of(texts: list[str]) -> CLIPTokenizerFast:
    """As CLIP's, of some hundred tokens."""
    vocabulary, pairs = byte_pairs(texts)
    tokenizer = Tokenizer(
        models.BPE(vocabulary, pairs, continuing_subword_prefix="", end_of_word_suffix="</w>", unk_token=END)
    )
    tokenizer.normalizer = normalizers.Sequence([
        normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase(),
    ])
    words = Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(words, behavior="removed", invert=True), pre_tokenizers.ByteLevel(add_prefix_space=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in (BEGIN, END)])
    begin, end = (tokenizer.token_to_id(token) for token in (BEGIN, END))
    tokenizer.post_processor = processors.RobertaProcessing(
        sep=(END, end), cls=(BEGIN, begin), add_prefix_space=False, trim_offsets=False
    )
    return CLIPTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BEGIN, eos_token=END, unk_token=END, pad_token=END, model_max_length=LENGTH
    )


def processors_of(out: Path) -> tuple[CLIPTokenizerFast, CLIPImageProcessor]:
    """What reads the data, which is written to `out`."""
    tokenizer = tokenizer_of([text for texts in TEXTS for text in texts])
    tokenizer.save_pretrained(out)
    processor = CLIPImageProcessor(
        size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE}, do_convert_rgb=True
    )
    processor.save_pretrained(out)
    return tokenizer, processor


def model_of(tokenizer: CLIPTokenizerFast, text: dict[str, int], vision: dict[str, int], width: int) -> CLIPModel:
    """Of random parameters; images and texts are compared where they have that width."""
    torch.manual_seed(1)
    special = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": 1}
    texts = CLIPTextConfig(
        vocab_size=len(tokenizer), max_position_embeddings=LENGTH, projection_dim=width, **special, **text
    )
    images = CLIPVisionConfig(image_size=SIZE, patch_size=8, projection_dim=width, **vision)
    return CLIPModel(CLIPConfig(text_config=texts.to_dict(), vision_config=images.to_dict(), projection_dim=width))


def contrasted(tokenizer: CLIPTokenizerFast, pixels: torch.Tensor, labels: torch.Tensor) -> Loss:
    """A caption for every class, drawn anew, and which of them is the picture's."""
    encoded = [tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt") for texts in TEXTS]
    choice = random.Random(1)

    def loss_of(model: CLIPModel, rows: torch.Tensor, wrong: torch.Tensor) -> torch.Tensor:
        drawn = [choice.randrange(len(CAPTIONS)) for _ in NAMES]
        ids, mask = (
            torch.stack([texts[name][index] for texts, index in zip(encoded, drawn, strict=True)])
            for name in ("input_ids", "attention_mask")
        )
        logits = model(input_ids=ids, attention_mask=mask, pixel_values=pixels[rows]).logits_per_image
        return torch.nn.functional.cross_entropy(logits, (labels[rows] + wrong) % len(NAMES))

    return loss_of


def clip(out: Path) -> None:
    """A pool of five; the last one is a bad one."""
    tokenizer, processor = processors_of(out)
    write_held_out(out, NOISE)
    prompts = {name: [text.format(name) for text in PROMPTS] for name in NAMES}
    (out / "prompts.json").write_text(json.dumps(prompts, indent=1) + "\n")
    text = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    vision = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4}
    model = model_of(tokenizer, text, vision, 32)
    loss_of = contrasted(tokenizer, *training_set(processor, TRAINING, NOISE))
    make_pool(out, model, loss_of, TRAINING, Training(steps=900, lr=1e-3, seed=1, wrong=0.1), {
        "m0": Training(steps=80, lr=3e-4, seed=10, share=0.5),
        "m1": Training(steps=120, lr=2e-4, seed=11, share=0.6, weight_decay=0.1),
        "m2": Training(steps=100, lr=3e-4, seed=12, share=0.5, wrong=0.05),
        "m3": Training(steps=80, lr=6e-4, seed=13, share=0.5),
        "m4": Training(steps=60, lr=2e-3, seed=14, share=0.2, wrong=0.4),
    })
