"""Responses that the policy's loss leaves out (`mask_truncated`, rejection), up to all of them: metrics stay finite,
and nothing moves that has nothing to learn."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from padded_arrays import in_order

from rayrlhf.algorithms import GRPO, PPO, ScoredRollouts
from rayrlhf.algorithms.policy_loss import ImportanceCorrection
from rayrlhf.data.tokens.sequences import Sequences
from rayrlhf.ppo.handles import Learners
from rayrlhf.training.model_trainer import TrainingConfig
from rayrlhf.training.optimizers import AdamW
from rayrlhf.training.parallel import Ranks
from rayrlhf.training.ptx import PtxMix
from rayrlhf.workers.learner import CriticLearner, PolicyLearner

LENGTHS = [(3, 4), (2, 7), (5, 1), (1, 3)]
TRUNCATED = GRPO(mask_truncated=True, kl_coef=0.0, minibatch_size=2)
TEXTS = Sequences.build([([5, 6, 7], [8, 9, 10, 11]), ([20, 21], [22])])


def learner(model: str, algorithm=TRUNCATED, **extras) -> PolicyLearner:
    config = TrainingConfig(optimizer=AdamW(learning_rate=1e-3))
    return PolicyLearner(model, config, algorithm, 10, Ranks(), **extras)


def weights(worker) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in worker.trainer.state_dict().items()}


def credit(worker: PolicyLearner, algorithm, rollouts):
    old = in_order(worker.logprobs(rollouts, 1.0))
    values = np.zeros((old.shape[0], old.shape[1] + 1), np.float32) if algorithm.needs_critic else None
    reference = old if algorithm.needs_reference else None
    scores = np.array([1.0, -1.0, 2.0, 0.0], np.float32)
    scored = ScoredRollouts(rollouts, scores, old, 8, reference, values)
    return algorithm.assign_credit(scored, algorithm.kl_coef)[0]


def test_a_minibatch_of_left_out_responses_moves_nothing_even_after_others_did(tiny_qwen2, make_rollouts):
    rollouts = make_rollouts(LENGTHS, prompt_ids=[0, 0, 1, 1], finished=[True, True, False, False])
    worker = learner(tiny_qwen2, ema_decay=0.5)
    batch = credit(worker, TRUNCATED, rollouts)
    worker.update(batch, np.arange(2), 1.0)  # fills the optimizer's momentum
    before, average = weights(worker), [value.clone() for value in worker._average._average]
    report = worker.update(batch, np.array([2, 3]), 1.0)
    assert (report.partial, report.shared) == ({}, {})
    assert all(torch.equal(value, before[name]) for name, value in weights(worker).items())
    assert all(map(torch.equal, worker._average._average, average))


def test_the_texts_of_ptx_are_learned_where_all_responses_are_left_out(tiny_qwen2, make_rollouts):
    rollouts = make_rollouts(LENGTHS, prompt_ids=[0, 0, 1, 1], finished=[False] * 4)
    worker = learner(tiny_qwen2, ptx=PtxMix(TEXTS, coef=1.0, batch_size=2, seed=0))
    report = worker.update(credit(worker, TRUNCATED, rollouts), np.arange(4), 1.0)
    assert report.partial.keys() == {"policy/ptx_loss"}
    assert report.shared["policy/grad_norm"] > 0


@pytest.mark.parametrize(
    "algorithm",
    [
        TRUNCATED,
        GRPO(mask_truncated=True, minibatch_size=2),
        PPO(mask_truncated=True, minibatch_size=2, entropy_coef=0.1),
        GRPO(importance_correction=ImportanceCorrection(kind="reject", level="geometric", cap=1e-9), minibatch_size=2),
    ],
    ids=["grpo", "with a KL in the loss", "ppo", "rejected by the geometric mean"],
)
@pytest.mark.parametrize("num_finished", [0, 1, 4])
def test_metrics_of_a_step_are_finite_however_many_responses_are_left_out(
    tiny_qwen2, make_rollouts, algorithm, num_finished
):
    finished = (np.arange(4) < num_finished).tolist()
    rollouts = make_rollouts(LENGTHS, prompt_ids=[0, 0, 1, 1], finished=finished)
    worker = learner(tiny_qwen2, algorithm)
    groups = {"policy": group_of(worker)}
    if algorithm.needs_critic:
        groups["critic"] = group_of(CriticLearner(tiny_qwen2, TrainingConfig(), algorithm, 10, False, Ranks()))
    config: Any = SimpleNamespace(algorithm=algorithm, run=SimpleNamespace(seed=0), learning_temperature=1.0)
    batch = credit(worker, algorithm, rollouts)
    metrics = InProcess(groups, config).update(SimpleNamespace(num_trained=4, batch=batch), step=0)
    assert all(map(math.isfinite, metrics.values())), metrics
    learns = not algorithm.mask_truncated or num_finished > 0
    assert ("policy/first_ratio_mean" in metrics) == learns
    if learns:
        assert metrics["policy/first_ratio_mean"] == pytest.approx(1.0, abs=1e-5)
    assert ("value/loss" in metrics) == algorithm.needs_critic


class InProcess(Learners):
    """Learners whose workers are here."""

    def _wait_all(self, refs: list[Any], awaited: str) -> list[Any]:
        return refs


def group_of(worker: Any) -> Any:
    return SimpleNamespace(call=lambda method, **arguments: [getattr(worker, method)(**arguments)])
