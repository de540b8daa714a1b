"""Scores asked for early: the same as late ones, computed once, and never another response's."""

import threading
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from score_server import Server

from rayrlhf.rewards import HttpReward, SampleText, Score, TextJudge
from rayrlhf.rewards.callers import Callers
from rayrlhf.rewards.early import KEPT_TAKES, EarlyScores

LIMIT_S = 20.0


class Lengths(TextJudge):
    """Scores lengths, or where a response stands among the group's; remembers what it was asked."""

    def __init__(self, compares: bool) -> None:
        super().__init__(Callers(self._ask, num_callers=2, max_rows=1 if compares else 3))
        self.compares = compares
        self.asked: list[str] = []
        self.calls: list[list[str]] = []

    def _ask(self, samples: Sequence[SampleText]) -> list[Score]:
        texts = [sample.response for sample in samples]
        self.asked += texts
        self.calls.append(texts)
        if "raises" in texts:
            raise KeyError("raises")
        if not self.compares:
            return [Score(float(len(text))) for text in texts]
        assert len({sample.prompt for sample in samples}) == 1
        return [Score(float(sum(len(other) < len(text) for other in texts))) for text in texts]


class Step:
    """Rows (prompt, sample, response) of a step, given to `EarlyScores` as the rewarder does."""

    def __init__(self, *rows: tuple[int, int, str]) -> None:
        self.rows = rows
        prompts = sorted({prompt for prompt, *_ in rows})
        self.groups = [
            sorted((row for row in range(len(rows)) if rows[row][0] == prompt), key=lambda row: rows[row][1])
            for prompt in prompts
        ]

    def begin(self, early: EarlyScores) -> None:
        early.begin(self.rows, self.groups, self._decode)

    def take(self, early: EarlyScores) -> list[list[float | None]]:
        self.begin(early)
        return [[score.value for score in scores] for scores in early.take(self.rows, self.groups)]

    def only(self, prompts: set[int]) -> "Step":
        return Step(*(row for row in self.rows if row[0] in prompts))

    def _decode(self, rows: Sequence[int]) -> list[SampleText]:
        return [SampleText(f"prompt {self.rows[row][0]}", self.rows[row][2], None, True) for row in rows]


STEP = Step((0, 0, "a"), (0, 1, "aaa"), (1, 1, "bb"), (1, 0, "b"), (7, 0, "ccccc"), (7, 1, "c"))
SCORES = [[1.0, 3.0, 2.0, 1.0, 5.0, 1.0], [0.0, 1.0, 1.0, 0.0, 1.0, 0.0]]


def judges() -> list[Lengths]:
    return [Lengths(compares=False), Lengths(compares=True)]


@given(st.lists(st.sets(st.sampled_from([0, 1, 7])), max_size=4))
def test_scores_do_not_depend_on_which_groups_were_begun_in_which_order(begun):
    both = judges()
    early = EarlyScores(both)
    for prompts in begun:
        STEP.only(prompts).begin(early)
    assert STEP.take(early) == SCORES
    for judge in both:
        assert sorted(judge.asked) == sorted(text for *_, text in STEP.rows), "each row is scored once"
    assert sorted(map(len, both[1].calls)) == [2, 2, 2], "groups that are compared go whole"
    early.close()


def test_what_was_taken_is_forgotten():
    early = EarlyScores(judges())
    assert STEP.take(early) == STEP.take(early) == SCORES
    assert not early._begun


def test_another_response_of_the_same_sample_never_gets_the_first_ones_score():
    alone, compared = judges()
    early = EarlyScores([alone, compared])
    Step((0, 0, "old"), (0, 1, "xx")).begin(early)
    assert Step((0, 0, "newer"), (0, 1, "xx")).take(early) == [[5.0, 2.0], [1.0, 0.0]]
    assert sorted(alone.asked) == ["newer", "old", "xx"], "the response that is the same keeps its score"
    assert sorted(map(sorted, compared.calls)) == [["newer", "xx"], ["old", "xx"]], "it is compared anew"


def test_what_nobody_takes_is_dropped_in_the_end():
    early = EarlyScores(judges())
    Step((9, 0, "stale")).begin(early)
    for _ in range(KEPT_TAKES):
        assert early._begun
        STEP.take(early)
    assert not early._begun


def test_an_error_in_the_background_is_raised_when_the_scores_are_taken():
    early = EarlyScores(judges())
    Step((0, 0, "a"), (1, 0, "raises")).begin(early)
    with pytest.raises(KeyError):
        Step((0, 0, "a"), (1, 0, "raises")).take(early)
    assert STEP.take(early) == SCORES


def test_a_server_is_asked_before_the_step_is_complete(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = Server()
    was_asked = threading.Event()
    answer = server.answer
    server.answer = lambda content: was_asked.set() or answer(content)
    early = EarlyScores([HttpReward(url=server.url).start()])
    STEP.only({0}).begin(early)
    assert was_asked.wait(LIMIT_S)
    assert STEP.take(early) == SCORES[:1]
    assert sorted(text for content in server.asked for text in content["responses"]) == sorted(
        text for *_, text in STEP.rows
    )
    early.close()
    server.close()
