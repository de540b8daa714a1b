"""KTO (Ethayarajh et al. 2024) on one rank: a policy trained on answers labeled good or bad, and a frozen reference.

Before each optimizer step a pass without gradient over answers to other prompts estimates KL(π || π_ref), the loss's
point of reference, from all rows of the step and on all ranks alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rayrlhf.algorithms.preference import KTO
from rayrlhf.data.tokens.sequences import Sequences
from rayrlhf.functional import wins
from rayrlhf.models import Policy
from rayrlhf.models.checkpoint import check_same_in_training
from rayrlhf.training.model_trainer import ModelTrainer, TrainingConfig
from rayrlhf.training.offline_worker import OfflineWorker, score_rows
from rayrlhf.training.parallel import Ranks
from rayrlhf.training.reference import load_reference
from rayrlhf.training.sft import label_mask

Build = Callable[[np.ndarray], Sequences]
"""The rows of these numbers, [b]."""


@dataclass(frozen=True)
class LabeledSet:
    """Answers with what people thought of them."""

    answers: Sequences
    desirable: np.ndarray  # [N] bool

    def __len__(self) -> int:
        return len(self.answers)


@dataclass(frozen=True)
class Mismatches:
    """Each prompt of a set with the answer to another one, cut to the longest row of the set."""

    answers: Sequences
    partners: np.ndarray  # [N] int64, the row whose answer a row's prompt gets

    @staticmethod
    def of(answers: Sequences) -> Mismatches:
        """In a fixed random order of the rows each gets the answer of the next one with another prompt, if there is
        any. So which rows share a step or a micro-batch does not matter."""
        prompts = [answers.row(row)[:length].tobytes() for row, length in enumerate(answers.prompt_lengths)]
        order = np.random.default_rng(0).permutation(len(answers))
        partners = np.zeros(len(answers), dtype=np.int64)
        after = other = order[0]
        for row in [*order, *order][::-1]:  # twice around: the last one's next is the first
            if prompts[row] != prompts[after]:
                other = after
            partners[row], after = other, row
        return Mismatches(answers, partners)

    def lengths(self, rows: np.ndarray) -> np.ndarray:
        """[b] int64, tokens of the given rows."""
        prompts = self.answers.prompt_lengths.astype(np.int64)
        others = self.partners[rows]
        together = prompts[rows] + self.answers.lengths_of(others) - prompts[others]
        return np.minimum(together, self.answers.lengths.max())

    def build(self, rows: np.ndarray) -> Sequences:
        """The given rows, [b]."""
        prompts = self.answers.prompt_lengths
        built = []
        for row, partner, length in zip(rows, self.partners[rows], self.lengths(rows), strict=True):
            answer = self.answers.row(partner)[prompts[partner] :][: length - prompts[row]]
            built.append((self.answers.row(row)[: prompts[row]].tolist(), answer.tolist()))
        return Sequences.build(built)


@dataclass(frozen=True)
class ReferencedAnswers:
    """Labeled answers with all that the loss needs besides the policy's log-probabilities."""

    data: LabeledSet
    mismatches: Mismatches
    ref_logprobs: np.ndarray  # [N] float64, Σ log π_ref over each answer's tokens
    ref_mismatched: np.ndarray  # [N] float64, the same of each prompt's mismatched answer


class KTOWorker(OfflineWorker):
    """Trains a policy on labeled answers."""

    prefix = "dpo"  # the stage's

    def __init__(
        self,
        model: str,
        reference_model: str,
        tokenizer: Any,
        config: TrainingConfig,
        loss: KTO,
        train: LabeledSet,
        heldout: LabeledSet,
        total_steps: int,
        ranks: Ranks,
    ) -> None:
        self._loss = loss
        self._train, self._heldout = _referenced(reference_model, (train, heldout), config, ranks)
        loaded = Policy.load(model, config.dtype, config.load_in_4bit)
        check_same_in_training(loaded.model, model)
        super().__init__(ModelTrainer(loaded, config, total_steps, ranks), tokenizer)

    def train_step(self, rows: np.ndarray) -> dict[str, float]:
        kl = self._kl(self._train, rows)
        desirable = self._train.data.desirable[rows]

        def loss_of(picked: list[int]) -> tuple[Tensor, dict[str, Tensor]]:
            answers = self._train.data.answers.pick(rows[picked])
            logprobs = answer_logprobs(self.trainer.module, answers, self.trainer.ranks)
            reference = self.to_device(self._train.ref_logprobs[rows[picked]]).to(logprobs)
            labels = self.to_device(desirable[picked])
            losses = self._loss.evaluate(logprobs - reference, labels, kl)
            loss = losses.loss.sum() / len(rows)
            return loss, {"loss": loss} | _metrics(losses.rewards, labels, desirable)

        return self.optimizer_step(self._train.data.answers.lengths_of(rows), loss_of) | {"dpo/reference_kl": kl}

    def evaluate(self) -> dict[str, float]:
        """Loss, implicit rewards and accuracy on the held-out answers."""
        data, rows = self._heldout, np.arange(len(self._heldout.data))
        kl = self._kl(data, rows)
        logprobs = self._score(data.data.answers.lengths, data.data.answers.pick)
        labels = torch.from_numpy(data.data.desirable)
        losses = self._loss.evaluate(torch.from_numpy(logprobs - data.ref_logprobs), labels, kl)
        metrics = {"loss": losses.loss.mean()} | _metrics(losses.rewards, labels, data.data.desirable)
        return {f"eval/{name}": float(value) for name, value in metrics.items()} | {
            "eval/reference_kl": kl,
            "eval/num_answers": float(len(rows)),
        }

    def before_save(self) -> None:
        """Nothing to add: the model is its weights."""

    def _kl(self, data: ReferencedAnswers, rows: np.ndarray) -> float:
        """The estimate of KL(π || π_ref) from the mismatched answers of `rows`, the same on every rank."""
        logprobs = self._score(data.mismatches.lengths(rows), lambda picked: data.mismatches.build(rows[picked]))
        return self._loss.kl(torch.from_numpy(logprobs - data.ref_mismatched[rows]))

    def _score(self, lengths: np.ndarray, build: Build) -> np.ndarray:
        module = self.trainer.module.eval()
        return score_answers(module, lengths, build, self.trainer.config, self.trainer.ranks)


def _referenced(
    model: str, sets: tuple[LabeledSet, ...], config: TrainingConfig, ranks: Ranks
) -> list[ReferencedAnswers]:
    """Each of `sets` with its log-probabilities under the policy in folder `model`."""
    module = load_reference(model, config, ranks)
    referenced = []
    for data in sets:
        mismatches = Mismatches.of(data.answers)
        lengths = mismatches.lengths(np.arange(len(data)))
        matched = score_answers(module, data.answers.lengths, data.answers.pick, config, ranks)
        mismatched = score_answers(module, lengths, mismatches.build, config, ranks)
        referenced.append(ReferencedAnswers(data, mismatches, matched, mismatched))
    return referenced


def score_answers(
    module: nn.Module, lengths: np.ndarray, build: Build, config: TrainingConfig, ranks: Ranks
) -> np.ndarray:
    """[N] float64, Σ log p over each answer's tokens, the same on every rank; lengths: [N], of whole rows."""
    return score_rows(lengths, config, ranks, lambda rows: answer_logprobs(module, build(rows), ranks)[None])[0]


def answer_logprobs(module: nn.Module, answers: Sequences, ranks: Ranks) -> Tensor:
    """[b], Σ log p over each answer's tokens, eos included."""
    rows = np.arange(len(answers))
    tokens, mask = (answers.padded(rows), label_mask(answers, rows, train_on_prompt=False))
    return module(torch.from_numpy(tokens).to(ranks.device), torch.from_numpy(mask).to(ranks.device)).logprobs.sum(1)


def _metrics(rewards: Tensor, labels: Tensor, desirable: np.ndarray) -> dict[str, Tensor]:
    """What answers add to the means over all `desirable` ones and the others; rewards, labels: [b].

    An answer is judged rightly if its reward is on its label's side of 0, the reference's own reward.
    """
    zero = torch.zeros_like(rewards)
    metrics = {"accuracy": torch.where(labels, wins(rewards, zero), wins(zero, rewards)).sum() / len(desirable)}
    for name, mask, count in (
        ("desirable_reward_mean", labels, desirable.sum()),
        ("undesirable_reward_mean", ~labels, (~desirable).sum()),
    ):
        if count:
            metrics[name] = rewards[mask].sum() / count
    if len(metrics) == 3:
        metrics["margin_mean"] = metrics["desirable_reward_mean"] - metrics["undesirable_reward_mean"]
    return metrics
