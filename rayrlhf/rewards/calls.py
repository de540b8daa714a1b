"""Calls that may fail: retries, and rows of a failed call one by one."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from rayrlhf.config import Config
from rayrlhf.rewards.base import SampleText, Score
from rayrlhf.rewards.breaker import Breaker, pause_before


class CallConfig(Config):
    """Time limit, retries and concurrency of calls."""

    timeout_s: PositiveFloat = 60.0
    """For one call."""
    num_retries: NonNegativeInt = 1
    """Further calls for the rows that got no score. Rows of a call with several rows that still have none are then
    asked for once more each, alone, so that one bad row does not cost its neighbors their scores."""
    max_concurrency: PositiveInt = 4
    """Calls at the same time, for each of the role's workers."""


class CallError(Exception):
    """A call gave no scores at all."""

    def __init__(
        self, reason: str, trace: str = "", retry: bool = True, split: bool = True, pause_s: float | None = None
    ) -> None:
        super().__init__(reason)
        self.score = Score(None, reason, trace)
        self.retry = retry
        """Whether the same call may go better the next time."""
        self.split = split
        """Whether one of several rows may be what went wrong."""
        self.pause_s = pause_s
        """How long the service asks to be left alone, if it does."""

    @property
    def is_down(self) -> bool:
        """Whether it is about the service, not about what it was asked."""
        return self.retry and not self.split


Call = Callable[[Sequence[SampleText]], list[Score]]
"""One result per sample, or a CallError for all of them."""


def ask(
    samples: Sequence[SampleText],
    call: Call,
    num_retries: int,
    backoff_s: float = 0.0,
    whole: bool = False,
    breaker: Breaker | None = None,
) -> list[Score]:
    """One result per sample, in order; a row without a score carries the reason of its last call.

    backoff_s: the wait before the first retry, doubled for each further one.
    whole: the samples are compared: all are asked for again together, and never alone.
    breaker: of the service that is called.
    """
    if breaker is not None:
        call = _guarded(call, breaker)
    results: dict[int, Score] = {}
    missing = list(range(len(samples)))
    retry, split = True, not whole
    for attempt in range(1 + num_retries):
        if attempt:
            time.sleep(pause_before(attempt - 1, backoff_s))
        asked = missing
        try:
            results |= zip(asked, call([samples[row] for row in asked]), strict=True)
        except CallError as error:
            results |= dict.fromkeys(asked, error.score)
            retry, split = error.retry, error.split and not whole
        missing = [row for row in asked if results[row].value is None]
        if not missing or not retry:
            break
        if whole:
            missing = asked
    if split and len(asked) > 1:
        for row in missing:
            try:
                (results[row],) = call([samples[row]])
            except CallError as error:
                results[row] = error.score
    return [results[row] for row in range(len(samples))]


def _guarded(call: Call, breaker: Breaker) -> Call:
    """`call`, as soon as the service is thought to be up."""

    def guarded(samples: Sequence[SampleText]) -> list[Score]:
        if not breaker.wait():
            raise CallError("the service is down", retry=False, split=False)
        is_down, pause_s = True, None
        try:
            scores = call(samples)
            is_down = False
        except CallError as error:
            is_down, pause_s = error.is_down, error.pause_s
            raise
        finally:
            breaker.failed(pause_s) if is_down else breaker.succeeded()
        return scores

    return guarded
