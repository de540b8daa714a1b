"""What a seed of the simulation means, and the time limits that all seeds share."""

from __future__ import annotations

import random
from dataclasses import dataclass

HEARTBEAT_S, TICK_S, MAX_PAUSE_S, SILENCE_S, LEASE_S = 1.5, 1.0, 4.0, 7.0, 25.0
BOUND_S = 600.0
"""After the last fault the run has to finish within this."""


@dataclass(frozen=True)
class Plan:
    """What a seed means."""

    num_samplers: int
    num_slots: int
    staleness: int
    num_steps: int
    num_groups: int
    num_generations: int
    max_failures: int
    start_s: float
    faults_end: float
    fault_every: float
    """Seconds between two faults, on average."""
    drop: float
    """Share of reports that are lost; the same share arrives twice, and late."""
    kill_delay: float
    """Until a killed sampler really ends: it answers late."""
    lag: float
    """Until a sampler sees new weights, at most."""
    hopeless: str
    """Why the run cannot succeed and must end with a message; mostly empty."""

    @staticmethod
    def draw(rng: random.Random) -> Plan:
        """A random plan."""
        hopeless = rng.choices(
            ["", "no room", "every start crashes", "every load crashes", "every load hangs"], [92, 2, 2, 2, 2]
        )[0]
        return Plan(
            num_samplers=rng.randint(1, 5),
            num_slots=rng.choice([2, 4, 8]),
            staleness=rng.randint(0, 2),
            num_steps=rng.randint(2, 4),
            num_groups=rng.choice([1, 3, 6, 12]),
            num_generations=rng.randint(1, 4),
            max_failures=rng.choice([2, 3] if hopeless else [2, 3, 1000, 1000]),
            start_s=rng.choice([15.0, 40.0, 100.0]),
            faults_end=rng.uniform(5, 40),
            fault_every=rng.choice([1.5, 4.0, 10.0]),
            drop=rng.choice([0.0, 0.03, 0.1]),
            kill_delay=rng.choice([0.0, 3.0, 40.0]),
            lag=rng.choice([0.1, 1.0, 6.0]),
            hopeless=hopeless,
        )
