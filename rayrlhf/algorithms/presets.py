"""What other projects' PPO does, as settings: a preset sets every row, and a configuration overrides any of them.

Sources: TRL 1.12 `trl/experimental/ppo/ppo_trainer.py`; OpenRLHF 0.11 `openrlhf/models/loss.py` and
`trainer/ppo_utils/experience_maker.py`; DeepSpeedExamples `applications/DeepSpeed-Chat/dschat/rlhf/ppo_trainer.py`;
KoChatGPT, which is ColossalAI's `applications/ChatGPT` of March 2023.

Where equality ends: losses are means over the optimizer step, where TRL and DeepSpeed-Chat average the means of
micro-batches; whitening, and the longest response that gets no next state, are of the step, where TRL's are of each
rank; old log-probabilities are recomputed, where TRL takes those of its generation (there one module does
both, and they differ by rounding; `old_logprobs: sampler` would be another engine's here); DeepSpeed-Chat adds the KL
of a padding token after the response, and where its pad token is the eos token (OPT, Polyglot, GPT-NeoX) set
`algorithm.eos_is_pad: true`; it drops responses with at most one token besides padding;
KoChatGPT's value is the mean over all positions, padding included, here over the response's states.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

PresetName: TypeAlias = Literal["openrlhf", "trl", "deepspeed_chat", "kochatgpt"]

PRESETS: dict[PresetName, dict[str, Any]] = {
    "openrlhf": {
        "algorithm": {
            "gamma": 1.0,
            "lam": 1.0,
            "whiten_advantages": True,
            "whiten_variance": "biased",
            "kl_in": "reward",
            "kl_estimator": "k1",
            "kl_clamp": 10.0,
            "kl_coef": 0.01,
            "score_on": "last_token",
            "score_clip": 10.0,
            "cliprange": 0.2,
            "max_log_ratio": 20.0,
            "cliprange_value": 0.5,
            "vf_coef": 1.0,
            "aggregation": "token_mean",
            "num_epochs": 1,
            "old_logprobs": "learner",
        },
        "policy": {"optimizer": {"max_grad_norm": 1.0}},
        "critic": {"optimizer": {"max_grad_norm": 1.0}},
    },
    "trl": {
        "algorithm": {
            "gamma": 1.0,
            "lam": 0.95,
            "whiten_advantages": True,
            "whiten_variance": "unbiased",
            "kl_in": "reward",
            "kl_estimator": "k1",
            "kl_clamp": None,
            "kl_coef": 0.05,
            "score_on": "next_state",
            "learn_next_state": True,
            "score_clip": None,
            "cliprange": 0.2,
            "max_log_ratio": None,
            "cliprange_value": 0.2,
            "vf_coef": 0.1,
            "aggregation": "token_mean",
            "num_epochs": 4,
            "old_logprobs": "learner",
        },
        "policy": {"optimizer": {"max_grad_norm": None}},
        "critic": {"optimizer": {"max_grad_norm": None}},
    },
    "deepspeed_chat": {
        "algorithm": {
            "gamma": 1.0,
            "lam": 0.95,
            "whiten_advantages": False,
            "kl_in": "reward",
            "kl_estimator": "k1",
            "kl_clamp": None,
            "kl_coef": 0.1,
            "score_on": "next_state",
            "learn_next_state": False,
            "score_clip": 5.0,
            "cliprange": 0.2,
            "max_log_ratio": None,
            "cliprange_value": 0.2,
            "vf_coef": 1.0,
            "aggregation": "token_mean",
            "num_epochs": 1,
            "old_logprobs": "learner",
        },
        "policy": {"optimizer": {"max_grad_norm": 1.0}},
        "critic": {"optimizer": {"max_grad_norm": 1.0}},
    },
    "kochatgpt": {
        "algorithm": {
            "advantage": "sequence",
            "whiten_advantages": False,
            "kl_in": "reward",
            "kl_estimator": "k3_reversed",
            "kl_reduction": "mean",
            "kl_clamp": None,
            "kl_coef": 0.1,
            "score_on": "last_token",
            "score_clip": None,
            "cliprange": 0.2,
            "max_log_ratio": None,
            "cliprange_value": 0.4,
            "vf_coef": 2.0,  # the loss has no ½ there
            "aggregation": "sequence_mean",
            "num_epochs": 1,
            "old_logprobs": "learner",
        },
        "policy": {"optimizer": {"max_grad_norm": None}},
        "critic": {"optimizer": {"max_grad_norm": None}},
    },
}


def with_raw_scores(source: Any) -> Any:
    """`reward.source` with reward models' scores as they are, unless it says otherwise: no such project normalizes."""
    if not isinstance(source, dict):
        return source
    if source.get("kind") == "reward_model":
        return {"normalize": False, **source}
    parts = source.get("parts")
    if not isinstance(parts, list):
        return source
    inner = [
        {**part, "source": with_raw_scores(part.get("source"))} if isinstance(part, dict) else part for part in parts
    ]
    return {**source, "parts": inner}


def under(preset: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The preset's settings with the given ones on top."""
    merged = {**preset, **given}
    for key in preset.keys() & given.keys():
        if isinstance(preset[key], dict) and isinstance(given[key], dict):
            merged[key] = under(preset[key], given[key])
    return merged


def rows(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Every single setting of a tree, by its full name."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        found |= rows(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return found
