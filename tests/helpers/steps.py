"""One optimizer step of each trained role in float32: its loss over all ranks, and its gradients."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from padded_arrays import mask_of

from rayrlhf.algorithms import PPO, ScoredRollouts
from rayrlhf.algorithms.preference import DPO, KTO, ORPO, PairLoss, SimPO
from rayrlhf.data.tokens.sequences import Sequences
from rayrlhf.models import load_tokenizer
from rayrlhf.training.dpo import DPOWorker
from rayrlhf.training.kto import KTOWorker, LabeledSet
from rayrlhf.training.model_trainer import SupervisedTraining
from rayrlhf.training.offline_worker import merge_reports
from rayrlhf.training.optimizers import AdamW
from rayrlhf.training.parallel import Ranks, whole
from rayrlhf.training.reward_model import PairwiseLoss, RewardModelWorker
from rayrlhf.training.sft import SFTWorker
from rayrlhf.types import Rollouts, TrainBatch
from rayrlhf.workers.learner import CriticLearner, PolicyLearner

LOSSES = {
    "policy": "policy/loss",
    "critic": "value/loss",
    "sft": "sft/loss",
    "reward_model": "reward_model/loss",
    "dpo": "dpo/loss",
    "orpo": "dpo/loss",
    "simpo": "dpo/loss",
    "kto": "dpo/loss",
}
PAIR_LOSSES: dict[str, PairLoss] = {"dpo": DPO(sft_coef=0.1), "orpo": ORPO(), "simpo": SimPO()}
ALGORITHM = PPO(entropy_coef=0.01, kl_in="loss", kl_estimator="k3")


@dataclass(frozen=True)
class Inputs:
    """What every rank is given."""

    policy: str
    reward_model: str
    batch: TrainBatch
    pairs: tuple[Sequences, Sequences]


@dataclass(frozen=True)
class Step:
    """What came of a step."""

    loss: float
    gradients: dict[str, torch.Tensor]  # as the optimizer sees them

    def assert_equals(self, wanted: "Step", tolerance: float = 1e-6) -> None:
        """Loss and each gradient, relative to its size; a gradient far below the others may differ as they do."""
        assert wanted.loss != 0 and abs(self.loss - wanted.loss) <= tolerance * abs(wanted.loss)
        assert self.gradients.keys() == wanted.gradients.keys() != set()
        norm = torch.stack([gradient.norm() for gradient in wanted.gradients.values()]).norm()
        for name, gradient in wanted.gradients.items():
            error = (self.gradients[name] - gradient).norm()
            assert error <= tolerance * max(gradient.norm(), 0.1 * norm), f"{name}: {error} of {gradient.norm()}"


def make_inputs(policy: str, reward_model: str, rollouts: Rollouts, seed: int = 0) -> Inputs:
    """Random credit for the rollouts, and as many random pairs of the same lengths."""
    rng = np.random.default_rng(seed)
    count, width = mask_of(rollouts).shape
    scores = rng.normal(size=count).astype(np.float32)
    # Near log(1 / 320), which an untrained policy says of every token: ratios lie on both sides of the clip.
    old, reference = (np.where(mask_of(rollouts), rng.normal(-5.8, 0.2, (count, width)), 0) for _ in range(2))
    values = rng.normal(size=(count, width + 1)).astype(np.float32)
    judged = ScoredRollouts(rollouts, scores, old.astype(np.float32), 8, reference.astype(np.float32), values)
    batch = ALGORITHM.assign_credit(judged, 0.1)[0]
    # One sign, so that no terms of the loss cancel: its size is theirs.
    batch = replace(batch, advantages=np.abs(batch.advantages))
    lengths = list(zip(rollouts.prompt_lengths.tolist(), rollouts.response_lengths.tolist(), strict=True))
    chosen, rejected = (
        Sequences.build([(rng.integers(4, 200, p).tolist(), rng.integers(4, 200, r).tolist()) for p, r in pairs])
        for pairs in (lengths, [(p, r % 3 + 1) for p, r in lengths])
    )
    return Inputs(policy, reward_model, batch, (chosen, rejected))


def run_steps(
    role: str, inputs: Inputs, batches: Iterable[Sequence[int]], ranks: Ranks | None = None, **settings: Any
) -> list[Step]:
    """A step on each batch of rows by one worker with these training settings, which stays where it is; the same on
    every rank."""
    ranks = ranks or Ranks()
    # Below half a unit of the weights' last place: every step is one from the start.
    optimizer = AdamW(learning_rate=1e-15, max_grad_norm=None)
    worker = _worker(role, inputs, SupervisedTraining(optimizer=optimizer, **settings), ranks)
    gradients: list[dict[str, torch.Tensor]] = []

    def keep(*_: Any) -> None:
        named = worker.trainer.inner.named_parameters()
        gradients.append({name: whole(p.grad).clone() for name, p in named if p.grad is not None})

    worker.trainer.optimizer.register_step_pre_hook(keep)
    losses = [_loss(role, worker, inputs, np.array(rows), ranks.world_size) for rows in batches]
    return [Step(*step) for step in zip(losses, gradients, strict=True)]


def _loss(role: str, worker: Any, inputs: Inputs, rows: np.ndarray, world_size: int) -> float:
    if role == "policy":
        metrics = merge_reports(worker.update(inputs.batch, rows, 0.8), world_size)
    elif role == "critic":
        metrics = merge_reports(worker.update(inputs.batch, rows), world_size)
    else:
        metrics = worker.train_step(rows)
    return metrics[LOSSES[role]]


def _worker(role: str, inputs: Inputs, config: SupervisedTraining, ranks: Ranks) -> Any:
    tokenizer, pairs = load_tokenizer(inputs.policy), inputs.pairs
    if role == "policy":
        return PolicyLearner(inputs.policy, config, ALGORITHM, 10, ranks)
    if role == "critic":
        return CriticLearner(inputs.reward_model, config, ALGORITHM, 10, True, ranks)
    if role == "sft":
        return SFTWorker(inputs.policy, tokenizer, config, pairs[0], pairs[0], 10, ranks)
    if role == "reward_model":
        return RewardModelWorker(inputs.reward_model, tokenizer, config, PairwiseLoss(), pairs, pairs, 10, ranks)
    if role == "kto":
        labeled = LabeledSet(pairs[0], np.arange(len(pairs[0])) % 2 == 0)
        worker = KTOWorker(inputs.policy, inputs.policy, tokenizer, config, KTO(), labeled, labeled, 10, ranks)
        # A policy that went away from its reference, by another distance in each row: its KL takes part in the loss.
        away = np.random.default_rng(0).normal(3, 1, len(labeled))
        worker._train = replace(worker._train, ref_mismatched=worker._train.ref_mismatched - away)
        return worker
    loss = PAIR_LOSSES[role]
    reference = inputs.policy if loss.needs_reference else None
    return DPOWorker(inputs.policy, reference, tokenizer, config, loss, pairs, pairs, 10, ranks)
