"""How the worker of each role is built inside its actor."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import ray

from rayrlhf.algorithms import PPO, Algorithm
from rayrlhf.cluster.actor_group import RoleFactory
from rayrlhf.engines import Adapters, EngineConfig, Sampling
from rayrlhf.pool.leases import OnUpdate
from rayrlhf.ppo.config import PPOConfig
from rayrlhf.ppo.weight_store import StoreClient
from rayrlhf.training.parallel import Ranks
from rayrlhf.training.ptx import PtxMix
from rayrlhf.workers.credit import CreditAssigner
from rayrlhf.workers.learner import CriticLearner, PolicyLearner
from rayrlhf.workers.rewarder import Rewarder
from rayrlhf.workers.sampler import Sampler
from rayrlhf.workers.sampler_loop import SamplerLoop
from rayrlhf.workers.scorer import ReferenceScorer


def role_factories(config: PPOConfig, known: Any, ptx_rows: Any) -> dict[str, RoleFactory]:
    """For each role of the run but the samplers, and the credit assigner.

    known: object reference to (gold answers, columns), each by prompt id or None; ptx_rows: to the rows of
    `config.ptx`.
    """
    algorithm = config.algorithm
    steps = config.num_steps * config.optimizer_steps_per_step
    factories = {
        "reward": RoleFactory(functools.partial(_build_rewarder, config=config, known=known), restartable=True),
        "policy": RoleFactory(
            functools.partial(_build_policy, config=config, total_steps=steps, ptx_rows=ptx_rows), together=True
        ),
        "credit": RoleFactory(
            functools.partial(
                _build_credit,
                algorithm,
                config.model,
                config.sampling.max_completion_length,
                config.compares_logprobs,
                config.reward.max_reject_share,
            )
        ),
    }
    if algorithm.needs_reference:
        factories["reference"] = RoleFactory(
            functools.partial(ReferenceScorer, config.reference_model, config.reference), restartable=True
        )
    if isinstance(algorithm, PPO):
        factories["critic"] = RoleFactory(
            functools.partial(
                CriticLearner, config.critic_model, config.critic, algorithm, steps, config.critic.normalize
            ),
            together=True,
        )
    return factories


def sampler_factory(config: PPOConfig, store: Any, eos_token_id: int, max_model_len: int) -> Callable[[], SamplerLoop]:
    """Builds a sampler at work, inside its actor."""
    return functools.partial(
        _build_sampler,
        engine=config.sampler.engine,
        model=config.model,
        max_model_len=max_model_len,
        sampling=config.sampling,
        eos_token_id=eos_token_id,
        adapters=config.sent_adapters,
        store=store,
        on_update=config.rollouts.on_update,
    )


def _build_sampler(
    engine: EngineConfig,
    model: str,
    max_model_len: int,
    sampling: Sampling,
    eos_token_id: int,
    adapters: Adapters | None,
    store: Any,
    on_update: OnUpdate,
) -> SamplerLoop:
    started = engine.start(model, max_model_len, sampling, eos_token_id, adapters)
    return SamplerLoop(Sampler(started, on_update), StoreClient(store))


def _build_rewarder(ranks: Ranks, config: PPOConfig, known: Any) -> Rewarder:
    gold_answers, columns = ray.get(known)
    return Rewarder(config.reward.source, config.reward, config.model, gold_answers, ranks, columns)


def _build_policy(ranks: Ranks, config: PPOConfig, total_steps: int, ptx_rows: Any) -> PolicyLearner:
    ptx = None
    if config.ptx is not None:
        ptx = PtxMix(ray.get(ptx_rows), config.ptx.coef, config.ptx.batch_size, config.run.seed)
    return PolicyLearner(
        config.model,
        config.policy,
        config.algorithm,
        total_steps,
        ranks,
        ptx,
        config.policy.ema_decay,
        sends_adapters=config.policy.sends_adapters,
    )


def _build_credit(
    algorithm: Algorithm,
    tokenizer_folder: str,
    max_response_tokens: int,
    compare_logprobs: bool,
    max_reject_share: float,
    ranks: Ranks,
) -> CreditAssigner:
    return CreditAssigner(algorithm, tokenizer_folder, max_response_tokens, compare_logprobs, max_reject_share)
