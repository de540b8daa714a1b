"""Settings of the rollouts: how stale they may be, and when a sampler is replaced."""

from __future__ import annotations

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from rayrlhf.config import Config
from rayrlhf.pool.autoscale import Autoscale
from rayrlhf.pool.fleet import Patience
from rayrlhf.pool.leases import OnUpdate
from rayrlhf.pool.pool import PoolSettings

FASTEST_TOKEN_S = 0.001
"""No engine generates the tokens of one response faster than this."""

MIN_SILENCE_S = 1.0
"""Two reports: a sampler that is well must not be taken for silent."""


class RolloutsConfig(Config):
    """How samplers and learners work together."""

    max_staleness: NonNegativeInt = 0
    """Step t trains on tokens of weight versions t − this to t. 0 is synchronous: samplers wait for every update.
    1 lets them generate the next step while the learners train; see also algorithm.importance_correction."""
    on_update: OnUpdate = "continue"
    """What running responses do when new weights arrive: `continue` with them, each token's version recorded, or
    `finish` with the old ones first."""
    lease_timeout_s: PositiveFloat = 600.0
    """A sampler that holds a prompt for longer than this is replaced."""
    silence_timeout_s: float = Field(default=20.0, ge=MIN_SILENCE_S)
    """A sampler that sends no report for this long is replaced; it sends one twice a second."""
    max_failures: PositiveInt = 10
    """The run stops after new samplers were lost this many times in a row before they returned a response."""
    autoscale: Autoscale | None = None
    """Change the number of samplers during the run; `rayrlhf rollouts scale` does it by hand."""

    def shortest_lease_s(self, max_completion_length: int) -> float:
        """Seconds that a response of that many tokens takes at least."""
        return max_completion_length * FASTEST_TOKEN_S

    def pool(self, num_samplers: int, num_slots: int, start_s: float) -> PoolSettings:
        """The settings of the pool's logic."""
        return PoolSettings(
            num_samplers,
            Patience(start_s, self.silence_timeout_s, self.max_failures),
            self.lease_timeout_s,
            num_slots,
            max_pause_s=self.silence_timeout_s / 4,
        )
