"""Losses that train a policy on feedback directly, without a reward model. One file each, one line in the union.

DPO and IPO compare a pair's answers by how far the policy went from its reference; ORPO and SimPO need no reference;
KTO learns from single answers that somebody found good or bad.
"""

from typing import Annotated

from pydantic import Field

from rayrlhf.algorithms.preference.base import PairLoss, PairLosses
from rayrlhf.algorithms.preference.dpo import DPO
from rayrlhf.algorithms.preference.ipo import IPO
from rayrlhf.algorithms.preference.kto import KTO, AnswerLosses
from rayrlhf.algorithms.preference.orpo import ORPO
from rayrlhf.algorithms.preference.simpo import SimPO
from rayrlhf.config import short_form

PreferenceLoss = Annotated[
    Annotated[DPO | IPO | ORPO | SimPO | KTO, Field(discriminator="kind")], short_form(kind="dpo")
]
"""The union of losses. `loss: ipo` is short for `loss: {kind: ipo}`, and without a kind it is `dpo`."""

__all__ = ["DPO", "IPO", "KTO", "ORPO", "AnswerLosses", "PairLoss", "PairLosses", "PreferenceLoss", "SimPO"]
