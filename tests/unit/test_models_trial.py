"""A loaded model is tried on made-up rows before data: what is refused, and how it is said."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from actprobe.base.errors import ActprobeError
from actprobe.models import extract, load
from actprobe.models.sites import ModelFailed, Point, hooked
from actprobe.models.trial import trial

D, N = 8, 3


class Layer(nn.Module):
    def __init__(self, form):
        super().__init__()
        self.form, self.mix = form, nn.Linear(D, D)

    def forward(self, hidden_states):
        return self.form(hidden_states, hidden_states + torch.tanh(self.mix(hidden_states)))


class Tiny(nn.Module):
    """Three layers on an embedding; `layers` runs them, `states` is what it says of them."""

    def __init__(self, form=lambda old, new: new, run=None, states=lambda states: states):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(50, D)
        self.layers = nn.ModuleList(Layer(form) for _ in range(N))
        self.run, self.states = run, states

    def get_input_embeddings(self):
        return self.embed

    def forward(self, input_ids, output_hidden_states=False):
        states = [self.embed(input_ids)]
        if self.run:
            states += self.run(self, states[0])
        else:
            for layer in self.layers:
                states.append(_first(layer(states[-1])))
        states[-1] = states[-1] / states[-1].std()  # a final norm
        given = self.states(tuple(states)) if output_hidden_states else None
        return SimpleNamespace(hidden_states=given)


def _first(out):
    return out if isinstance(out, torch.Tensor) else out[0]


def model(module, sites=("resid_pre.1", "resid_post.1"), dtype=torch.float32, **config):
    described = {"num_hidden_layers": N, "hidden_size": D, "vocab_size": 50, **config}
    points = {s: Point(module.layers[int(s[-1])], s.startswith("resid_pre")) for s in sites}
    return load.Model(
        module.to(dtype), [module], SimpleNamespace(to_dict=lambda: described), N, points, {},
        torch.device("cpu"), dtype, mask=False, pads=True, form=None, attention="eager",
    )  # fmt: skip


@pytest.mark.parametrize("wrap", [lambda h: h, lambda h: (h, None), lambda h: [h, None]])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_c6_a_layer_may_give_a_tensor_a_tuple_or_a_list(wrap, dtype):
    module = Tiny(lambda old, new: wrap(new))
    sites = ("resid_pre.0", "resid_post.0", "resid_pre.2", "resid_post.2")
    assert trial(model(module, sites, dtype), "m")[1] == dict.fromkeys(sites, D)


def loops(m, h):
    return [h := layer(h) for _ in range(2) for layer in m.layers][-N:]


def skips(m, h):
    return [h := m.layers[0](h), h, h]


REFUSED = {
    "streams_last": (
        Tiny(
            lambda old, new: new[:, :, None].expand(-1, -1, 4, -1),
            lambda m, h: [m.layers[1](h)] * N,
        ),
        r"site resid_post.1 has the shape \[1, 7, 4, 8\] for 1 rows of 7 tokens, expected \[1, 7, d\]",
    ),
    "streams_first": (
        Tiny(lambda old, new: new.expand(4, 1, 7, D), lambda m, h: [m.layers[1](h)] * N),
        r"site resid_post.1 has the shape \[4, 1, 7, 8\] for 1 rows",
    ),
    "tokens_first": (
        Tiny(run=lambda m, h: [m.layers[1](h.transpose(0, 1))] * N),
        r"site resid_pre.1 has the shape \[7, 1, 8\] for 1 rows of 7 tokens",
    ),
    "a_dict": (
        Tiny(lambda old, new: {"h": new}, lambda m, h: [m.layers[1](h)["h"]] * N),
        "site resid_post.1 is a dict, not a tensor",
    ),
    "another_width": (
        Tiny(lambda old, new: new[..., :5], lambda m, h: [m.layers[1](h)] * N),
        "site resid_post.1 has 5 dimensions, expected d_model, 8",
    ),
    "loops": (Tiny(run=loops), "site resid_pre.1 is computed 2 times in one pass"),
    "skips": (Tiny(run=skips), "site resid_pre.1 is never computed; ask for other layers"),
    "a_neighbour": (
        Tiny(lambda old, new: new + old.mean(0, keepdim=True)),
        r"site resid_pre.1 of a row of 7 tokens differs by .* padding or the other rows change it",
    ),
    "padding": (
        Tiny(lambda old, new: new + old.mean(1, keepdim=True)),
        r"site resid_pre.1 of a row of 4 tokens differs by .* padding or the other rows change it",
    ),
    "another_list": (
        Tiny(states=lambda s: (s[0], -s[1], s[2], s[3])),
        "site resid_pre.1 is not what the model itself gives as hidden state 1",
    ),
    "a_norm_between": (
        Tiny(states=lambda s: (s[0], s[1], s[2] / s[2].std(), s[3])),
        "site resid_post.1 is not what the model itself gives as hidden state 2",
    ),
    "another_depth": (
        Tiny(states=lambda s: s[:2]),
        "the model itself gives 2 hidden states for 3 layers",
    ),
    "no_states": (
        Tiny(states=lambda s: None),
        "the model itself gives no hidden states for 3 layers",
    ),
    "it_raises": (
        Tiny(run=lambda m, h: h @ h),
        "the forward pass raised RuntimeError: Expected size",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a5_c6_what_is_no_residual_stream_is_refused_by_name(kind):
    module, message = REFUSED[kind]
    with pytest.raises(ActprobeError, match=f"models.m: Tiny .* cannot be read: {message}"):
        trial(model(module), "m")


def test_shared_layers_are_read_in_the_right_call():
    module = Tiny(run=loops)
    shared = model(module, model_type="albert")
    points = {f"resid_post.{k}": Point(module.layers[0], False, k) for k in (0, 1)}
    seen = {}
    with hooked(points, seen.__setitem__), torch.inference_mode():
        extract.run(shared, input_ids=torch.arange(5)[None])
    first, second = seen["resid_post.0"], seen["resid_post.1"]
    assert not torch.allclose(first, second)
    h = module.embed(torch.arange(5)[None])
    assert torch.allclose(first, module.layers[0](h))


def test_c4_a_token_without_an_embedding_is_named():
    with pytest.raises(ModelFailed, match=r"token id 50 is not known to the model, .* 0 to 49"):
        extract.padded(model(Tiny()), [np.array([1, 50])])


def test_what_our_own_code_raises_is_not_blamed_on_the_model():
    def read(site, h):
        raise AssertionError("ours")

    m = model(Tiny())
    with pytest.raises(AssertionError, match="ours"), extract.explained(), hooked(m.points, read):
        extract.run(m, input_ids=torch.arange(5)[None])


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`"),
        OSError(5, "Input/output error"),
    ],
)
def test_a_failing_machine_is_no_failing_model(error):
    def fails(m, h):
        raise error

    with pytest.raises(type(error), match=str(error)[:10].replace("[", r"\[")):
        trial(model(Tiny(run=fails)), "m")
