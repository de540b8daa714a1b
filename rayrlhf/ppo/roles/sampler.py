"""Samplers: engines that generate responses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rayrlhf.engines import DefaultEngine, EngineConfig, EngineInputs
from rayrlhf.models import read_model_config
from rayrlhf.ppo.roles.spec import RoleInputs, RoleSettings, RoleSpec

if TYPE_CHECKING:
    from rayrlhf.ppo.config import PPOConfig
    from rayrlhf.workers.sampler_loop import SamplerLoop


class SamplerRole(RoleSettings):
    """Engines that generate responses."""

    engine: EngineConfig = DefaultEngine()

    @property
    def on_gpu(self) -> bool:
        """Whether the engines run on GPUs."""
        return self.num_gpus > 0


def build_sampler(config: PPOConfig, inputs: RoleInputs, store: Any) -> SamplerLoop:
    """A sampler at work, inside its actor. store: handle of the `WeightStore` actor."""
    from rayrlhf.ppo.weight_store import StoreClient
    from rayrlhf.workers.sampler import Sampler
    from rayrlhf.workers.sampler_loop import SamplerLoop

    started_with = EngineInputs(
        config.model,
        inputs.max_model_len,
        config.sampling,
        inputs.eos_token_id,
        config.sent_adapters,
        config.weights.kind,
        config.float32_head,
    )
    engine = config.sampler.engine.start(started_with)
    return SamplerLoop(Sampler(engine, config.rollouts.on_update), StoreClient(store))


def _check(config: PPOConfig) -> None:
    """The engine can compute the model, and take its adapters if these are sent."""
    config.sampler.engine.check(read_model_config(config.model), config.sampler.on_gpu, config.sent_adapters)


SAMPLER = RoleSpec("sampler", build=None, check=_check)
