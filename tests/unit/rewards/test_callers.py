"""Calls in the background: how waiting units share calls, and whom a bad call costs what."""

import threading
from collections.abc import Sequence
from concurrent.futures import Future

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayrlhf.rewards import SampleText, Score
from rayrlhf.rewards.callers import Callers

LIMIT_S = 20.0


def unit(*texts: str) -> list[SampleText]:
    return [SampleText("", text, None, True) for text in texts]


def values(futures: Sequence[Future[list[Score]]]) -> list[list[float | None]]:
    return [[score.value for score in future.result(LIMIT_S)] for future in futures]


class Asked:
    """Scores a response by its length, holds calls with `slow` back, and remembers what each call was given."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.go_on = threading.Event()
        self.is_slow = threading.Event()

    def __call__(self, samples: Sequence[SampleText]) -> list[Score]:
        texts = [sample.response for sample in samples]
        self.calls.append(texts)
        if "slow" in texts:
            self.is_slow.set()
            assert self.go_on.wait(LIMIT_S)
        if "raises" in texts:
            raise KeyError("no such thing")
        return [Score(float(len(text))) for text in texts]


@pytest.fixture
def asked():
    asked = Asked()
    yield asked
    asked.go_on.set()


def test_groups_of_one_row_that_wait_travel_in_full_calls(asked):
    callers = Callers(asked, num_callers=1, max_rows=4)
    futures = callers.submit([unit("slow")])
    assert asked.is_slow.wait(LIMIT_S)
    for _ in range(10):
        futures += callers.submit([unit("a")])
    asked.go_on.set()
    assert values(futures) == [[4.0]] + [[1.0]] * 10
    assert [len(call) for call in asked.calls] == [1, 4, 4, 2]


@given(st.lists(st.integers(1, 5), min_size=1, max_size=12), st.integers(1, 6), st.integers(1, 3))
def test_a_unit_is_never_split_and_every_one_gets_its_own_scores(sizes, max_rows, num_callers):
    asked = Asked()
    callers = Callers(asked, num_callers, max_rows)
    units = [unit(*(f"{index}." + "x" * (index + row) for row in range(size))) for index, size in enumerate(sizes)]
    futures = callers.submit(units)
    assert values(futures) == [[float(len(sample.response)) for sample in each] for each in units]
    for call in asked.calls:
        owners = [text.split(".")[0] for text in call]
        assert all(owners.count(owner) == sizes[int(owner)] for owner in owners)
        assert len(call) <= max_rows or len(set(owners)) == 1
    callers.close()


def test_a_call_that_hangs_holds_up_its_own_rows_only(asked):
    callers = Callers(asked, num_callers=2, max_rows=1)
    (hung,) = callers.submit([unit("slow")])
    assert asked.is_slow.wait(LIMIT_S)
    assert values(callers.submit([unit("a")] * 5)) == [[1.0]] * 5
    assert not hung.done()


def test_what_a_call_raises_is_raised_to_its_own_waiters_and_the_caller_works_on(asked):
    callers = Callers(asked, num_callers=1, max_rows=2)
    futures = callers.submit([unit("a"), unit("raises"), unit("b")])
    for future in futures[:2]:
        with pytest.raises(KeyError, match="no such thing"):
            future.result(LIMIT_S)
    assert values(futures[2:]) == [[1.0]]


def test_no_more_threads_are_started_than_calls_wait_or_are_allowed(asked):
    before = threading.active_count()
    callers = Callers(asked, num_callers=3, max_rows=1)
    assert values(callers.submit([unit("a")])) == [[1.0]]
    assert threading.active_count() <= before + 1
    values(callers.submit([unit("a")] * 10))
    assert threading.active_count() <= before + 3


def test_closing_cancels_what_waits_and_ends_the_threads(asked):
    callers = Callers(asked, num_callers=1, max_rows=1)
    slow, waiting = callers.submit([unit("slow"), unit("a")])
    assert asked.is_slow.wait(LIMIT_S)
    callers.close()
    assert waiting.cancelled()
    asked.go_on.set()
    assert values([slow]) == [[4.0]]
    (thread,) = callers._threads
    thread.join(LIMIT_S)
    assert not thread.is_alive()
    assert asked.calls == [["slow"]]
