"""Optimizers beside AdamW: what is built, what is refused and when, going on after a restart, memory."""

import pytest
import torch
from torch import nn

from rayrlhf.cli.describe import training_bytes
from rayrlhf.config import ConfigError, parse_config
from rayrlhf.models import LoraConfig
from rayrlhf.training.inputs import check_training
from rayrlhf.training.model_trainer import ModelTrainer, TrainingConfig
from rayrlhf.training.optimizers import Adafactor, AdamW, AdamW8bit
from rayrlhf.training.parallel import Ranks

INPUTS = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))


def make(optimizer: str | dict[str, object], **training) -> ModelTrainer:
    """Two small layers in training."""
    config = parse_config(TrainingConfig, {"optimizer": optimizer, **training}, "settings")
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 1)).to(config.dtype)
    return ModelTrainer(module, config, 20, Ranks())


def run(trainer: ModelTrainer, steps: int) -> list[float]:
    def loss_of(rows: list[int]):
        loss = (trainer.module(INPUTS[rows].to(trainer.config.dtype)).float() - 1).square().sum() / len(INPUTS)
        return loss, {"loss": loss}

    return [trainer.step([[0, 1, 2], [3, 4, 5, 6, 7]], loss_of).partial["loss"] for _ in range(steps)]


def weights_of(trainer: ModelTrainer) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in (*trainer.trained.parameters(), *trainer.module.parameters())]


def test_without_a_kind_it_is_adamw_and_a_kind_may_stand_alone():
    assert parse_config(TrainingConfig, {"optimizer": {"eps": 1e-6}}, "x").optimizer == AdamW(eps=1e-6)
    assert parse_config(TrainingConfig, {"optimizer": "adafactor"}, "x").optimizer == Adafactor()
    assert parse_config(TrainingConfig, {"optimizer": "adamw_8bit"}, "x").optimizer == AdamW8bit()


@pytest.mark.parametrize("kind", ["adamw", "adamw_8bit"])
@pytest.mark.parametrize("betas", [[1.0, 0.9], [0.9, 1], [-0.1, 0.9]])
def test_decays_that_torch_does_not_take_are_refused_before_anything_starts(kind, betas):
    with pytest.raises(ConfigError, match=r"optimizer\.betas\.[01]: Input should be (less|greater) than"):
        parse_config(TrainingConfig, {"optimizer": {"kind": kind, "betas": betas}}, "x")


def test_settings_of_another_optimizer_are_refused_by_name():
    for tree, message in (
        (
            {"kind": "adafactor", "betas": [0.9, 0.99]},
            r"optimizer\.betas: unknown setting of adafactor, but one of adamw",
        ),
        ({"update_clip": 2}, r"optimizer\.update_clip: unknown setting of adamw, but one of adafactor"),
        ({"kind": "lion"}, r"optimizer\.kind: 'lion' is not one of 'adamw', 'adafactor', 'adamw_8bit'"),
    ):
        with pytest.raises(ConfigError, match=message):
            parse_config(TrainingConfig, {"optimizer": tree}, "x")


def test_adafactor_steps_are_relative_to_the_weights_and_never_over_the_rate():
    settings = {"kind": "adafactor", "learning_rate": 0.01}
    trainer = make(settings)
    before = weights_of(trainer)
    losses = run(trainer, 1)
    for weight, old in zip(weights_of(trainer), before, strict=True):
        size, moved = old.square().mean().sqrt(), (weight - old).square().mean().sqrt()
        assert 0 < moved <= 0.01 * size * 1.001
    assert run(trainer, 15)[-1] < losses[0]


def test_adafactor_keeps_a_number_for_each_row_and_column():
    trainer = make("adafactor")
    run(trainer, 1)
    for parameter, state in trainer.optimizer.state.items():
        kept = sum(value.numel() for name, value in state.items() if name != "step")
        assert kept == sum(parameter.shape)


def test_the_schedule_drives_adafactor():
    trainer = make({"kind": "adafactor", "learning_rate": 0.1, "warmup_steps": 2})
    rates = [trainer.step([[0]], lambda rows: (trainer.module(INPUTS).sum(), {})).shared for _ in range(3)]
    assert [rate["learning_rate"] for rate in rates] == pytest.approx([0.05, 0.1, 0.1])


@pytest.mark.parametrize("parameters", ["float32", "bfloat16"])
def test_a_restored_adafactor_goes_on_bit_for_bit(parameters):
    settings = {"kind": "adafactor", "weight_decay": 0.1, "schedule": "cosine"}
    straight, stopped, resumed = (make(settings, parameters=parameters) for _ in range(3))
    run(straight, 4)
    run(stopped, 4)
    state = stopped.training_state()
    resumed.load_training_state(state)
    assert run(resumed, 4) == run(straight, 4)
    assert all(map(torch.equal, weights_of(resumed), weights_of(straight)))
    fresh = make(settings, parameters=parameters)
    fresh.load_training_state(
        {**state, "optimizer": make(settings, parameters=parameters).training_state()["optimizer"]}
    )
    run(fresh, 4)  # with the weights, but not the moments
    assert not all(map(torch.equal, weights_of(fresh), weights_of(straight)))


# what cannot work


@pytest.mark.parametrize("kind", ["adafactor", "adamw_8bit"])
def test_optimizers_that_take_no_shards_are_refused_with_fsdp(kind):
    with pytest.raises(ConfigError, match=rf"cannot shard the state of optimizer '{kind}': set sharding to ddp"):
        parse_config(TrainingConfig, {"optimizer": kind, "sharding": "fsdp"}, "x")


def test_8_bit_moments_are_refused_without_cuda_before_anything_starts(tiny_llama, monkeypatch):
    training = TrainingConfig(optimizer=AdamW8bit())
    wanted = (
        r"policy\.optimizer\.kind is adamw_8bit, which needs CUDA, but policy\.num_gpus is 0: set policy\.num_gpus=1"
    )
    with pytest.raises(ConfigError, match=wanted):
        check_training(tiny_llama, training, "policy")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs bitsandbytes.*or set policy\.optimizer\.kind=adamw"):
        check_training(tiny_llama, training, "policy", num_gpus=1)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    check_training(tiny_llama, training, "policy", num_gpus=1)
    check_training(tiny_llama, TrainingConfig(optimizer=Adafactor()), "policy")


def test_the_memory_estimate_knows_what_each_optimizer_keeps(tiny_llama):
    def needed(optimizer, **settings) -> float:
        return training_bytes(tiny_llama, 1000, TrainingConfig(optimizer=optimizer, **settings), 1)

    assert needed(AdamW()) == 16_000  # weight, gradient, two moments
    assert needed(AdamW8bit()) == pytest.approx(10_030)
    assert needed(Adafactor()) == 8_000
    lora = LoraConfig(rank=1)
    assert needed(Adafactor(), lora=lora) < needed(AdamW(), lora=lora)
