"""A running job on one screen."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table

from rayrlhf.metrics import console
from rayrlhf.pool import goodput
from rayrlhf.pool.status import Status
from rayrlhf.ppo.pool_actor import LoopStatus


def print_status(run: str, loop: LoopStatus, rollouts: Status) -> None:
    """Where the loop is, each sampler, the ledger, and where the time went."""
    speed = rollouts.tokens / rollouts.uptime_s if rollouts.uptime_s > 0 else 0.0
    console.print(
        f"{run}: step {loop.step} of {loop.num_steps}, weights {_version(loop.version)}, up for "
        f"{_duration(rollouts.uptime_s)}, {rollouts.tokens:,} tokens sampled ({speed:,.0f}/s)"
    )
    console.print(_samplers(loop, rollouts))
    ledger = "  ".join(f"{state} {count:,}" for state, count in rollouts.ledger.items())
    console.print(f"ledger: {ledger}")
    for title, reasons in (("rejected", rollouts.rejected), ("answers ignored", rollouts.ignored)):
        if reasons:
            listed = "; ".join(f"{count:,} × {reason}" for reason, count in reasons.items())
            console.print(f"{title}: {listed}")
    console.print(f"samplers' time: {_shares(rollouts.seconds)}")
    console.print(f"learners' time: {_shares(loop.seconds)}")


def _samplers(loop: LoopStatus, rollouts: Status) -> Table:
    there = len([sampler for sampler in rollouts.samplers if sampler.phase == "ready"])
    title = f"samplers: {there} ready of {rollouts.wanted}, {rollouts.lost} lost so far"
    table = Table(title=title, title_justify="left")
    for column in ("id", "phase", "weights", "behind", "samples", "running", "tokens", "heard", "pid"):
        table.add_column(column, justify="left" if column == "phase" else "right", no_wrap=True)
    for sampler in rollouts.samplers:
        table.add_row(
            str(sampler.id),
            sampler.phase,
            _version(sampler.version),
            str(max(0, loop.version - sampler.version)),
            str(sampler.samples),
            str(sampler.running),
            f"{sampler.tokens:,}",
            f"{sampler.silent_s:.1f} s",
            "-" if sampler.pid is None else str(sampler.pid),
        )
    return table


def _version(version: int) -> str:
    return "none yet" if version < 0 else str(version)


def _shares(seconds: Mapping[str, float]) -> str:
    shares = sorted(goodput.shares(seconds).items(), key=lambda item: -item[1])
    listed = ", ".join(f"{name.replace('_', ' ')} {share:.1%}" for name, share in shares if share >= 0.0005)
    return f"{listed} of {_duration(sum(seconds.values()))}" if listed else "none yet"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return (
        f"{minutes // 60} h {minutes % 60} min"
        if minutes >= 60
        else f"{minutes} min {rest} s"
        if minutes
        else f"{rest} s"
    )
