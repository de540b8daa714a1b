"""Samplers: engines that generate responses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rayrlhf.engines import EngineConfig, VllmEngineConfig
from rayrlhf.models import read_model_config
from rayrlhf.ppo.roles.spec import RoleInputs, RoleSettings, RoleSpec

if TYPE_CHECKING:
    from rayrlhf.ppo.config import PPOConfig
    from rayrlhf.workers.sampler_loop import SamplerLoop


class SamplerRole(RoleSettings):
    """vLLM engines that generate responses."""

    engine: EngineConfig = VllmEngineConfig()


def build_sampler(config: PPOConfig, inputs: RoleInputs, store: Any) -> SamplerLoop:
    """A sampler at work, inside its actor. store: handle of the `WeightStore` actor."""
    from rayrlhf.ppo.weight_store import StoreClient
    from rayrlhf.workers.sampler import Sampler
    from rayrlhf.workers.sampler_loop import SamplerLoop

    engine = config.sampler.engine.start(
        config.model, inputs.max_model_len, config.sampling, inputs.eos_token_id, config.sent_adapters
    )
    return SamplerLoop(Sampler(engine, config.rollouts.on_update), StoreClient(store))


def _check(config: PPOConfig) -> None:
    """The engine can compute the model, and take its adapters if these are sent."""
    model_config, on_gpu = read_model_config(config.model), config.sampler.num_gpus > 0
    config.sampler.engine.check_model(model_config, on_gpu)
    if adapters := config.sent_adapters:
        config.sampler.engine.check_adapters(model_config, adapters, on_gpu)


SAMPLER = RoleSpec("sampler", build=None, check=_check)
