"""The multi-layer perceptron of weightspace-lora-for-diffusion, with early stopping mended."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from actprobe.lora.classifiers import Fitted, Floats, accuracy


def mlp(
    x: Floats, y: NDArray[np.int64], x_val: Floats, y_val: NDArray[np.int64], how: Mapping[str, Any],
    seed: int,
) -> Fitted:  # fmt: skip
    """Blocks of Linear, BatchNorm, ReLU and Dropout, trained with Adam on the cross-entropy.

    The learning rate falls when the validation accuracy stands still (ReduceLROnPlateau); training
    stops after `patience` epochs without a better one. The weights of the best epoch are kept as
    a copy: `state_dict()` alone is a view of weights that go on changing.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _train(x, y, x_val, y_val, how, generator)


def _train(
    x: Floats, y: NDArray[np.int64], x_val: Floats, y_val: NDArray[np.int64], how: Mapping[str, Any],
    generator: torch.Generator,
) -> Fitted:  # fmt: skip
    model = network(x.shape[1], int(y.max()) + 1, how)
    optimiser = torch.optim.Adam(model.parameters(), lr=how["lr"], weight_decay=how["weight_decay"])
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, mode="max", **how["plateau"])
    inputs, labels = torch.from_numpy(x), torch.from_numpy(y)
    best, best_epoch, state = -1.0, 0, model.state_dict()
    epoch = 0
    for epoch in range(1, how["max_epochs"] + 1):
        model.train()
        for rows in torch.randperm(len(x), generator=generator).split(how["batch_size"]):
            if len(rows) == 1 and how["batch_norm"]:
                continue  # one row has no variance to normalise by
            optimiser.zero_grad(set_to_none=True)
            nn.functional.cross_entropy(model(inputs[rows]), labels[rows]).backward()
            optimiser.step()
        reached = accuracy(_scores(model, x_val), y_val)
        schedule.step(reached)
        if reached > best:
            best, best_epoch, state = reached, epoch, copy.deepcopy(model.state_dict())
        elif epoch - best_epoch >= how["patience"]:
            break
    model.load_state_dict(state)
    params = {"best_epoch": best_epoch, "epochs": epoch}
    return Fitted(lambda z: _scores(model, z), params, epoch < how["max_epochs"])


def network(n_in: int, n_classes: int, how: Mapping[str, Any]) -> nn.Sequential:
    """The untrained network."""
    layers: list[nn.Module] = []
    for width in how["hidden"]:
        layers.append(nn.Linear(n_in, width))
        if how["batch_norm"]:
            layers.append(nn.BatchNorm1d(width))
        layers += [nn.ReLU(), nn.Dropout(how["dropout"])]
        n_in = width
    return nn.Sequential(*layers, nn.Linear(n_in, n_classes))


def _scores(model: nn.Module, x: Floats) -> NDArray[np.float32]:
    model.eval()
    with torch.inference_mode():
        pieces = torch.from_numpy(x).split(4096)
        return torch.cat([model(piece) for piece in pieces]).numpy()
