"""A sampler's threads: a report comes as soon as there is news, and errors reach the caller."""

import math
import threading

import pytest

from rayrlhf.engines import Completion, GenerationRequest, Sampling
from rayrlhf.pool.leases import Lease, Report
from rayrlhf.types import Prompt, Sample
from rayrlhf.weights.store import Published
from rayrlhf.workers.sampler import Sampler, Weights
from rayrlhf.workers.sampler_loop import SamplerLoop

WAIT_S = 20.0


class OneTokenEngine:
    """Every response is one token; loading version `breaks_at` fails."""

    def __init__(self, breaks_at: int = -1) -> None:
        self._breaks_at, self._version, self._ids = breaks_at, -1, []

    def add(self, request_id: int, request: GenerationRequest, sampling: Sampling) -> None:
        self._ids.append(request_id)

    def step(self) -> list[tuple[int, Completion]]:
        ids, self._ids = self._ids, []
        return [(i, Completion((1,), (-1.0,), True, (self._version,))) for i in ids]

    def load_weights(self, update: dict[str, object], version: int) -> int:
        if version == self._breaks_at:
            raise OSError("half of them are missing")
        self._version = version
        return 0


class Source:
    """Gives out versions as the test releases them."""

    def __init__(self) -> None:
        self.version, self.changed = -1, threading.Condition()
        self.lost: set[int] = set()

    def release(self, version: int) -> None:
        with self.changed:
            self.version = version
            self.changed.notify_all()

    def newest(self, min_version: int) -> Published | None:
        with self.changed:
            there = self.changed.wait_for(lambda: self.version >= min_version, 0.1)
            return Published(self.version, []) if there else None

    def fetch(self, published: Published) -> Weights | None:
        if published.version in self.lost:
            self.lost.remove(published.version)
            return None
        return Weights(published.version, [])


def lease(number: int) -> Lease:
    samples = (Sample(Prompt(number, (1, 2)), 0, seed=0),)
    return Lease(number, 0, samples, Sampling(), min_version=0, deadline=math.inf)


def next_report(loop: SamplerLoop) -> Report:
    return loop.report(WAIT_S)


def test_a_new_version_is_news_and_so_is_an_answer():
    source = Source()
    loop = SamplerLoop(Sampler(OneTokenEngine(), "continue"), source)
    source.release(4)
    assert next_report(loop).version == 4
    loop.assign([lease(9)])
    report = next_report(loop)
    assert [(answer.lease_id, answer.oldest_version) for answer in report.answers] == [(9, 4)]
    assert loop.report(0.01).answers == ()  # an answer is told once
    source.release(6)
    assert next_report(loop).version == 6


def test_a_sampler_without_news_says_so_when_its_time_is_up():
    report = SamplerLoop(Sampler(OneTokenEngine(), "continue"), Source()).report(0.01)
    assert (report.version, report.answers, report.tokens) == (-1, (), 0)


def test_an_engine_that_fails_fails_the_report():
    source = Source()
    loop = SamplerLoop(Sampler(OneTokenEngine(breaks_at=2), "continue"), source)
    source.release(2)
    with pytest.raises(OSError, match="half of them are missing"):
        next_report(loop)


def test_weights_that_were_lost_on_the_way_are_asked_for_again():
    source = Source()
    source.lost = {3}
    loop = SamplerLoop(Sampler(OneTokenEngine(), "continue"), source)
    source.release(3)
    assert next_report(loop).version == 3
    assert not source.lost
