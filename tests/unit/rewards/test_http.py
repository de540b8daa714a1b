"""Rewards from a real server on this machine: what is sent, and what becomes of bad answers."""

import threading
import time
from collections.abc import Iterator

import pytest
from pydantic import ValidationError
from score_server import Server, good_scores

from rayrlhf.config import ConfigError
from rayrlhf.rewards import HttpReward, SampleText

GOOD, BAD = SampleText("q", "good", "a", True), SampleText("q", "bad", None, True)
ROWS = [GOOD, BAD, GOOD, GOOD]


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = Server()
    yield server
    server.close()


def judge(server: Server, rows, **settings):
    settings = {"timeout_s": 20.0, "num_retries": 0, "backoff_s": 0.0} | settings
    return HttpReward(url=server.url, **settings).start().judge(rows)


def test_scores_come_back_in_the_order_of_the_samples(server):
    rows = [SampleText("", "x" * length, None, True) for length in (5, 3, 8, 1, 2)]
    assert [r.value for r in judge(server, rows, batch_size=2, max_concurrency=3)] == [5.0, 3.0, 8.0, 1.0, 2.0]
    assert sorted(len(content["responses"]) for content in server.asked) == [1, 2, 2]


def test_the_request_holds_prompts_responses_and_references(server):
    judge(server, [GOOD, BAD])
    assert server.asked == [{"prompts": ["q", "q"], "responses": ["good", "bad"], "gold_answers": ["a", None]}]


def test_text_that_has_no_utf8_arrives_nonetheless(server):
    assert judge(server, [SampleText("q", "한국", "\ud83d", True)])[0].value == 2.0
    assert server.asked[0]["gold_answers"] == ["\ud83d"]


def test_a_header_may_come_from_the_environment(server, monkeypatch):
    monkeypatch.setenv("MY_KEY", "secret")
    judge(server, [GOOD], headers={"Authorization": "env:MY_KEY", "X-Plain": "as it is"})
    assert (server.headers[0]["Authorization"], server.headers[0]["X-Plain"]) == ("secret", "as it is")


def test_a_header_whose_variable_is_not_set_is_refused_by_name(monkeypatch):
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(ConfigError, match=r"headers\.Authorization: 'env:MY_KEY', but MY_KEY is not set"):
        HttpReward(url="http://127.0.0.1", headers={"Authorization": "env:MY_KEY"}).start()


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (500, b"overloaded", "HTTP 500"),
        (422, b"no such field", "HTTP 422"),
        (200, b"<html>", "the answer is not JSON"),
        (200, b"[1, 1, 1, 1]", 'the answer has no list "scores"'),
        (200, b'{"scores": 1}', 'the answer has no list "scores"'),
        (200, b'{"scores": []}', "the answer has another number of scores than responses"),
        (200, b'{"scores": [null]}', "the score is None"),
        (200, b'{"scores": ["1"]}', "the score is a str, not a number"),
        (200, b'{"scores": [NaN]}', "the score is NaN"),
        (200, b'{"scores": [1e999]}', "the score is infinite, or larger than a float32"),
    ],
)
def test_one_bad_row_is_rejected_with_the_reason_and_its_neighbors_are_not(server, status, body, reason):
    server.answer = lambda content: (status, body) if "bad" in content["responses"] else good_scores(content)
    judged = judge(server, ROWS)
    assert [result.value for result in judged] == [4.0, None, 4.0, 4.0]
    assert judged[1].reason == reason
    assert status == 200 or judged[1].trace == body.decode()


def test_a_server_that_does_not_answer_is_given_up_in_time(server):
    ended = threading.Event()
    server.answer = lambda content: (200, str(ended.wait(30)).encode())
    started = time.monotonic()
    assert judge(server, [GOOD], timeout_s=0.5)[0].reason == "timed out after 0.5 s"
    assert time.monotonic() - started < 10
    ended.set()


def test_a_server_that_answers_byte_by_byte_is_late_as_well(server):
    server.seconds_per_byte = 0.2
    assert judge(server, [GOOD], timeout_s=0.5)[0].reason == "timed out after 0.5 s"


def test_a_server_that_recovers_is_asked_again(server):
    server.answer = lambda content: (503, b"") if len(server.asked) < 3 else good_scores(content)
    assert judge(server, [GOOD], num_retries=2)[0].value == 4.0
    assert len(server.asked) == 3


def test_the_wait_before_a_retry_doubles(server):
    server.answer = lambda content: (503, b"")
    started = time.monotonic()
    assert judge(server, [GOOD], num_retries=2, backoff_s=0.3)[0].reason == "HTTP 503"
    assert time.monotonic() - started >= 0.3 + 0.6


def test_a_refusal_that_no_retry_can_change_is_not_repeated(server):
    server.answer = lambda content: (401, b"who are you?")
    judged = judge(server, ROWS, num_retries=3)
    assert {(result.reason, result.trace) for result in judged} == {("HTTP 401", "who are you?")}
    assert len(server.asked) == 1


def test_no_more_requests_are_open_than_configured(server):
    def slowly(content):
        time.sleep(0.2)
        return good_scores(content)

    server.answer = slowly
    judge(server, ROWS * 2, batch_size=1, max_concurrency=3)
    assert server.most == 3


def test_a_server_that_is_not_there_rejects_every_row(server):
    server.http.shutdown()
    server.http.server_close()
    judged = judge(server, ROWS)
    assert {result.reason for result in judged} == {"no connection"}
    assert judged[0].trace


def test_an_address_that_is_not_http_is_refused():
    with pytest.raises(ValidationError, match="write it with http:// or https://"):
        HttpReward(url="localhost:8000")


def test_columns_of_the_data_are_sent_by_name(server):
    rows = [SampleText("q", "good", "a", True, {"category": kind, "keys": [1, None]}) for kind in ("art", None)]
    HttpReward(url=server.url).start(["category", "keys"]).judge(rows)
    assert server.asked[0]["columns"] == {"category": ["art", None], "keys": [[1, None], [1, None]]}
