"""Settings of the rollouts: how stale they may be, and how long samplers are waited for."""

from __future__ import annotations

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from rayrlhf.config import Config
from rayrlhf.pool.autoscale import Autoscale
from rayrlhf.pool.fleet import Patience
from rayrlhf.pool.leases import OnUpdate
from rayrlhf.pool.pool import PoolSettings

FASTEST_TOKEN_S = 0.001
"""No engine draws the tokens of one response faster than this."""


class RolloutsConfig(Config):
    """How samplers and learners go together."""

    max_staleness: NonNegativeInt = 0
    """Step t trains on tokens of weight versions t − this to t. 0 is synchronous: samplers wait for every update.
    1 lets them draw the next step while the learners train; see also algorithm.importance_correction."""
    on_update: OnUpdate = "continue"
    """What running responses do when new weights come: `continue` with them, each token's version recorded, or
    `finish` with the old ones first."""
    lease_timeout_s: PositiveFloat = 600.0
    """A sampler that has not answered a prompt after this long is given up."""
    silence_timeout_s: PositiveFloat = 20.0
    """A sampler that says nothing for this long is given up; it says something twice a second."""
    max_failures: PositiveInt = 10
    """The run stops when so many times in a row new samplers were lost before they gave one response."""
    autoscale: Autoscale | None = None
    """Change the number of samplers while the run goes on; `rayrlhf rollouts scale` does it by hand."""

    def shortest_lease_s(self, max_completion_length: int) -> float:
        """Seconds that a response of that many tokens takes at least."""
        return max_completion_length * FASTEST_TOKEN_S

    def pool(self, num_samplers: int, max_num_seqs: int, start_s: float) -> PoolSettings:
        """What the pool's logic needs."""
        return PoolSettings(
            num_samplers,
            Patience(start_s, self.silence_timeout_s, self.max_failures),
            self.lease_timeout_s,
            max_num_seqs,
            max_pause_s=self.silence_timeout_s / 4,
        )
