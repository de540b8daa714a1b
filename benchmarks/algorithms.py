"""Does every algorithm learn the sample task? Held-out reward before and after the same number of responses.

    make demo                                # leaves the models of SFT and of the reward model in runs/demo
    python benchmarks/algorithms.py [--only grpo,rloo] [--steps 12] [--seeds 1]
    python benchmarks/algorithms.py --only ppo,ppo_stale --seeds 3

All start from the demo's SFT model, sample 128 responses a step, and have the demo's learning rate and KL penalty.
Those that compare groups sample four responses to each of 32 prompts. `ppo_stale` samples while the learners train: its
rollouts are one version old, with truncated importance sampling. Writes JSON beside the table it prints.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Annotated, Any

import ray
import typer
from rich.table import Table

from rayrlhf.cluster import local
from rayrlhf.config import load_config
from rayrlhf.metrics import console
from rayrlhf.ppo.config import PPOConfig
from rayrlhf.ppo.loop import run_ppo

ROOT = Path(__file__).parents[1]
SETTINGS: dict[str, list[str]] = {
    "ppo": ["algorithm.kind=ppo", "algorithm.num_epochs=2"],
    "ppo_stale": [
        "algorithm.kind=ppo",
        "algorithm.num_epochs=2",
        "algorithm.importance_correction.kind=truncate",
        "rollouts.max_staleness=1",
    ],
    "grpo": ["algorithm.kind=grpo", "algorithm.num_epochs=2"],
    "dr_grpo": ["algorithm.kind=dr_grpo", "algorithm.num_epochs=2", "policy.optimizer.learning_rate=3.0e-4"],
    "rloo": ["algorithm.kind=rloo", "algorithm.num_epochs=2"],
    "reinforce_pp": ["algorithm.kind=reinforce_pp", "algorithm.num_epochs=2"],
    "reinforce_pp_baseline": ["algorithm.kind=reinforce_pp_baseline", "algorithm.num_epochs=2"],
    "remax": ["algorithm.kind=remax", "algorithm.num_epochs=2"],
}
GROUPED = ("grpo", "dr_grpo", "rloo", "reinforce_pp_baseline")


def measure(name: str, num_steps: int, seed: int) -> dict[str, Any]:
    """One run's held-out reward, before and after, with the standard errors."""
    overrides = [
        f"run.name=bench/{name}",
        f"run.seed={seed}",
        f"num_steps={num_steps}",
        "evaluation.interval=0",
        "save_rollouts_interval=0",
        *SETTINGS[name],
    ]
    if name in GROUPED:
        overrides.append("num_generations=4")
    config = load_config(PPOConfig, ROOT / "configs/ppo/demo.yaml", overrides)
    began = time.monotonic()
    summary = json.loads((run_ppo(config).path / "summary.json").read_text(encoding="utf-8"))
    errors = summary["first/eval/reward_se"], summary["eval/reward_se"]
    before, after = summary["first/eval/reward_mean"], summary["eval/reward_mean"]
    return {
        "algorithm": name,
        "seed": seed,
        "before": before,
        "before_se": errors[0],
        "after": after,
        "after_se": errors[1],
        "rise_se": (after - before) / (errors[0] ** 2 + errors[1] ** 2) ** 0.5,
        "kl": summary.get("eval/kl_mean"),
        "steps": num_steps,
        "responses": num_steps * config.batch_size,
        "staleness": summary["engine/staleness_mean"],
        "step_s": summary["time/step_s"],
        "seconds": time.monotonic() - began,
    }


def main(
    only: Annotated[str, typer.Option(help="algorithms, separated by commas")] = ",".join(SETTINGS),
    steps: Annotated[int, typer.Option(help="steps of 128 responses")] = 12,
    seeds: Annotated[int, typer.Option(help="runs of each, with seeds from 0")] = 1,
    out: Annotated[Path, typer.Option(help="JSON file to write")] = Path("benchmarks/out/algorithms.json"),
) -> None:
    """Train with each algorithm and compare held-out rewards."""
    os.chdir(ROOT)
    os.environ["RAYRLHF_STATE"] = str(ROOT / "benchmarks/out/cluster.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    local.up(port=local.free_port(), dashboard_port=local.free_port())
    try:
        results = [measure(name, steps, seed) for name in only.split(",") for seed in range(seeds)]
    finally:
        ray.shutdown()
        local.down()
    table = Table("algorithm", "seed", "before", "after", "rise, standard errors", "KL, nats", "seconds")
    for row in results:
        table.add_row(
            row["algorithm"],
            str(row["seed"]),
            f"{row['before']:.3f} ± {row['before_se']:.3f}",
            f"{row['after']:.3f} ± {row['after_se']:.3f}",
            f"{row['rise_se']:.1f}",
            "–" if row["kl"] is None else f"{row['kl']:.2f}",
            f"{row['seconds']:.0f}",
        )
    console.print(table)
    out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
