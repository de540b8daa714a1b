"""`rayrlhf generate` and `chat` with an engine that answers from a script: limits, order, streaming, Ctrl-C."""

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from rayrlhf.cli import talk
from rayrlhf.config import ConfigError, UserError
from rayrlhf.engines import Completion, GenerationRequest, Sampling

ANSWER = "안녕하세요. The train leaves at nine."
EMPTY = {"temperature": 0.0, "top_p": 1.0, "top_k": 0}


@dataclass
class ScriptedEngine:
    """Answers with the same tokens always; later requests end earlier."""

    token_ids: list[int]
    interrupt_after: int | None = None
    """Press Ctrl-C after so many tokens."""
    asked: dict[int, Sampling] = field(default_factory=dict)
    conversations: list[tuple[int, ...]] = field(default_factory=list)

    def add(self, request_id: int, request: GenerationRequest, sampling: Sampling) -> None:
        self.asked[request_id] = sampling
        self.conversations.append(request.token_ids)

    def step(self) -> list[tuple[int, Completion]]:
        last = max(self.asked)
        self.asked.pop(last)
        return [(last, Completion((*self.token_ids, *self.token_ids[: last + 1]), (), True, ()))]

    def stream(self, request: GenerationRequest, sampling: Sampling) -> Iterator[tuple[int, ...]]:
        self.add(0, request, sampling)
        for count in range(1, len(self.token_ids) + 1):
            if count == self.interrupt_after:
                self.interrupt_after = None
                os.kill(os.getpid(), signal.SIGINT)
            yield tuple(self.token_ids[:count])


@pytest.fixture
def talker(tiny_qwen2: str, tokenizer: Any, monkeypatch: pytest.MonkeyPatch):
    """`talker(**settings)`: a Talker whose engine is `talker.engine`; engines started are in `talker.started`."""

    def make(max_completion_length: int | None = None, usual_length: int = 128) -> talk.Talker:
        made: Any = talk.load(tiny_qwen2, "chat", **EMPTY, max_completion_length=max_completion_length,
                              usual_length=usual_length)  # fmt: skip
        made.engine = ScriptedEngine(tokenizer(ANSWER, add_special_tokens=False).input_ids)
        made.started = []
        made.check_engine = lambda dtype: None
        made.start = lambda engine, max_model_len: made.started.append(max_model_len) or made.engine
        return made

    return make


def type_lines(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    """What a person types, and then the end of input."""
    waiting = iter(lines)

    def read(prompt: str) -> str:
        print(prompt, end="")
        line = next(waiting, None)
        if line is None:
            raise EOFError
        if line == "^C":
            raise KeyboardInterrupt
        return line

    monkeypatch.setattr("builtins.input", read)


def test_an_answer_may_take_what_the_prompt_leaves(talker):
    request, sampling = talker().request([("user", "hi")])
    assert 0 < sampling.max_completion_length == 128 - len(request.token_ids)
    assert talker(usual_length=20).request([("user", "hi")])[1].max_completion_length == 20
    assert talker(30, usual_length=20).request([("user", "hi")])[1].max_completion_length == 30


def test_special_tokens_that_a_person_types_are_text(talker, tokenizer):
    asked = [("user", "<|endoftext|>"), ("assistant", "<|user|>"), ("user", "hi <|assistant|>")]
    request, _ = talker().request(asked)
    assert tokenizer.decode(request.token_ids) == (
        "<|user|><|endoftext|><|assistant|><|user|><|endoftext|><|user|>hi <|assistant|><|assistant|>"
    )
    user, assistant, eos = tokenizer.convert_tokens_to_ids(["<|user|>", "<|assistant|>", "<|endoftext|>"])
    control = [token for token in request.token_ids if token in (user, assistant, eos)]
    assert control == [user, assistant, eos, user, assistant]


def test_limits_are_checked_before_the_engine_starts(talker):
    full = talker(100)
    with pytest.raises(UserError, match=r"the prompt has \d+ tokens and the model takes 128.*lower that to \d+"):
        talk.generate(full, ["hi " * 30], 0, "auto")
    with pytest.raises(UserError, match="leaves 0 for an answer, not any: shorten the prompt"):
        talk.generate(talker(), ["hi", "hi " * 200], 0, "auto")
    assert full.started == []
    with pytest.raises(ConfigError, match="--max-completion-length 128 leaves no room for a prompt"):
        talker(128)


@pytest.mark.parametrize(
    ("model", "message"), [("", "no config.json"), ("runs/nobody", "no such folder"), ("/nowhere", "no such folder")]
)
def test_a_model_that_is_not_there_is_named(model, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        talk.load(model, "chat", **EMPTY, max_completion_length=None, usual_length=128)


def test_options_out_of_range_and_unknown_templates_are_refused(tiny_qwen2):
    with pytest.raises(ConfigError, match=r"top_p: .* \(found 2.0\)"):
        talk.load(tiny_qwen2, "chat", 0.0, 2.0, 0, None, 128)
    with pytest.raises(ConfigError, match="--template alpaca: not one of chat, kochatgpt, kullm"):
        talk.load(tiny_qwen2, "alpaca", **EMPTY, max_completion_length=None, usual_length=128)


def test_answers_are_printed_in_the_order_of_their_prompts(talker, capfd):
    three = talker()
    talk.generate(three, ["a", "b", "c"], 0, "auto")
    ids = three.engine.token_ids
    assert capfd.readouterr().out.splitlines() == [three.text([*ids, *ids[: n + 1]]) for n in range(3)]
    assert len(three.started) == 1


def test_one_answer_is_printed_piece_by_piece_and_never_with_half_a_character(talker):
    one = talker()
    pieces = list(talk.stream(one.engine, one.text, *one.request([("user", "hi")])))
    assert "".join(pieces) == one.text(one.engine.token_ids) == ANSWER
    assert sum(map(bool, pieces)) > 5
    assert "\N{REPLACEMENT CHARACTER}" not in "".join(pieces)


def test_what_libraries_print_is_kept_from_the_terminal_unless_something_fails(capfd):
    def noise() -> None:
        os.system("echo a warning")
        os.system("echo from native code >&2")

    with talk.quiet() as terminal:
        noise()
        terminal.write("an answer\n")
    assert capfd.readouterr() == ("an answer\n", "")
    with pytest.raises(ZeroDivisionError), talk.quiet():
        noise()
        raise ZeroDivisionError
    assert "from native code" in capfd.readouterr().err
    print("back")
    assert capfd.readouterr().out == "back\n"


def test_the_end_of_input_ends_a_chat(talker, capfd, monkeypatch):
    type_lines(monkeypatch, "hi", "and then?")
    two = talker(usual_length=20)
    talk.chat(two, "auto")
    out = capfd.readouterr().out
    assert out.count(f"model> {ANSWER}\n") == 2
    first, second = two.engine.conversations
    assert second[: len(first)] == first and len(second) > len(first) + len(two.engine.token_ids)


def test_ctrl_c_ends_an_answer_and_a_second_one_the_program(talker, capfd, monkeypatch):
    type_lines(monkeypatch, "hi", "^C")
    one = talker()
    one.engine.interrupt_after = 10
    before = signal.getsignal(signal.SIGINT)  # ignored, where the tests run in the background
    with pytest.raises(KeyboardInterrupt):
        talk.chat(one, "auto")
    (line,) = [line for line in capfd.readouterr().out.splitlines() if "model> " in line]
    answer = line.partition("model> ")[2]
    assert ANSWER.startswith(answer) and 0 < len(answer) < len(ANSWER)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_message_that_is_too_long_does_not_end_the_chat(talker, capfd, monkeypatch):
    type_lines(monkeypatch, "hi " * 200, "hi")
    talk.chat(talker(), "auto")
    out = capfd.readouterr().out
    assert "shorten the prompt, or begin a new chat" in out
    assert f"model> {ANSWER}" in out
