"""Models: a Hugging Face folder → a policy or scalar model, adapters included, and back; small models from scratch."""

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
