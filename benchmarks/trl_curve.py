"""PPO here and TRL's PPOTrainer on the same model, prompts, reward and budget: the training reward, step by step.

    make demo                            # leaves the models of SFT and of the reward model in runs/demo
    pip install --no-deps trl==1.12.0    # in an environment of its own
    python benchmarks/trl_curve.py [--seeds 3] [--steps 12]

Both start from the demo's SFT model and take `steps` batches of 128 responses of at most 48 tokens at temperature 1,
with TRL's numerics (`preset: trl`) and four optimizer steps on each batch. The score is the demo's reward model's,
normalized, less 1 for a missing eos. Writes JSON, and a plot of the means over the seeds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import matplotlib
import numpy as np
import typer

matplotlib.use("Agg")
from matplotlib import pyplot as plt

ROOT = Path(__file__).parents[1]
SFT, REWARD = "runs/demo/sft/model", "runs/demo/reward_model/model"
LEARNING_RATE = 1.5e-4
BATCH, EPOCHS, LENGTH = 128, 4, 48


def ours(seed: int, steps: int) -> list[float]:
    """Mean score of each step's responses, less the penalty."""
    from rayrlhf.config import load_config
    from rayrlhf.ppo.config import PPOConfig
    from rayrlhf.ppo.loop import run_ppo

    settings = {
        "run.name": f"bench/trl-curve-{seed}",
        "run.seed": seed,
        "preset": "trl",
        "algorithm.num_epochs": EPOCHS,
        "algorithm.minibatch_size": BATCH,
        "num_steps": steps,
        "evaluation.interval": 0,
        "evaluation.num_prompts": 1,
        "save_rollouts_interval": 0,
        "policy.optimizer.learning_rate": LEARNING_RATE,
        "critic.optimizer.learning_rate": LEARNING_RATE,
    }
    config = load_config(PPOConfig, ROOT / "configs/ppo/demo.yaml", [f"{k}={v}" for k, v in settings.items()])
    lines = (run_ppo(config).path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if "reward/score_mean" in row]
    penalty = config.algorithm.missing_eos_penalty or 0.0
    return [row["reward/score_mean"] - penalty * (1 - row["length/finished_share"]) for row in rows]


def theirs(seed: int, steps: int) -> list[float]:
    """The same of TRL's trainer."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, DataCollatorWithPadding
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    from rayrlhf.data.tokens.prepare import DataConfig, prepare
    from rayrlhf.data.tokens.tokenise import PromptLimit
    from rayrlhf.models import load_tokenizer

    torch.manual_seed(seed)
    np.random.seed(seed)
    tokenizer: Any = load_tokenizer(SFT)
    tokenizer.padding_side = "left"
    data = DataConfig(train=["data/sample/prompts.jsonl"], heldout_share=0.0, cache=False)
    prompts = prepare(data, "prompts", tokenizer, PromptLimit(max_prompt_tokens=LENGTH), seed=0).train[0]
    rows = [{"input_ids": prompts.row(index).tolist()} for index in range(len(prompts))]

    def scorer(normalized: bool) -> Any:
        model = AutoModelForSequenceClassification.from_pretrained(REWARD, num_labels=1, dtype=torch.float32)
        statistics = model.config.reward_statistics
        head = torch.nn.Linear(model.config.hidden_size, 1)
        with torch.no_grad():
            head.weight.copy_(model.score.weight / statistics["std"])
            head.bias.fill_(-statistics["mean"] / statistics["std"] if normalized else 0.0)
        model.score = head
        return model

    with tempfile.TemporaryDirectory() as folder:
        config = PPOConfig(
            output_dir=folder,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            report_to="none",
            per_device_train_batch_size=BATCH,  # TRL steps once a micro-batch or less, whatever num_mini_batches says
            gradient_accumulation_steps=1,
            num_ppo_epochs=EPOCHS,
            total_episodes=steps * BATCH,
            local_rollout_forward_batch_size=BATCH,
            response_length=LENGTH,
            stop_token="eos",
            temperature=1.0,
            missing_eos_penalty=1.0,
            learning_rate=LEARNING_RATE,
            lr_scheduler_type="constant",
            kl_coef=0.05,
            num_sample_generations=0,
            save_strategy="no",
            seed=seed,
            logging_steps=1,
            disable_tqdm=True,
        )
        policy, reference = (AutoModelForCausalLM.from_pretrained(SFT, dtype=torch.float32) for _ in range(2))
        trainer = PPOTrainer(
            config,
            tokenizer,
            policy,
            reference,
            scorer(normalized=True),
            Dataset.from_list(rows * -(-(steps + 1) * BATCH // len(rows))),
            scorer(normalized=False),
            data_collator=DataCollatorWithPadding(tokenizer),
        )
        scores: list[float] = []
        log = trainer.log

        def reading_log(metrics: dict[str, float], *args: Any, **options: Any) -> None:
            if "objective/scores" in metrics:
                scores.append(float(metrics["objective/scores"]))
            log(metrics, *args, **options)

        trainer.log = reading_log
        trainer.train()
    return scores


def main(
    seeds: Annotated[int, typer.Option(help="runs of each")] = 3,
    steps: Annotated[int, typer.Option(help="batches of 128 responses")] = 12,
    out: Annotated[Path, typer.Option(help="JSON file to write")] = Path("benchmarks/out/trl_curve.json"),
    plot: Annotated[Path, typer.Option(help="PNG to write")] = Path("docs/images/trl-curve.png"),
    one: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Compare the two, one process for each run."""
    os.chdir(ROOT)
    if one:
        who, seed = one.split(":")
        print(json.dumps({"ours": ours, "theirs": theirs}[who](int(seed), steps)))
        return
    curves: dict[str, list[list[float]]] = {"ours": [], "theirs": []}
    for seed in range(seeds):
        for who, found in curves.items():
            command = [sys.executable, __file__, "--one", f"{who}:{seed}", "--steps", str(steps)]
            result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found.append(json.loads(result.stdout.splitlines()[-1]))
            print(who, seed, [round(score, 3) for score in found[-1]], flush=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(curves, indent=2) + "\n", encoding="utf-8")
    figure, axis = plt.subplots(figsize=(7, 4))
    for who, label in (("ours", "rayrlhf, preset trl"), ("theirs", "TRL 1.12 PPOTrainer")):
        values = np.array(curves[who])
        axis.plot(range(1, steps + 1), values.mean(0), marker="o", label=label)
        axis.fill_between(range(1, steps + 1), values.min(0), values.max(0), alpha=0.2)
    axis.set_xlabel("step of 128 responses")
    axis.set_ylabel("mean score of the step's responses")
    axis.legend()
    figure.tight_layout()
    figure.savefig(plot, dpi=110)


if __name__ == "__main__":
    typer.run(main)
