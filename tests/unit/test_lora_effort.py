"""The expected time of fits of features: how it grows, and a fit that was measured."""

from __future__ import annotations

from actprobe.probes import effort, protocol

LORA = protocol.load("lora-1")


def _seconds(method: str, n: int, width: int, parts: int = 1) -> float:
    recipe = protocol.recipe(LORA, "normal", method) | {"seeds": [0]}
    return effort.seconds(recipe, n, width, parts)


def test_times_are_near_measured_ones() -> None:
    """4,000 LoRAs, 1,000 columns, ten classes on one core: ridge 0.3 s, logistic regression 1.6 s,
    and 0.9 s for an epoch of the MLP."""
    assert 0.1 < _seconds("ridge", 4000, 1000) < 1
    assert 0.5 < _seconds("logreg", 4000, 1000) < 5
    assert 15 < _seconds("mlp", 4000, 1000) < 150


def test_every_module_has_a_fit_of_its_own_and_wide_ridges_cost_most() -> None:
    assert _seconds("ridge", 10, 64, 64) > 10 * _seconds("ridge", 10, 64)
    assert _seconds("ridge", 50_000, 8576) > 100 * _seconds("ridge", 50_000, 640)
