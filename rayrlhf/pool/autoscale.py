"""How many samplers a run should have: more while learners wait for rollouts, fewer while samplers wait for prompts."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from rayrlhf.config import Config


class Autoscale(Config):
    """Change the number of samplers, one at a time, by how long the learners wait."""

    min_workers: PositiveInt = 1
    max_workers: PositiveInt
    interval_s: PositiveFloat = 60.0
    """How long to watch before each decision."""
    up_above: float = Field(default=0.5, gt=0, le=1)
    """Add a sampler if the learners waited for more than this share of the time and the pool was not ahead of them."""
    down_below: float = Field(default=0.1, ge=0, lt=1)
    """Remove one if they waited for less than this share and nothing was left to generate."""

    @model_validator(mode="after")
    def _ordered(self) -> Autoscale:
        if self.min_workers > self.max_workers:
            raise ValueError(f"min_workers {self.min_workers} exceeds max_workers {self.max_workers}: swap them")
        if self.down_below >= self.up_above:
            raise ValueError(f"down_below {self.down_below} must be less than up_above {self.up_above}")
        return self

    def decide(self, size: int, wait_share: float, outlook: Mapping[str, int]) -> int:
        """The size from now on. outlook: samples not yet taken that are `done`, `leased`, `pending`."""
        to_generate = outlook["leased"] + outlook["pending"]
        if wait_share > self.up_above and to_generate > outlook["done"]:
            size += 1
        elif wait_share < self.down_below and not to_generate:
            size -= 1
        return min(max(size, self.min_workers), self.max_workers)


class WaitShare:
    """The share of the time spent waiting, window by window."""

    def __init__(self, now: float) -> None:
        self._window_began = now
        self._waiting_since: float | None = None
        self._waited = 0.0

    def begin(self, now: float) -> None:
        """The wait begins."""
        self._waiting_since = now

    def end(self, now: float) -> None:
        """The wait is over."""
        assert self._waiting_since is not None
        self._waited += now - max(self._waiting_since, self._window_began)
        self._waiting_since = None

    def close(self, window_s: float, now: float) -> float | None:
        """The share of a window that has just become `window_s` long, and a new window; else None."""
        length = now - self._window_began
        if length < window_s:
            return None
        waiting = 0.0 if self._waiting_since is None else now - max(self._waiting_since, self._window_began)
        share = (self._waited + waiting) / length
        self._window_began, self._waited = now, 0.0
        return share
