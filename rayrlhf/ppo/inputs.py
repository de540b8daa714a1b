"""What a PPO run reads, checked: prompts as tokens, models that fit each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, overload

from rayrlhf.config import ConfigError
from rayrlhf.data.ingest.records import Kind
from rayrlhf.data.tokens.columns import Columns
from rayrlhf.data.tokens.inputs import prepare_with_progress
from rayrlhf.data.tokens.prepare import Prepared
from rayrlhf.data.tokens.sequences import Sequences
from rayrlhf.models import load_tokenizer, read_model_config
from rayrlhf.ppo.config import PPOConfig
from rayrlhf.ppo.roles import roles_of
from rayrlhf.types import Prompt, Sample, sample_seed


@dataclass(frozen=True)
class PPOInputs:
    """Prompts and what is known of the models."""

    prompts: Prompts
    heldout: list[Sample]
    """Held-out prompts with seeds that stay the same from evaluation to evaluation."""
    gold_answers: list[str] | None
    """The answer of each prompt, by its id, if `data.gold_answers` asks for them."""
    columns: Columns | None
    """The values of `data.columns` of each prompt, by its id, if there are any."""
    data: Prepared
    ptx: Sequences | None
    """Rows of `ptx`."""
    eos_token_id: int
    max_model_len: int
    models: dict[str, str]


def load_inputs(config: PPOConfig) -> PPOInputs:
    """Read and check all inputs of a run whose paths are resolved. Raises UserError."""
    roles = roles_of(config)
    models = {label: model for role in roles for label, model in role.models(config).items()}
    for model in dict.fromkeys([config.model, *models.values()]):
        read_model_config(model)
    for role in roles:
        role.check(config)
    tokenizer = load_tokenizer(config.model)
    kind: Kind = "answers" if config.data.gold_answers else "prompts"
    data = prepare_with_progress(config.data, kind, tokenizer, config.data, config.run.seed)
    train, held_out = data.train[0], data.heldout[0]
    prompts, heldout_prompts = Prompts(train), Prompts(held_out, first_id=len(train))
    heldout = [
        Sample(prompt, 0, sample_seed(config.run.seed, 0, prompt.id - len(prompts), 0))
        for prompt in heldout_prompts[: config.evaluation.num_prompts]
    ]
    gold_answers = [*_answers(train, tokenizer), *_answers(held_out, tokenizer)] if config.data.gold_answers else None
    longest = max(prompts.longest, *(len(sample.prompt.token_ids) for sample in heldout), 0)
    needed = longest + config.sampling.max_completion_length
    limit = getattr(read_model_config(config.model), "max_position_embeddings", None)
    if limit is not None and needed > limit:
        raise ConfigError(
            f"the longest prompt has {longest} tokens and sampling.max_completion_length is "
            f"{config.sampling.max_completion_length}: {needed} together, but the model takes {limit}; lower "
            "sampling.max_completion_length or data.max_prompt_tokens, or set data.overlong_prompts=cut"
        )
    return PPOInputs(
        prompts=prompts,
        heldout=heldout,
        gold_answers=gold_answers,
        columns=_columns(data),
        data=data,
        ptx=_ptx_rows(config, tokenizer),
        eos_token_id=tokenizer.eos_token_id,
        max_model_len=needed,
        models=models,
    )


def _ptx_rows(config: PPOConfig, tokenizer: Any) -> Sequences | None:
    if config.ptx is None:
        return None
    return prepare_with_progress(config.ptx, "answers", tokenizer, config.ptx, config.run.seed).train[0]


class Prompts(Sequence[Prompt]):
    """Prompts over the mapped tokens of a data set, made when they are asked for: none takes memory before."""

    def __init__(self, data: Sequences, first_id: int = 0) -> None:
        self._data, self._first_id = data, first_id

    def __len__(self) -> int:
        return len(self._data)

    @overload
    def __getitem__(self, index: int) -> Prompt: ...
    @overload
    def __getitem__(self, index: slice) -> list[Prompt]: ...
    def __getitem__(self, index: int | slice) -> Prompt | list[Prompt]:
        """Ids are positions in the data, counted from `first_id`."""
        if isinstance(index, slice):
            return [self[row] for row in range(*index.indices(len(self)))]
        row = range(len(self))[index]
        return Prompt(self._first_id + row, self._data.row(row)[: self._data.prompt_lengths[row]])

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt."""
        return int(self._data.prompt_lengths.max(initial=0))


def _columns(data: Prepared) -> Columns | None:
    """Of all prompts by their ids: held-out ones follow those that are trained on."""
    if data.train_columns is None or data.heldout_columns is None:
        return None
    return Columns.concat([data.train_columns, data.heldout_columns])


def _answers(data: Sequences, tokenizer: Any) -> list[str]:
    """The answers as text, without eos; what the tokenizer cannot write is lost."""
    return [
        tokenizer.decode(data.row(index)[length:], skip_special_tokens=True)
        for index, length in enumerate(data.prompt_lengths.tolist())
    ]
