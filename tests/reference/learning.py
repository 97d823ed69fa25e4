"""The learned soup the authors' way: the tensors of all ingredients are stacked, every step mixes them by one weight an ingredient under
softmax, runs a mini-batch through the mixed model, and lets autograd go all the way back to the weights and to an inverse temperature.
AdamW without weight decay; mini-batches in the order of the file. A number that is predicted has no temperature.

Running statistics are mixed like parameters, and weights do not follow them: PyTorch has no gradient by them.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from kinds.base import Labelled
from running import is_statistic
from soups import Pool, StateDict

Logits = Callable[[StateDict, dict[str, torch.Tensor]], torch.Tensor]
Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""Of what a model says, the inverse temperature and the targets."""


@dataclass(frozen=True)
class Learning:
    """How weights are learned."""

    lr: float
    epochs: int
    mini_batch: int


def cross_entropy(logits: torch.Tensor, beta: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(beta * logits, labels)


def squared_error(predicted: torch.Tensor, beta: torch.Tensor, truths: torch.Tensor) -> torch.Tensor:
    return F.mse_loss(predicted.squeeze(-1), truths)


def learned(
    pool: Pool, logits: Logits, train: Labelled, how: Learning, loss_of: Loss = cross_entropy
) -> tuple[dict[str, object], StateDict]:
    """What soupctl reports of learning, and the soup that was learned. `logits` are those of a model with these parameters."""
    names = [name for name, tensor in next(iter(pool.values())).items() if tensor.is_floating_point()]
    stacked = {name: torch.stack([ingredient[name] for ingredient in pool.values()]) for name in names}
    alpha = torch.zeros(len(pool), requires_grad=True)
    beta = torch.ones((), requires_grad=True)
    optimizer = torch.optim.AdamW([alpha, beta], lr=how.lr, weight_decay=0.0)
    losses = []
    labels = torch.as_tensor(train.labels)

    def mixed() -> StateDict:
        weights = torch.softmax(alpha, dim=0)
        soup = {name: torch.einsum("k,k...->...", weights, stacked[name]) for name in names}
        return {name: tensor.detach() if is_statistic(name) else tensor for name, tensor in soup.items()}

    for _ in range(how.epochs):
        for begin in range(0, len(labels), how.mini_batch):
            part = slice(begin, begin + how.mini_batch)
            inputs = {name: tensor[part] for name, tensor in train.inputs.items()}
            loss = loss_of(logits(mixed(), inputs), beta, labels[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    report = {
        **vars(how),
        "losses": losses,
        "weights": dict(zip(pool, torch.softmax(alpha, dim=0).tolist())),
        "beta": float(beta.detach()),
    }
    with torch.no_grad():
        return report, mixed()


def figures(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, object]:
    labels = torch.as_tensor(labels)
    return {
        "correct": int((logits.argmax(1) == labels).sum()),
        "n": len(labels),
        "loss": float(F.cross_entropy(logits.double(), labels)),
    }
