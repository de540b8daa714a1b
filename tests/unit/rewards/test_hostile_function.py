"""Reward functions that write where they must not, leave processes behind, or take what is not theirs."""

import time
from pathlib import Path

import psutil
import pytest

from rayrlhf.rewards import SampleText
from rayrlhf.rewards.secrets import is_secret_name

ROW = SampleText("q", "good", "a", True)


def assert_ends(pid: int) -> None:
    deadline = time.monotonic() + 20
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "it lives on"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("struct.pack('!i', 2**20)", "timed out after 1 s"),  # a message whose rest never comes
        ("struct.pack('!i', 2**28 + 1)", "the process answered something other than scores"),
        ("struct.pack('!i', 9) + b'{\"a\": 123'", "the process answered something other than scores"),
        ("struct.pack('!i', 8) + b'[[[[[[[['", "the process answered something other than scores"),
        ("struct.pack('!i', 2) + b'{}'", "the process answered something other than scores"),
        ("struct.pack('!i', 15) + b'{\"results\": []}'", "the process answered something other than scores"),
        ("struct.pack('!i', 18) + b'{\"results\": [[1]]}'", "the process answered something other than scores"),
        ("struct.pack('!i', 19) + b'{\"results\": [null]}'", "the process answered something other than scores"),
    ],
)
def test_a_function_that_writes_to_our_pipe_rejects_its_own_row_in_time(start, written, reason):
    judge = start(
        f"""
        import os, struct, sys, time
        def f(response):
            if response == "bad":
                os.write(int(sys.argv[1]), {written})
                time.sleep(60)
            return 1.0
        """,
        timeout_s=1.0,
    )
    bad, good = judge.judge([SampleText("q", "bad", None, True), ROW])
    assert bad.value is None and bad.reason.startswith(reason)
    assert good.value == 1.0


@pytest.mark.parametrize("leaves", ["os.setsid()", "os.setsid(); os.fork() and os._exit(0)"])
def test_what_a_function_started_ends_with_it_even_in_a_session_of_its_own(start, tmp_path: Path, leaves):
    file = tmp_path / "pid"
    judge = start(
        f"""
        import os, time
        def f(response):
            if os.fork() == 0:
                {leaves}
                open({str(file)!r}, "w").write(str(os.getpid()))
                time.sleep(300)
                os._exit(0)
            time.sleep(300)
        """,
        timeout_s=2.0,
    )
    assert judge.judge([ROW])[0].reason == "timed out after 2 s"
    assert_ends(int(file.read_text()))


def test_a_function_gets_no_secret_but_those_that_it_asks_for(start, monkeypatch):
    for name in ("HF_TOKEN", "RAY_AUTH_TOKEN", "MY_API_KEY", "DB_PASSWORD", "PLAIN"):
        monkeypatch.setenv(name, "x")
    source = """
        import os
        def f(response): return sum(os.environ.get(name) == "x" for name in response.split())
    """
    names = SampleText("q", "HF_TOKEN RAY_AUTH_TOKEN DB_PASSWORD MY_API_KEY PLAIN", None, True)
    assert start(source).judge([names])[0].value == 1.0
    assert start(source, environment=["MY_API_KEY"]).judge([names])[0].value == 2.0


def test_what_only_sounds_like_a_secret_is_none():
    innocent = "TOKENIZERS_PARALLELISM MAX_TOKENS NUM_TOKENS KEYBOARD KEYWORDS MONKEY GIT_AUTHOR_NAME XAUTHORITY"
    assert [name for name in innocent.split() if is_secret_name(name)] == []
    secret = (
        "HF_TOKEN APIKEY OPENAI_API_KEY RAY_AUTH_TOKEN Authorization Proxy-Authorisation SSH_AUTH_SOCK Set-Cookie "
        "PGPASSWORD AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN GOOGLE_APPLICATION_CREDENTIALS X-Auth KEYSTORE SSL_KEY_FILE"
    )
    assert [name for name in secret.split() if not is_secret_name(name)] == []


def test_a_function_that_takes_too_much_memory_rejects_its_own_row(start):
    judge = start("def f(response): return len(bytearray(2**30 if response == 'bad' else 8))", memory_gib=0.5)
    bad, good = judge.judge([SampleText("q", "bad", None, True), ROW])
    assert (bad.value, bad.reason, good.value) == (None, "raised MemoryError", 8.0)


def test_what_a_function_started_ends_when_its_process_crashes(start, tmp_path: Path):
    file = tmp_path / "pid"
    judge = start(
        f"""
        import os, subprocess
        def f(response):
            open({str(file)!r}, "w").write(str(subprocess.Popen(["sleep", "300"]).pid))
            os._exit(3)
        """
    )
    assert judge.judge([ROW])[0].reason == "the process exited with code 3"
    assert_ends(int(file.read_text()))


def test_a_process_that_does_not_read_what_it_is_sent_is_late_as_well(start):
    judge = start(
        """
        import os, signal, threading, time
        def stop():
            time.sleep(0.2)
            os.kill(os.getpid(), signal.SIGSTOP)
        def f(response):
            threading.Thread(target=stop).start()
            return 1.0
        """,
        timeout_s=2.0,
        max_concurrency=1,
    )
    assert judge.judge([ROW])[0].value == 1.0
    time.sleep(1.0)
    (late,) = judge.submit([[SampleText("q", "x" * 2**22, None, True)]])  # more than any pipe holds
    assert late.result(20)[0].reason == "timed out after 2 s"
