"""AdamW with moments in 8 bits, on CUDA."""

import pytest
import torch
from torch import nn

from rayrlhf.training.model_trainer import ModelTrainer, TrainingConfig
from rayrlhf.training.optimizers import AdamW8bit
from rayrlhf.training.parallel import Ranks

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]


def make() -> ModelTrainer:
    torch.manual_seed(0)
    module = nn.Linear(128, 64)  # bitsandbytes keeps weights of fewer than 4,096 elements in 32 bits
    return ModelTrainer(module, TrainingConfig(optimizer=AdamW8bit(learning_rate=1e-3)), 20, Ranks())


def run(trainer: ModelTrainer, steps: int) -> list[float]:
    inputs = torch.randn(32, 128, generator=torch.Generator().manual_seed(0)).cuda()

    def loss_of(rows: list[int]):
        loss = (trainer.module(inputs) - 1).square().mean()
        return loss, {"loss": loss}

    return [trainer.step([[0]], loss_of).partial["loss"] for _ in range(steps)]


def test_moments_take_a_byte_and_the_loss_falls():
    pytest.importorskip("bitsandbytes")
    trainer = make()
    losses = run(trainer, 10)
    assert losses[-1] < losses[0]
    state = trainer.optimizer.state[trainer.trained.weights["weight"]]
    assert {state[name].dtype for name in ("state1", "state2")} == {torch.uint8}


def test_a_restored_run_goes_on_bit_for_bit():
    pytest.importorskip("bitsandbytes")
    straight, stopped, resumed = make(), make(), make()
    run(straight, 4)
    run(stopped, 4)
    resumed.load_training_state(stopped.training_state())
    assert run(resumed, 4) == run(straight, 4)
