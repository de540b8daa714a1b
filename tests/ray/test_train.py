"""SFT, reward-model training and DPO on Ray Train, with real workers."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from rayrlhf.offline.dpo import DPOConfig, run_dpo
from rayrlhf.offline.reward_model import RewardModelConfig, run_reward_model
from rayrlhf.offline.sft import STAGE, SFTConfig, run_sft
from rayrlhf.offline.stage import Stage, run_offline
from rayrlhf.training.parallel import Ranks
from rayrlhf.training.sft import SFTWorker

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_cluster")]

SAMPLE = Path(__file__).parents[2] / "data/sample"


def settings(model: str, name: str, train: str, **changes: Any) -> dict[str, Any]:
    return {
        "run": {"name": name, "overwrite": True},
        "model": model,
        "data": {"train": [str(SAMPLE / train)], "max_tokens": 96, "heldout_share": 0.02},
        "batch_size": 32,
        "max_steps": 12,
        "training": {"max_tokens_per_microbatch": 2048, "optimizer": {"learning_rate": 3e-3}},
        "workers": {"num_workers": 2, "num_cpus": 0.5, "num_threads": 1},
    } | changes


def metrics_of(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def learned(row: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in row.items() if name != "elapsed_s"}


@pytest.fixture(scope="module")
def sft_runs(tiny_qwen2: str, local_cluster: None) -> dict[str, Path]:
    """The same run with replicated and with sharded parameters."""
    runs = {}
    for sharding in ("ddp", "fsdp"):
        tree = settings(tiny_qwen2, f"sft-{sharding}", "sft.jsonl")
        tree["training"]["sharding"] = sharding
        runs[sharding] = run_sft(SFTConfig.model_validate(tree)).path
    return runs


@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
def test_sft_lowers_the_held_out_loss_and_leaves_a_model_folder(sft_runs: dict[str, Path], sharding: str) -> None:
    run = sft_runs[sharding]
    rows = metrics_of(run)
    assert [row["step"] for row in rows] == list(range(13))
    assert rows[-1]["eval/loss"] < rows[0]["eval/loss"] - 0.3
    from transformers import AutoModelForCausalLM, AutoTokenizer

    assert AutoModelForCausalLM.from_pretrained(run / "model").config.model_type == "qwen2"
    assert AutoTokenizer.from_pretrained(run / "model").eos_token == "<|endoftext|>"
    assert set(json.loads((run / "lineage.json").read_text())["data"]) == {str(SAMPLE / "sft.jsonl")}
    assert next((run / "tensorboard").glob("events*")).stat().st_size > 0


def test_ddp_and_fsdp_learn_the_same(sft_runs: dict[str, Path]) -> None:
    losses = {name: [row["sft/loss"] for row in metrics_of(run)[1:4]] for name, run in sft_runs.items()}
    assert losses["ddp"] == pytest.approx(losses["fsdp"], abs=1e-5)


def test_the_reward_model_reports_accuracy_beside_the_length_baseline(tiny_llama: str) -> None:
    config = RewardModelConfig.model_validate(settings(tiny_llama, "rm", "pairs.jsonl"))
    run = run_reward_model(config).path
    summary = json.loads((run / "summary.json").read_text())
    assert summary["eval/accuracy"] > 0.6
    assert 0.5 <= summary["eval/length_baseline_accuracy"] < 0.9
    assert summary["eval/num_pairs"] > 10
    statistics = json.loads((run / "model" / "config.json").read_text())["reward_statistics"]
    assert statistics["std"] > 0


def test_dpo_starts_at_its_reference_and_learns_the_preference(tiny_llama: str) -> None:
    config = DPOConfig.model_validate(settings(tiny_llama, "dpo", "pairs.jsonl", loss={"kind": "dpo", "beta": 0.5}))
    run = run_dpo(config).path
    rows, summary = metrics_of(run), json.loads((run / "summary.json").read_text())
    assert summary["first/eval/loss"] == pytest.approx(math.log(2), rel=1e-6)
    assert summary["first/eval/margin_mean"] == 0.0
    assert rows[1]["dpo/loss"] == pytest.approx(math.log(2), rel=1e-4)
    assert summary["eval/loss"] < 0.9 * math.log(2)
    assert summary["eval/accuracy"] > 0.6
    assert summary["eval/num_pairs"] > 10
    assert json.loads((run / "lineage.json").read_text())["models"] == {"start": tiny_llama, "reference": tiny_llama}
    from transformers import AutoModelForCausalLM

    assert AutoModelForCausalLM.from_pretrained(run / "model").config.model_type == "llama"


@pytest.mark.parametrize("lora", [None, {"rank": 4, "dropout": 0.1}], ids=["all weights", "adapters with dropout"])
def test_a_failed_worker_goes_on_from_the_last_checkpoint_as_if_it_had_not_failed(
    tiny_qwen2: str, tmp_path: Path, lora: dict[str, Any] | None
) -> None:
    flag = tmp_path / "failed-once"

    class FailsOnce(SFTWorker):
        def train_step(self, rows: Any) -> dict[str, float]:
            self.steps = getattr(self, "steps", 0) + 1
            if self.steps == 6 and self.trainer.ranks.rank == 0 and not flag.exists():
                flag.touch()
                raise RuntimeError("made to fail")
            return super().train_step(rows)

    def build(config: SFTConfig, steps: int, training: Any, heldout: Any, ranks: Ranks) -> SFTWorker:
        worker = STAGE.build(config, steps, training, heldout, ranks)
        worker.__class__ = FailsOnce
        return worker

    stage = Stage(title="sft", shown=(), kind=STAGE.kind, build=build)
    tree = settings(tiny_qwen2, "fails", "sft.jsonl", max_steps=8, checkpoint_interval=2)
    tree["training"]["lora"] = lora
    failing = metrics_of(run_offline(stage, SFTConfig.model_validate(tree)).path)
    tree["run"]["name"] = "never-fails"
    smooth = metrics_of(run_sft(SFTConfig.model_validate(tree)).path)
    assert flag.exists()
    # Step 5 was done, but its checkpoint is that of step 4: it is done again, and ends where a smooth run ends.
    assert [row["step"] for row in failing] == [0, 1, 2, 3, 4, 5, 5, 6, 7, 8]
    assert [learned(row) for row in failing[6:]] == [learned(row) for row in smooth[5:]]
