"""The multi-layer perceptron of weightspace-lora-for-diffusion, with early stopping mended."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from actprobe.probes.keep import Kept, fold
from actprobe.probes.keep.scorers import layers
from actprobe.probes.kinds import BINARY
from actprobe.probes.methods import How, method
from actprobe.probes.search import Fitted, Task, answered

Floats = NDArray[np.float32]


def _kept(fitted: Fitted, task: Task) -> Kept:
    """The logits; of two classes their difference, which is a last layer of one output."""
    if task.kind != BINARY:
        return fitted.model
    last = int(fitted.model.how["layers"]) - 1
    arrays = dict(fitted.model.arrays)
    for name in (f"weight_{last}", f"bias_{last}"):
        arrays[name] = arrays[name][1:] - arrays[name][:1]
    return Kept("layers", arrays, (), "logistic", fitted.model.how)


@method("stopped_mlp", own_search=True, keep=_kept)
def stopped_mlp(task: Task) -> Fitted:
    """Blocks of Linear, BatchNorm, ReLU and Dropout, trained with Adam on the cross-entropy.

    The learning rate falls when the validation accuracy stands still (ReduceLROnPlateau); training
    stops after `patience` epochs without a better one. The weights of the best epoch are kept as
    a copy: `state_dict()` alone is a view of weights that go on changing.
    """
    seed = task.how.get("seed", task.seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _train(task, generator)


def _train(task: Task, generator: torch.Generator) -> Fitted:
    x, y, how = task.X_train, task.y_train, task.how
    model = network(x.shape[1], task.n_classes, how)
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
        said = _scores(model, task.X_validation).argmax(axis=1)
        reached = accuracy(task.y_validation, said)
        schedule.step(reached)
        if reached > best:
            best, best_epoch, state = reached, epoch, copy.deepcopy(model.state_dict())
        elif epoch - best_epoch >= how["patience"]:
            break
    model.load_state_dict(state)
    params = {"best_epoch": best_epoch, "epochs": epoch}
    trained = folded(model)
    return answered(
        task,
        lambda z: layers(trained.arrays, trained.how, z),
        params,
        trained,
        converged=epoch < how["max_epochs"],
    )


def folded(model: nn.Sequential) -> Kept:
    """The trained network as layers alone, in float64: each BatchNorm is part of the layer before it,
    and Dropout does nothing."""
    weights: list[NDArray[np.float64]] = []
    biases: list[NDArray[np.float64]] = []
    for module in model:
        if isinstance(module, nn.Linear):
            weights.append(module.weight.detach().double().numpy())
            biases.append(module.bias.detach().double().numpy())
        elif isinstance(module, nn.BatchNorm1d):
            of = {k: v.detach().double().numpy() for k, v in module.state_dict().items()}
            scale = of["weight"] / np.sqrt(of["running_var"] + module.eps)
            weights[-1] = weights[-1] * scale[:, None]
            biases[-1] = (biases[-1] - of["running_mean"]) * scale + of["bias"]
    return fold.layers(weights, biases, "relu", "none")


def accuracy(y: NDArray[Any] | None, said: NDArray[Any]) -> float:
    return float(np.mean(said == y))


def network(n_in: int, n_classes: int, how: How) -> nn.Sequential:
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
