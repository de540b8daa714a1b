"""What may go with the policy's updates: other texts in the loss (PPO-ptx), and an average of the weights."""

import numpy as np
import pytest
import torch
from padded_arrays import in_order
from transformers import AutoModelForCausalLM

from rayrlhf.algorithms import GRPO, ScoredRollouts
from rayrlhf.data.tokens.sequences import Sequences
from rayrlhf.training.ema import WeightAverage
from rayrlhf.training.model_trainer import SupervisedTraining
from rayrlhf.training.optimizers import AdamW
from rayrlhf.training.parallel import Ranks
from rayrlhf.training.ptx import PtxMix
from rayrlhf.training.sft import SFTWorker
from rayrlhf.training.trained_weights import TrainedWeights
from rayrlhf.workers.learner import PolicyLearner

LENGTHS = [(3, 4), (2, 7), (5, 1), (1, 3)]
ALL = np.arange(len(LENGTHS))
TEXTS = Sequences.build([([5, 6, 7], [8, 9, 10, 11]), ([20, 21], [22]), ([30], [31, 32]), ([9], [9, 9, 9])])


def config(max_tokens: int = 8192, **settings) -> SupervisedTraining:
    optimizer = AdamW(learning_rate=1e-2, eps=1e-3)
    return SupervisedTraining(optimizer=optimizer, max_tokens_per_microbatch=max_tokens, **settings)


def learner(model: str, max_tokens: int = 8192, parameters: str = "float32", **extras) -> PolicyLearner:
    settings = config(max_tokens, parameters=parameters)
    return PolicyLearner(model, settings, GRPO(kl_coef=0), 10, Ranks(), **extras)


@pytest.fixture
def batch(tiny_qwen2, make_rollouts):
    rollouts = make_rollouts(LENGTHS, prompt_ids=[0, 0, 1, 1])
    old = in_order(learner(tiny_qwen2).logprobs(rollouts, 1.0))
    scores = np.array([1.0, -1.0, 2.0, 0.0], np.float32)
    return GRPO(kl_coef=0).assign_credit(ScoredRollouts(rollouts, scores, old, 8), 0.0)[0]


@pytest.fixture
def idle(batch):
    """A batch whose advantages are all 0: what moves the policy is something else."""
    return type(batch)(**(vars(batch) | {"advantages": np.zeros_like(batch.advantages)}))


def weights(worker) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in worker.trainer.state_dict().items()}


def test_with_nothing_else_to_learn_ptx_is_sft_with_its_weight(tiny_qwen2, tokenizer, idle):
    mixed = learner(tiny_qwen2, ptx=PtxMix(TEXTS, coef=1.0, batch_size=4, seed=0))
    report = mixed.update(idle, ALL, 1.0)
    sft = SFTWorker(tiny_qwen2, tokenizer, config(), TEXTS, TEXTS, 10, Ranks())
    metrics = sft.train_step(np.arange(4))
    assert report.partial["policy/ptx_loss"] == pytest.approx(metrics["sft/loss"], rel=1e-5)
    for name, value in weights(sft).items():
        torch.testing.assert_close(weights(mixed)[name], value, rtol=1e-5, atol=1e-6)


def test_micro_batches_change_nothing_with_ptx(tiny_qwen2, batch):
    workers = [learner(tiny_qwen2, tokens, ptx=PtxMix(TEXTS, coef=0.5, batch_size=3, seed=1)) for tokens in (8192, 10)]
    reports = [worker.update(batch, ALL, 1.0) for worker in workers]
    assert reports[0].partial == pytest.approx(reports[1].partial, rel=1e-4, abs=1e-6)
    for name, value in weights(workers[0]).items():
        torch.testing.assert_close(weights(workers[1])[name], value, rtol=1e-4, atol=1e-6)


def test_ptx_rows_are_the_same_on_every_rank_and_change_from_step_to_step():
    one, other = (PtxMix(TEXTS, coef=1.0, batch_size=2, seed=3) for _ in range(2))
    drawn = [one.next_rows().tolist() for _ in range(8)]
    assert drawn == [other.next_rows().tolist() for _ in range(8)]
    assert len({tuple(rows) for rows in drawn}) > 1
    assert PtxMix(TEXTS, coef=1.0, batch_size=100, seed=3).next_rows().shape == (4,)


def test_an_average_follows_the_weights_and_gives_them_back():
    module = torch.nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        module.weight.fill_(1.0)
        average = WeightAverage(TrainedWeights(module, masters=False), decay=0.75)
        module.weight.fill_(5.0)
        average.update()  # ¾ · 1 + ¼ · 5
        with average.applied():
            assert module.weight.tolist() == [[2.0, 2.0]]
        assert module.weight.tolist() == [[5.0, 5.0]]


def test_the_averaged_policy_is_saved_beside_the_policy(tiny_qwen2, batch, tmp_path):
    worker = learner(tiny_qwen2, ema_decay=0.9)
    before = weights(worker)
    worker.update(batch, ALL, 1.0)
    worker.save(str(tmp_path / "policy"))
    name = "model.layers.0.mlp.up_proj.weight"
    saved, averaged = (
        AutoModelForCausalLM.from_pretrained(tmp_path / folder).state_dict()[name]
        for folder in ("policy", "policy_ema")
    )
    torch.testing.assert_close(saved, weights(worker)[name])
    torch.testing.assert_close(averaged, 0.9 * before[name] + 0.1 * saved)
    assert (saved - averaged).abs().max() > 1e-4


def test_of_bfloat16_weights_the_masters_are_averaged(tiny_qwen2, batch):
    worker = learner(tiny_qwen2, ema_decay=0.5, parameters="bfloat16")
    masters = {name: value.detach().clone() for name, value in worker.trainer.trained.weights.items()}
    worker.update(batch, ALL, 1.0)
    after = worker.trainer.trained.weights
    averages = {name: (before + after[name]) / 2 for name, before in masters.items()}
    with worker._average.applied():
        for name, wanted in averages.items():
            torch.testing.assert_close(after[name].detach(), wanted.detach(), rtol=1e-6, atol=1e-7)
            in_module = worker.trainer.inner.get_parameter(name.replace("/", "."))
            assert torch.equal(in_module, wanted.bfloat16())
