"""What the DPO stage refuses before anything is started, and the models that it names."""

from pathlib import Path
from typing import Any

import pytest

from rayrlhf.cli.describe import describe_offline
from rayrlhf.config import ConfigError
from rayrlhf.data.ingest.account import DataError
from rayrlhf.models import ModelFolderError
from rayrlhf.models.init import ModelShape, init_model_folder
from rayrlhf.offline import stage as offline
from rayrlhf.offline.dpo import DPOConfig, run_dpo

SAMPLE = Path(__file__).parents[3] / "data/sample"


@pytest.fixture
def make_config(tiny_qwen2, tmp_path, monkeypatch):
    monkeypatch.setenv("RAYRLHF_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("RAYRLHF_STATE", str(tmp_path / "no-cluster.json"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def make(train: str = "pairs.jsonl", max_tokens: int = 96, **changes: Any) -> DPOConfig:
        tree = {
            "run": {"name": "dpo"},
            "model": tiny_qwen2,
            "data": {"train": [str(SAMPLE / train)], "max_tokens": max_tokens},
        }
        return DPOConfig.model_validate(tree | changes)

    return make


@pytest.fixture
def foreign_model(tmp_path) -> str:
    """A folder whose tokenizer was trained on other texts."""
    shape = ModelShape(vocab_size=300, hidden_size=16, num_layers=1, num_heads=2, num_kv_heads=1, intermediate_size=16)
    init_model_folder(tmp_path / "foreign", shape, ["entirely different words make other merges " * 20])
    return str(tmp_path / "foreign")


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    """Whoever looks for a cluster has looked at too little of the input."""

    def connect(config: object) -> None:
        raise AssertionError("the input is looked at first")

    monkeypatch.setattr(offline, "connect_for", connect)


def assert_nothing_started(tmp_path: Path) -> None:
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("start", [run_dpo, describe_offline])
def test_a_reference_with_another_tokenizer_is_refused(make_config, foreign_model, tmp_path, start):
    with pytest.raises(ModelFolderError, match="have different tokenizers") as error:
        start(make_config(reference_model=foreign_model))
    assert foreign_model in str(error.value)
    assert_nothing_started(tmp_path)


@pytest.mark.parametrize("start", [run_dpo, describe_offline])
def test_a_reference_that_is_not_there_is_refused_where_runs_are(make_config, tmp_path, start):
    with pytest.raises(ModelFolderError, match="no such folder") as error:
        start(make_config(reference_model="runs/none/sft/model"))
    assert str(tmp_path / "runs/none/sft/model") in str(error.value)
    assert_nothing_started(tmp_path)


def test_rows_longer_than_the_reference_reads_are_refused(make_config, tiny_qwen2, tmp_path):
    shape = ModelShape(hidden_size=16, num_layers=1, num_heads=2, num_kv_heads=1, intermediate_size=16, max_length=64)
    short = tmp_path / "short"
    init_model_folder(short, shape, tokenizer_folder=Path(tiny_qwen2))
    with pytest.raises(ConfigError, match=r"data\.max_tokens is 96, but model .*short.* takes at most 64"):
        run_dpo(make_config(reference_model=str(short)))
    assert_nothing_started(tmp_path)


def test_prompts_without_pairs_are_refused(make_config, tmp_path):
    with pytest.raises(DataError, match=r"prompts\.jsonl"):
        run_dpo(make_config(train="prompts.jsonl"))
    assert_nothing_started(tmp_path)


def test_the_policy_as_it_starts_is_the_reference_unless_another_is_named(make_config, tiny_qwen2, tiny_llama):
    assert make_config().resolved().models == {"start": tiny_qwen2, "reference": tiny_qwen2}
    named = make_config(reference_model=tiny_llama).resolved()
    assert named.models == {"start": tiny_qwen2, "reference": tiny_llama}


def test_a_dry_run_needs_no_memory_for_the_reference(make_config, tiny_llama):
    alone, beside_another = (describe_offline(make_config(**named)) for named in ({}, {"reference_model": tiny_llama}))
    assert alone == beside_another
    assert alone["sizes"]["rows_per_step"] == 32
