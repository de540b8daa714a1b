"""The optimizer step that all trained modules share."""

import math

import pytest
import torch
from torch import nn

from rayrlhf.training.model_trainer import ModelTrainer, StepReport, TrainingConfig
from rayrlhf.training.optimizers import AdamW
from rayrlhf.training.parallel import Ranks, autocast

TARGETS = torch.tensor([1.0, 2.0, 6.0])


def make(total_steps: int = 10, **optimizer) -> ModelTrainer:
    """A single weight w in training on Σ ½(w − target)² / 3."""
    module = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(module.weight)
    return ModelTrainer(module, TrainingConfig(optimizer=AdamW(**optimizer)), total_steps, Ranks())


def squared_error(trainer: ModelTrainer, targets: torch.Tensor = TARGETS):
    def loss_of(rows: list[int]):
        loss = 0.5 * ((trainer.module.weight.squeeze() - targets[rows]) ** 2).sum() / len(targets)
        return loss, {"loss": loss}

    return loss_of


# the schedule


def test_the_rate_is_constant_by_default():
    assert [AdamW().rate_factor(step, 10) for step in (0, 5, 10)] == [1.0, 1.0, 1.0]


def test_the_warm_up_rises_to_the_full_rate_at_its_last_step():
    config = AdamW(warmup_steps=4)
    assert [config.rate_factor(step, 10) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_the_linear_schedule_falls_to_its_floor():
    config = AdamW(schedule="linear", warmup_steps=2, min_learning_rate_ratio=0.2)
    assert [config.rate_factor(step, 10) for step in (1, 2, 6, 10)] == pytest.approx([1.0, 1.0, 0.6, 0.2])


def test_the_cosine_schedule_is_half_way_down_in_the_middle():
    config = AdamW(schedule="cosine")
    assert [config.rate_factor(step, 8) for step in (0, 2, 4, 8)] == pytest.approx(
        [1.0, 0.5 * (1 + math.cos(math.pi / 4)), 0.5, 0.0], abs=1e-12
    )


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_steps_after_the_last_one_stay_at_the_floor(schedule):
    config = AdamW(schedule=schedule, min_learning_rate_ratio=0.1)
    assert config.rate_factor(15, 10) == config.rate_factor(10, 10) >= 0.1


def test_a_warm_up_longer_than_the_run_is_no_error():
    config = AdamW(schedule="linear", warmup_steps=10)
    assert config.rate_factor(3, 5) == 0.4


def test_the_optimizer_follows_the_schedule_and_reports_the_rate_it_used():
    trainer = make(total_steps=4, learning_rate=0.1, schedule="linear")
    rates = [trainer.step([[0, 1, 2]], squared_error(trainer)).shared["learning_rate"] for _ in range(4)]
    assert rates == pytest.approx([0.1, 0.075, 0.05, 0.025])


# a step


def test_the_gradient_is_the_sum_over_micro_batches():
    trainer = make(max_grad_norm=None)
    report = trainer.step([[2], [0, 1]], squared_error(trainer))
    assert report.shared["grad_norm"] == pytest.approx(3.0)  # |0 − mean target|
    assert report.partial["loss"] == pytest.approx((1 + 4 + 36) / 6)


def test_an_empty_micro_batch_counts_nothing():
    trainer, plain = make(), make()
    report = trainer.step([[0, 1, 2], []], squared_error(trainer))
    wanted = plain.step([[0, 1, 2]], squared_error(plain))
    assert (report.partial, report.shared) == (wanted.partial, wanted.shared)
    assert torch.equal(trainer.module.weight, plain.module.weight)


def test_gradients_are_scaled_down_to_the_norm_and_reported_as_they_were():
    trainer = make(max_grad_norm=0.5)
    seen = []
    trainer.optimizer.register_step_pre_hook(lambda *_: seen.append(trainer.module.weight.grad.item()))
    report = trainer.step([[0, 1, 2]], squared_error(trainer))
    assert report.shared["grad_norm"] == pytest.approx(3.0)
    assert seen == [pytest.approx(-0.5, rel=1e-4)]


def test_gradients_do_not_carry_over_to_the_next_step():
    trainer = make(learning_rate=1e-12)
    norms = [trainer.step([[0, 1, 2]], squared_error(trainer)).shared["grad_norm"] for _ in range(3)]
    assert norms == pytest.approx([3.0, 3.0, 3.0])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_skips_the_step_and_says_so(bad):
    trainer = make(learning_rate=0.1)
    trainer.step([[0, 1, 2]], squared_error(trainer))
    before = trainer.module.weight.detach().clone()
    momentum = trainer.optimizer.state[trainer.module.weight]["exp_avg"].clone()
    report = trainer.step([[0, 1, 2]], squared_error(trainer, torch.tensor([1.0, bad, 6.0])))
    assert report.shared["skipped_steps"] == 1.0
    assert not math.isfinite(report.shared["grad_norm"])
    assert torch.equal(trainer.module.weight, before)
    assert torch.equal(trainer.optimizer.state[trainer.module.weight]["exp_avg"], momentum)
    after = trainer.step([[0, 1, 2]], squared_error(trainer))
    assert after.shared["skipped_steps"] == 0.0
    assert trainer.module.weight > before


def test_frozen_parameters_are_not_trained():
    module = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    module[0].requires_grad_(False)
    trainer = ModelTrainer(module, TrainingConfig(optimizer=AdamW(learning_rate=0.1)), 1, Ranks())
    before = [parameter.detach().clone() for parameter in module.parameters()]

    def loss_of(rows):
        loss = trainer.module(torch.ones(1, 1)).sum()
        return loss, {}

    trainer.step([[0]], loss_of)
    changed = [not torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True)]
    assert changed == [False, False, True, True]


def test_reports_of_all_ranks_add_up_and_share_the_rest():
    reports = [StepReport({"loss": 1.0, "only": 3.0}, {"rate": 0.1}), StepReport({"loss": 0.5}, {"rate": 0.1})]
    assert StepReport.merge(reports) == {"loss": 1.5, "only": 3.0, "rate": 0.1}


def test_a_restored_trainer_goes_on_as_if_it_had_never_stopped():
    def run(trainer: ModelTrainer, steps: int) -> float:
        for _ in range(steps):
            trainer.step([[0, 1, 2]], squared_error(trainer))
        return trainer.module.weight.item()

    straight = make(learning_rate=0.1, schedule="cosine")
    first = make(learning_rate=0.1, schedule="cosine")
    run(straight, 3)
    run(first, 3)
    second = make(learning_rate=0.1, schedule="cosine")
    second.load_training_state(first.training_state())
    assert run(second, 3) == run(straight, 3)


def test_precision_decides_what_forward_passes_compute_in():
    cpu = torch.device("cpu")
    for precision, wanted in (("auto", torch.float32), ("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        with autocast(cpu, precision):
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == wanted
