"""What `--dry-run` says: derived sizes, placement and a memory estimate. Starts nothing."""

from __future__ import annotations

from typing import Any

from rayrlhf.actors.placement import describe as describe_bundle
from rayrlhf.actors.placement import plan_placement
from rayrlhf.actors.ppo_config import PPOConfig
from rayrlhf.models import read_model_config
from rayrlhf.stages import ppo_inputs
from rayrlhf.stages.offline_config import OfflineConfig
from rayrlhf.stages.offline_inputs import check_models

BYTES_IN_TRAINING = 16
"""Per parameter in float32: the parameter, its gradient and AdamW's two moments."""
BYTES_FROZEN = 4


def describe_ppo(config: PPOConfig) -> dict[str, Any]:
    """Sizes, placement and memory of a PPO run; its inputs are read and checked."""
    config = ppo_inputs.resolve_paths(config)
    inputs = ppo_inputs.load_inputs(config)
    plan = plan_placement(config.roles, config.placement.colocate)
    sizes = {name: parameter_count(read_model_config(model)) for name, model in inputs.models.items()}
    memory = {"sampler": sizes["policy"] * BYTES_FROZEN / 2**30 + config.sampler.engine.kv_cache_gib}
    for role, parameters in sizes.items():
        trained = {"policy": config.policy.sharding, "critic": config.critic.sharding}
        shards = config.roles[role].num_workers if trained.get(role) == "fsdp" else 1
        memory[role] = parameters * (BYTES_IN_TRAINING if role in trained else BYTES_FROZEN) / shards / 2**30
    return {
        "sizes": {
            "prompts": len(inputs.prompts),
            "heldout_prompts": len(inputs.heldout),
            "samples_per_step": config.batch_size,
            "prompts_per_step": config.batch_size // config.num_generations,
            "optimizer_steps_per_step": config.optimizer_steps_per_step,
            "optimizer_steps": config.num_steps * config.optimizer_steps_per_step,
            "max_sequence_tokens": inputs.max_model_len,
            "max_tokens_per_step": config.batch_size * inputs.max_model_len,
        },
        "placement": {
            "bundles": [describe_bundle(bundle) for bundle in plan.bundles],
            "seats": {role: [seat.bundle for seat in seats] for role, seats in plan.seats.items()},
            "total": f"{plan.total('CPU'):g} CPU, {plan.total('GPU'):g} GPU",
        },
        "memory_gib_per_worker": {role: round(gib, 2) for role, gib in memory.items()},
    }


def describe_offline(config: OfflineConfig) -> dict[str, Any]:
    """Sizes, resources and memory of SFT, reward-model training or DPO."""
    config = config.resolved()
    check_models(config)
    parameters = parameter_count(read_model_config(config.model))
    shards = config.workers.num_workers if config.training.sharding == "fsdp" else 1
    return {
        "sizes": {
            "rows_per_step": config.batch_size,
            "rows_per_step_and_worker": round(config.batch_size / config.workers.num_workers, 2),
            "max_tokens_per_pass": config.training.max_tokens_per_microbatch,
        },
        "placement": {
            "total": f"{config.workers.num_workers * config.workers.num_cpus:g} CPU, "
            f"{config.workers.num_workers * config.workers.num_gpus:g} GPU"
        },
        "memory_gib_per_worker": round(parameters * BYTES_IN_TRAINING / shards / 2**30, 2),
    }


def parameter_count(model_config: Any) -> int:
    """Parameters of a model with this configuration, counted without allocating any."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(model_config)
    return sum(parameter.numel() for parameter in model.parameters())
