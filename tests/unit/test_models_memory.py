"""Batches that do not fit into memory: the budget is halved for the whole file."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from models_tiny import tiny_run

from actprobe import models
from actprobe.base.errors import ActprobeError
from actprobe.cache import store
from actprobe.models import extract
from actprobe.models.session import Session


def test_out_of_memory_halves_the_budget_of_the_whole_file(tmp_path, monkeypatch):
    forward = extract.forward

    def small(model, tokens, rows, *rest):
        if len(rows) * tokens.lengths[rows].max() > 120:
            raise extract.OutOfMemory("pretended")
        return forward(model, tokens, rows, *rest)

    monkeypatch.setattr(extract, "forward", small)
    found = tiny_run(tmp_path, max_tokens_per_batch=400)
    header = store.read_header(found["resid_post.1.last"].path)
    assert header["facts"]["budget"] == 100
    monkeypatch.setattr(extract, "forward", forward)
    other = tmp_path / "other"
    same = tiny_run(other, max_tokens_per_batch=100)
    expected = models.load_activations(same["resid_post.1.last"].path)
    assert np.array_equal(models.load_activations(found["resid_post.1.last"].path), expected)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        MemoryError(),
    ],
)
def test_how_devices_say_that_memory_is_out(tmp_path, monkeypatch, error):
    pass_, budgets = extract._pass, []

    def once(model, sites, read, input_ids, **rest):
        if input_ids.numel() > 100:
            budgets.append(input_ids.numel())
            raise error
        pass_(model, sites, read, input_ids=input_ids, **rest)

    monkeypatch.setattr(extract, "_pass", once)
    found = tiny_run(tmp_path, max_tokens_per_batch=200)
    assert budgets and store.read_header(found["resid_post.1.last"].path)["facts"]["budget"] < 200


def test_another_error_is_no_lack_of_memory(tmp_path, monkeypatch):
    def fails(*args, **kwargs):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(extract, "_pass", fails)
    said = "m on tiny: the forward pass raised RuntimeError: mat1 and mat2"
    with pytest.raises(ActprobeError, match=said):
        tiny_run(tmp_path)


def test_a_row_that_never_fits_is_an_error(tmp_path, monkeypatch):
    def never(*args):
        raise extract.OutOfMemory("pretended")

    monkeypatch.setattr(extract, "self_check", never)
    with pytest.raises(ActprobeError, match=r"m on tiny: no memory for one row of 91 tokens"):
        tiny_run(tmp_path)


@pytest.mark.parametrize(
    ("device", "configured", "budget"),
    [("cuda", None, 4096), ("cuda", 8192, 8192), ("cpu", None, 8192)],
)
def test_a_budget_found_from_a_gpus_memory_is_lowered_where_padding_would_fill_it(
    device, configured, budget
):
    model = SimpleNamespace(device=torch.device(device))
    settings = {"max_tokens_per_batch": configured}
    session = Session("m", settings, model, {}, budget=8192)
    assert session.budget_for(np.arange(8, 257)) == budget
