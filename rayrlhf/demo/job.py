"""`make demo`: a model from scratch through SFT, reward model and PPO on this machine, each submitted as a Ray job.

The sample data has two registers, polite and curt. SFT teaches both about equally, the reward model learns to prefer
the polite one, and PPO moves the policy there. Two measures decide whether it did: the reward on held-out prompts and
a rule that knows the sample's phrases but not the reward model.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rayrlhf.cluster import local
from rayrlhf.cluster.connection import client_environment
from rayrlhf.config import UserError
from rayrlhf.demo.sample import is_polite
from rayrlhf.metrics import console
from rayrlhf.models.init import ModelShape, init_model_folder
from rayrlhf.models.texts import read_texts
from rayrlhf.run_directory import RUNS_VARIABLE

STAGES = ("sft", "reward_model", "ppo")
SHAPE = ModelShape(vocab_size=2000, hidden_size=256, num_layers=2, num_heads=4, num_kv_heads=2, max_length=128)
MIN_STANDARD_ERRORS = 3.0
MIN_POLITE_POINTS = 25.0
NUM_SAMPLES = 3
CLIENT_LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+\s+(INFO|SUCC|WARNING) |Running entrypoint")
"""`ray job submit`'s own lines, hidden unless the job fails, so that the job's are readable."""


@dataclass(frozen=True)
class Answers:
    """Responses to the held-out prompts at one point of the run."""

    prompts: list[str]
    responses: list[str]

    @staticmethod
    def read(file: Path) -> Answers:
        """From the Parquet file of an evaluation."""
        import pyarrow.parquet

        table = pyarrow.parquet.read_table(file).to_pydict()
        return Answers(table["prompt"], table["response"])

    @property
    def polite_share(self) -> float:
        """Share of responses that are polite by the generator's own rule, in [0, 1]."""
        return sum(map(is_polite, self.responses)) / len(self.responses)


def run_demo(runs: Path) -> bool:
    """Run everything below `runs/demo`, print the table, and return whether the policy learned."""
    runs = runs.absolute()
    shutil.rmtree(runs / "demo", ignore_errors=True)
    os.environ |= {RUNS_VARIABLE: str(runs), "RAYRLHF_STATE": str(runs / "demo/cluster.json")}  # a cluster of its own
    os.environ.pop("RAY_ADDRESS", None)
    started = time.monotonic()
    seconds: dict[str, float] = {}
    local.up(port=local.free_port(), dashboard_port=local.free_port())
    try:
        parameters = init_model_folder(
            runs / "demo/base", SHAPE, read_texts(sorted(Path("data/sample").glob("*.jsonl")))
        )
        console.print(f"a new model of {parameters / 1e6:.1f}M parameters: {runs / 'demo/base'}")
        seconds["set-up"] = time.monotonic() - started
        for stage in STAGES:
            began = time.monotonic()
            submit(["python", f"jobs/{stage}.py", f"configs/{stage}/demo.yaml"])
            seconds[stage] = time.monotonic() - began
    finally:
        local.down()
    return report(runs / "demo", seconds)


def submit(command: list[str]) -> None:
    """`ray job submit --working-dir . -- COMMAND`, its log shown as it comes. Raises UserError if the job fails."""
    ray_command = Path(sys.executable).with_name("ray")
    full = [str(ray_command), "job", "submit", "--working-dir", ".", "--", *command]
    console.rule(" ".join(["ray", *full[1:]]), align="left")
    hidden: list[str] = []
    with subprocess.Popen(
        full, env={**os.environ, **client_environment()}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as job:
        assert job.stdout is not None
        for line in job.stdout:
            if CLIENT_LINE.match(line):
                hidden.append(line)
            else:
                console.print(Text.from_ansi(line))
    if job.returncode:
        raise UserError(
            f"{''.join(hidden)}the job `{' '.join(command)}` failed with status {job.returncode}; its log is above"
        )


def report(folder: Path, seconds: dict[str, float]) -> bool:
    """Print the table. Returns whether reward and politeness rose enough."""
    sft, reward_model, ppo = (_summary(folder / stage) for stage in STAGES)
    rollouts = sorted((folder / "ppo" / "rollouts").glob("heldout-*.parquet"))
    before, after = Answers.read(rollouts[0]), Answers.read(rollouts[-1])
    rise = ppo["eval/reward_mean"] - ppo["first/eval/reward_mean"]
    error = math.hypot(ppo["first/eval/reward_se"], ppo["eval/reward_se"])
    points = 100 * (after.polite_share - before.polite_share)

    table = Table(title="rayrlhf demo", title_justify="left", width=max(console.width, 110))
    for heading in ("", "before", "after", ""):
        table.add_column(heading, overflow="fold")
    table.add_row("SFT held-out loss", f"{sft['first/eval/loss']:.3f}", f"{sft['eval/loss']:.3f}", "nats per token")
    table.add_row(
        "reward-model accuracy",
        "–",
        f"{reward_model['eval/accuracy']:.3f}",
        f"n = {reward_model['eval/num_pairs']:.0f}; by length alone: "
        f"{reward_model['eval/length_baseline_accuracy']:.3f}",
    )
    table.add_row(
        "held-out reward",
        f"{ppo['first/eval/reward_mean']:.3f} ± {ppo['first/eval/reward_se']:.3f}",
        f"{ppo['eval/reward_mean']:.3f} ± {ppo['eval/reward_se']:.3f}",
        f"n = {ppo['eval/num_responses']:.0f}; rose by {rise / error:.1f} standard errors",
    )
    table.add_row(
        "polite answers, by rule",
        f"{before.polite_share:.1%}",
        f"{after.polite_share:.1%}",
        f"rose by {points:.1f} points",
    )
    table.add_row("KL to the SFT model", "0", f"{ppo['eval/kl_mean']:.2f}", "nats per answer")
    table.add_row("seconds", "", f"{sum(seconds.values()):.0f}", ", ".join(f"{k} {v:.0f}" for k, v in seconds.items()))
    table.add_row("submit to first PPO step", "", f"{ppo['first/time/submit_to_first_step_s']:.1f}", "seconds")
    table.add_section()
    for prompt, old, new in list(zip(before.prompts, before.responses, after.responses, strict=True))[:NUM_SAMPLES]:
        table.add_row(prompt.strip(), old.strip(), new.strip(), "")
    Console(width=table.width).print(table)
    learned = rise >= MIN_STANDARD_ERRORS * error and points >= MIN_POLITE_POINTS
    if not learned:
        console.print(
            f"the policy did not learn: reward must rise by {MIN_STANDARD_ERRORS:g} standard errors and polite answers "
            f"by {MIN_POLITE_POINTS:g} points"
        )
    return learned


def _summary(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "summary.json").read_text(encoding="utf-8")))
