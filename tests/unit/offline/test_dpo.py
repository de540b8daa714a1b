"""What the DPO stage refuses before anything is started, and the models that it names."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from rayrlhf.algorithms.preference import KTO
from rayrlhf.cli.describe import describe_offline
from rayrlhf.config import ConfigError
from rayrlhf.data.ingest.account import DataError
from rayrlhf.data.tokens.prepare import Part, prepare
from rayrlhf.models import ModelFolderError
from rayrlhf.models.init import ModelShape, init_model_folder
from rayrlhf.offline import dpo
from rayrlhf.offline import stage as offline
from rayrlhf.offline.dpo import DPOConfig, run_dpo
from rayrlhf.offline.reward_model import RewardModelConfig, run_reward_model
from rayrlhf.training.parallel import Ranks

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


# losses that need other things


@pytest.mark.parametrize("loss", ["orpo", "simpo"])
def test_a_reference_is_refused_where_the_loss_has_none_and_none_is_read(make_config, tiny_qwen2, loss):
    with pytest.raises(ValidationError, match=rf"loss '{loss}' has no reference: leave it out, or set loss to dpo"):
        make_config(loss=loss, reference_model=tiny_qwen2)
    assert make_config(loss=loss).resolved().models == {"start": tiny_qwen2}


def test_made_pairs_are_refused_where_single_answers_are_read(make_config, tmp_path):
    data = {"train": [str(SAMPLE / "pairs.jsonl")], "augment": {}}
    with pytest.raises(ValidationError, match=r"data\.augment makes pairs, but loss 'kto' learns from single answers"):
        make_config(loss="kto", data=data)


@pytest.mark.parametrize("loss", ["dpo", "ipo", "orpo", "simpo"])
def test_labeled_answers_are_refused_by_losses_on_pairs(make_config, tmp_path, loss):
    path = tmp_path / "labeled.jsonl"
    path.write_text('{"prompt": "p", "completion": "c", "label": false}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"rows have no chosen/rejected pair.*stage: dpo, loss: kto"):
        run_dpo(make_config(loss=loss, data={"train": [str(path)], "max_tokens": 96}))
    assert_nothing_started(tmp_path)


@pytest.mark.parametrize("pairs", [True, False])
def test_kto_gets_each_answer_with_its_label(make_config, monkeypatch, tokenizer, tmp_path, pairs):
    monkeypatch.setenv("RAYRLHF_CACHE", str(tmp_path / "cache"))
    rows = [{"prompt": f"Why {i}?", "chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(20)]
    if not pairs:
        sides = {"chosen": True, "rejected": False}
        rows = [{"prompt": r["prompt"], "completion": r[s], "label": good} for r in rows for s, good in sides.items()]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    config = make_config(loss="kto", data={"train": [str(path)], "heldout_share": 0.3})
    built = []
    monkeypatch.setattr(dpo, "KTOWorker", lambda *arguments: built.append(arguments))
    data = prepare(config.data, dpo.STAGE.kind(config), tokenizer, config.data, 0)
    parts = [Part(data.train, data.train_values), Part(data.heldout, data.heldout_values)]
    dpo.STAGE.build(config, 10, *parts, Ranks())
    (_, _, _, _, loss, train, heldout, *_) = built[0]
    assert loss == KTO()
    assert len(train) + len(heldout) == 40 and len(heldout)
    for part in (train, heldout):
        for row, desirable in enumerate(part.desirable):
            text = tokenizer.decode(part.answers.row(row)[part.answers.prompt_lengths[row] :])
            assert ("good" in text, "bad" in text) == (desirable, not desirable)


def test_margins_from_scores_are_refused_where_no_pair_has_scores(tiny_qwen2, tmp_path, make_config):
    config = RewardModelConfig.model_validate(
        {
            "run": {"name": "rm"},
            "model": tiny_qwen2,
            "data": {"train": [str(SAMPLE / "pairs.jsonl")], "max_tokens": 96},
            "loss": {"margin_from_scores": 0.5},
        }
    )
    with pytest.raises(ConfigError, match=r"loss\.margin_from_scores is 0\.5, but no training pair has scores"):
        run_reward_model(config)
    assert_nothing_started(tmp_path)


@pytest.mark.parametrize("start", [run_reward_model, describe_offline])
def test_a_model_that_cannot_have_a_scalar_head_is_refused_before_anything_starts(tiny_qwen2, tmp_path, start):
    folder = tmp_path / "cohere"
    shutil.copytree(tiny_qwen2, folder)
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | {"model_type": "cohere"}))
    tree = {"run": {"name": "rm"}, "model": str(folder), "data": {"train": [str(SAMPLE / "pairs.jsonl")]}}
    with pytest.raises(ModelFolderError, match="no sequence-classification model of type 'cohere'"):
        start(RewardModelConfig.model_validate(tree))
    assert_nothing_started(tmp_path)
