"""bfloat16 parameters and their float32 masters."""

import pytest
import torch
from torch import nn

from rayrlhf.config import ConfigError, parse_config
from rayrlhf.training.model_trainer import ModelTrainer, TrainingConfig
from rayrlhf.training.optimizers import AdamW
from rayrlhf.training.parallel import Ranks
from rayrlhf.training.trained_weights import TrainedWeights


def make(parameters: str = "bfloat16", **optimizer) -> ModelTrainer:
    """A single weight w = 1 in training on −w."""
    config = TrainingConfig(parameters=parameters, optimizer=AdamW(**optimizer))
    module = nn.Linear(1, 1, bias=False, dtype=config.dtype)
    nn.init.ones_(module.weight)
    return ModelTrainer(module, config, 100, Ranks())


def run(trainer: ModelTrainer, steps: int) -> float:
    for _ in range(steps):
        trainer.step([[0]], lambda rows: (-trainer.module.weight.float().sum(), {}))
    return trainer.module.weight.item()


def test_float32_parameters_are_stepped_themselves():
    trainer = make("float32")
    assert next(trainer.trained.parameters()) is trainer.module.weight


def test_masters_learn_what_bfloat16_alone_loses():
    # Next to 1, bfloat16 has steps of 1/128: an update of 1e-3 is rounded away, ten of them are not.
    pure = nn.Linear(1, 1, bias=False, dtype=torch.bfloat16)
    nn.init.ones_(pure.weight)
    optimizer = torch.optim.AdamW(pure.parameters(), lr=1e-3, weight_decay=0.0)
    for _ in range(10):
        (-pure.weight.float().sum()).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert pure.weight.item() == 1.0
    trainer = make(learning_rate=1e-3)
    assert run(trainer, 1) == 1.0
    assert next(trainer.trained.parameters()).item() == pytest.approx(1.001)
    assert run(trainer, 9) == pytest.approx(1.0078125)
    assert next(trainer.trained.parameters()).item() == pytest.approx(1.01, abs=1e-6)
    assert trainer.module.weight.dtype == torch.bfloat16


def test_moments_are_float32():
    trainer = make()
    run(trainer, 1)
    (state,) = trainer.optimizer.state.values()
    assert {state[name].dtype for name in ("exp_avg", "exp_avg_sq")} == {torch.float32}


def test_micro_batches_are_added_up_in_float32():
    trainer = make(max_grad_norm=None)
    parts = [256.0, *[0.5] * 8]  # in bfloat16 256 + 0.5 is 256
    report = trainer.step([[row] for row in range(9)], lambda rows: (parts[rows[0]] * trainer.module.weight.sum(), {}))
    assert report.shared["grad_norm"] == 260.0


def test_a_skipped_step_changes_neither_masters_nor_weights():
    trainer = make(learning_rate=0.1)
    run(trainer, 1)
    before = [trainer.module.weight.item(), next(trainer.trained.parameters()).item()]
    report = trainer.step([[0]], lambda rows: (trainer.module.weight.sum() * float("nan"), {}))
    assert report.shared["skipped_steps"] == 1.0
    assert [trainer.module.weight.item(), next(trainer.trained.parameters()).item()] == before
    assert run(trainer, 1) > before[0]


def test_a_restored_run_goes_on_from_the_masters_bit_for_bit():
    straight, stopped, resumed = (make(learning_rate=1e-3, schedule="cosine") for _ in range(3))
    run(straight, 5)
    run(stopped, 5)
    resumed.load_training_state(stopped.training_state())
    assert torch.equal(resumed.module.weight, stopped.module.weight)
    assert run(resumed, 6) == run(straight, 6)
    (found,), (wanted,) = (list(trainer.trained.parameters()) for trainer in (resumed, straight))
    assert torch.equal(found, wanted)
    assert found.item() != found.bfloat16().item()  # the weight alone would not have been enough


def test_frozen_parameters_have_no_master():
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1)).bfloat16()
    module[0].requires_grad_(False)
    assert set(TrainedWeights(module, masters=True).weights) == {"1/weight", "1/bias"}


def test_float32_passes_over_bfloat16_parameters_are_refused():
    with pytest.raises(ConfigError, match=r"precision.*contradicts.*set parameters to float32, or precision to auto"):
        parse_config(TrainingConfig, {"parameters": "bfloat16", "precision": "float32"}, "x.yaml")


def test_bfloat16_parameters_decide_what_auto_computes_in():
    assert TrainingConfig().compute_precision == "auto"
    assert TrainingConfig(parameters="bfloat16").compute_precision == "bfloat16"
    with make().autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
