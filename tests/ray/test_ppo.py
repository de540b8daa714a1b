"""PPO over its five roles, with real vLLM samplers, on tiny models."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import ray
from idle_node import idle_node
from made_models import make_model, make_reward_model
from ray.util import state

from rayrlhf.cli.describe import describe_ppo
from rayrlhf.cluster.placement import PlacementError
from rayrlhf.config import UserError
from rayrlhf.ppo import roles
from rayrlhf.ppo.config import PPOConfig
from rayrlhf.ppo.loop import run_ppo
from rayrlhf.run_directory import RunDirectory

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_cluster")]

SAMPLE = Path(__file__).parents[2] / "data/sample"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A policy's folder, and beside it `…_reward`, a reward model's."""
    folder = tmp_path_factory.mktemp("ppo") / "model"
    model = make_model(folder, hidden_size=64, num_heads=2, num_kv_heads=1, max_length=128)
    make_reward_model(Path(f"{model}_reward"), model)
    return model


def settings(model: str, name: str, **changes: Any) -> dict[str, Any]:
    tree = {
        "run": {"name": name, "overwrite": True, "keep_checkpoints": 1},
        "model": model,
        "reward": {"source": {"kind": "reward_model", "model": f"{model}_reward"}, "num_cpus": 0.25},
        "sampler": {"num_workers": 2, "num_cpus": 0.5, "engine": {"kv_cache_gib": 0.1}},
        "reference": {"num_cpus": 0.25},
        "policy": {"num_cpus": 0.25, "optimizer": {"learning_rate": 1e-3}},
        "critic": {"num_cpus": 0.25, "optimizer": {"learning_rate": 1e-3}},
        "algorithm": {"num_epochs": 2, "minibatch_size": 8, "missing_eos_penalty": 1.0, "entropy_coef": 0.01},
        "sampling": {"max_completion_length": 8},
        "data": {"train": [str(SAMPLE / "prompts.jsonl")], "max_prompt_tokens": 100, "heldout_share": 0.02},
        "num_steps": 2,
        "batch_size": 16,
        "checkpoint_interval": 1,
        "evaluation": {"num_prompts": 8},
    }
    return tree | changes


def run(model: str, name: str, **changes: Any) -> RunDirectory:
    return run_ppo(PPOConfig.model_validate(settings(model, name, **changes)))


@pytest.fixture(scope="module")
def places(model: str, local_cluster: None) -> tuple[Path, dict[str, set[str]], str]:
    """A run's folder, where its actors were by class, and a node with nothing to reserve, which was there meanwhile."""
    with idle_node() as idle:
        folder = run(model, "two-samplers").path
        found: dict[str, set[str]] = {}
        for actor in state.list_actors(ray.get_runtime_context().gcs_address, limit=1000):
            found.setdefault(actor["class_name"], set()).add(actor["node_id"])
    return folder, found, idle


@pytest.fixture(scope="module")
def two_samplers(places: tuple[Path, dict[str, set[str]], str]) -> Path:
    return places[0]


def metrics_of(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_what_reserves_nothing_is_beside_the_driver(places: tuple[Path, dict[str, set[str]], str]) -> None:
    _, found, idle = places
    assert found.keys() >= {"RolloutPool", "WeightStore", "Host", "SamplerHost"}
    assert all(idle not in nodes for nodes in found.values()), found


def test_every_step_samples_with_that_step_s_weights_and_both_sides_agree(two_samplers: Path) -> None:
    steps = metrics_of(two_samplers)[:2]
    assert [row["engine/version_min"] for row in steps] == [0, 1]
    assert [row["engine/version_max"] for row in steps] == [0, 1]
    assert all(row["engine/logprob_gap_max"] <= 1e-4 for row in steps)


def test_a_run_leaves_what_it_promises(two_samplers: Path) -> None:
    assert {p.name for p in two_samplers.iterdir()} - {"rejected.jsonl"} == {
        "config.yaml",
        "metrics.jsonl",
        "tensorboard",
        "checkpoints",
        "rollouts",
        "summary.json",
        "lineage.json",
        "data.json",
    }
    assert [p.name for p in (two_samplers / "checkpoints").iterdir()] == ["step-000002"]
    rows = pyarrow.parquet.read_table(two_samplers / "rollouts" / "step-000001.parquet").to_pydict()
    assert len(rows["response"]) == 16
    assert json.loads((two_samplers / "summary.json").read_text())["num_steps"] == 2


def test_policy_and_reference_are_the_same_before_the_first_update(two_samplers: Path) -> None:
    first, second = metrics_of(two_samplers)[:2]
    assert abs(first["kl/sequence_mean"]) < 1e-4
    assert second["policy/grad_norm"] > 0 and second["policy/skipped_steps"] == 0


def test_one_sampler_serves_the_same_versions_and_responses_as_two(model: str, two_samplers: Path) -> None:
    tree = {"num_workers": 1, "num_cpus": 0.5, "engine": {"kv_cache_gib": 0.1}}
    alone = run(model, "one-sampler", sampler=tree, num_steps=1).path

    def first_step(folder: Path) -> list[tuple[Any, ...]]:
        table = pyarrow.parquet.read_table(folder / "rollouts" / "step-000001.parquet").to_pydict()
        return list(zip(table["prompt_id"], table["version"], table["response"], strict=True))

    ours, theirs = first_step(alone), first_step(two_samplers)
    assert [row[:2] for row in ours] == [row[:2] for row in theirs]
    same = sum(a == b for a, b in zip(ours, theirs, strict=True))
    assert same >= 15  # seeds decide; only a tie within rounding of the batch's arithmetic may differ


def test_colocated_roles_and_two_learners_run(model: str) -> None:
    policy = {"num_workers": 2, "num_cpus": 0.5, "optimizer": {"learning_rate": 1e-3}}
    folder = run(
        model,
        "colocated",
        policy=policy,
        placement={"colocate": [["policy", "reference"], ["critic", "reward"]]},
        num_steps=1,
    ).path
    assert metrics_of(folder)[0]["engine/logprob_gap_max"] <= 1e-4


def test_more_than_the_cluster_has_is_refused_at_once(model: str) -> None:
    with pytest.raises(PlacementError, match=r"needs 5 CPU, the cluster has 4: lower sampler.num_cpus \(now 4\)"):
        run(model, "too-much", sampler={"num_workers": 4, "num_cpus": 4})


@pytest.fixture
def picky(tmp_path: Path) -> str:
    """A reward function that raises on every third response or so."""
    file = tmp_path / "picky.py"
    file.write_text(
        "def score(response, gold_answer):\n"
        "    if sum(response.encode()) % 3 == 0:\n"
        "        raise ValueError('this one I do not like')\n"
        "    return len(set(response) & set(gold_answer)) / 10\n"
    )
    return f"{file}:score"


def with_function(path: str, **settings: Any) -> dict[str, Any]:
    source = {"kind": "function", "path": path, "max_concurrency": 2, "num_retries": 0}
    return {
        "reward": {"source": source, "num_cpus": 0.25, **settings},
        "algorithm": {"kind": "grpo", "minibatch_size": 8, "kl_coef": 0.0},
        "num_generations": 4,
        "data": {
            "train": [str(SAMPLE / "sft.jsonl")],
            "gold_answers": True,
            "max_prompt_tokens": 100,
            "heldout_share": 0.02,
        },
    }


def test_responses_that_a_reward_function_fails_on_are_counted_and_never_trained_on(model: str, picky: str) -> None:
    folder = run(model, "picky", **with_function(picky, max_reject_share=0.9)).path
    steps = metrics_of(folder)[:2]
    assert all(row["ledger/trained"] + row["ledger/rejected"] == 16 for row in steps)
    assert sum(row["ledger/rejected"] for row in steps) > 0
    rows = pyarrow.parquet.read_table(folder / "rollouts" / "step-000001.parquet").to_pylist()
    assert sum(row["rejected"] is not None for row in rows) == steps[0]["ledger/rejected"]
    assert all((row["rejected"] is None) == (row["score"] == row["score"]) for row in rows)


def test_a_reward_function_that_fails_too_often_ends_the_run_with_its_first_trace(model: str, picky: str) -> None:
    with pytest.raises(UserError) as error:
        run(model, "too-picky", **with_function(picky, max_reject_share=0.01))
    assert "got no reward, more than reward.max_reject_share=0.01 allows" in str(error.value)
    assert "ValueError: this one I do not like" in str(error.value)


@pytest.mark.parametrize(
    ("settings", "roles"),
    [
        ({"kind": "grpo", "dynamic_sampling": {"max_rounds": 2}}, {"policy"}),
        ({"kind": "remax", "kl_coef": 0.0}, {"policy"}),
    ],
)
def test_algorithms_without_a_critic_run_with_the_roles_they_need(
    model: str, settings: dict[str, Any], roles: set[str]
) -> None:
    algorithm = {"minibatch_size": 8, "missing_eos_penalty": 1.0} | settings
    folder = run(model, settings["kind"], algorithm=algorithm, num_generations=4).path
    steps = metrics_of(folder)[:2]
    assert all(row["ledger/trained"] == 16 for row in steps)
    assert all(row["policy/ratio_mean"] == pytest.approx(1.0, abs=0.2) for row in steps)
    assert not any(name.startswith("value/") for row in steps for name in row)
    assert ("kl/token_mean" in steps[0]) == (settings["kind"] == "grpo")
    assert {path.name for path in (folder / "checkpoints" / "step-000002").iterdir() if path.is_dir()} == roles


def test_a_run_on_the_samplers_log_probs_trains_with_ratios_that_start_at_one(model: str) -> None:
    algorithm = {"num_epochs": 2, "minibatch_size": 8, "old_logprobs": "sampler"}
    folder = run(
        model, "samplers-logprobs", algorithm=algorithm, sampling={"max_completion_length": 8, "temperature": 0.7}
    ).path
    steps = metrics_of(folder)[:2]
    for row in steps:
        assert row["policy/first_ratio_mean"] == pytest.approx(1.0, abs=1e-3)
        assert row["policy/ratio_mean"] != row["policy/first_ratio_mean"]
        assert row["policy/grad_norm"] > 0 and row["policy/skipped_steps"] == 0
        assert "engine/logprob_gap_max" not in row  # the learner said nothing that could be compared
    assert abs(steps[0]["kl/sequence_mean"]) < 1e-3 < abs(steps[1]["kl/sequence_mean"])


@pytest.mark.parametrize("send", ["merged", "adapters"])
def test_a_policy_of_adapters_learns_beside_other_texts_and_keeps_an_average(model: str, send: str) -> None:
    lora = {"rank": 2, "send": send}
    folder = run(
        model,
        f"lora-{send}",
        policy={"num_cpus": 0.25, "lora": lora, "ema_decay": 0.9, "optimizer": {"learning_rate": 1e-2}},
        ptx={"train": [str(SAMPLE / "sft.jsonl")], "max_tokens": 64, "batch_size": 4},
        preset="trl",
    ).path
    steps = metrics_of(folder)[:2]
    assert [row["engine/version_min"] for row in steps] == [0, 1]
    assert all(row["engine/logprob_gap_max"] <= 1e-4 for row in steps)  # the samplers have the adapters of the step
    assert steps[1]["kl/token_mean"] != 0
    assert all(row["policy/ptx_loss"] > 0 for row in steps)
    saved = folder / "checkpoints" / "step-000002"
    assert {path.name for path in saved.iterdir() if path.is_dir()} == {"policy", "policy_ema", "critic"}
    assert (saved / "policy" / "adapter" / "adapter_config.json").is_file()


def test_a_role_that_is_added_is_placed_started_asked_and_read_by_name(model: str, monkeypatch: Any) -> None:
    from extra_role import BREVITY, BriefGRPO, ConfigWithBrevity

    monkeypatch.setattr(roles, "ROLES", (*roles.ROLES, BREVITY))
    changes = {"num_generations": 4, "num_steps": 1, "evaluation": {"num_prompts": 2}}
    tree = settings(model, "brevity", **changes, brevity={"num_workers": 2, "num_cpus": 0.25, "scale": 0.5})
    config = ConfigWithBrevity.model_validate(
        {**tree, "algorithm": {"kind": "grpo", "minibatch_size": 8, "kl_coef": 0}}
    )
    config = config.model_copy(update={"algorithm": BriefGRPO(minibatch_size=8, kl_coef=0)})
    assert list(config.roles) == ["sampler", "reward", "policy", "brevity"]
    described = describe_ppo(config)
    assert len(described["placement"]["seats"]["brevity"]) == 2
    (step, *_) = metrics_of(run_ppo(config).path)
    # Each response's advantage is moved by minus half its length: the mean over tokens is far below 0.
    assert step["ledger/trained"] == 16 and step["policy/loss"] > 0.5
