"""Generating from a checkpoint and chatting with it, through the engine that the samplers use."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import TypeAdapter, ValidationError

from rayrlhf.config import ConfigError, UserError
from rayrlhf.data.ingest.records import Message, PromptText
from rayrlhf.data.templates import Template
from rayrlhf.engines import DefaultEngine, GenerationRequest, Sampling, generate
from rayrlhf.metrics import console
from rayrlhf.models import load_tokenizer, read_model_config
from rayrlhf.run_directory import resolve

Role = Literal["system", "user", "assistant"]
Conversation = list[tuple[Role, str]]

DEFAULT_CONTEXT = 2048
"""Tokens for prompt and answer of a model that takes as many or more."""


class Talker:
    """A model folder, its tokenizer and template, in one engine."""

    def __init__(
        self, model: str, template: str, sampling: Sampling, dtype: Literal["auto", "float32", "bfloat16"]
    ) -> None:
        model = resolve(model)
        self._tokenizer = load_tokenizer(model)
        try:
            self._template: Template = TypeAdapter(Template).validate_python(template)
        except ValidationError:
            raise ConfigError(f"--template {template}: not one of chat, kochatgpt, kullm") from None
        model_config = read_model_config(model)
        engine = DefaultEngine.of(num_slots=16, dtype=dtype)
        engine.check(model_config, on_gpu=torch.cuda.is_available())
        limit = getattr(model_config, "max_position_embeddings", DEFAULT_CONTEXT)
        self._context = min(limit, DEFAULT_CONTEXT)
        self._sampling = sampling
        with console.status(f"loading {model}"):
            self._engine = engine.start(model, self._context, sampling, self._tokenizer.eos_token_id)

    def answer(self, conversations: list[Conversation], seed: int) -> list[str]:
        """One answer to each conversation. Raises UserError if one leaves no room for an answer."""
        requests = []
        for conversation in conversations:
            prompt = PromptText(tuple(Message(role, text) for role, text in conversation))
            ids = self._template.encode(prompt, self._tokenizer)
            if len(ids) + self._sampling.max_completion_length > self._context:
                raise UserError(
                    f"the prompt has {len(ids)} tokens and {self._sampling.max_completion_length} are for the answer: "
                    f"more than the {self._context} that the model takes; lower --max-completion-length"
                )
            requests.append(GenerationRequest(tuple(ids), seed))
        completions = generate(self._engine, requests, self._sampling)
        return [self._tokenizer.decode(c.token_ids, skip_special_tokens=True).strip() for c in completions]

    def converse(self) -> None:
        """A conversation on the terminal."""
        conversation: Conversation = []
        while True:
            try:
                line = console.input("[bold]you>[/] ").strip()
            except EOFError:
                return
            if not line:
                return
            conversation.append(("user", line))
            (reply,) = self.answer([conversation], seed=len(conversation))
            console.print(f"model> {reply}", markup=False)
            conversation.append(("assistant", reply))
