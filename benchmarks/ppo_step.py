"""Where a PPO step spends its time: phases of a step for growing models, as a table and as JSON.

`python benchmarks/ppo_step.py [--steps N] [--out FILE]`. It starts a cluster of its own, makes models from nothing,
and reports medians over the steps after the first; shares of the step are ratios inside one run, which a noisy
machine changes less than seconds.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
from pathlib import Path
from typing import Annotated, Any

import ray
import torch
import typer
from rich.table import Table

from rayrlhf.cluster import local
from rayrlhf.config import load_config
from rayrlhf.metrics import console
from rayrlhf.models import ScalarModel, load_tokenizer
from rayrlhf.models.init import ModelShape, init_model_folder
from rayrlhf.models.texts import read_texts
from rayrlhf.ppo.config import PPOConfig
from rayrlhf.ppo.loop import run_ppo

ROOT = Path(__file__).parents[1]
PHASES = ("publish", "wait_for_rollouts", "score", "train")
SHAPES = {
    "2M": ModelShape(vocab_size=2000, hidden_size=256, num_layers=2, max_length=128),
    "6M": ModelShape(
        vocab_size=2000, hidden_size=384, num_layers=4, num_heads=6, intermediate_size=1024, max_length=128
    ),
}


def measure(name: str, shape: ModelShape, num_steps: int, folder: Path) -> dict[str, Any]:
    """Medians of one model's steps, in seconds, and the sampler's tokens per second."""
    model = folder / name
    parameters = init_model_folder(model, shape, read_texts(sorted((ROOT / "data/sample").glob("*.jsonl"))))
    reward_model = ScalarModel.load(str(model))
    torch.nn.init.normal_(reward_model.model.score.weight)
    reward_model.save(folder / f"{name}-reward", load_tokenizer(str(model)))
    changes = {
        "run.name": f"bench/{name}",
        "model": model,
        "reward.source.model": folder / f"{name}-reward",
        "num_steps": num_steps + 1,
        "evaluation.num_prompts": 1,
        "save_rollouts_interval": 0,
    }
    config = load_config(PPOConfig, ROOT / "configs/ppo/demo.yaml", [f"{k}={v}" for k, v in changes.items()])
    lines = (run_ppo(config).path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if "time/step_s" in row][1:]

    def median(metric: str) -> float:
        return statistics.median(row[metric] for row in rows)

    return {
        "model": name,
        "parameters": parameters,
        "steps": len(rows),
        "samples_per_s": config.batch_size / median("time/step_s"),
        "sampled_tokens_per_s": median("engine/tokens_per_s"),
        "weights_load_s": median("weights/load_s"),
        "step_s": median("time/step_s"),
        **{f"{phase}_s": median(f"time/{phase}_s") for phase in PHASES},
    }


def main(
    steps: Annotated[int, typer.Option(help="steps to measure, after one to warm up")] = 5,
    out: Annotated[Path, typer.Option(help="JSON file to write")] = Path("benchmarks/out/ppo_step.json"),
) -> None:
    """Time the phases of a PPO step."""
    os.chdir(ROOT)
    with tempfile.TemporaryDirectory(prefix="rb", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        os.environ |= {"RAYRLHF_STATE": str(folder / "cluster.json"), "RAYRLHF_RUNS": str(folder / "runs")}
        local.up(port=local.free_port(), dashboard_port=local.free_port())
        try:
            results = [measure(name, shape, steps, folder) for name, shape in SHAPES.items()]
        finally:
            ray.shutdown()
            local.down()
    table = Table("model", "step s", *(f"{phase} share" for phase in PHASES), "samples/s", "sampled tokens/s")
    for row in results:
        shares = [f"{row[f'{phase}_s'] / row['step_s']:.0%}" for phase in PHASES]
        table.add_row(
            row["model"],
            f"{row['step_s']:.2f}",
            *shares,
            f"{row['samples_per_s']:.1f}",
            f"{row['sampled_tokens_per_s']:.0f}",
        )
    console.print(table)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
