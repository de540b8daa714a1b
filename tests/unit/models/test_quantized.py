"""Weights in 4 bits: what is refused where they cannot be, and how packed weights leave the training process.

bitsandbytes packs on GPUs (tests/gpu does). Here a layer of bytes with one scale stands in for its packed layer: tested
is how our code finds packed weights, unpacks them and leaves the quantizer's entries out.
"""

import importlib.util
import json
from typing import Any

import pytest
import torch
from torch import nn

from rayrlhf.config import ConfigError, parse_config
from rayrlhf.models import LoraConfig, Policy, quantized
from rayrlhf.models.lora import add_adapters, linear_names
from rayrlhf.models.quantized import check_4bit, empty_of
from rayrlhf.training.model_trainer import TrainingConfig

TOKENS = torch.tensor([[5, 6, 7, 8, 9]])
SCALE = 1 / 256


# settings


def test_a_worker_without_a_gpu_is_refused_with_the_settings_to_change(tiny_llama):
    with pytest.raises(ConfigError) as caught:
        check_4bit(tiny_llama, "training.lora", 0, "workers.num_gpus")
    for part in ("training.lora.load_in_4bit is true", "workers.num_gpus is 0", "set workers.num_gpus=1"):
        assert part in str(caught.value)


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is not None, reason="bitsandbytes is installed")
def test_a_missing_bitsandbytes_is_named_with_the_way_to_get_it(tiny_llama):
    with pytest.raises(ConfigError, match=r"policy\.lora\.load_in_4bit.*bitsandbytes.*make install KIND=cuda"):
        check_4bit(tiny_llama, "policy.lora", 0.5, "policy.num_gpus")


def test_a_model_with_transposed_weights_is_refused(tmp_path, monkeypatch):
    from transformers import AutoConfig, AutoModelForCausalLM

    shape = AutoConfig.for_model("gpt2", vocab_size=40, n_positions=16, n_embd=16, n_layer=1, n_head=2)
    AutoModelForCausalLM.from_config(shape).save_pretrained(tmp_path)
    monkeypatch.setattr(quantized.importlib.util, "find_spec", lambda name: object())
    with pytest.raises(ConfigError, match=r"Conv1D.*set policy\.lora\.load_in_4bit=false"):
        check_4bit(str(tmp_path), "policy.lora", 1, "policy.num_gpus")


@pytest.mark.parametrize(
    ("setting", "fix"), [({"sharding": "fsdp"}, "sharding to ddp"), ({"precision": "float32"}, "precision to auto")]
)
def test_what_contradicts_4_bits_is_refused_with_the_fix(setting, fix):
    with pytest.raises(ConfigError, match=fix):
        parse_config(TrainingConfig, {"lora": {"load_in_4bit": True}, **setting}, "x.yaml")
    assert not parse_config(TrainingConfig, {"lora": {}, **setting}, "x.yaml").load_in_4bit
    assert parse_config(TrainingConfig, {"lora": {"load_in_4bit": True}}, "x.yaml").load_in_4bit


# packed weights


class Params4bit(nn.Parameter):
    """Named as bitsandbytes' own, which is how peft and transformers tell one."""


class Packed(nn.Linear):
    """W ≈ bytes · SCALE, with an entry of its own in the state, as packed layers have."""

    def __init__(self, plain: nn.Linear) -> None:
        super().__init__(plain.in_features, plain.out_features, plain.bias is not None, device="meta")
        levels = (plain.weight.detach() / SCALE).round().clamp(-127, 127).to(torch.int8)
        self.weight = Params4bit(levels, requires_grad=False)
        self.bias = plain.bias

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}weight.absmax"] = torch.tensor(SCALE)


@pytest.fixture
def packed(tiny_model, monkeypatch) -> Policy:
    """A policy of packed layers, of which some have adapters that change what it computes."""
    monkeypatch.setattr("peft.utils.integrations.dequantize_bnb_weight", lambda weight, state: weight.data * SCALE)
    policy = Policy.load(tiny_model)
    for name in linear_names(policy.model):
        policy.model.set_submodule(name, Packed(policy.model.get_submodule(name)))
    policy.model.hf_quantizer = object()
    policy.model.config.quantization_config = {"load_in_4bit": True}
    add_adapters(policy.model, LoraConfig(rank=4, target_modules=("q_proj", "down_proj")))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return policy


def test_packed_weights_leave_as_whole_ones_with_their_adapters(packed, tiny_model):
    plain = Policy.load(tiny_model)
    found, names = dict(packed.weights()), dict(plain.weights())
    assert found.keys() == names.keys()
    for name, base in names.items():
        wanted, layer = base, None
        if name.endswith("_proj.weight"):
            layer = packed.model.get_submodule(name.removesuffix(".weight"))
            wanted = (base / SCALE).round() * SCALE
        if hasattr(layer, "lora_B"):
            wanted = wanted + layer.scaling["default"] * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
        torch.testing.assert_close(found[name], wanted, rtol=0, atol=1e-6)


def test_a_packed_policy_is_saved_as_a_plain_model(packed, tokenizer, tmp_path):
    packed.save(tmp_path, tokenizer)
    assert "quantization_config" not in json.loads((tmp_path / "config.json").read_text())
    saved = dict(Policy.load(str(tmp_path)).weights())
    for name, tensor in packed.weights():
        assert torch.equal(saved[name], tensor.detach()), name
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_empty_model_writes_the_folder_that_the_full_one_would(tiny_model, tmp_path, dtype):
    model = Policy.load(tiny_model, dtype).model
    model.save_pretrained(tmp_path / "full")
    empty_of(model, model.config).save_pretrained(tmp_path / "empty", state_dict=model.state_dict())
    files = {path.name: path.read_bytes() for path in (tmp_path / "full").iterdir()}
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "empty").iterdir()}
