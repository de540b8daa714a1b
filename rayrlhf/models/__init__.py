"""Models: policies and scalar heads over Hugging Face folders, and small models made from nothing."""

from rayrlhf.models.folder import ModelFolderError, load_tokenizer, read_model_config
from rayrlhf.models.lora import LoraConfig, check_lora
from rayrlhf.models.policy import Policy
from rayrlhf.models.scalar import RewardStatistics, ScalarModel

__all__ = [
    "LoraConfig",
    "ModelFolderError",
    "Policy",
    "RewardStatistics",
    "ScalarModel",
    "check_lora",
    "load_tokenizer",
    "read_model_config",
]
