"""Checks of a model's training settings, made before anything starts."""

from __future__ import annotations

from rayrlhf.config import ConfigError
from rayrlhf.models import check_lora
from rayrlhf.models.folder import skeleton
from rayrlhf.models.quantized import check_4bit, check_bitsandbytes
from rayrlhf.training.model_trainer import TrainingConfig


def check_training(
    model: str, training: TrainingConfig, field: str, num_gpus: float = 0, gpus_field: str | None = None
) -> None:
    """Raises ConfigError if `model` (a folder or hub name) cannot be trained with `training`, the settings at `field`.

    num_gpus: GPUs that each worker reserves, set at `gpus_field`, by default `field`.num_gpus.
    """
    if training.lora is not None:
        check_lora(model, training.lora, f"{field}.lora")
    gpus_field = gpus_field or f"{field}.num_gpus"
    if training.load_in_4bit:
        check_4bit(model, f"{field}.lora", num_gpus, gpus_field)
    if training.optimizer.needs_cuda:
        setting = f"{field}.optimizer.kind"
        check_bitsandbytes(f"{setting} is {training.optimizer.kind}", f"{setting}=adamw", num_gpus, gpus_field)
    if training.activation_checkpointing and not skeleton(model).supports_gradient_checkpointing:
        raise ConfigError(
            f"{field}.activation_checkpointing is true, but transformers cannot recompute the layers of model "
            f"{model!r}: set {field}.activation_checkpointing=false"
        )
