"""How a tiny pool is trained: one model for a little while, and from there every ingredient in its own way."""

import copy
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel

BATCH = 32

Loss = Callable[[PreTrainedModel, torch.Tensor, torch.Tensor], torch.Tensor]
"""The loss of a model on the rows of these positions; the second tensor says of each whether its label is wrong."""


@dataclass(frozen=True)
class Training:
    """How long and how to train."""

    steps: int
    lr: float
    seed: int
    weight_decay: float = 0.0
    share: float = 1.0
    """Of the training rows, chosen by the seed."""
    wrong: float = 0.0
    """Share of rows with a wrong label, chosen by the seed."""


def train(model: PreTrainedModel, loss_of: Loss, rows: int, how: Training) -> None:
    """Trains on so many rows of data, of which `loss_of` knows."""
    torch.manual_seed(how.seed)
    chosen = torch.randperm(rows)[: max(BATCH, int(how.share * rows))]
    wrong = torch.rand(rows) < how.wrong
    optimizer = torch.optim.AdamW(model.parameters(), lr=how.lr, weight_decay=how.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / 10) * (1 - step / how.steps)
    )
    model.train()
    for _ in range(how.steps):
        batch = chosen[torch.randint(len(chosen), (BATCH,))]
        loss = loss_of(model, batch, wrong[batch])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()


def make_pool(
    out: Path, model: PreTrainedModel, loss_of: Loss, rows: int, base: Training, ingredients: dict[str, Training]
) -> None:
    """Trains `model` as `base` says, and from there every ingredient; writes them, and config.json beside them."""
    folder = out / "ingredients"
    folder.mkdir(parents=True, exist_ok=True)
    train(model, loss_of, rows, base)
    saved = out / "saved"
    for name, how in ingredients.items():
        ingredient = copy.deepcopy(model)
        train(ingredient, loss_of, rows, how)
        # transformers knows which tensors are one and the same, and writes them once.
        ingredient.save_pretrained(saved)
        shutil.move(saved / "model.safetensors", folder / f"{name}.safetensors")
        shutil.move(saved / "config.json", out / "config.json")
    shutil.rmtree(saved)
