"""Scores that are asked for in calls which may fail: chunks, several at a time, retries, rows one by one."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from rayrlhf.config import Config
from rayrlhf.rewards.base import SampleText, Score

MAX_BACKOFF_S = 30.0


class CallConfig(Config):
    """How patient to be with calls."""

    timeout_s: PositiveFloat = 60.0
    """For one call."""
    num_retries: NonNegativeInt = 1
    """Further calls for the rows that got no score. Rows of a call with several rows that still have none are then
    asked for once more each, alone, so that one bad row does not cost its neighbours their scores."""
    max_concurrency: PositiveInt = 4
    """Calls at the same time, for each of the role's workers."""


class CallError(Exception):
    """A call gave no scores at all."""

    def __init__(self, reason: str, trace: str = "", retry: bool = True, split: bool = True) -> None:
        super().__init__(reason)
        self.judged = Score(None, reason, trace)
        self.retry = retry
        """Whether the same call may go better the next time."""
        self.split = split
        """Whether one of several rows may be what went wrong."""


Call = Callable[[Sequence[SampleText]], list[Score]]
"""One result per sample, or a CallError for all of them."""


def judge_in_calls(
    samples: Sequence[SampleText], call: Call, rows_per_call: int, config: CallConfig, backoff_s: float = 0.0
) -> list[Score]:
    """One result per sample, in order; a row without a score carries the reason of its last call.

    backoff_s: the wait before the first retry, doubled for each further one.
    """
    chunks = [samples[start : start + rows_per_call] for start in range(0, len(samples), rows_per_call)]
    with ThreadPoolExecutor(config.max_concurrency) as threads:
        judged = threads.map(lambda chunk: _judge_chunk(chunk, call, config.num_retries, backoff_s), chunks)
        return [result for chunk in judged for result in chunk]


def _judge_chunk(samples: Sequence[SampleText], call: Call, num_retries: int, backoff_s: float) -> list[Score]:
    results: dict[int, Score] = {}
    missing = list(range(len(samples)))
    retry = split = True
    for attempt in range(1 + num_retries):
        if attempt:
            time.sleep(min(backoff_s * 2 ** (attempt - 1), MAX_BACKOFF_S))
        asked = missing
        try:
            results |= zip(asked, call([samples[row] for row in asked]), strict=True)
        except CallError as error:
            results |= dict.fromkeys(asked, error.judged)
            retry, split = error.retry, error.split
        missing = [row for row in asked if results[row].value is None]
        if not missing or not retry:
            break
    if split and len(asked) > 1:
        for row in missing:
            try:
                (results[row],) = call([samples[row]])
            except CallError as error:
                results[row] = error.judged
    return [results[row] for row in range(len(samples))]
