"""What a PPO run reads, checked: prompts as tokens, models that fit each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rayrlhf.config import ConfigError
from rayrlhf.data.ingest.records import Kind
from rayrlhf.data.tokens.columns import Columns
from rayrlhf.data.tokens.inputs import prepare_with_progress
from rayrlhf.data.tokens.prepare import Prepared
from rayrlhf.data.tokens.sequences import Sequences
from rayrlhf.models import load_tokenizer, read_model_config
from rayrlhf.models.folder import check_same_vocabulary
from rayrlhf.ppo.config import PPOConfig
from rayrlhf.rewards import RewardModelReward, TextReward, check_columns, singles
from rayrlhf.run_directory import resolve
from rayrlhf.training.inputs import check_training
from rayrlhf.types import Prompt, Sample, sample_seed


@dataclass(frozen=True)
class PPOInputs:
    """Prompts and what is known of the models."""

    prompts: list[Prompt]
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


def resolve_paths(config: PPOConfig) -> PPOConfig:
    """The configuration with absolute paths, as actors in other working directories need them."""
    tree = config.model_dump()
    tree["model"] = resolve(config.model)
    for role in ("reference", "critic"):
        if tree[role]["model"]:
            tree[role]["model"] = resolve(tree[role]["model"])
    reward = config.reward.model_copy(update={"source": config.reward.source.resolved()})
    return PPOConfig.model_validate(tree).model_copy(
        update={"reward": reward, "data": config.data.resolved(), "ptx": config.ptx and config.ptx.resolved()}
    )


def load_inputs(config: PPOConfig) -> PPOInputs:
    """Read and check all inputs of a run whose paths are resolved. Raises UserError."""
    reward_models = [source for source in singles(config.reward.source) if isinstance(source, RewardModelReward)]
    models = {"policy": config.model}
    models |= {f"reward.{i}" if i else "reward": source.model for i, source in enumerate(reward_models)}
    if config.algorithm.needs_reference:
        models["reference"] = config.reference_model
    if config.algorithm.needs_critic:
        models["critic"] = config.critic_model
    for model in dict.fromkeys(models.values()):
        read_model_config(model)
    _check_rewards(config)
    tokenizer = load_tokenizer(config.model)
    own_tokens = {source.model for source in reward_models if source.retokenize}
    for model in dict.fromkeys(models.values()):
        if model not in own_tokens:
            check_same_vocabulary(config.model, model)
    check_training(config.model, config.policy, "policy", config.policy.num_gpus)
    if config.algorithm.needs_critic:
        check_training(config.critic_model, config.critic, "critic", config.critic.num_gpus)
    _check_sampler(config)
    kind: Kind = "answers" if config.data.gold_answers else "prompts"
    data = prepare_with_progress(config.data, kind, tokenizer, config.data, config.run.seed)
    train, held_out = data.train[0], data.heldout[0]
    prompts = _prompts(train)
    heldout = [
        Sample(prompt, 0, sample_seed(config.run.seed, 0, prompt.id - len(prompts), 0))
        for prompt in _prompts(held_out, first_id=len(prompts))[: config.evaluation.num_prompts]
    ]
    gold_answers = [*_answers(train, tokenizer), *_answers(held_out, tokenizer)] if config.data.gold_answers else None
    longest = max(len(prompt.token_ids) for prompt in [*prompts, *(request.prompt for request in heldout)])
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


def _check_rewards(config: PPOConfig) -> None:
    """Start each reward that needs no model once, so that a function that cannot be used is found now."""
    check_columns(config.reward.source, config.data.columns)
    for source in singles(config.reward.source):
        if isinstance(source, TextReward):
            source.start(config.data.columns).close()
            if source.needs_gold_answers and not config.data.gold_answers:
                raise ConfigError(
                    f"reward.source: {type(source).__name__} compares responses with the data's answers: "
                    "set data.gold_answers=true, and give data with answers"
                )


def _check_sampler(config: PPOConfig) -> None:
    """See that the engine can compute the model, and take its adapters if they are sent."""
    model_config, on_gpu = read_model_config(config.model), config.sampler.num_gpus > 0
    config.sampler.engine.check_model(model_config, on_gpu)
    if adapters := config.sent_adapters:
        config.sampler.engine.check_adapters(model_config, adapters, on_gpu)


def _ptx_rows(config: PPOConfig, tokenizer: Any) -> Sequences | None:
    if config.ptx is None:
        return None
    return prepare_with_progress(config.ptx, "answers", tokenizer, config.ptx, config.run.seed).train[0]


def _prompts(data: Sequences, first_id: int = 0) -> list[Prompt]:
    """Ids are positions in the data, counted from `first_id`."""
    return [
        Prompt(id=first_id + index, token_ids=tuple(data.row(index)[:length].tolist()))
        for index, length in enumerate(data.prompt_lengths.tolist())
    ]


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
