"""Where the time goes: every second of a sampler or learner belongs to exactly one activity."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

GENERATE = "generate"
REDONE_PREFILL = "redone_prefill"
"""Recomputing the key-value cache of running responses after an update."""
WAIT_FOR_WEIGHTS = "wait_for_weights"
WAIT_FOR_PROMPTS = "wait_for_prompts"
LOAD_WEIGHTS = "load_weights"
WAIT_FOR_ROOM = "wait_for_room"
"""Until the cluster can place the sampler."""
START_UP = "start_up"
DEAD = "dead"
"""From a lost sampler's last report until its loss is noticed, and on until its replacement is started."""

SAMPLER_ACTIVITIES = (
    GENERATE,
    REDONE_PREFILL,
    WAIT_FOR_WEIGHTS,
    WAIT_FOR_PROMPTS,
    LOAD_WEIGHTS,
    WAIT_FOR_ROOM,
    START_UP,
    DEAD,
)


class Stopwatch:
    """Attributes time as it passes. Activities add up to the time since it was made, by construction.

    One thread switches; others may read.
    """

    def __init__(self, activity: str, now: float) -> None:
        self._current = (activity, now)
        self._past: dict[str, float] = defaultdict(float)

    @property
    def activity(self) -> str:
        """The current one."""
        return self._current[0]

    def switch(self, activity: str, now: float) -> None:
        """The activity from `now` on."""
        before, since = self._current
        self._current = (activity, now)
        self._past[before] += now - since

    def seconds(self, now: float) -> dict[str, float]:
        """By activity, until `now`."""
        activity, since = self._current
        return added([dict(self._past), {activity: now - since}])


def shares(seconds: Mapping[str, float]) -> dict[str, float]:
    """Of the sum, by activity."""
    total = sum(seconds.values())
    return {activity: spent / total for activity, spent in seconds.items()} if total > 0 else {}


def added(accounts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Several accounts as one."""
    total: dict[str, float] = defaultdict(float)
    for account in accounts:
        for activity, spent in account.items():
            total[activity] += spent
    return dict(total)
