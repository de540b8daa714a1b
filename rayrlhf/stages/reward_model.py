"""Reward-model training on Ray Train."""

from __future__ import annotations

from typing import Any

from rayrlhf.data.reader import Tally, read_preferences
from rayrlhf.data.records import Preference
from rayrlhf.data.splits import split_by_prompt
from rayrlhf.data.tokens import Sequences, tokenize_preferences
from rayrlhf.models import load_tokenizer
from rayrlhf.run_directory import RunDirectory
from rayrlhf.stages.offline import Stage, run_offline
from rayrlhf.stages.offline_config import OfflineConfig
from rayrlhf.stages.offline_inputs import some
from rayrlhf.workers.parallel import Ranks
from rayrlhf.workers.reward_model import PairwiseLoss, RewardModelWorker

Pairs = tuple[Sequences, Sequences]


class RewardModelConfig(OfflineConfig):
    """Everything `jobs/reward_model.py` reads."""

    loss: PairwiseLoss = PairwiseLoss()


def run_reward_model(config: RewardModelConfig) -> RunDirectory:
    """Train a scalar head on `config.model`; the result is in `model/` of the run directory."""
    return run_offline(STAGE, config)


def _read(config: RewardModelConfig, tokenizer: Any, tally: Tally) -> tuple[Pairs, Pairs]:
    data = config.data
    pairs = read_preferences(data.train, tally)
    if data.heldout:
        heldout = read_preferences(data.heldout, tally)
    else:
        pairs, heldout = split_by_prompt(pairs, lambda pair: pair.prompt.key, data.heldout_share, config.run.seed)

    def tokens(records: list[Preference], setting: str) -> Pairs:
        chosen, rejected = tokenize_preferences(
            records, data.template, tokenizer, data.max_tokens, data.overlong, tally
        )
        return some(chosen, setting, tally), rejected

    return tokens(pairs, "data.train"), tokens(heldout, "data.heldout")


def _count(pairs: Pairs) -> int:
    return len(pairs[0])


def _build(
    config: RewardModelConfig, total_steps: int, training: Pairs, heldout: Pairs, ranks: Ranks
) -> RewardModelWorker:
    return RewardModelWorker(
        config.model,
        load_tokenizer(config.model),
        config.training,
        config.loss,
        training,
        heldout,
        total_steps,
        ranks,
    )


STAGE = Stage(
    title="reward model",
    shown=("reward_model/loss", "eval/accuracy", "eval/longer_answer_accuracy", "eval/num_pairs"),
    read=_read,
    count=_count,
    build=_build,
)
