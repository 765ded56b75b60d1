"""A trainer of one's own, for `--trainable` (docs/own_code.md): it tells two spirals apart.

    python -m search.run --trainable examples/torch_classifier.py:train --objective accuracy:max \
        --space examples/torch_classifier.py:space
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from spaces import Space, Trial
from trainer import check_finite

BATCH, STEPS = 128, 40


def spirals(count: int) -> tuple[Tensor, Tensor]:
    """Return noisy points of two spirals [count, 2], and which spiral each is of [count]."""
    label = torch.randint(2, (count,))
    turn = 3 * torch.rand(count).sqrt()
    angle = torch.pi * (turn + label)
    points = turn[:, None] * torch.stack([angle.cos(), angle.sin()], 1)
    return points + 0.1 * torch.randn(count, 2), label


def train(params: dict[str, Any], *, resume: Any = None) -> Iterator[dict[str, Any]]:
    """Train a perceptron; yield a report after every epoch."""
    width, dropout = params["width"], params["dropout"]
    torch.manual_seed(params["seed"])
    network = nn.Sequential(
        *(nn.Linear(2, width), nn.ReLU(), nn.Dropout(dropout)),
        *(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2)),
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=params["lr"])
    kept: dict[str, Any] = {"network": network, "optimizer": optimizer}
    for name, one in kept.items() if resume else ():
        one.load_state_dict(resume[name])
    for epoch in range(resume["epoch"] + 1 if resume else 1, params["epochs"] + 1):
        torch.manual_seed(1000 * params["seed"] + epoch)  # resumed, it draws what it would have
        network.train()
        for step in range(STEPS * (epoch - 1), STEPS * epoch):
            points, label = spirals(BATCH)
            loss = nn.functional.cross_entropy(network(points), label)
            optimizer.zero_grad()
            loss.backward()
            check_finite(loss, network.named_parameters(), step=step)
            optimizer.step()
        network.eval()
        points, label = spirals(2000)
        accuracy = (network(points).argmax(1) == label).float().mean().item()
        state = {name: one.state_dict() for name, one in kept.items()} | {"epoch": epoch}
        yield {"epoch": epoch, "accuracy": accuracy, "loss": loss.item(), "state": state}


def suggest(trial: Trial) -> dict[str, Any]:
    """Draw a configuration."""
    return {
        "lr": trial.suggest_float("lr", 1e-4, 1e-1, log=True),
        "width": trial.suggest_int("width", 8, 128, step=8),
        "dropout": trial.suggest_float("dropout", 0.0, 0.5),
    }


space = Space("spirals", "A perceptron on spirals.", suggest, fixed={"epochs": 9}, trials=16)
