"""How rows become records where the schema leaves it open: rankings, scores, ratings, conversations, solutions."""

from __future__ import annotations

from typing import Literal

from pydantic import NonNegativeFloat

from rayrlhf.config import Config


class RowRules(Config):
    """Rules of one source. Each format reads those that concern it."""

    ranking: Literal["all_pairs", "best_vs_rest"] = "all_pairs"
    """Pairs of a ranking of n answers: each two of them, or the best with each other one."""
    ranking_is: Literal["order", "rank"] | None = None
    """`order`: ranking[0] is the index of the best answer. `rank`: ranking[i] is the rank of answer i, 1 or 0 the best.
    Needed only for files that leave it open: a schema may say it, and rankings that are their own inverse mean the same
    either way."""
    ranking_base: Literal[0, 1] | None = None
    """What the first answer's index (`order`) or the best rank (`rank`) is; read from the values when not set."""
    min_score: float = 20.0
    """Scored pairs whose scores are both below this are left out."""
    min_margin: NonNegativeFloat = 0.0
    """Scored and rated pairs must differ by more than this; a difference of 0 is a tie and never a pair."""
    turns: Literal["last", "all"] = "last"
    """Answers of a conversation to learn: the last one, or each of the assistant's, given all that came before."""
    calculations: Literal["keep", "remove"] = "keep"
    """GSM8K's marks for a calculator in its solutions, `48/2 = <<48/2=24>>24`: a third more tokens, and nothing
    that the text does not say."""
