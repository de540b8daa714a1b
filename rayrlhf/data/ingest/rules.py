"""Options of turning rows into records: rankings, scores, ratings, conversations, solutions."""

from __future__ import annotations

from typing import Literal

from pydantic import NonNegativeFloat

from rayrlhf.config import Config


class RowRules(Config):
    """Rules of one source. Each format reads those that apply to it."""

    ranking: Literal["all_pairs", "best_vs_rest"] = "all_pairs"
    """Pairs of a ranking of n answers: every two of them, or the best with each other one."""
    ranking_is: Literal["order", "rank"] | None = None
    """`order`: ranking[0] is the index of the best answer. `rank`: ranking[i] is the rank of answer i, 1 or 0 the best.
    Needed only where both are possible: most schemas say it, and rankings that are their own inverse give the same
    pairs either way."""
    ranking_base: Literal[0, 1] | None = None
    """Index of the first answer (`order`), or the best rank (`rank`); by default read from the values."""
    score: str | None = None
    """Which of several scores to compare by: `correctness` of HelpSteer, `honesty` of UltraFeedback, …"""
    min_score: float | None = None
    """Leave out scored pairs with both scores below this; by default 20 for `vaiv_scores`, and nothing for others."""
    min_margin: NonNegativeFloat = 0.0
    """Scored and rated pairs must differ by more than this. Ties never give a pair."""
    prefer: Literal["better", "safer"] = "better"
    """Which answer of PKU-SafeRLHF is chosen."""
    implicit_prompt: Literal["common_prefix"] | None = None
    """Where `chosen` and `rejected` are texts without a prompt: the prompt is what both begin with, up to the last
    white space (TRL's implicit prompt). Not done unless it is said, for answers may begin alike by chance."""
    turns: Literal["last", "all"] = "last"
    """Train on the last assistant turn of a conversation, or on all of them, each given what came before."""
    calculations: Literal["keep", "remove"] = "keep"
    """GSM8K's calculator annotations, as in `48/2 = <<48/2=24>>24`: a third more tokens without new information."""
