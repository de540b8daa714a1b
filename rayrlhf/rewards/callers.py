"""Threads that ask for scores in the background: each idle one takes what waits, up to a call's size."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from itertools import islice

from rayrlhf.rewards.base import SampleText, Score

Unit = Sequence[SampleText]
"""Samples that one call must see together: a single sample, or all of a prompt's where they are compared."""


class Callers:
    """Up to `num_callers` persistent threads, which call `ask` with up to `max_rows` samples, first come first served.

    A unit is never split over calls, so a larger one is a call of its own. What `ask` raises is raised to whoever waits
    for a unit of that call.
    """

    def __init__(self, ask: Callable[[Sequence[SampleText]], list[Score]], num_callers: int, max_rows: int) -> None:
        self._ask, self._num_callers, self._max_rows = ask, num_callers, max_rows
        self._waiting: deque[tuple[Unit, Future[list[Score]]]] = deque()
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._closed = False

    def submit(self, units: Sequence[Unit]) -> list[Future[list[Score]]]:
        """Queue units, all at once so that the first calls are full ones. Returns immediately."""
        futures: list[Future[list[Score]]] = [Future() for _ in units]
        with self._changed:
            assert not self._closed
            self._waiting.extend(zip(units, futures, strict=True))
            while len(self._threads) < min(self._num_callers, len(self._waiting)):
                # Daemons: a call that hangs must not keep the process from ending.
                self._threads.append(threading.Thread(target=self._work, name="reward-caller", daemon=True))
                self._threads[-1].start()
            self._changed.notify_all()
        return futures

    def close(self) -> None:
        """Cancel what waits; calls under way end by themselves."""
        with self._changed:
            self._closed = True
            for _, future in self._waiting:
                future.cancel()
            self._waiting.clear()
            self._changed.notify_all()

    def _work(self) -> None:
        while taken := self._take():
            try:
                scores = iter(self._ask([sample for unit, _ in taken for sample in unit]))
                results = [list(islice(scores, len(unit))) for unit, _ in taken]
            except BaseException as error:
                for _, future in taken:
                    future.set_exception(error)
            else:
                for (_, future), result in zip(taken, results, strict=True):
                    future.set_result(result)

    def _take(self) -> list[tuple[Unit, Future[list[Score]]]]:
        """The next call's units, as soon as there are any; empty once closed."""
        taken: list[tuple[Unit, Future[list[Score]]]] = []
        num_rows = 0
        with self._changed:
            while not taken and not self._closed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                while self._waiting and (not taken or num_rows + len(self._waiting[0][0]) <= self._max_rows):
                    unit, future = self._waiting.popleft()
                    if future.set_running_or_notify_cancel():
                        taken.append((unit, future))
                        num_rows += len(unit)
        return taken
