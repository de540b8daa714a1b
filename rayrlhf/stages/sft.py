"""Supervised fine-tuning on Ray Train."""

from __future__ import annotations

from typing import Any

from rayrlhf.data.reader import Tally, read_answers
from rayrlhf.data.records import Answer
from rayrlhf.data.splits import split_by_prompt
from rayrlhf.data.tokens import Sequences, tokenize_answers
from rayrlhf.models import load_tokenizer
from rayrlhf.run_directory import RunDirectory
from rayrlhf.stages.offline import Stage, run_offline
from rayrlhf.stages.offline_config import OfflineConfig, OfflineData
from rayrlhf.stages.offline_inputs import some
from rayrlhf.workers.parallel import Ranks
from rayrlhf.workers.sft import SFTWorker


class SFTData(OfflineData):
    """Files of prompts with answers."""

    train_on_prompt: bool = False
    """Train on the prompt's tokens too."""


class SFTConfig(OfflineConfig):
    """Everything `jobs/sft.py` reads."""

    data: SFTData


def run_sft(config: SFTConfig) -> RunDirectory:
    """Fine-tune `config.model` on answers; the result is in `model/` of the run directory."""
    return run_offline(STAGE, config)


def _read(config: SFTConfig, tokenizer: Any, tally: Tally) -> tuple[Sequences, Sequences]:
    data = config.data
    answers = read_answers(data.train, tally)
    if data.heldout:
        heldout = read_answers(data.heldout, tally)
    else:
        answers, heldout = split_by_prompt(answers, lambda a: a.prompt.key, data.heldout_share, config.run.seed)

    def tokens(records: list[Answer]) -> Sequences:
        return tokenize_answers(records, data.template, tokenizer, data.max_tokens, data.overlong, tally)

    return some(tokens(answers), "data.train", tally), some(tokens(heldout), "data.heldout", tally)


def _build(config: SFTConfig, total_steps: int, training: Sequences, heldout: Sequences, ranks: Ranks) -> SFTWorker:
    return SFTWorker(
        config.model,
        load_tokenizer(config.model),
        config.training,
        training,
        heldout,
        total_steps,
        ranks,
        config.data.train_on_prompt,
    )


STAGE = Stage(
    title="sft",
    shown=("sft/loss", "eval/loss", "eval/perplexity", "sft/learning_rate"),
    read=_read,
    count=len,
    build=_build,
)
