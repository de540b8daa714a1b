"""PPO: sample, score, assign credit, learn. The loop holds references and figures, never tensors."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import psutil

from rayrlhf.actors.connection import connect
from rayrlhf.actors.draw import draw
from rayrlhf.actors.placement import Reservation, check_capacity, cluster_nodes, plan_placement
from rayrlhf.actors.ppo_config import PPOConfig
from rayrlhf.actors.roles import Collected, Roles
from rayrlhf.checkpoint import Checkpoints
from rayrlhf.metrics import MetricsLog
from rayrlhf.run_directory import RunDirectory
from rayrlhf.stages.diagnostics import Diagnostics
from rayrlhf.stages.ppo_inputs import PPOInputs, load_inputs, resolve_paths
from rayrlhf.types import SampleRequest

SHOWN = (
    "reward/score_mean",
    "eval/reward_mean",
    "kl/sequence_mean",
    "length/mean",
    "policy/loss",
    "value/loss",
    "engine/logprob_gap_max",
    "time/step_s",
)


def run_ppo(config: PPOConfig) -> RunDirectory:
    """Train `config.model` with PPO. Everything that can be wrong with the input is found before any actor starts."""
    submitted = time.monotonic() - (time.time() - psutil.Process().create_time())  # when this job began
    config = resolve_paths(config)
    inputs = load_inputs(config)
    connect()
    plan = plan_placement(config.roles, config.placement.colocate)
    check_capacity(plan, config.roles, cluster_nodes())
    directory = RunDirectory.create(config.run, config, [*config.data.files, *inputs.models.values()])
    directory.write_lineage(inputs.data.sources, inputs.models)
    directory.write_data_report(inputs.data.account.as_dict(), inputs.data.rejected)
    with (
        MetricsLog(directory.path, "ppo", config.num_steps, SHOWN) as log,
        Roles(
            config,
            Reservation(plan, config.placement),
            inputs.eos_token_id,
            inputs.max_model_len,
            inputs.references,
            inputs.ptx,
        ) as roles,
    ):
        log.say(f"prompts: {inputs.data.account}; held out: {len(inputs.heldout)}; run: {directory.path}")
        ready = roles.wait_until_ready()
        log.say("actors ready: " + ", ".join(f"{role} {seconds:.1f} s" for role, seconds in ready.items()))
        directory.write_summary(_loop(config, inputs, roles, log, directory, submitted))
    return directory


def _loop(
    config: PPOConfig, inputs: PPOInputs, roles: Roles, log: MetricsLog, directory: RunDirectory, submitted: float
) -> dict[str, float]:
    checkpoints = Checkpoints(directory.path / "checkpoints", config.run.keep_checkpoints)
    diagnostics = Diagnostics(config.logprob_gap_limit, config.first_ratio_limit)
    kl_coef = config.algorithm.kl_coef
    summary: dict[str, float] = {}
    metrics: dict[str, float] = {}
    for step in range(config.num_steps):
        clock = _Clock()
        roles.publish(version=step)  # policy → store; samplers pull
        clock.lap("publish")
        if step % (config.evaluation.interval or config.num_steps) == 0:
            metrics = _evaluate(roles, inputs.heldout, config, step, directory)
            clock.lap("evaluate")
        rollouts = draw(config, roles, inputs.prompts, step)  # y ~ π_old(·|x), headers only
        clock.lap("generate")
        judged = roles.judge(rollouts)  # r(x, y), log π_old(y|x), log π_ref(y|x), V(s_t)
        credit, batch = roles.assign_credit(kl_coef, _rollouts_file(config, directory, step), judged)  # A_t, R_t
        clock.lap("score")
        num_samples = int(credit["ledger/trained"])
        learned = roles.update(batch, num_samples, step)
        clock.lap("update")
        kl_coef = config.algorithm.next_kl_coef(kl_coef, credit.get("kl/sequence_mean", math.nan), num_samples)
        metrics |= credit | learned | _sampling_figures(rollouts) | clock.metrics()
        if step == 0:
            metrics["time/submit_to_first_step_s"] = time.monotonic() - submitted
        summary |= _first_and_last(metrics, summary)
        for line in diagnostics.warnings(metrics):
            log.say(line)
        log.write(step + 1, metrics)
        metrics = {}
        if _is_due(step + 1, config.checkpoint_interval, config.num_steps):
            checkpoints.write(step + 1, roles.save)
    roles.publish(version=config.num_steps)
    final = _evaluate(roles, inputs.heldout, config, config.num_steps, directory)
    if final:
        log.write(config.num_steps, final)
    return summary | {"num_steps": config.num_steps} | _first_and_last(final, summary)


def _evaluate(
    roles: Roles, heldout: Sequence[SampleRequest], config: PPOConfig, step: int, directory: RunDirectory
) -> dict[str, float]:
    """Figures on the held-out prompts; none if there are none. The same seeds each time."""
    if not heldout:
        return {}
    return roles.evaluate(heldout, step, str(directory.path / "rollouts" / f"heldout-{step:06d}.parquet"))


def _is_due(steps_done: int, interval: int, num_steps: int) -> bool:
    return steps_done == num_steps or (interval > 0 and steps_done % interval == 0)


def _rollouts_file(config: PPOConfig, directory: RunDirectory, step: int) -> str | None:
    interval = config.save_rollouts_interval
    due = interval > 0 and step % interval == 0
    return str(directory.path / "rollouts" / f"step-{step + 1:06d}.parquet") if due else None


def _sampling_figures(rollouts: Collected) -> dict[str, float]:
    tokens = sum(report.tokens for report in rollouts.reports)
    return {
        "engine/tokens": float(tokens),
        "engine/tokens_per_s": tokens / max(report.generate_s for report in rollouts.reports),
        "ledger/left_out": float(rollouts.num_left_out),
        "weights/load_s": max(report.load_weights_s for report in rollouts.reports),
    }


def _first_and_last(metrics: dict[str, float], summary: dict[str, float]) -> dict[str, float]:
    """The latest value of each metric, and the first one under `first/`."""
    return {f"first/{k}": v for k, v in metrics.items() if f"first/{k}" not in summary} | metrics


class _Clock:
    """Seconds of each phase of a step."""

    def __init__(self) -> None:
        self._start = self._last = time.monotonic()
        self._laps: dict[str, float] = {}

    def lap(self, phase: str) -> None:
        now = time.monotonic()
        self._laps[phase] = now - self._last
        self._last = now

    def metrics(self) -> dict[str, float]:
        laps = {f"time/{phase}_s": seconds for phase, seconds in self._laps.items()}
        return laps | {"time/step_s": self._last - self._start}
