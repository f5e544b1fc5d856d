"""Linear layers that go through oneDNN give the same embeddings, or stay as they were."""

from __future__ import annotations

import logging

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from clip_operator.model import choose_device, load_encoder
from clip_operator.model.packed_linear import PackedLinear, can_pack, pack, unpack
from clip_operator.request import Precision
from tests.conftest import SHAPES, missing_part
from tests.model.conftest import Find


@pytest.fixture(autouse=True)
def _needs_one_dnn() -> None:
    if not can_pack():
        missing_part("an x86 processor, and a PyTorch with oneDNN")


@settings(derandomize=True, deadline=None, max_examples=50)
@given(
    shape=st.lists(st.integers(0, 7), min_size=1, max_size=3),
    sizes=st.tuples(st.integers(1, 65), st.integers(1, 65)),
    bias=st.booleans(),
)
def test_a_packed_layer_is_the_layer_it_was_made_of(shape: list[int], sizes: tuple[int, int], bias: bool) -> None:
    torch.manual_seed(sum(shape))
    linear = nn.Linear(*sizes, bias=bias)
    values = torch.randn(*shape, sizes[0])
    with torch.inference_mode():
        packed, expected = PackedLinear(linear)(values), linear(values)
    assert packed.shape == expected.shape
    assert torch.allclose(packed, expected, atol=1e-5)


def test_every_plain_linear_layer_is_packed_and_can_be_put_back() -> None:
    attention = nn.MultiheadAttention(8, 2)  # uses the weight of its own kind of linear layer without calling it
    inner = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Sequential(nn.Linear(8, 4)))
    model = nn.ModuleDict({"inner": inner, "attention": attention})
    before = dict(model.named_modules())
    replaced = pack(model)
    kinds = [type(module) for module in inner.modules()]
    assert kinds.count(PackedLinear) == 2
    assert nn.Linear not in kinds
    assert isinstance(attention.out_proj, nn.Linear)
    unpack(replaced)
    assert dict(model.named_modules()) == before


@pytest.mark.parametrize(("precision", "packed"), [("fp32", True), ("bf16", False)])
def test_a_model_on_the_cpu_is_packed_in_fp32(find: Find, precision: Precision, packed: bool) -> None:
    encoder = load_encoder(find(SHAPES), choose_device("cpu"), precision)
    assert any(isinstance(module, PackedLinear) for module in encoder._model.modules()) == packed


@pytest.mark.parametrize("broken", ["wrong", "failing"])
def test_a_model_whose_embeddings_would_change_is_left_as_it_is(
    find: Find, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, broken: str
) -> None:
    def forward(layer: PackedLinear, values: torch.Tensor) -> torch.Tensor:
        if broken == "failing":
            raise AttributeError("no weight")
        return torch.full((*values.shape[:-1], layer.out_features), 0.5)

    monkeypatch.setattr(PackedLinear, "forward", forward)
    with caplog.at_level(logging.INFO):
        encoder = load_encoder(find(SHAPES), choose_device("cpu"), "fp32")
    assert "The model's linear layers stay PyTorch's own, which may be slower: " in caplog.text
    assert not any(isinstance(module, PackedLinear) for module in encoder._model.modules())
