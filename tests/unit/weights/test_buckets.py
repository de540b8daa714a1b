"""Weights in buckets: bit for bit, in order, bounded, and complete."""

import pickle

import pytest
import torch

from rayrlhf.models import Policy
from rayrlhf.weights import buckets
from rayrlhf.weights.buckets import pack


def unpacked(packed) -> dict[str, torch.Tensor]:
    return {name: tensor for bucket in packed for name, tensor in bucket.tensors()}


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.bool]
)
def test_weights_come_back_bit_for_bit(dtype):
    made = torch.randn(7, 5, generator=torch.Generator().manual_seed(0)) * 3
    weights = {"a": made.to(dtype), "b.c": made[:, ::2].to(dtype).t()}
    if dtype.is_floating_point:
        weights["edges"] = torch.tensor([float("inf"), -0.0, float("nan"), 1e-30]).to(dtype)
    found = unpacked(pickle.loads(pickle.dumps(list(pack(weights.items())))))
    assert list(found) == list(weights)
    for name, tensor in weights.items():
        assert found[name].dtype == dtype
        assert found[name].shape == tensor.shape
        assert bits(found[name]) == bits(tensor)


def test_a_dtype_casts_floating_tensors_only():
    found = unpacked(pack([("w", torch.tensor([1.0, 1 / 3])), ("n", torch.tensor([3]))], torch.bfloat16))
    assert bits(found["w"]) == bits(torch.tensor([1.0, 1 / 3]).bfloat16())
    assert (found["n"].dtype, found["n"].tolist()) == (torch.int64, [3])


def test_parameters_that_need_gradients_can_be_packed():
    assert unpacked(pack([("w", torch.nn.Parameter(torch.ones(2)))]))["w"].tolist() == [1.0, 1.0]


def test_buckets_close_at_the_aimed_size_and_keep_the_order(monkeypatch):
    monkeypatch.setattr(buckets, "BUCKET_BYTES", 40)
    packed = list(pack((str(index), torch.full((5,), float(index))) for index in range(5)))  # 20 bytes each
    assert [bucket.names for bucket in packed] == [["0", "1"], ["2", "3"], ["4"]]
    assert unpacked(packed)["3"].tolist() == [3.0] * 5


def test_no_weights_are_no_buckets():
    assert list(pack([])) == []


def test_a_tied_output_head_is_sent_under_its_own_name(tiny_qwen2):
    weights = dict(Policy.load(tiny_qwen2).weights())
    assert torch.equal(weights["lm_head.weight"], weights["model.embed_tokens.weight"])
    found = unpacked(pack(weights.items()))
    assert bits(found["lm_head.weight"]) == bits(weights["lm_head.weight"].detach())


def test_weights_carry_every_name_of_the_checkpoint(tiny_model):
    from safetensors import safe_open

    with safe_open(f"{tiny_model}/model.safetensors", "pt") as file:
        names = set(file.keys())
    assert names <= {name for name, _ in Policy.load(tiny_model).weights()}
    assert len(names) > 10
