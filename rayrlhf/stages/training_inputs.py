"""Checks of how a model shall be trained, made before anything is started."""

from __future__ import annotations

from rayrlhf.config import ConfigError
from rayrlhf.models import check_lora
from rayrlhf.models.folder import skeleton
from rayrlhf.workers.trainee import TrainingConfig


def check_training(model: str, training: TrainingConfig, field: str) -> None:
    """Raises ConfigError if `model` (a folder or hub name) cannot be trained as `training`, set at `field`, says."""
    if training.lora is not None:
        check_lora(model, training.lora, f"{field}.lora")
    if training.activation_checkpointing and not skeleton(model).supports_gradient_checkpointing:
        raise ConfigError(
            f"{field}.activation_checkpointing is true, but transformers cannot recompute the layers of model "
            f"{model!r}: set {field}.activation_checkpointing=false"
        )
