"""A sampler's threads: one steps its engine, one fetches weights, and callers' threads add leases and read reports."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from rayrlhf.pool.leases import Answer, Lease, Report
from rayrlhf.weights.store import Published
from rayrlhf.workers.sampler import Sampler, Weights


class WeightSource(Protocol):
    """Where a sampler gets its weights."""

    def newest(self, min_version: int) -> Published | None:
        """Wait for a version of at least `min_version` and return the newest; None if there was none for a while."""
        ...

    def fetch(self, published: Published) -> Weights | None:
        """The weights of a version; None if they are gone."""
        ...


class SamplerLoop:
    """Runs a sampler until its process ends. It generates while it fetches; only loading comes between two steps."""

    def __init__(self, sampler: Sampler, source: WeightSource) -> None:
        self._sampler, self._source = sampler, source
        self._changed = threading.Condition()
        self._assigned: list[Lease] = []
        self._fetched: Weights | None = None
        self._is_fetching = False
        self._answers: list[Answer] = []
        self._has_news = False
        self._error: BaseException | None = None
        for work in (self._generate, self._fetch):
            threading.Thread(target=self._guard, args=(work,), daemon=True, name=work.__name__).start()

    def assign(self, leases: Sequence[Lease]) -> None:
        """More leases to answer."""
        with self._changed:
            self._assigned.extend(leases)
            self._changed.notify_all()

    def report(self, timeout_s: float) -> Report:
        """Long-poll for what has changed since the last report; returns at once if anything has, or after `timeout_s`.

        Raises the error that ended one of the threads, if any.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._has_news or self._error is not None, timeout_s)
            if self._error is not None:
                raise self._error
            self._has_news = False
            answers, self._answers = tuple(self._answers), []
            sampler = self._sampler
            return Report(
                version=sampler.version,
                answers=answers,
                running=sampler.num_running,
                seconds=sampler.watch.seconds(time.monotonic()),
                activity=sampler.watch.activity,
                tokens=sampler.tokens,
            )

    def _guard(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _generate(self) -> None:
        sampler = self._sampler
        while True:
            with self._changed:
                while not (sampler.has_work or self._assigned or self._fetched):
                    sampler.rest(for_weights=self._is_fetching)
                    self._changed.wait()
                for lease in self._assigned:
                    sampler.add(lease)
                self._assigned.clear()
                if self._fetched is not None:
                    sampler.offer(self._fetched)
                    self._fetched = None
            version = sampler.version
            answers = sampler.step()
            if answers or sampler.version != version:
                with self._changed:
                    self._answers.extend(answers)
                    self._has_news = True
                    self._changed.notify_all()

    def _fetch(self) -> None:
        version = -1
        while True:
            published = self._source.newest(version + 1)
            if published is None:
                continue
            with self._changed:
                self._is_fetching = True
                self._changed.notify_all()
            weights = self._source.fetch(published)
            with self._changed:
                self._is_fetching = False
                if weights is not None:
                    self._fetched, version = weights, weights.version
                self._changed.notify_all()
