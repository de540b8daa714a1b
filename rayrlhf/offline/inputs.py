"""Checks of an offline stage's models, made before anything is started."""

from __future__ import annotations

from rayrlhf.config import ConfigError
from rayrlhf.models import read_model_config
from rayrlhf.models.folder import check_same_vocabulary
from rayrlhf.offline.config import OfflineConfig
from rayrlhf.training.inputs import check_training


def check_models(config: OfflineConfig) -> None:
    """Look at every model of a run whose paths are resolved.

    Raises ModelFolderError if one is missing or has another tokenizer than the first, and ConfigError if rows may be
    longer than it can read, or if the first cannot be trained as asked.
    """
    for model in dict.fromkeys(config.models.values()):
        limit = getattr(read_model_config(model), "max_position_embeddings", None)
        check_same_vocabulary(config.model, model)
        if limit is not None and config.data.max_tokens > limit:
            raise ConfigError(
                f"data.max_tokens is {config.data.max_tokens}, but model {model!r} takes {limit}: "
                f"set data.max_tokens={limit} or less"
            )
    check_training(config.model, config.training, "training", config.workers.num_gpus, "workers.num_gpus")
