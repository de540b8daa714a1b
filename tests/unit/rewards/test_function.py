"""Reward functions in real processes: what they may take and give, and what becomes of those that misbehave."""

import os
import signal
import subprocess
import sys
import time

import pytest
from pydantic import ValidationError

from rayrlhf.rewards import FunctionReward, RewardError, SampleText

GOOD, BAD = SampleText("q", "good", "a", True), SampleText("q", "bad", None, False)
ROWS = [GOOD, BAD, GOOD, GOOD]


def scores(judged) -> list[float | None]:
    return [result.value for result in judged]


def reason_of_bad(judged) -> str:
    """The bad row's, after a look at the good ones."""
    assert scores(judged) == [1.0, None, 1.0, 1.0]
    return judged[1].reason


def test_a_function_is_given_only_what_it_takes_by_name(start):
    judge = start(
        "def f(response, finished, bonus): return len(response) + bonus + 100 * finished", arguments={"bonus": 5}
    )
    assert scores(judge.judge([GOOD, BAD])) == [109.0, 8.0]


def test_a_function_that_takes_everything_is_given_everything(start):
    judge = start(
        "def f(**given): return sorted(given) == ['finished', 'gold_answer', 'prompt', 'response', 'x']",
        arguments={"x": 1},
    )
    assert scores(judge.judge([GOOD])) == [1.0]


def test_a_missing_reference_is_none(start):
    assert scores(start("def f(gold_answer): return gold_answer is None").judge([GOOD, BAD])) == [0.0, 1.0]


@pytest.mark.parametrize(
    ("misbehavior", "reason"),
    [
        ("import os; os._exit(3)", "the process exited with code 3"),
        (
            "import ctypes; ctypes.string_at(0)",
            f"the process was killed by signal {int(signal.SIGSEGV)} (Segmentation fault)",
        ),
        ("raise KeyError('no such thing')", "raised KeyError"),
        ("import sys; sys.exit(0)", "raised SystemExit"),
        ("return float('nan')", "the score is NaN"),
        ("return float('inf')", "the score is infinite, or larger than a float32"),
        ("return 10 ** 400", "the score is infinite, or larger than a float32"),
        ("return '1.0'", "the score is a str, not a number"),
        ("return None", "the score is None"),
        ("return [1.0]", "the score is a list, not a number"),
        ("import numpy; return numpy.zeros(2)", "the score is a ndarray of several numbers"),
    ],
)
def test_a_row_whose_call_goes_wrong_is_rejected_with_the_reason_and_its_neighbors_are_not(start, misbehavior, reason):
    judge = start(f"def f(response):\n    if response == 'bad':\n        {misbehavior}\n    return 1")
    assert reason_of_bad(judge.judge(ROWS)) == reason


@pytest.mark.parametrize("wait", ["while True: pass", "import time; time.sleep(60)"])
def test_a_function_that_hangs_is_killed_in_time_and_replaced(start, wait):
    judge = start(
        f"def f(response):\n    if response == 'bad':\n        {wait}\n    return 1", timeout_s=0.5, num_retries=2
    )
    started = time.monotonic()
    judged = judge.judge(ROWS)
    assert time.monotonic() - started < 15
    assert reason_of_bad(judged) == "timed out after 0.5 s"
    assert scores(judge.judge([GOOD] * 4)) == [1.0] * 4


def test_what_a_late_function_has_started_is_killed_with_it(start, tmp_path):
    judge = start(
        f"""
        import pathlib, subprocess, time
        def f():
            program = subprocess.Popen(["sleep", "60"])
            pathlib.Path({str(tmp_path / "pid")!r}).write_text(str(program.pid))
            time.sleep(60)
        """,
        timeout_s=1.0,
    )
    assert judge.judge([GOOD])[0].reason == "timed out after 1 s"
    pid = (tmp_path / "pid").read_text()
    # Killed; until someone collects it, it may be there as a zombie.
    status = subprocess.run(["ps", "-o", "stat=", "-p", pid], capture_output=True, text=True).stdout
    assert status.strip()[:1] in ("", "Z")


def test_the_trace_names_the_line_that_raised(start):
    (judged,) = start("def f(response):\n    return {}['absent']").judge([GOOD])
    assert "KeyError: 'absent'" in judged.trace
    assert 'mine.py", line 2' in judged.trace


@pytest.mark.parametrize("value", ["True", "numpy.float32(1)", "numpy.bool_(True)", "numpy.array([1.0])", "1"])
def test_numbers_of_other_types_are_scores(start, value):
    assert scores(start(f"import numpy\ndef f(): return {value}").judge([GOOD])) == [1.0]


def test_a_row_that_fails_at_first_is_asked_for_again(start, tmp_path):
    source = f"""
        import os, pathlib
        def f(response):
            tries = pathlib.Path({str(tmp_path / "tries")!r})
            tries.write_text(tries.read_text() + "x" if tries.exists() else "x")
            if len(tries.read_text()) < 3:
                os._exit(1)
            return 1.0
    """
    assert scores(start(source, num_retries=2).judge([GOOD])) == [1.0]
    assert (tmp_path / "tries").read_text() == "xxx"


BATCHED = """
    def f(response, finished):
        if "bad" in response:
            {misbehavior}
        return [1.0 for _ in response]
"""


@pytest.mark.parametrize(
    ("misbehavior", "reason"),
    [
        ("raise ValueError", "raised ValueError"),
        ("return []", "a batch has another number of scores than responses"),
        ("return 1.0", "a batch's scores are a float, not a list"),
        ("return {}", "a batch's scores are a dict, not a list"),
        ("import os; os._exit(1)", "the process exited with code 1"),
        ("while True: pass", "timed out after 0.5 s"),
        ("return [None if r == 'bad' else 1 for r in response]", "the score is None"),
    ],
)
def test_one_bad_row_of_a_batch_does_not_cost_its_neighbors_their_scores(start, misbehavior, reason):
    judge = start(BATCHED.format(misbehavior=misbehavior), batched=True, timeout_s=0.5, num_retries=1)
    assert reason_of_bad(judge.judge(ROWS)) == reason


def test_batches_have_the_configured_size_and_may_be_arrays(start):
    judge = start(
        "import numpy\ndef f(prompt): return numpy.full(len(prompt), len(prompt))", batched=True, batch_size=3
    )
    assert scores(judge.judge([GOOD] * 4)) == [3.0, 3.0, 3.0, 1.0]


@pytest.mark.parametrize("batched", [False, True])
def test_a_function_may_be_async(start, batched):
    value = "[len(r) for r in response]" if batched else "len(response)"
    judge = start(
        f"import asyncio\nasync def f(response):\n    await asyncio.sleep(0)\n    return {value}", batched=batched
    )
    assert scores(judge.judge([GOOD, BAD])) == [4.0, 3.0]


def test_async_calls_wait_together_in_one_process(start):
    source = """
        import asyncio, os
        now = most = 0
        async def f():
            global now, most
            now += 1
            most = max(most, now)
            await asyncio.sleep(0.2)
            now -= 1
            return most
    """
    assert scores(start(source, max_concurrency=5).judge([GOOD] * 10)) == [5.0] * 10


@pytest.mark.parametrize("wait", ["await asyncio.sleep(60)", "while True: pass"])
def test_an_async_call_that_hangs_costs_no_other_row_its_score(start, wait):
    source = f"import asyncio\nasync def f(response):\n    if response == 'bad':\n        {wait}\n    return 1"
    assert (
        reason_of_bad(start(source, max_concurrency=4, timeout_s=0.5, num_retries=1).judge(ROWS))
        == "timed out after 0.5 s"
    )


def test_no_more_calls_run_at_the_same_time_than_configured(start, tmp_path):
    source = f"""
        import os, pathlib, time
        folder = pathlib.Path({str(tmp_path)!r})
        def f():
            mark = folder / f"{{os.getpid()}}.running"
            mark.touch()
            time.sleep(0.2)
            seen = len(list(folder.glob("*.running")))
            time.sleep(0.2)
            mark.unlink()
            return seen
    """
    seen = scores(start(source, max_concurrency=2).judge([GOOD] * 6))
    assert max(seen) == 2.0


def test_the_process_of_a_function_is_small(start):
    assert scores(
        start("import sys\ndef f(): return 'rayrlhf' in sys.modules or 'numpy' in sys.modules").judge([GOOD])
    ) == [0]


def test_what_a_function_prints_is_not_taken_for_its_answer(start):
    assert scores(start("import sys\ndef f():\n    print('{}')\n    return 1").judge([GOOD])) == [1.0]


def test_a_function_finds_what_lies_beside_its_file(start, tmp_path):
    (tmp_path / "beside.py").write_text("VALUE = 7")
    assert scores(start("from beside import VALUE\ndef f(): return VALUE").judge([GOOD])) == [7.0]


def test_a_function_of_an_importable_module_is_found(start, tmp_path, monkeypatch):
    (tmp_path / "my_rewards").mkdir()
    (tmp_path / "my_rewards" / "words.py").write_text("def count(response): return len(response.split())")
    monkeypatch.syspath_prepend(str(tmp_path))
    judge = FunctionReward(path="my_rewards.words:count").start()
    assert scores(judge.judge([SampleText("", "one two", None, True)])) == [2.0]
    judge.close()


@pytest.mark.parametrize(
    ("source", "settings", "words"),
    [
        ("g = 1", {}, "has no attribute 'f'"),
        ("f = 1", {}, "f is a int, not a function"),
        ("import absent_module\ndef f(): return 1", {}, "No module named 'absent_module'"),
        ("def f(:", {}, "SyntaxError"),
        ("def f(text): return 1", {}, "missing a required argument: 'text'"),
        ("def f(): return 1", {"arguments": {"bonus": 1}}, "unexpected keyword argument 'bonus'"),
        ("while True: pass", {"start_s": 1.5}, "timed out after 1.5 s"),
        ("import os; os._exit(4)", {}, "exited with code 4"),
    ],
)
def test_a_function_that_cannot_be_used_is_refused_before_anything_is_scored(start, source, settings, words):
    with pytest.raises(RewardError, match=r"mine\.py:f") as caught:
        start(source, **settings)
    assert words in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(RewardError, match=r"absent\.py:f.*no such file"):
        FunctionReward(path=f"{tmp_path}/absent.py:f").start()


@pytest.mark.parametrize("path", ["rewards.py", "my module:f", "a.b", ":f", "a:b c"])
def test_a_path_that_names_no_function_is_refused(path):
    with pytest.raises(ValidationError, match=r"file\.py:name or package\.module:name"):
        FunctionReward(path=path)


def test_a_relative_file_is_found_from_another_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert FunctionReward(path="mine.py:f").resolved().path == f"{tmp_path}/mine.py:f"
    assert FunctionReward(path="package.mine:f").resolved().path == "package.mine:f"


def test_processes_end_with_the_one_that_started_them_even_in_a_call(tmp_path):
    (tmp_path / "mine.py").write_text(
        f"import os, pathlib\ndef f():\n    pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid()))\n"
        "    while True: pass\n"
    )
    program = (
        "from rayrlhf.rewards import FunctionReward, SampleText\n"
        f"FunctionReward(path={str(tmp_path / 'mine.py:f')!r}).start().judge([SampleText('', '', None, True)])"
    )
    parent = subprocess.Popen([sys.executable, "-c", program])
    wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    pid = int((tmp_path / "pid").read_text())
    parent.kill()
    parent.wait()
    wait_until(lambda: is_gone(pid))


def wait_until(condition) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.startswith("Z")


def test_closing_ends_a_call_under_way_with_its_process_and_starts_no_other(start, tmp_path):
    judge = start(
        f"""
        import os, pathlib, time
        def f():
            (pathlib.Path({str(tmp_path)!r}) / f"{{os.getpid()}}.running").touch()
            time.sleep(60)
        """,
        timeout_s=60.0,
        num_retries=5,
    )
    futures = judge.submit([[GOOD], [GOOD], [GOOD]])
    wait_until(lambda: len(list(tmp_path.glob("*.running"))) == 2)
    judge.close()
    for future in futures[:2]:
        assert future.result(20)[0].value is None
    assert futures[2].cancelled()
    pids = [int(path.stem) for path in tmp_path.glob("*.running")]
    assert len(pids) == 2
    wait_until(lambda: all(is_gone(pid) for pid in pids))
