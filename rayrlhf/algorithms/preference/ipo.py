"""Identity preference optimization."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from rayrlhf.algorithms.preference.base import LogRatioLoss


class IPO(LogRatioLoss):
    """(h − 1/(2β))², h the difference of the log-ratios (Azar et al. 2023, eq. 17, whose τ is β here).

    Deviation from the paper: log-ratios are means over an answer's tokens. Equation 17 has whole answers and says
    nothing of tokens; with sums, the same β would ask less of each token the longer the answers are. Its authors
    have since recommended the mean, and others that have IPO use it, so β keeps the size people know.
    """

    kind: Literal["ipo"] = "ipo"

    def log_ratios(self, sums: Tensor, lengths: Tensor) -> Tensor:
        return sums / lengths

    def pair_loss(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        return (chosen - rejected - 1 / (2 * self.beta)) ** 2
