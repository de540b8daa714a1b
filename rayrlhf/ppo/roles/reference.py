"""The reference: workers that hold the frozen reference policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rayrlhf.models.folder import check_same_vocabulary
from rayrlhf.ppo.roles.spec import Output, RoleInputs, RoleSettings, RoleSpec
from rayrlhf.training.parallel import Ranks
from rayrlhf.workers.scorer import ScorerConfig

if TYPE_CHECKING:
    from rayrlhf.ppo.config import PPOConfig
    from rayrlhf.workers.scorer import ReferenceScorer


class ReferenceRole(RoleSettings, ScorerConfig):
    """Workers that hold the frozen reference policy."""

    model: str | None = None
    """Null is the policy's starting model."""


def _build(config: PPOConfig, inputs: RoleInputs, ranks: Ranks) -> ReferenceScorer:
    from rayrlhf.workers.scorer import ReferenceScorer

    # In the policy's precision, so that the two differ by what was learned and not by rounding.
    policy, scorer = config.policy, config.reference
    if scorer.precision == "auto":
        scorer = scorer.model_copy(update={"precision": policy.compute_precision})
    return ReferenceScorer(config.reference_model, scorer, ranks, policy.dtype, config.float32_head)


REFERENCE = RoleSpec(
    "reference",
    _build,
    needed=lambda config: config.algorithm.needs_reference,
    models=lambda config: {"reference": config.reference_model},
    check=lambda config: check_same_vocabulary(config.model, config.reference_model),
    output=lambda config: Output("ref_logprobs", "logprobs", {"temperature": config.learning_temperature}),
    restartable=True,
)
