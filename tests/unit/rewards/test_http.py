"""Rewards from a real server on this machine: what is sent, and what becomes of bad answers."""

import threading
import time
from collections.abc import Iterator

import pytest
from pydantic import ValidationError
from score_server import Server, good_scores

from rayrlhf.config import ConfigError, parse_config
from rayrlhf.rewards import HttpReward, SampleText
from rayrlhf.rewards.http import MAX_TRACE_CHARACTERS

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
        (400, b"too long", "HTTP 400"),
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


def test_a_refusal_of_the_server_itself_is_not_split_into_a_request_for_each_row(server):
    for status in (429, 500, 503):
        server.asked.clear()
        server.answer = lambda content, status=status: (status, b"")
        assert {result.reason for result in judge(server, ROWS, num_retries=1)} == {f"HTTP {status}"}
        assert len(server.asked) == 2


def test_late_answers_are_not_split_either(server):
    ended = threading.Event()
    server.answer = lambda content: (200, str(ended.wait(30)).encode())
    assert {result.reason for result in judge(server, ROWS, timeout_s=0.3)} == {"timed out after 0.3 s"}
    assert len(server.asked) == 1
    ended.set()


def test_a_server_that_is_down_is_asked_by_one_request_at_a_time(server):
    server.answer = lambda content: (503, b"") if len(server.asked) < 8 else good_scores(content)
    judged = judge(server, ROWS * 4, batch_size=1, max_concurrency=2, num_retries=8, backoff_s=0.01)
    assert [result.value for result in judged] == [4.0, 3.0, 4.0, 4.0] * 4
    assert len(server.asked) == 16 + 7


def test_a_server_that_stays_down_costs_its_patience_and_not_a_wait_for_each_row(server):
    server.answer = lambda content: (503, b"")
    started = time.monotonic()
    judged = judge(server, ROWS * 50, batch_size=1, num_retries=3, backoff_s=0.2, patience_s=1.0)
    assert {result.reason for result in judged} <= {"HTTP 503", "the service is down"}
    assert {result.value for result in judged} == {None}
    assert time.monotonic() - started < 60 and len(server.asked) < 100


def test_the_server_says_how_long_to_wait(server):
    server.retry_after = "1"
    server.answer = lambda content: (429, b"") if len(server.asked) == 1 else good_scores(content)
    started = time.monotonic()
    assert judge(server, [GOOD], num_retries=1)[0].value == 4.0
    assert time.monotonic() - started >= 1


@pytest.mark.parametrize("body", [b"[" * 200_000, b'{"scores": ' * 100_000])
def test_an_answer_nested_too_deeply_is_a_rejection(server, body):
    server.seconds_per_byte = None
    server.answer = lambda content: (200, body)
    assert judge(server, [GOOD])[0].reason == "the answer is not JSON"


def test_an_answer_without_end_is_not_read_to_its_end(server, monkeypatch):
    monkeypatch.setattr("rayrlhf.rewards.http.MAX_ANSWER_BYTES", 100_000)
    server.seconds_per_byte = None
    server.answer = lambda content: (200, b" " * 1_000_000)
    assert judge(server, [GOOD])[0].reason == "the answer is longer than 100000 bytes"


def test_a_secret_is_never_in_a_message(server, monkeypatch):
    server.answer = lambda content: (401, b"not accepted: " + server.headers[-1]["Authorization"].encode())
    monkeypatch.setenv("MY_KEY", "Bearer sk-SECRET\n")  # as a file has it
    (judged,) = judge(server, [GOOD], headers={"Authorization": "env:MY_KEY"})
    assert judged.trace == "not accepted: ***"
    monkeypatch.setenv("MY_KEY", "Bearer sk-\nSECRET")
    with pytest.raises(ConfigError, match="the value of MY_KEY is empty, or has a line break") as error:
        judge(server, [GOOD], headers={"Authorization": "env:MY_KEY"})
    assert "SECRET" not in str(error.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"headers": {"Authorization": "Bearer sk-SECRET"}},
        {"headers": {"X-API-Key": "SECRET"}},
        {"url": "https://user:SECRET@host/score"},
        {"url": "https://SECRET@host/score"},
        {"url": "https://host/score?api_key=SECRET"},
    ],
)
def test_a_secret_that_is_written_out_is_refused_without_showing_it(settings):
    with pytest.raises(ConfigError, match=r"would lie in the run's config\.yaml: set an environment variable") as error:
        parse_config(HttpReward, {"url": "http://127.0.0.1"} | settings, source="reward.yaml")
    assert "SECRET" not in str(error.value)
    with pytest.raises(ValidationError) as error:
        HttpReward.model_validate({"url": "http://127.0.0.1"} | settings)
    assert "SECRET" not in str(error.value)


def test_a_url_may_come_from_the_environment(server, monkeypatch):
    monkeypatch.setenv("SCORES", f"{server.url}?key=secret")
    assert HttpReward(url="env:SCORES").start().judge([GOOD])[0].value == 4.0
    monkeypatch.setenv("SCORES", "host")
    with pytest.raises(ConfigError, match="the value of SCORES must begin with http"):
        HttpReward(url="env:SCORES").start()


def test_no_part_of_a_secret_is_left_where_an_answer_is_cut(server, monkeypatch):
    monkeypatch.setenv("MY_KEY", "0123456789abcdef")
    server.answer = lambda _: (400, b"x" * (MAX_TRACE_CHARACTERS - 8) + b"0123456789abcdef")
    (judged,) = judge(server, [GOOD], headers={"Authorization": "env:MY_KEY"})
    assert judged.trace == "x" * (MAX_TRACE_CHARACTERS - 8) + "***"
