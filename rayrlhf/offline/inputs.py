"""Checks of an offline stage's models, made before anything starts."""

from __future__ import annotations

from rayrlhf.config import ConfigError
from rayrlhf.models import read_model_config
from rayrlhf.models.folder import check_same_vocabulary
from rayrlhf.offline.config import OfflineConfig
from rayrlhf.training.inputs import check_training


def check_models(config: OfflineConfig) -> None:
    """Check all models of a run with resolved paths.

    Raises ModelFolderError if one is missing or its tokenizer differs from the first one's, and ConfigError if rows may
    be longer than its context or if the first cannot be trained with these settings. Nor may it be of another type than
    the stage trains.
    """
    config.check_type()
    for model in dict.fromkeys(config.models.values()):
        limit = getattr(read_model_config(model), "max_position_embeddings", None)
        check_same_vocabulary(config.model, model)
        if limit is not None and config.data.max_tokens > limit:
            raise ConfigError(
                f"data.max_tokens is {config.data.max_tokens}, but model {model!r} takes at most {limit}: "
                f"set data.max_tokens={limit} or less"
            )
    check_training(config.model, config.training, "training", config.workers.num_gpus, "workers.num_gpus")
