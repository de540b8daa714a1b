"""What `--dry-run` says: derived sizes, placement and a memory estimate. Starts nothing."""

from __future__ import annotations

from typing import Any

from rayrlhf.cluster.placement import describe as describe_bundle
from rayrlhf.cluster.placement import plan_placement
from rayrlhf.models.folder import skeleton
from rayrlhf.models.lora import linear_share, trained_share
from rayrlhf.offline.config import OfflineConfig
from rayrlhf.offline.inputs import check_models
from rayrlhf.ppo import inputs as ppo_inputs
from rayrlhf.ppo.config import PPOConfig
from rayrlhf.ppo.roles import roles_of
from rayrlhf.training.model_trainer import TrainingConfig

BYTES_OF_GRADIENT = 4
"""Per trained parameter, beside the weight itself and what the optimizer keeps."""
BYTES_OF_MASTER = 6
"""More with bfloat16 parameters: the float32 master and a bfloat16 gradient."""
BYTES_FROZEN = 4
BYTES_IN_4_BITS = 4.127 / 8
"""NF4 and its doubly quantized constants (Dettmers et al. 2023, section 3)."""


def describe_ppo(config: PPOConfig) -> dict[str, Any]:
    """Sizes, placement and memory of a PPO run; its inputs are read and checked."""
    config = config.resolved()
    inputs = ppo_inputs.load_inputs(config)
    plan = plan_placement(config.reserved_roles, config.placement.colocate)
    memory = {
        label: worker_bytes(model, role.training(config), role.resources(config).num_workers) / 2**30
        for role in roles_of(config)
        for label, model in role.models(config).items()
    }
    memory["sampler"] = worker_bytes(config.model, None, 1) / 2**30 + config.sampler.engine.memory_bytes / 2**30
    return {
        "sizes": {
            "prompts": len(inputs.prompts),
            "heldout_prompts": len(inputs.heldout),
            "samples_per_step": config.batch_size,
            "prompts_per_step": config.batch_size // config.num_generations,
            "optimizer_steps_per_step": config.optimizer_steps_per_step,
            "optimizer_steps": config.num_optimizer_steps,
            "max_sequence_tokens": inputs.max_model_len,
            "max_tokens_per_step": config.batch_size * inputs.max_model_len,
        },
        "placement": {
            "bundles": [describe_bundle(bundle) for bundle in plan.bundles],
            "seats": {role: [seat.bundle for seat in seats] for role, seats in plan.seats.items()},
            "total": f"{plan.total('CPU'):g} CPU, {plan.total('GPU'):g} GPU",
            "samplers_as_there_is_room": config.sampler.num_workers - len(plan.seats["sampler"]),
        },
        "memory_gib_per_worker": {role: round(gib, 2) for role, gib in memory.items()},
    }


def describe_offline(config: OfflineConfig) -> dict[str, Any]:
    """Sizes, resources and memory of SFT, reward-model training or DPO."""
    config = config.resolved()
    check_models(config)
    needed = worker_bytes(config.model, config.training, config.workers.num_workers)
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
        "memory_gib_per_worker": round(needed / 2**30, 2),
    }


def worker_bytes(model: str, training: TrainingConfig | None, num_workers: int) -> float:
    """Bytes that one of `num_workers` needs for a model, without activations. training: None is a frozen model."""
    parameters = parameter_count(model)
    return parameters * BYTES_FROZEN if training is None else training_bytes(model, parameters, training, num_workers)


def training_bytes(model: str, parameters: int, training: TrainingConfig, num_workers: int) -> float:
    """Bytes that one of `num_workers` needs for weights, gradients and optimizer; activations come on top."""
    share = 1.0 if training.lora is None else trained_share(model, training.lora)
    weights = parameters if training.lora is None else parameters * (1 + share)
    trained = (
        BYTES_OF_GRADIENT
        + training.optimizer.state_bytes
        + (BYTES_OF_MASTER if training.parameters == "bfloat16" else 0)
    )
    total = weights * training.dtype.itemsize + parameters * share * trained
    if training.load_in_4bit:
        total -= parameters * linear_share(model) * (training.dtype.itemsize - BYTES_IN_4_BITS)
    return total / (num_workers if training.sharding == "fsdp" else 1)


def parameter_count(model: str) -> int:
    """Parameters of the model in a folder or of a hub name, counted without allocating any."""
    return sum(parameter.numel() for parameter in skeleton(model).parameters())
