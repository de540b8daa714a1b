"""A service that is down: calls wait until it answers again, instead of each finding out by itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

MAX_PAUSE_S = 30.0


def pause_before(retry: int, first_s: float) -> float:
    """Seconds to wait before retry 0, 1, …: `first_s`, then twice as long each time, up to MAX_PAUSE_S."""
    return min(first_s * 2.0 ** min(retry, 64), MAX_PAUSE_S)


class Breaker:
    """After `limit` failures in a row, from whichever thread, calls wait; one at a time tries again, after pauses that
    double. The first that does not fail lets all of them through. Once the service was down for `patience_s`, calls
    wait no longer: all but the one that tries are given up at once. A call is reported by the thread that waited."""

    def __init__(
        self, limit: int, pause_s: float, patience_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit, self._pause_s, self._patience_s, self._clock = limit, pause_s, patience_s, clock
        self._changed = threading.Condition()
        self._failures = 0
        self._down_since = self._paused_until = 0.0
        self._tried_by: int | None = None
        self._closed = False

    def wait(self) -> bool:
        """Wait for a call to be allowed, which is then to be reported; False if the service was down for too long, or
        nobody wants to know any more."""
        with self._changed:
            while not self._closed and self._failures >= self._limit:
                now = self._clock()
                if self._tried_by is None and now >= self._paused_until:
                    self._tried_by = threading.get_ident()
                    return True
                left_s = self._down_since + self._patience_s - now
                if left_s <= 0:
                    return False
                self._changed.wait(left_s if self._tried_by else min(left_s, self._paused_until - now))
            return not self._closed

    def succeeded(self) -> None:
        """The service answered an allowed call, if only with a refusal."""
        with self._changed:
            self._failures, self._tried_by = 0, None
            self._changed.notify_all()

    def failed(self, pause_s: float | None = None) -> None:
        """It did not. pause_s: how long it asks all to wait, if it does; longer than the patience lasts, nobody does.

        Calls that began before all had to wait end later, and say nothing new.
        """
        with self._changed:
            if self._failures >= self._limit and self._tried_by != threading.get_ident():
                return
            now = self._clock()
            if not self._failures:
                self._down_since = now
            self._tried_by = None
            self._failures = self._failures + 1 if pause_s is None else max(self._failures + 1, self._limit)
            if pause_s is None:
                pause_s = pause_before(max(0, self._failures - self._limit), self._pause_s)
            self._paused_until = now + min(pause_s, self._patience_s)
            self._changed.notify_all()

    def close(self) -> None:
        """Let nobody wait or call any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
