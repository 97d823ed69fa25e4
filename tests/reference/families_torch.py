#!/usr/bin/env python3
"""Samples a second of each family of models in PyTorch: what `cargo bench -p soup-eval --bench families` is compared with.

Writes each model, of random parameters, and its samples to a folder of its own, from where the benchmark takes them. Processor time of one
thread, seven rounds of a batch of 32. Texts have 64 tokens each, or 8 to 120, to which PyTorch pads them.
"""

import argparse
import json
import random
import time
from pathlib import Path

import torch
import transformers as hf
from transformers.modeling_outputs import BaseModelOutput

SAMPLES = 32
CLASSES = 1000
# Tokens of the labels that an answering model may give, their end included.
LABELS = [[1465, 1], [2841, 1]]
# Shapes of what people fine-tune (google/vit-base-patch16-224, facebook/dinov2-small, openai/clip-vit-base-patch32, microsoft/resnet-50
# and resnet-18, google/efficientnet-b0, google-bert/bert-base-uncased, distilbert/distilbert-base-uncased, google-t5/t5-base), and what a
# tiny pool has.
IMAGES = {
    "vit-base": (hf.ViTForImageClassification, hf.ViTConfig(num_labels=CLASSES), 224),
    "dinov2-small": (
        hf.Dinov2ForImageClassification,
        hf.Dinov2Config(hidden_size=384, num_attention_heads=6, image_size=224, patch_size=14, num_labels=CLASSES),
        224,
    ),
    "clip-base-32": (hf.CLIPForImageClassification, hf.CLIPConfig(num_labels=CLASSES), 224),
    "resnet-50": (hf.ResNetForImageClassification, hf.ResNetConfig(num_labels=CLASSES), 224),
    "resnet-18": (
        hf.ResNetForImageClassification,
        hf.ResNetConfig(layer_type="basic", hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2], num_labels=CLASSES),
        224,
    ),
    "efficientnet-b0": (
        hf.EfficientNetForImageClassification,
        hf.EfficientNetConfig(width_coefficient=1.0, depth_coefficient=1.0, hidden_dim=1280, image_size=224, num_labels=CLASSES),
        224,
    ),
    "resnet-tiny": (
        hf.ResNetForImageClassification,
        hf.ResNetConfig(layer_type="basic", embedding_size=16, hidden_sizes=[16, 32, 48], depths=[1, 1, 1], num_labels=10),
        32,
    ),
}
TEXTS = {
    "bert-base": (hf.BertForSequenceClassification, hf.BertConfig(num_labels=2)),
    "distilbert": (hf.DistilBertForSequenceClassification, hf.DistilBertConfig(num_labels=2)),
    "t5-base": (
        hf.T5ForConditionalGeneration,
        hf.T5Config(d_model=768, d_ff=3072, num_layers=12, num_heads=12, num_labels=2, decoder_start_token_id=0),
    ),
}


def rates(work):
    work()
    seconds = []
    for _ in range(7):
        started = time.process_time()
        work()
        seconds.append(time.process_time() - started)
    return SAMPLES / min(seconds), SAMPLES / sorted(seconds)[3]


def show(name, work):
    best, median = rates(work)
    print(f"{name}: {best:.1f} samples/s at best, {median:.1f} in the median", flush=True)


def images(name, folder, gradient, dtype):
    kind, config, side = IMAGES[name]
    model = kind(config).eval()
    model.save_pretrained(folder)
    model = model.to(dtype)
    # Of one kind for all: what is measured comes after it.
    processor = {"image_processor_type": "ViTImageProcessor", "size": {"height": side, "width": side}}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    pixels = torch.randn(SAMPLES, 3, side, side, dtype=dtype)
    labels = torch.zeros(SAMPLES, dtype=torch.long)

    def forward():
        with torch.inference_mode():
            model(pixel_values=pixels)

    def backward():
        model(pixel_values=pixels, labels=labels).loss.backward()

    show(f"{name}, channels first", forward)
    if config.model_type in ("resnet", "efficientnet"):
        model, pixels = model.to(memory_format=torch.channels_last), pixels.to(memory_format=torch.channels_last)
        show(f"{name}, channels last", forward)
    if gradient:
        show("  its gradient", backward)


def texts(name, folder, gradient, dtype):
    kind, config = TEXTS[name]
    model = kind(config).eval()
    model.save_pretrained(folder)
    model = model.to(dtype)
    draw = random.Random(0)
    answers = config.model_type == "t5"
    if answers:
        (folder / "labels.json").write_text(json.dumps(LABELS))
    for way, lengths in (("64", [64] * SAMPLES), ("8 to 120", [draw.randint(8, 120) for _ in range(SAMPLES)])):
        tokens = [[draw.randint(1000, config.vocab_size - 1000) for _ in range(length)] for length in lengths]
        (folder / f"{way} tokens.json").write_text(json.dumps(tokens))
        ids = torch.zeros(SAMPLES, max(lengths), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, text in enumerate(tokens):
            ids[row, : len(text)], mask[row, : len(text)] = torch.tensor(text), 1

        def forward():
            with torch.inference_mode():
                if not answers:
                    return model(input_ids=ids, attention_mask=mask)
                encoded = model.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
                for label in LABELS:
                    model(
                        encoder_outputs=BaseModelOutput(last_hidden_state=encoded),
                        attention_mask=mask,
                        labels=torch.tensor([label] * SAMPLES),
                    )

        show(f"{name}, {way} tokens", forward)
        if gradient and not answers:
            show("  its gradient", lambda: model(input_ids=ids, attention_mask=mask, labels=ids[:, 0] % 2).loss.backward())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder of the models")
    parser.add_argument("--only", action="append", choices=[*IMAGES, *TEXTS])
    parser.add_argument("--gradient", action="store_true")
    parser.add_argument("--bf16", action="store_true", help="models and images in bf16")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.only or [*IMAGES, *TEXTS]:
        torch.manual_seed(0)
        measure = images if name in IMAGES else texts
        measure(name, arguments.out / name, arguments.gradient, torch.bfloat16 if arguments.bf16 else torch.float32)


if __name__ == "__main__":
    main()
