"""Presets in a configuration, what may override them, and what `rayrlhf config check` says of it."""

from typing import Any

import pytest
import yaml

from rayrlhf.algorithms.presets import PRESETS, rows
from rayrlhf.cli.check import check_config
from rayrlhf.config import ConfigError, parse_config
from rayrlhf.ppo.config import PPOConfig

MINIMAL: dict[str, Any] = {
    "run": {"name": "x"},
    "model": "m",
    "reward": {"source": {"kind": "reward_model", "model": "r"}},
    "data": {"train": ["prompts.jsonl"]},
}


@pytest.mark.parametrize("name", list(PRESETS))
def test_every_row_of_a_preset_is_a_setting_and_is_set(name):
    config = parse_config(PPOConfig, MINIMAL | {"preset": name}, "x.yaml")
    for row, wanted in rows(PRESETS[name]).items():
        found: Any = config
        for part in row.split("."):
            found = getattr(found, part)
        assert found == wanted, row


def test_a_configuration_has_the_last_word(tmp_path):
    tree = MINIMAL | {"preset": "trl", "algorithm": {"lam": 0.9}, "policy": {"optimizer": {"learning_rate": 1e-3}}}
    config = parse_config(PPOConfig, tree, "x.yaml")
    assert (config.algorithm.lam, config.algorithm.vf_coef) == (0.9, 0.1)
    assert (config.policy.optimizer.learning_rate, config.policy.optimizer.max_grad_norm) == (1e-3, None)
    path = tmp_path / "x.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    lines = [line.split() for line in check_config(path, ["algorithm.kl_coef=0.2", "stage=ppo"])]
    assert ["algorithm.lam", "0.95", "overridden:", "0.9"] in lines
    assert ["algorithm.kl_coef", "0.05", "overridden:", "0.2"] in lines
    assert ["algorithm.vf_coef", "0.1"] in lines
    assert ["policy.optimizer.max_grad_norm", "null"] in lines


def test_a_configuration_without_a_preset_is_only_said_to_be_valid(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text(yaml.safe_dump(MINIMAL | {"stage": "ppo"}), encoding="utf-8")
    assert list(check_config(path)) == [f"{path}: a valid configuration of stage ppo"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"preset": "trl", "algorithm": "grpo"}, "preset 'trl' is of PPO, but algorithm.kind is 'grpo'"),
        ({"preset": "nobody"}, "preset"),
        ({"algorithm": "grpo"}, "algorithm 'grpo' compares responses to one prompt: set num_generations=2"),
        (
            {"algorithm": {"dynamic_sampling": {}}},
            "algorithm.dynamic_sampling: unknown setting of ppo, but one of grpo, dr_grpo, rloo, "
            "reinforce_pp_baseline: leave it out, or set algorithm.kind=grpo or another of these",
        ),
        (
            {"algorithm": {"kind": "grpo", "lam": 0.9}, "num_generations": 4},
            "algorithm.lam: unknown setting of grpo, but one of ppo: leave it out, or set algorithm.kind=ppo",
        ),
        ({"ptx": {}}, "ptx.train: required, and not set; set it, or leave ptx out"),
        ({"num_steps": 3, "algorithm": {"critic_warmup_steps": 3}}, "leaves none of num_steps 3 for the policy"),
        (
            {"algorithm": {"importance_correction": {}}, "sampling": {"top_k": 5, "temperature": 0.7}},
            "algorithm.importance_correction compares the sampler's log-probabilities",
        ),
        (
            {"algorithm": {"old_logprobs": "sampler"}, "sampling": {"top_p": 0.9, "temperature": 0.7}},
            "change sampling, or set algorithm.old_logprobs=learner",
        ),
        ({"algorithm": {"old_logprobs": "sampler"}, "sampling": {"temperature": 0}}, "never at temperature 0"),
        (
            {"algorithm": {"old_logprobs": "sampler", "importance_correction": {}}},
            "set old_logprobs=learner, or importance_correction=null",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused_with_the_fix(changes, message):
    with pytest.raises(ConfigError) as error:
        parse_config(PPOConfig, MINIMAL | changes, "x.yaml")
    assert message in str(error.value)


SUM = {
    "kind": "sum",
    "parts": [{"source": {"kind": "reward_model", "model": "r"}}, {"source": {"kind": "http", "url": "http://x"}}],
}


@pytest.mark.parametrize("name", list(PRESETS))
@pytest.mark.parametrize("source", [MINIMAL["reward"]["source"], SUM])
def test_a_preset_leaves_scores_as_the_reward_model_gives_them_and_the_critic_knows(name, source):
    def config(**settings: Any) -> PPOConfig:
        return parse_config(PPOConfig, MINIMAL | {"reward": {"source": source}} | settings, "x.yaml")

    assert config().critic_normalizes
    preset = config(preset=name)
    assert not any(model.normalize for model in preset.token_reward_models)
    assert not preset.critic_normalizes
    assert config(preset=name, critic={"normalize": True}).critic_normalizes
    normalized = MINIMAL["reward"]["source"] | {"normalize": True}
    assert parse_config(PPOConfig, MINIMAL | {"preset": name, "reward": {"source": normalized}}, "x").critic_normalizes


def test_the_policys_schedule_is_as_long_as_the_policy_learns():
    algorithm = {"critic_warmup_steps": 4, "num_epochs": 2, "minibatch_size": 32}
    config = parse_config(PPOConfig, MINIMAL | {"num_steps": 10, "batch_size": 64, "algorithm": algorithm}, "x.yaml")
    assert (config.num_optimizer_steps, config.num_policy_steps) == (10 * 4, 6 * 4)


@pytest.mark.parametrize(
    ("settings", "float32"),
    [
        ({}, False),
        ({"lm_head_precision": "float32"}, True),
        ({"policy": {"num_gpus": 1}}, True),
        ({"policy": {"num_gpus": 1, "precision": "float32"}}, False),
        ({"policy": {"num_gpus": 1}, "lm_head_precision": "model"}, False),
        ({"policy": {"parameters": "bfloat16"}}, False),
    ],
)
def test_logits_are_float32_by_default_where_a_gpu_computes_in_bfloat16(settings, float32):
    assert parse_config(PPOConfig, MINIMAL | settings, "x.yaml").float32_head == float32
