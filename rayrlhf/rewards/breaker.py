"""A service that is down: calls wait until it answers again, instead of each finding out by itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

MAX_PAUSE_S = 30.0


class Breaker:
    """After `limit` failures in a row, from whichever thread, calls wait; one at a time tries again, after pauses that
    double. The first that does not fail lets all of them through. Once the service was down for `patience_s`, calls
    wait no longer: all but the one that tries are given up at once."""

    def __init__(
        self, limit: int, pause_s: float, patience_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit, self._pause_s, self._patience_s, self._clock = limit, pause_s, patience_s, clock
        self._changed = threading.Condition()
        self._failures = 0
        self._down_since = self._paused_until = 0.0
        self._is_tried = False

    def wait(self) -> bool:
        """Wait for a call to be allowed, which is then to be reported; False if the service was down for too long."""
        with self._changed:
            while self._failures >= self._limit:
                now = self._clock()
                if not self._is_tried and now >= self._paused_until:
                    self._is_tried = True
                    return True
                left_s = self._down_since + self._patience_s - now
                if left_s <= 0:
                    return False
                self._changed.wait(left_s if self._is_tried else min(left_s, self._paused_until - now))
            return True

    def succeeded(self) -> None:
        """The service answered an allowed call, if only with a refusal."""
        with self._changed:
            self._failures, self._is_tried = 0, False
            self._changed.notify_all()

    def failed(self, pause_s: float | None = None) -> None:
        """It did not. pause_s: how long it asks all to wait, if it does."""
        with self._changed:
            now = self._clock()
            if not self._failures:
                self._down_since = now
            self._is_tried = False
            self._failures = self._failures + 1 if pause_s is None else max(self._failures + 1, self._limit)
            times = max(0, self._failures - self._limit)
            pause_s = min(self._pause_s * 2**times, MAX_PAUSE_S) if pause_s is None else pause_s
            self._paused_until = now + pause_s
            self._changed.notify_all()
