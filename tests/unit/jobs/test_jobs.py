"""Jobs as a person starts them, up to where a cluster would be needed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from made_models import make_reward_model

ROOT = Path(__file__).parents[3]


def job(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run(f"jobs/{name}.py", f"configs/{name}/demo.yaml", *arguments)


def run(*command: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"RAYRLHF_STATE": "/nonexistent/cluster.json", "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )


@pytest.mark.parametrize("name", ["sft", "reward_model", "dpo", "ppo"])
def test_a_misspelt_setting_ends_the_job_with_its_right_name_and_no_trace(name: str) -> None:
    done = job(name, "num_step=3", "run.nam=x")
    assert done.returncode == 2
    assert "run.nam: unknown setting; did you mean `run.name`?" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_a_dry_run_prints_sizes_placement_and_memory_and_starts_nothing(tiny_qwen2: str, tmp_path: Path) -> None:
    models = [f"model={tiny_qwen2}", f"reward.source.model={make_reward_model(tmp_path / 'reward', tiny_qwen2)}"]
    done = job("ppo", "--dry-run", *models, "data.max_prompt_tokens=100", "batch_size=64")
    assert done.returncode == 2 and "vLLM takes heads of 32" in done.stdout  # the tiny model's heads are too small
    done = job("ppo", "--dry-run", *models, "data.max_prompt_tokens=100", "sampler.num_gpus=1")
    assert done.returncode == 0, done.stdout + done.stderr
    tree = yaml.safe_load(done.stdout)
    assert tree["sizes"]["optimizer_steps_per_step"] == 2 * 128 // 64
    assert tree["placement"]["total"] == "1.5 CPU, 1 GPU"  # with one sampler
    assert tree["placement"]["samplers_as_there_is_room"] == 1
    assert set(tree["memory_gib_per_worker"]) == {"policy", "critic", "reference", "reward", "sampler"}


def test_a_job_refuses_another_stages_file_and_train_takes_it(tiny_qwen2: str) -> None:
    refused = run("jobs/dpo.py", "configs/sft/demo.yaml")
    assert refused.returncode == 2
    assert "configs/sft/demo.yaml: stage is 'sft', but jobs/dpo.py runs 'dpo'" in refused.stdout
    taken = run("-m", "rayrlhf.cli", "train", "configs/sft/demo.yaml", f"model={tiny_qwen2}", "--dry-run")
    assert taken.returncode == 0, taken.stdout + taken.stderr
    tree = yaml.safe_load(taken.stdout)
    assert next(iter(tree["config"].items())) == ("stage", "sft")
    assert tree["config"]["model"] == tiny_qwen2
    assert tree["sizes"]["rows_per_step"] == 32
