"""How many rollouts a second the pool's own logic can lease, accept and settle, without samplers, network or Ray.

    python benchmarks/pool_logic.py [--groups 4000] [--generations 4]

Every answer comes in a report of its own, which is the most work for the pool. Seconds are of one core. Writes JSON
beside the table it prints.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from rayrlhf.engines.base import Sampling
from rayrlhf.metrics import console
from rayrlhf.pool.commands import Command, Send, Start
from rayrlhf.pool.fleet import Patience
from rayrlhf.pool.goodput import GENERATE, LOAD_WEIGHTS
from rayrlhf.pool.leases import Answer, Lease, Report, SampleBatch
from rayrlhf.pool.pool import Pool, PoolSettings
from rayrlhf.types import Prompt, Sample

NUM_BATCHES = 2
"""As many steps as are in flight at the same time with `max_staleness: 1`."""


def make_pool(num_samplers: int) -> Pool:
    """A pool whose samplers are ready."""
    patience = Patience(start_s=60.0, silence_s=10.0, max_failures=3)
    pool = Pool(PoolSettings(num_samplers, patience, lease_s=600.0, num_slots=64, max_pause_s=5.0), now=0.0)
    for command in pool.tick(0.0):
        assert isinstance(command, Start)
        pool.up(command.member, 0.0)
        pool.heard(command.member, Report(version=0), 0.0)
    return pool


def leases_of(commands: Sequence[Command]) -> list[tuple[int, Lease]]:
    """What the samplers were sent."""
    return [(command.member, lease) for command in commands if isinstance(command, Send) for lease in command.leases]


def measure(num_samplers: int, num_groups: int, num_generations: int) -> dict[str, float]:
    """Seconds of one core by what the pool did."""
    pool = make_pool(num_samplers)
    samples = [Sample(Prompt(p, (1,) * 64), s, seed=0) for p in range(num_groups) for s in range(num_generations)]
    batches = [SampleBatch(step, step, tuple(samples), Sampling(), min_version=0) for step in range(NUM_BATCHES)]
    began = time.process_time()
    in_flight = deque(lease for batch in batches for lease in leases_of(pool.submit(batch, 0.0)))
    submitted = time.process_time()
    num_reports = 0
    while in_flight:
        member, lease = in_flight.popleft()
        num_reports += 1
        seconds = {GENERATE: float(num_reports), LOAD_WEIGHTS: 1.0}
        report = Report(0, (Answer(lease.id, 0, None),), running=64, seconds=seconds, tokens=0)
        in_flight += leases_of(pool.heard(member, report, 0.0))
    heard = time.process_time()
    for batch in batches:
        pool.take(batch.id)
        pool.settle(batch.id, {})
    settled = time.process_time()
    assert pool.ledger.counts["trained"] == NUM_BATCHES * len(samples)
    return {
        "samplers": num_samplers,
        "submit_s": submitted - began,
        "report_us": 1e6 * (heard - submitted) / num_reports,
        "settle_s": settled - heard,
        "rollouts_per_s": NUM_BATCHES * len(samples) / (settled - began),
    }


def main(
    groups: Annotated[int, typer.Option(help="prompts of a step")] = 4_000,
    generations: Annotated[int, typer.Option(help="responses to each prompt")] = 4,
    out: Annotated[Path, typer.Option(help="JSON file to write")] = Path("benchmarks/out/pool_logic.json"),
) -> None:
    """Drive the pool as fast as it goes."""
    results = [measure(num_samplers, groups, generations) for num_samplers in (1, 4, 16, 64)]
    table = Table("samplers", "submit, s", "report, µs", "settle, s", "rollouts/s")
    for row in results:
        table.add_row(
            f"{row['samplers']:.0f}",
            f"{row['submit_s']:.3f}",
            f"{row['report_us']:.0f}",
            f"{row['settle_s']:.3f}",
            f"{row['rollouts_per_s']:,.0f}",
        )
    console.print(table)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
