"""The functions of other projects that compute an update, run from a checkout.

Their models are stood in for by the batch's log-probabilities and values. Where nothing else is said, their own code
runs from there to the losses, with its own defaults.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock, patch

import references
import torch
from ours import ESTIMATORS, padded
from references import Found, Project, Ragged, Rows
from torch import Tensor

from rayrlhf.algorithms import PPO
from rayrlhf.algorithms.base import Algorithm
from rayrlhf.algorithms.presets import PRESETS

PAD, EOS, OTHER = 0, 1, 2


@dataclass(frozen=True)
class Case:
    """Three that should compute the same."""

    name: str
    peer: Project
    reference: Project
    algorithm: Algorithm


@dataclass(frozen=True)
class Peer:
    """Where a project's functions are, and how they are imported without what it takes to train."""

    name: str
    file: str  # what a checkout of it is recognized by
    root: str  # where its packages lie
    absent: tuple[str, ...]  # packages that take no part, its own and others': they need not be installed
    bare: tuple[str, ...]  # packages of which only modules are wanted: their __init__ is not run
    cases: Callable[[], list[Case]]  # to be called once they can be imported


class StandIns(MetaPathFinder, Loader):
    """Packages in which every name is a mock."""

    def __init__(self, packages: tuple[str, ...]) -> None:
        self.packages = packages

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        absent = any(f"{fullname}.".startswith(f"{package}.") for package in self.packages)
        return ModuleSpec(fullname, self, is_package=True) if absent else None

    def exec_module(self, module: ModuleType) -> None:
        module.__getattr__ = lambda name: MagicMock()


def load(peer: Peer, checkout: Path) -> list[Case]:
    root = checkout.resolve() / peer.root
    sys.path.insert(0, str(root))
    sys.meta_path.insert(0, StandIns(peer.absent))
    for package in peer.bare:
        sys.modules[package] = ModuleType(package)
        sys.modules[package].__path__ = [str(root.joinpath(*package.split(".")))]
    return peer.cases()


def openrlhf() -> list[Case]:
    makers = importlib.import_module("openrlhf.trainer.ppo_utils.experience_maker")
    losses = importlib.import_module("openrlhf.models.loss")

    def run(data: Ragged, estimator: str, beta: float, clip: tuple[float, float] | None, gamma: float = 1.0) -> Found:
        mask = masked(data)
        old, reference, new = (padded(rows, data.longest) for rows in (data.old, data.reference, data.new))
        advantage = SimpleNamespace(estimator=estimator, gamma=gamma, lambd=1.0, no_std_norm=False)
        args = SimpleNamespace(
            algo=SimpleNamespace(advantage=advantage),
            reward=SimpleNamespace(clip_range=clip),
            rollout=SimpleNamespace(n_samples_per_prompt=data.groups.count(0)),
        )
        maker = makers.RemoteExperienceMaker(
            *[None] * 4, SimpleNamespace(value=beta), SimpleNamespace(args=args), tokenizer=None
        )
        critic = estimator == "gae"
        values, new_values = (padded(without_last(rows), data.longest) for rows in (data.values, data.new_values))
        with patch.object(Tensor, "float", Tensor.double):  # it rounds to float32 on the way
            experience = makers.Experience(
                action_mask=mask,
                values=values if critic else None,
                kl=makers.compute_approx_kl(old, reference, kl_estimator="k1"),
                rewards=data.scores,
                index=list(range(len(data.scores))),
            )
            maker.compute_advantages_and_returns([experience])
        advantages, returns = experience.advantages, experience.returns
        policy_loss = losses.PolicyLoss()(new, old, advantages, mask)[0]
        if not critic:
            return Found(rows_of(advantages, mask), None, policy_loss, None)
        value_loss = losses.ValueLoss(0.5)(new_values, values, returns, mask)
        return Found(rows_of(advantages, mask), rows_of(returns, mask), policy_loss, value_loss)

    cases = [
        Case(
            "preset openrlhf",
            partial(run, estimator="gae", beta=0.01, clip=(-10, 10)),
            references.openrlhf,
            PPO(**PRESETS["openrlhf"]["algorithm"]),
        )
    ]
    for kind, algorithm in ESTIMATORS.items():
        # What groups compared is clipped there, where score_clip clips what they compare.
        clip = (-10, 10) if kind == "reinforce" else None
        cases.append(
            Case(
                kind,
                partial(run, estimator=kind, beta=0.3, clip=clip),
                partial(references.openrlhf_estimator, kind, beta=0.3),
                algorithm,
            )
        )
    cases.append(
        Case(
            "reinforce, γ = 0.9",
            partial(run, estimator="reinforce", beta=0.3, clip=(-10, 10), gamma=0.9),
            partial(references.openrlhf_estimator, "reinforce", beta=0.3, gamma=0.9),
            ESTIMATORS["reinforce"].model_copy(update={"gamma": 0.9}),
        )
    )
    return cases


def deepspeed_chat() -> list[Case]:
    trainers = importlib.import_module("dschat.rlhf.ppo_trainer")
    trainers.gather_log_probs = lambda logits, labels: logits.squeeze(-1)  # the batch has log-probabilities

    def run(data: Ragged, pad: int) -> Found:
        sequences, prompt = tokens(data, pad), max(data.prompts)

        def columns(rows: Rows, fill: float = 0.0) -> Tensor:
            """[B, prompt + longest]. Logits at t are of token t + 1, values at t of the state before it."""
            behind = [torch.nn.functional.pad(row, (prompt - 1, 0)) for row in rows]
            return padded(behind, sequences.shape[1], fill)

        old, new, reference = (columns(rows) for rows in (data.old, data.new, data.reference))
        values, new_values = (columns(rows, fill=1.0) for rows in (data.values, data.new_values))
        engine = MagicMock()
        engine.tokenizer.pad_token_id = pad
        engine.actor.side_effect = [SimpleNamespace(logits=logits.unsqueeze(-1)) for logits in (old, new)]
        engine.ref.return_value = SimpleNamespace(logits=reference.unsqueeze(-1))
        engine.reward.forward_value.return_value = {"chosen_end_scores": data.scores}
        engine.critic.forward_value.side_effect = [values, new_values]
        trainer = trainers.DeepSpeedPPOTrainer(engine, MagicMock(compute_fp32_loss=False, align_overflow=False))
        trainer.prompt_length = prompt
        trainer._generate_sequence = lambda prompts, mask, step: sequences
        assigned = recorded(trainer, "get_advantages_and_returns")
        experience = trainer.generate_experience(sequences[:, :prompt], None, 0)
        policy_loss, value_loss = trainer.train_rlhf(experience)
        learned = experience["attention_mask"][:, prompt:]
        ((advantages, returns),) = assigned
        return Found(rows_of(advantages, learned), rows_of(returns, learned), policy_loss, value_loss)

    settings = PRESETS["deepspeed_chat"]["algorithm"]
    return [
        Case("preset deepspeed_chat", partial(run, pad=PAD), references.deepspeed_chat, PPO(**settings)),
        Case(
            "the same with eos_is_pad",
            partial(run, pad=EOS),
            references.deepspeed_chat_eos_is_pad,
            PPO(**settings, eos_is_pad=True),
        ),
    ]


def kochatgpt() -> list[Case]:
    makers = importlib.import_module("chatgpt.experience_maker")
    losses = importlib.import_module("chatgpt.models.loss")

    def run(data: Ragged) -> Found:
        mask = masked(data)
        old, new, reference = (padded(rows, data.longest) for rows in (data.old, data.new, data.reference))
        # Its critic averages over the padding too; here over the response's states.
        values, new_values = (torch.stack([row[:-1].mean() for row in rows]) for rows in (data.values, data.new_values))
        actor, critic, reward_model, initial_model = (
            MagicMock(return_value=output) for output in (old, values, data.scores, reference)
        )
        actor.generate.return_value = (tokens(data, PAD), None, mask)
        made = makers.NaiveExperienceMaker(actor, critic, reward_model, initial_model).make_experience(None)
        policy_loss = losses.PolicyLoss()(new, made.action_log_probs, made.advantages, action_mask=mask)
        value_loss = losses.ValueLoss()(new_values, made.values, made.reward, action_mask=mask)
        advantages, returns = (column.expand(mask.shape) for column in (made.advantages, made.reward.unsqueeze(-1)))
        return Found(rows_of(advantages, mask), rows_of(returns, mask), policy_loss, value_loss)

    algorithm = PPO(**PRESETS["kochatgpt"]["algorithm"])
    return [Case("preset kochatgpt", run, references.kochatgpt, algorithm)]


PEERS = (
    Peer(
        "OpenRLHF 0.11",
        file="openrlhf/trainer/ppo_utils/experience_maker.py",
        root=".",
        absent=("deepspeed", "ray", "openrlhf.trainer.ray"),
        bare=("openrlhf.models", "openrlhf.trainer", "openrlhf.trainer.ppo_utils", "openrlhf.utils"),
        cases=openrlhf,
    ),
    Peer(
        "DeepSpeedExamples",
        file="applications/DeepSpeed-Chat/dschat/rlhf/ppo_trainer.py",
        root="applications/DeepSpeed-Chat",
        absent=("deepspeed",),
        bare=(),
        cases=deepspeed_chat,
    ),
    Peer(
        "ColossalAI of 20 March 2023",
        file="applications/ChatGPT/chatgpt/experience_maker/naive.py",
        root="applications/ChatGPT",
        absent=("loralib", "chatgpt.models.base"),
        bare=(),
        cases=kochatgpt,
    ),
)


def tokens(data: Ragged, pad: int) -> Tensor:
    """[B, longest prompt + longest response] ids: prompts on the left, ended responses with their eos, `pad` around."""
    prompt = max(data.prompts)
    ids = torch.full((len(data.prompts), prompt + data.longest), pad)
    for row, (length, answer, finished) in enumerate(zip(data.prompts, data.old, data.finished, strict=True)):
        end = prompt + len(answer)
        ids[row, prompt - length : end] = OTHER
        if finished:
            ids[row, end - 1] = EOS
    return ids


def masked(data: Ragged) -> Tensor:
    """[B, longest response] bool."""
    return torch.arange(data.longest) < torch.tensor([len(row) for row in data.old]).unsqueeze(1)


def rows_of(columns: Tensor, mask: Tensor) -> Rows:
    return [row[kept.bool()] for row, kept in zip(columns, mask, strict=True)]


def without_last(rows: Sequence[Tensor]) -> Rows:
    return [row[:-1] for row in rows]


def recorded(owner: Any, method: str) -> list[Any]:
    """What the method returns from now on, call by call."""
    results: list[Any] = []
    original = getattr(owner, method)

    def recording(*args: Any) -> Any:
        results.append(original(*args))
        return results[-1]

    setattr(owner, method, recording)
    return results
