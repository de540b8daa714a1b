"""Models: policies and scalar heads over Hugging Face folders, and small models made from nothing."""

from rayrlhf.models.folder import ModelFolderError, load_tokenizer, read_model_config
from rayrlhf.models.policy import Policy
from rayrlhf.models.scalar import RewardStatistics, ScalarModel

__all__ = [
    "ModelFolderError",
    "Policy",
    "RewardStatistics",
    "ScalarModel",
    "load_tokenizer",
    "read_model_config",
]
