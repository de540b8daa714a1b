"""Draw a PPO run's reward as a PNG: `python benchmarks/reward_curve.py runs/NAME docs/images/NAME.png`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import matplotlib
import typer

matplotlib.use("Agg")
from matplotlib import pyplot as plt


def main(
    run: Annotated[Path, typer.Argument(help="run directory of a PPO run")],
    out: Annotated[Path, typer.Argument(help="PNG to write")],
) -> None:
    """Training reward per step, held-out reward with its standard error, and KL to the reference."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    training = [(row["step"], row["reward/score_mean"], row["kl/sequence_mean"]) for row in rows if "kl/coef" in row]
    # An evaluation stands beside the step that it came before; the one after the last step stands alone.
    heldout = [
        (row["step"] - ("kl/coef" in row), row["eval/reward_mean"], row["eval/reward_se"])
        for row in rows
        if "eval/reward_mean" in row
    ]
    steps, scores, kl = zip(*training, strict=True)
    figure, (above, below) = plt.subplots(2, 1, sharex=True, figsize=(7, 5), height_ratios=(2, 1))
    above.plot(steps, scores, color="tab:blue", alpha=0.6, label="training prompts")
    if heldout:
        at, means, errors = zip(*heldout, strict=True)
        above.errorbar(at, means, yerr=errors, color="tab:red", marker="o", capsize=3, label="held-out prompts")
    above.set_ylabel("reward")
    above.legend()
    below.plot(steps, kl, color="tab:gray")
    below.set_ylabel("KL, nats per answer")
    below.set_xlabel("PPO step")
    figure.tight_layout()
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    typer.run(main)
