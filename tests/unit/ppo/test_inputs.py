"""What a PPO run reads before any actor starts, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import pytest

from rayrlhf.config import ConfigError, UserError, parse_config
from rayrlhf.engines import Adapters
from rayrlhf.models import load_tokenizer
from rayrlhf.models.init import ModelShape, init_model_folder
from rayrlhf.ppo.config import PPOConfig
from rayrlhf.ppo.inputs import load_inputs

RULES = {"kind": "rules", "rules": [{"kind": "numeric", "after": "####"}]}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    """With attention heads that the samplers can compute."""
    folder = tmp_path_factory.mktemp("ppo_inputs") / "model"
    shape = ModelShape(vocab_size=300, hidden_size=32, num_layers=1, num_heads=1, num_kv_heads=1, intermediate_size=32)
    init_model_folder(folder, shape, ["1 + 1? #### 2"])
    return str(folder)


@pytest.fixture
def config(model, tmp_path):
    file = tmp_path / "problems.jsonl"
    rows = [{"question": f"{index} + 1?", "answer": f"#### {index + 1}"} for index in range(40)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    def make(**changes: Any) -> PPOConfig:
        data = {"train": [str(file)], "gold_answers": True, "heldout_share": 0.25, "cache": False}
        tree = {
            "run": {"name": "x"},
            "model": model,
            "reward": {"source": RULES},
            "algorithm": {"kind": "grpo", "kl_coef": 0, "minibatch_size": 8},
            "num_generations": 4,
            "batch_size": 8,
            "sampling": {"max_completion_length": 8},
            "data": data | changes.pop("data", {}),
        }
        return parse_config(PPOConfig, tree | changes, "x.yaml").resolved()

    return make


def test_each_prompt_finds_its_own_gold_answer_held_out_ones_too(config, model):
    tokenizer = load_tokenizer(model)
    inputs = load_inputs(config())
    heldout = [request.prompt for request in inputs.heldout]
    assert len(inputs.prompts) + len(heldout) == 40 == len(inputs.gold_answers)
    for prompt in (*inputs.prompts, *heldout):
        number = int("".join(filter(str.isdigit, tokenizer.decode(prompt.token_ids).split("+")[0])))
        assert inputs.gold_answers[prompt.id] == f"#### {number + 1}"
    assert len({prompt.id for prompt in (*inputs.prompts, *heldout)}) == 40


def test_without_gold_answers_prompts_are_prompts_alone(config):
    source = {"kind": "rules", "rules": [{"kind": "length", "max": 20}]}
    inputs = load_inputs(config(data={"gold_answers": False}, reward={"source": source}))
    assert inputs.gold_answers is None
    assert list(inputs.models) == ["policy"]


def test_a_rule_that_compares_needs_gold_answers(config):
    with pytest.raises(ConfigError, match=r"compares responses with the data's answers: set data\.gold_answers=true"):
        load_inputs(config(data={"gold_answers": False}))


def test_a_function_that_cannot_be_found_is_refused_at_once(config, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("def other(): return 1\n")
    for path, problem in ((f"{file}:score", "score"), (f"{tmp_path / 'none.py'}:score", "none.py")):
        with pytest.raises(UserError, match=problem):
            load_inputs(config(reward={"source": {"kind": "function", "path": path}}))


def test_a_critic_starts_from_the_policy_where_there_is_no_reward_model(config, model):
    ppo = config(algorithm={"kind": "ppo", "minibatch_size": 8})
    assert ppo.critic_model == ppo.model == str(Path(model).absolute())
    assert set(load_inputs(ppo).models) == {"policy", "reference", "critic"}


def test_samplers_get_whole_weights_unless_adapters_are_asked_for(config):
    assert config().sent_adapters is None
    assert config(policy={"lora": {"rank": 4}}).sent_adapters is None
    targets = {"rank": 4, "alpha": 6.0, "target_modules": ["q_proj"], "send": "adapters"}
    sent = config(policy={"lora": targets}).sent_adapters
    assert sent == Adapters(rank=4, alpha=6.0, layers=("model.layers.0.self_attn.q_proj",))


def test_only_the_policy_sends_adapters(config):
    with pytest.raises(ConfigError, match=r"critic\.lora\.send"):
        config(critic={"lora": {"send": "adapters"}})


def test_adapters_on_4_bits_are_never_sent_alone(config):
    with pytest.raises(ConfigError, match="set send to merged, or load_in_4bit to false"):
        config(policy={"lora": {"send": "adapters", "load_in_4bit": True}})


@pytest.mark.parametrize("role", ["policy", "critic"])
def test_4_bits_are_refused_for_roles_without_a_gpu(config, role):
    changes = {role: {"lora": {"load_in_4bit": True}}, "algorithm": {"kind": "ppo", "minibatch_size": 8}}
    with pytest.raises(ConfigError, match=rf"{role}\.lora\.load_in_4bit is true.*set {role}\.num_gpus=1"):
        load_inputs(config(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"policy": {"lora": {"rank": 513, "send": "adapters"}}}, r"policy\.lora\.rank is 513.*up to rank 512"),
        (
            {
                "policy": {"lora": {"send": "adapters"}},
                "sampler": {"num_gpus": 1, "engine": {"dtype": "float32"}},
            },
            r"sampler\.engine\.dtype is float32.*on a GPU",
        ),
    ],
)
def test_adapters_that_the_samplers_cannot_take_are_refused_with_the_fix(config, changes, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load_inputs(config(**changes))
    assert "set policy.lora.send=merged" in str(caught.value)
    changes["policy"]["lora"]["send"] = "merged"
    load_inputs(config(**changes))


def test_adapters_that_match_nothing_are_refused(config):
    with pytest.raises(ConfigError, match=r"policy\.lora\.target_modules: nothing_here matches no linear layer"):
        load_inputs(config(policy={"lora": {"target_modules": ["nothing_here"]}}))


# columns of the data


def scoring(tmp_path, code: str, **settings: Any) -> dict[str, Any]:
    (tmp_path / "mine.py").write_text(code)
    return {"source": {"kind": "function", "path": f"{tmp_path}/mine.py:f"} | settings}


def with_places(tmp_path) -> str:
    file = tmp_path / "places.jsonl"
    rows = [{"question": f"{index} + 1?", "answer": "#### 0", "place": {"at": index}} for index in range(40)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(file)


def test_each_prompt_finds_its_own_columns_held_out_ones_too(config, model, tmp_path):
    tokenizer = load_tokenizer(model)
    reward = scoring(tmp_path, "def f(response, place): return 1")
    inputs = load_inputs(config(reward=reward, data={"train": [with_places(tmp_path)], "columns": ["place"]}))
    assert len(inputs.columns) == 40
    for prompt in (*inputs.prompts, *(request.prompt for request in inputs.heldout)):
        number = int("".join(filter(str.isdigit, tokenizer.decode(prompt.token_ids).split("+")[0])))
        assert inputs.columns.row(prompt.id) == {"place": {"at": number}}


def test_without_columns_there_are_none(config):
    assert load_inputs(config()).columns is None


@pytest.mark.parametrize(
    ("code", "settings", "columns", "message"),
    [
        ("def f(response, topic): return 1", {}, ["place"], r"missing a required argument: 'topic'.*data\.columns"),
        ("def f(response, place): return 1", {}, [], r"missing a required argument: 'place'.*data\.columns"),
        (
            "def f(**given): return 1",
            {},
            ["response"],
            r"'response' is a name that .*my_response: response",
        ),
        ("def f(**given): return 1", {"arguments": {"a": 1}}, ["a"], r"'a' is one of reward\.source\.arguments"),
        ("def f(place): return 1", {}, ["place"], r"no row of .* has 'place'; a row has question, answer"),
    ],
)
def test_columns_and_functions_that_do_not_fit_are_refused_with_the_fix(
    config, tmp_path, code, settings, columns, message
):
    with pytest.raises(UserError, match=message):
        load_inputs(config(reward=scoring(tmp_path, code, **settings), data={"columns": columns}))


def test_columns_that_no_reward_can_get_are_refused(config):
    with pytest.raises(ConfigError, match=r"data\.columns: reward\.source reads no columns"):
        load_inputs(config(data={"columns": ["place"]}))
