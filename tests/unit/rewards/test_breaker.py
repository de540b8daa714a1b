"""The breaker on a clock of its own: who waits, who tries, and for how long."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from rayrlhf.rewards import HttpReward, SampleText
from rayrlhf.rewards.breaker import MAX_PAUSE_S, Breaker
from rayrlhf.rewards.calls import CallError, ask
from rayrlhf.rewards.http import FAILURES_TO_PAUSE


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def fail_together(breaker: Breaker, count: int) -> None:
    """As many calls at the same time, of which each fails."""
    started = threading.Barrier(count)

    def call() -> None:
        assert breaker.wait()
        started.wait(10)
        breaker.failed()

    with ThreadPoolExecutor(count) as pool:
        list(pool.map(lambda _: call(), range(count)))


@pytest.mark.parametrize("count", [3, 32])
def test_calls_that_fail_together_are_one_failure_and_not_many_pauses(count):
    clock = Clock()
    breaker = Breaker(limit=3, pause_s=0.5, patience_s=0.5, clock=clock)
    fail_together(breaker, count)
    clock.now = 0.5
    assert breaker.wait()


@pytest.mark.parametrize("pause_s", [0.0, 0.5])
def test_pauses_end_somewhere_however_long_the_service_is_down(pause_s):
    clock = Clock()
    breaker = Breaker(limit=3, pause_s=pause_s, patience_s=600.0, clock=clock)
    for _ in range(2000):
        assert breaker.wait()
        breaker.failed()
        clock.now += MAX_PAUSE_S


def test_retries_without_end_do_not_wait_without_end(monkeypatch):
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)

    def call(samples):
        raise CallError("no")

    assert ask([SampleText("", "", None, True)], call, num_retries=1500, backoff_s=0.5)[0].reason == "no"
    assert (waited[0], max(waited)) == (0.5, MAX_PAUSE_S)


def test_a_service_that_asks_for_a_day_is_tried_again_once_patience_is_over():
    clock = Clock()
    breaker = Breaker(limit=3, pause_s=0.5, patience_s=600.0, clock=clock)
    assert breaker.wait()
    breaker.failed(pause_s=86_400.0)
    clock.now = 600.0
    assert breaker.wait()


def test_a_closed_reward_leaves_no_thread_waiting_for_its_server():
    reward = HttpReward(url="http://127.0.0.1:9", num_retries=0, backoff_s=60.0, patience_s=600.0)
    before = set(threading.enumerate())
    judge = reward.start()
    futures = judge.submit([[SampleText("", "", None, True)]] * 500)
    for future in futures[: FAILURES_TO_PAUSE * reward.batch_size]:
        future.result(20)  # so many have failed that the others wait
    judge.close()
    for thread in set(threading.enumerate()) - before:
        thread.join(20)
        assert not thread.is_alive()
