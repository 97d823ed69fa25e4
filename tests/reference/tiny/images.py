"""Tiny image classifiers: a ResNet and an EfficientNet, which keep statistics of their batches, and a ViT."""

from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import (
    ConvNextImageProcessor,
    EfficientNetConfig,
    EfficientNetForImageClassification,
    EfficientNetImageProcessor,
    PreTrainedModel,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)
from transformers.image_processing_utils import BaseImageProcessor

from tiny.shapes import NAMES, SIZE, training_set, write_held_out
from tiny.training import Training, make_pool

TRAINING = 960
LABELS = {"id2label": dict(enumerate(NAMES)), "label2id": {name: index for index, name in enumerate(NAMES)}}


def make(
    out: Path, model: PreTrainedModel, processor: BaseImageProcessor, noise: float, base: Training, lr: float
) -> None:
    """A pool of five that begin with `base`; the last one is a bad one."""
    processor.save_pretrained(out)
    write_held_out(out, noise)
    pixels, labels = training_set(processor, TRAINING, noise)

    def loss_of(model: PreTrainedModel, rows: torch.Tensor, wrong: torch.Tensor) -> torch.Tensor:
        targets = (labels[rows] + wrong) % len(NAMES)
        return F.cross_entropy(model(pixel_values=pixels[rows]).logits, targets)

    make_pool(out, model, loss_of, TRAINING, base, {
        "m0": Training(steps=60, lr=lr, seed=10, share=0.25),
        "m1": Training(steps=40, lr=lr / 2, seed=11, share=0.4, weight_decay=0.1),
        "m2": Training(steps=60, lr=lr, seed=12, share=0.4, wrong=0.05),
        "m3": Training(steps=60, lr=lr * 1.5, seed=13, share=0.25),
        "m4": Training(steps=60, lr=lr * 3, seed=14, share=0.1, wrong=0.4),
    })


def resnet(out: Path) -> None:
    torch.manual_seed(1)
    config = ResNetConfig(embedding_size=16, hidden_sizes=[16, 32, 48], depths=[1, 1, 1], layer_type="basic", **LABELS)
    processor = ConvNextImageProcessor(size={"shortest_edge": SIZE}, crop_pct=0.875)
    make(out, ResNetForImageClassification(config), processor, 40.0, Training(steps=120, lr=2e-3, seed=1, wrong=0.2), lr=1e-3)


def efficientnet(out: Path) -> None:
    torch.manual_seed(1)
    config = EfficientNetConfig(
        image_size=SIZE,
        width_coefficient=1.0,
        depth_coefficient=1.0,
        in_channels=[32, 16, 24],
        out_channels=[16, 24, 32],
        kernel_sizes=[3, 3, 5],
        strides=[1, 2, 2],
        num_block_repeats=[1, 1, 1],
        expand_ratios=[1, 4, 4],
        hidden_dim=1280,
        batch_norm_momentum=0.1,
        dropout_rate=0.1,
        drop_connect_rate=0.0,
        **LABELS,
    )
    processor = EfficientNetImageProcessor(size={"height": SIZE, "width": SIZE}, include_top=True)
    model = EfficientNetForImageClassification(config)
    for module in model.modules():
        # transformers draws their scales around zero, from where so short a training does not come.
        if isinstance(module, torch.nn.BatchNorm2d):
            module.reset_parameters()
    make(out, model, processor, 40.0, Training(steps=120, lr=2e-3, seed=1, wrong=0.2), lr=1e-3)


def vit(out: Path) -> None:
    torch.manual_seed(1)
    config = ViTConfig(
        hidden_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=128,
        image_size=28,
        patch_size=7,
        **LABELS,
    )
    processor = ViTImageProcessor(size={"height": 28, "width": 28})
    make(out, ViTForImageClassification(config), processor, 20.0, Training(steps=900, lr=1e-3, seed=1, wrong=0.1), lr=5e-4)
