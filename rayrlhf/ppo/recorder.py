"""Figures of the loop itself: where its time goes, and what the samplers did since the last step."""

from __future__ import annotations

import time

from rayrlhf.pool import goodput
from rayrlhf.pool.status import Status
from rayrlhf.ppo.roles import Collected


class LoopClock:
    """Seconds of the learners by activity, as the loop sees them; every second belongs to one."""

    def __init__(self) -> None:
        self._began = self._step_began = time.monotonic()
        self._watch = goodput.Stopwatch(goodput.START_UP, self._began)
        self._before: dict[str, float] = {}

    def enter(self, activity: str) -> None:
        """What the loop does from now on."""
        self._watch.switch(activity, time.monotonic())

    def seconds(self) -> dict[str, float]:
        """Since the run began, by activity."""
        return self._watch.seconds(time.monotonic())

    def step(self) -> dict[str, float]:
        """Metrics of the step that ends now."""
        now = time.monotonic()
        total = self._watch.seconds(now)
        spent = {activity: seconds - self._before.get(activity, 0.0) for activity, seconds in total.items()}
        start_up = spent.pop(goodput.START_UP, 0.0)
        step_s = now - self._step_began - start_up
        self._before, self._step_began = total, now
        shares = goodput.shares(total)
        return (
            {f"time/{activity}_s": seconds for activity, seconds in spent.items() if seconds}
            | {"time/step_s": step_s}
            | {f"goodput/learner_{activity}": share for activity, share in shares.items()}
        )


class SamplingFigures:
    """Compares the pool's totals from step to step."""

    def __init__(self) -> None:
        self._tokens = 0
        self._seconds: dict[str, float] = {}

    def of(self, rollouts: Collected) -> dict[str, float]:
        """Metrics of the step that trained on `rollouts`."""
        status = rollouts.status
        assert status is not None
        tokens = status.tokens - self._tokens
        drawing = self._spent(status, goodput.GENERATE) + self._spent(status, goodput.REDONE_PREFILL)
        loading = self._spent(status, goodput.LOAD_WEIGHTS)
        self._tokens, self._seconds = status.tokens, dict(status.seconds)
        return status.metrics() | {
            "engine/tokens": float(tokens),
            "engine/tokens_per_s": tokens / drawing if drawing > 0 else 0.0,
            "ledger/left_out": float(rollouts.num_left_out),
            "weights/load_s": loading / max(1, len(status.samplers)),
        }

    def _spent(self, status: Status, activity: str) -> float:
        return status.seconds.get(activity, 0.0) - self._seconds.get(activity, 0.0)
