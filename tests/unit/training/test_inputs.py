"""What is refused before any worker is started."""

import pytest

from rayrlhf.cli.describe import training_bytes
from rayrlhf.config import ConfigError, parse_config
from rayrlhf.models import LoraConfig
from rayrlhf.models.folder import skeleton
from rayrlhf.models.lora import linear_share
from rayrlhf.offline.inputs import check_models
from rayrlhf.offline.sft import SFTConfig
from rayrlhf.training.inputs import check_training
from rayrlhf.training.model_trainer import TrainingConfig


def test_an_offline_stage_refuses_targets_that_its_model_does_not_have(tiny_llama):
    tree = {
        "run": {"name": "x"},
        "model": tiny_llama,
        "data": {"train": ["data/sample/sft.jsonl"], "max_tokens": 64},
        "training": {"lora": {"target_modules": ["query_key_value"]}},
    }
    with pytest.raises(ConfigError, match=r"training\.lora\.target_modules: query_key_value matches no linear layer"):
        check_models(parse_config(SFTConfig, tree, "x.yaml"))
    tree["training"] = {"lora": {}}
    check_models(parse_config(SFTConfig, tree, "x.yaml"))


def test_recomputing_is_refused_for_models_that_cannot(tiny_llama, monkeypatch):
    training = TrainingConfig(activation_checkpointing=True)
    check_training(tiny_llama, training, "policy")
    monkeypatch.setattr(type(skeleton(tiny_llama)), "supports_gradient_checkpointing", False)
    with pytest.raises(ConfigError, match=r"set policy\.activation_checkpointing=false"):
        check_training(tiny_llama, training, "policy")


def test_an_offline_stage_refuses_4_bits_on_workers_without_gpus(tiny_llama):
    tree = {
        "run": {"name": "x"},
        "model": tiny_llama,
        "data": {"train": ["data/sample/sft.jsonl"], "max_tokens": 64},
        "training": {"lora": {"load_in_4bit": True}},
    }
    with pytest.raises(ConfigError, match=r"training\.lora\.load_in_4bit is true.*set workers\.num_gpus=1"):
        check_models(parse_config(SFTConfig, tree, "x.yaml"))


def test_adapters_and_shards_need_less_memory(tiny_llama):
    def needed(num_workers: int = 1, **settings) -> float:
        return training_bytes(tiny_llama, 1000, TrainingConfig(**settings), num_workers)

    assert needed() == 16_000
    assert needed(2, sharding="fsdp") == 8_000
    assert needed(parameters="bfloat16") == 20_000
    assert needed(lora=LoraConfig(rank=1), parameters="bfloat16") < needed(lora=LoraConfig(rank=1)) < 12_000
    packed = needed(lora=LoraConfig(rank=1, load_in_4bit=True))
    saved = needed(lora=LoraConfig(rank=1)) - packed
    assert saved == pytest.approx(1000 * linear_share(tiny_llama) * (4 - 4.127 / 8))
