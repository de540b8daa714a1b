"""Mean and variance of all scores of a run, step by step (Chan et al. 1979, "Updating formulae")."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rayrlhf.types import FloatArray


@dataclass
class RunningMoments:
    """Updated in place with each step's scores; they need not be kept."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    """Σ (score − mean)²"""

    def update(self, scores: FloatArray) -> None:
        """Count in a step's scores, [B]."""
        added, new_mean = len(scores), float(np.mean(scores, dtype=np.float64))
        total, shift = self.count + added, new_mean - self.mean
        self.squares += float(np.sum((scores - new_mean) ** 2, dtype=np.float64))
        self.squares += shift**2 * self.count * added / total
        self.mean += shift * added / total
        self.count = total

    @property
    def deviation(self) -> float:
        """The unbiased standard deviation; 1 while all scores are the same, so that dividing by it changes nothing."""
        deviation = (self.squares / max(1, self.count - 1)) ** 0.5
        return float(deviation) if deviation > 1e-8 else 1.0
