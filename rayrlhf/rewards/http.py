"""A reward that a server gives."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import ssl
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, field_validator

from rayrlhf.config import ConfigError
from rayrlhf.rewards.base import SampleText, Score
from rayrlhf.rewards.callers import Callers
from rayrlhf.rewards.calls import CallConfig, CallError, ask
from rayrlhf.rewards.child import checked
from rayrlhf.rewards.text import TextJudge, TextReward

ENVIRONMENT = "env:"
MAX_TRACE_CHARACTERS = 500
PASSING = (408, 425, 429)
"""Refusals, other than the server's own failures (5xx), that the same request may not meet again."""
ABOUT_ROWS = (400, 413, 422)
"""Refusals that one of several rows may be the reason for."""


class HttpReward(TextReward, CallConfig):
    """POST `{"prompts": […], "responses": […], "gold_answers": […]}` → `{"scores": […]}`, as many as responses.

    `gold_answers` are null where the data have none. With `data.columns` the request has their values too, as
    `"columns": {name: […]}`. Connections that fail, late answers and the statuses 408, 425, 429
    and 5xx are tried again.
    """

    kind: Literal["http"] = "http"
    url: str
    headers: dict[str, str] = Field(default_factory=dict)
    """A value `env:NAME` is that environment variable's of the worker, so that secrets stay out of configurations."""
    batch_size: PositiveInt = 32
    """Responses per request."""
    num_retries: NonNegativeInt = 3
    backoff_s: NonNegativeFloat = 0.5
    """Wait before the first retry; each further one doubles it, up to 30 s."""

    @field_validator("url")
    @classmethod
    def _is_http(cls, url: str) -> str:
        if not url.startswith(("http://", "https://")):
            raise ValueError("write it with http:// or https://")
        return url

    def start(self, columns: Sequence[str] = ()) -> HttpJudge:
        return HttpJudge(self, columns)


class HttpJudge(TextJudge):
    """Asks the server. Raises ConfigError for a header whose environment variable is not set."""

    def __init__(self, config: HttpReward, columns: Sequence[str]) -> None:
        self._config, self._columns = config, columns
        self._headers = {name: _header(name, value) for name, value in config.headers.items()}
        self._ssl = ssl.create_default_context()  # takes longer than many a request: made once
        asked = functools.partial(ask, call=self._call, num_retries=config.num_retries, backoff_s=config.backoff_s)
        super().__init__(Callers(asked, config.max_concurrency, config.batch_size))

    def _call(self, samples: Sequence[SampleText]) -> list[Score]:
        status, body, answer = asyncio.run(self._post(samples))
        text = body[:MAX_TRACE_CHARACTERS]
        if status != 200:
            passing = status >= 500 or status in PASSING
            raise CallError(f"HTTP {status}", text, retry=passing, split=passing or status in ABOUT_ROWS)
        if answer is None:
            raise CallError("the answer is not JSON", text)
        scores = answer.get("scores") if isinstance(answer, dict) else None
        if not isinstance(scores, list):
            raise CallError('the answer has no list "scores"', text)
        if len(scores) != len(samples):
            raise CallError("the answer has another number of scores than responses", text)
        return [Score(**checked(score)) for score in scores]

    async def _post(self, samples: Sequence[SampleText]) -> tuple[int, str, Any]:
        """(status, body, the body read as JSON or None)."""
        import httpx

        content: dict[str, Any] = {
            "prompts": [sample.prompt for sample in samples],
            "responses": [sample.response for sample in samples],
            "gold_answers": [sample.gold_answer for sample in samples],
        }
        if self._columns:
            content["columns"] = {name: [sample.columns[name] for sample in samples] for name in self._columns}
        # Written in ASCII: half of a surrogate pair, which JSON data may hold, has no UTF-8.
        body, headers = json.dumps(content), {"Content-Type": "application/json"} | self._headers
        try:
            # httpx's own limits are for each read: a server that sends a byte now and then would never be late.
            async with (
                asyncio.timeout(self._config.timeout_s),
                httpx.AsyncClient(verify=self._ssl, timeout=None) as client,
            ):
                response = await client.post(self._config.url, content=body, headers=headers)
        except TimeoutError:
            raise CallError(f"timed out after {self._config.timeout_s:g} s") from None
        except (httpx.ConnectError, httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            raise CallError("no connection", str(error), split=False) from None
        except httpx.HTTPError as error:
            raise CallError(f"the connection failed ({type(error).__name__})", str(error)) from None
        try:
            return response.status_code, response.text, response.json()
        except ValueError:
            return response.status_code, response.text, None


def _header(name: str, value: str) -> str:
    if not value.startswith(ENVIRONMENT):
        return value
    variable = value.removeprefix(ENVIRONMENT)
    if variable not in os.environ:
        raise ConfigError(f"reward.source.headers.{name}: {value!r}, but {variable} is not set where the worker runs")
    return os.environ[variable]
