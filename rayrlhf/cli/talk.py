"""Generating from a checkpoint and chatting with it, through the engine that the samplers use.

Prompts are tokenized and checked before the engine starts: a start takes seconds, more for large models.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, TextIO

import torch
from pydantic import TypeAdapter, ValidationError

from rayrlhf.cli.quiet import quiet
from rayrlhf.config import ConfigError, UserError, parse_config
from rayrlhf.data.ingest.account import Rejected
from rayrlhf.data.ingest.records import Message, PromptText
from rayrlhf.data.templates import Template
from rayrlhf.engines import DefaultEngine, Engine, EngineInputs, EngineSettings, GenerationRequest, Sampling
from rayrlhf.models import load_tokenizer, read_model_config
from rayrlhf.run_directory import resolve

Role = Literal["system", "user", "assistant"]
Conversation = list[tuple[Role, str]]
Dtype = Literal["auto", "float32", "bfloat16"]

CHAT_CONTEXT = 2048
"""Tokens of a whole chat with a model that takes as many or more: the engine reserves memory for all of them."""


class Talker:
    """A model folder's tokenizer, template and limits; no weights."""

    def __init__(self, model: str, template: str, sampling: Sampling, max_completion_length: int | None) -> None:
        """max_completion_length: what the user asked for; None is `sampling`'s, or less where a prompt leaves less."""
        self.model = resolve(model)
        self.config = read_model_config(self.model)
        self.context: int = getattr(self.config, "max_position_embeddings", None) or CHAT_CONTEXT
        self.tokenizer = load_tokenizer(self.model)
        self._sampling, self._asked = sampling, max_completion_length
        try:
            self._template: Template = TypeAdapter(Template).validate_python(template)
        except ValidationError:
            raise ConfigError(f"--template {template}: not one of chat, kochatgpt, kullm") from None
        if max_completion_length is not None and max_completion_length >= self.context:
            raise ConfigError(
                f"--max-completion-length {max_completion_length} leaves no room for a prompt: the model takes "
                f"{self.context} tokens, prompt and answer; lower it"
            )

    def request(self, conversation: Conversation, seed: int = 0) -> tuple[GenerationRequest, Sampling]:
        """The conversation as tokens, and how to answer it. Raises UserError if it leaves no room for an answer."""
        prompt = PromptText(tuple(Message(role, text) for role, text in conversation))
        try:
            ids = self._template.encode(prompt, self.tokenizer)
        except Rejected as rejection:
            raise UserError(f"{rejection.reason}: {rejection.detail}") from None
        room = self.context - len(ids)
        if room < (self._asked or 1):
            wanted = "any" if self._asked is None else f"--max-completion-length {self._asked}"
            fix = f"lower that to {room}, or shorten the prompt" if self._asked and room > 0 else "shorten the prompt"
            raise UserError(
                f"the prompt has {len(ids)} tokens and the model takes {self.context}, prompt and answer, which leaves "
                f"{max(room, 0)} for an answer, not {wanted}: {fix}"
            )
        length = self._asked or min(self._sampling.max_completion_length, room)
        return GenerationRequest(tuple(ids), seed), self._sampling.model_copy(update={"max_completion_length": length})

    def check_engine(self, dtype: Dtype) -> EngineSettings:
        """The engine's settings. Raises ConfigError if it cannot compute the model."""
        engine = DefaultEngine.of(num_slots=16, dtype=dtype)
        engine.check(self.config, on_gpu=torch.cuda.is_available())
        return engine

    def start(self, engine: EngineSettings, max_model_len: int) -> Engine:
        """Load the weights. max_model_len: prompt and answer, in tokens."""
        return engine.start(EngineInputs(self.model, max_model_len, self._sampling, self.tokenizer.eos_token_id))

    def text(self, token_ids: Sequence[int]) -> str:
        """An answer as it is shown."""
        return str(self.tokenizer.decode(token_ids, skip_special_tokens=True)).strip()


def load(
    model: str,
    template: str,
    temperature: float,
    top_p: float,
    top_k: int,
    max_completion_length: int | None,
    usual_length: int,
) -> Talker:
    """A Talker from what the command line says. Raises UserError."""
    settings = {"temperature": temperature, "top_p": top_p, "top_k": top_k}
    length = usual_length if max_completion_length is None else max_completion_length
    sampling = parse_config(Sampling, settings | {"max_completion_length": length}, "options")
    with quiet():
        return Talker(model, template, sampling, max_completion_length)


def generate(talker: Talker, prompts: Sequence[str], seed: int, dtype: Dtype) -> None:
    """Print an answer to each prompt, in order; a single one token by token."""
    requests = [talker.request([("user", prompt)], seed) for prompt in prompts]
    engine_config = talker.check_engine(dtype)
    longest = max(len(request.token_ids) + sampling.max_completion_length for request, sampling in requests)
    with quiet() as terminal:
        engine = talker.start(engine_config, longest)
        if len(requests) == 1:
            write(terminal, stream(engine, talker.text, *requests[0]))
        else:
            for index, (request, sampling) in enumerate(requests):
                engine.add(index, request, sampling)
            for answer in in_order(engine, len(requests)):
                write(terminal, [talker.text(answer)])


def in_order(engine: Engine, count: int) -> Iterator[Sequence[int]]:
    """The token ids of answers 0 to count − 1, each as soon as it and those before it are there."""
    done: dict[int, Sequence[int]] = {}
    for index in range(count):
        while index not in done:
            done.update((key, completion.token_ids) for key, completion in engine.step())
        yield done.pop(index)


def stream(
    engine: Engine, text_of: Callable[[Sequence[int]], str], request: GenerationRequest, sampling: Sampling
) -> Iterator[str]:
    """Pieces of one answer's text as its tokens are sampled; together they are `text_of` all tokens."""
    shown = ""
    ids: tuple[int, ...] = ()
    for ids in engine.stream(request, sampling):
        text = text_of(ids).rstrip("\N{REPLACEMENT CHARACTER}").rstrip()  # the bytes of a character are still to come
        yield text[len(shown) :]
        shown = max(shown, text, key=len)
    yield text_of(ids)[len(shown) :]


def write(terminal: TextIO, pieces: Iterable[str], begin: str = "", stopped: Callable[[], bool] = lambda: False) -> str:
    """Print the pieces on one line as they come, until `stopped`, and return them."""
    terminal.write(begin)
    written = ""
    for piece in pieces:
        terminal.write(piece)
        terminal.flush()
        written += piece
        if stopped():
            break
    terminal.write("\n")
    terminal.flush()
    return written


def chat(talker: Talker, dtype: Dtype) -> None:
    """A conversation on the terminal, until an empty line or the end of input. Ctrl-C ends an answer."""
    talker.context = min(talker.context, CHAT_CONTEXT)
    talker.request([("user", "")])  # is there room for any prompt?
    engine_config = talker.check_engine(dtype)
    print(f"loading {talker.model}", flush=True)
    with quiet():
        engine = talker.start(engine_config, talker.context)
    conversation: Conversation = []
    while line := _ask():
        conversation.append(("user", line))
        try:
            request, sampling = talker.request(conversation, seed=len(conversation))
        except UserError as error:
            conversation.pop()
            print(f"{error}, or begin a new chat")
            continue
        with quiet() as terminal, stop_on_interrupt() as stopped:
            answer = write(terminal, stream(engine, talker.text, request, sampling), "model> ", stopped)
        conversation.append(("assistant", answer))


def _ask() -> str:
    """The next line; empty at the end of input."""
    try:
        return input("you> ").strip()
    except EOFError:
        print()
        return ""


@contextmanager
def stop_on_interrupt() -> Iterator[Callable[[], bool]]:
    """Yields whether Ctrl-C was pressed. The engine must not be left in the middle of a step, so the first one is only
    noted; a second one raises KeyboardInterrupt."""
    pressed: list[int] = []

    def note(number: int, frame: Any) -> None:
        if pressed:
            raise KeyboardInterrupt
        pressed.append(number)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, before)
