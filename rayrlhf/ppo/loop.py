"""PPO: sample, score, assign credit, learn. The loop holds references and figures, never tensors."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import psutil

from rayrlhf.checkpoint import Checkpoints
from rayrlhf.cluster.connection import connect
from rayrlhf.cluster.placement import Reservation, check_capacity, cluster_nodes, plan_placement
from rayrlhf.metrics import MetricsLog
from rayrlhf.ppo.config import PPOConfig
from rayrlhf.ppo.diagnostics import Diagnostics
from rayrlhf.ppo.inputs import PPOInputs, load_inputs, resolve_paths
from rayrlhf.ppo.pool_actor import check_not_alive
from rayrlhf.ppo.recorder import LoopClock, SamplingFigures
from rayrlhf.ppo.roles import Roles
from rayrlhf.ppo.sampling import Draws
from rayrlhf.run_directory import RunDirectory
from rayrlhf.types import Sample

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
    check_not_alive(config.run.name)
    plan = plan_placement(config.reserved_roles, config.placement.colocate)
    check_capacity(plan, config.reserved_roles, cluster_nodes())
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
            inputs.gold_answers,
            inputs.columns,
            inputs.ptx,
            log.say,
        ) as roles,
    ):
        log.say(f"prompts: {inputs.data.account}; held out: {len(inputs.heldout)}; run: {directory.path}")
        clock = LoopClock()
        ready = roles.wait_until_ready()
        log.say("actors ready: " + ", ".join(f"{role} {seconds:.1f} s" for role, seconds in ready.items()))
        directory.write_summary(_loop(config, inputs, roles, log, directory, clock, submitted))
    return directory


def _loop(
    config: PPOConfig,
    inputs: PPOInputs,
    roles: Roles,
    log: MetricsLog,
    directory: RunDirectory,
    clock: LoopClock,
    submitted: float,
) -> dict[str, float]:
    checkpoints = Checkpoints(directory.path / "checkpoints", config.run.keep_checkpoints)
    diagnostics = Diagnostics(config.logprob_gap_limit, config.first_ratio_limit)
    kl_coef = config.algorithm.kl_coef
    sampling = SamplingFigures()
    summary: dict[str, float] = {}
    metrics: dict[str, float] = {}
    draws = Draws(config, roles, inputs.prompts)
    roles.tell(0, clock.seconds())
    for step in range(config.num_steps):
        clock.enter("publish")
        roles.publish(version=step)  # policy → store; samplers pull
        if step % (config.evaluation.interval or config.num_steps) == 0:
            clock.enter("evaluate")
            metrics = _evaluate(roles, inputs.heldout, config, step, directory)
        clock.enter("wait_for_rollouts")
        rollouts = draws.take(step)  # y ~ π_old(·|x), references only
        clock.enter("score")
        judged = roles.judge(rollouts)  # r(x, y), log π_old(y|x), log π_ref(y|x), V(s_t)
        credit, ends, batch = roles.assign_credit(kl_coef, _rollouts_file(config, directory, step), judged)  # A_t, R_t
        num_samples = int(credit["ledger/trained"])
        clock.enter("train")
        learned = roles.update(batch, num_samples, step)
        roles.settle(rollouts, ends)
        kl_coef = config.algorithm.next_kl_coef(kl_coef, credit.get("kl/sequence_mean", math.nan), num_samples)
        if _is_due(step + 1, config.checkpoint_interval, config.num_steps):
            clock.enter("save")
            checkpoints.write(step + 1, roles.save)
        metrics |= credit | learned | sampling.of(rollouts) | clock.step()
        if step == 0:
            metrics["time/submit_to_first_step_s"] = time.monotonic() - submitted
        summary |= _first_and_last(metrics, summary)
        for line in diagnostics.warnings(metrics):
            log.say(line)
        log.write(step + 1, metrics)
        roles.tell(step + 1, clock.seconds())
        metrics = {}
    roles.publish(version=config.num_steps)
    final = _evaluate(roles, inputs.heldout, config, config.num_steps, directory)
    if final:
        log.write(config.num_steps, final)
    return summary | {"num_steps": config.num_steps} | _first_and_last(final, summary)


def _evaluate(
    roles: Roles, heldout: Sequence[Sample], config: PPOConfig, step: int, directory: RunDirectory
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


def _first_and_last(metrics: dict[str, float], summary: dict[str, float]) -> dict[str, float]:
    """The latest value of each metric, and the first one under `first/`."""
    return {f"first/{k}": v for k, v in metrics.items() if f"first/{k}" not in summary} | metrics
