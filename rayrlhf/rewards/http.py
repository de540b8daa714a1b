"""A reward that a server gives."""

from __future__ import annotations

import asyncio
import functools
import json
import ssl
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, field_validator

from rayrlhf.rewards.base import SampleText, Score
from rayrlhf.rewards.breaker import Breaker
from rayrlhf.rewards.callers import Callers
from rayrlhf.rewards.calls import CallConfig, CallError, ask
from rayrlhf.rewards.child import checked
from rayrlhf.rewards.secrets import ENVIRONMENT, Secrets, check_header, check_url
from rayrlhf.rewards.text import TextJudge, TextReward

MAX_TRACE_CHARACTERS = 500
MAX_ANSWER_BYTES = 1 << 24
PASSING = (408, 425, 429)
"""Refusals, other than the server's own failures (5xx), that the same request may not meet again."""
ABOUT_ROWS = (400, 413, 422)
"""Refusals that one of several rows may be the reason for."""
FAILURES_TO_PAUSE = 3
"""Failures of the server in a row, of whichever request, after which the others wait until it answers again."""


class HttpReward(TextReward, CallConfig):
    """POST `{"prompts": […], "responses": […], "gold_answers": […]}` → `{"scores": […]}`, as many as responses.

    `gold_answers` are null where the data have none. With `data.columns` the request has their values too, as
    `"columns": {name: […]}`. Connections that fail, late answers and the statuses 408, 425, 429 and 5xx are tried
    again; while they go on, one request at a time tries, and `Retry-After` is heeded.
    """

    kind: Literal["http"] = "http"
    url: str
    """`env:NAME` is that environment variable's of the worker, for a URL that holds a secret."""
    headers: dict[str, str] = Field(default_factory=dict)
    """A value `env:NAME` is that environment variable's of the worker, so that secrets stay out of configurations."""
    batch_size: PositiveInt = 32
    """Responses per request."""
    num_retries: NonNegativeInt = 3
    backoff_s: NonNegativeFloat = 0.5
    """Wait before the first retry; each further one doubles it, up to 30 s."""
    patience_s: PositiveFloat = 600.0
    """How long the server may be down before responses that wait for it are rejected."""

    @field_validator("url")
    @classmethod
    def _is_http(cls, url: str) -> str:
        if not url.startswith(ENVIRONMENT):
            check_url(url)
        return url

    @field_validator("headers")
    @classmethod
    def _hold_no_secrets(cls, headers: dict[str, str]) -> dict[str, str]:
        for name, value in headers.items():
            check_header(name, value)
        return headers

    def start(self, columns: Sequence[str] = ()) -> HttpJudge:
        return HttpJudge(self, columns)


class HttpJudge(TextJudge):
    """Asks the server. Raises ConfigError for an environment variable that is not set or cannot be sent."""

    def __init__(self, config: HttpReward, columns: Sequence[str]) -> None:
        self._config, self._columns = config, columns
        self._secrets = Secrets()
        self._url = self._secrets.look_up("reward.source.url", config.url)
        self._headers = {
            name: self._secrets.look_up(f"reward.source.headers.{name}", value)
            for name, value in config.headers.items()
        }
        self._ssl = ssl.create_default_context()  # takes longer than many a request: made once
        self._breaker = Breaker(FAILURES_TO_PAUSE, config.backoff_s, config.patience_s)
        asked = functools.partial(
            ask,
            call=self._call,
            num_retries=config.num_retries,
            backoff_s=config.backoff_s,
            breaker=self._breaker,
        )
        super().__init__(Callers(asked, config.max_concurrency, config.batch_size))

    def close(self) -> None:
        super().close()
        self._breaker.close()

    def _call(self, samples: Sequence[SampleText]) -> list[Score]:
        status, pause_s, body = asyncio.run(self._post(samples))
        # Hidden first and cut then: of a secret across the end a part would stay.
        text = self._secrets.hidden(body.decode(errors="replace"))[:MAX_TRACE_CHARACTERS]
        if status != 200:
            passing = status >= 500 or status in PASSING
            raise CallError(f"HTTP {status}", text, retry=passing, split=status in ABOUT_ROWS, pause_s=pause_s)
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            raise CallError("the answer is not JSON", text) from None
        scores = answer.get("scores") if isinstance(answer, dict) else None
        if not isinstance(scores, list):
            raise CallError('the answer has no list "scores"', text)
        if len(scores) != len(samples):
            raise CallError("the answer has another number of scores than responses", text)
        return [Score(**checked(score)) for score in scores]

    async def _post(self, samples: Sequence[SampleText]) -> tuple[int, float | None, bytes]:
        """(status, seconds that the server asks to be left alone, body)."""
        import httpx

        content: dict[str, Any] = {
            "prompts": [sample.prompt for sample in samples],
            "responses": [sample.response for sample in samples],
            "gold_answers": [sample.gold_answer for sample in samples],
        }
        if self._columns:
            content["columns"] = {name: [sample.columns[name] for sample in samples] for name in self._columns}
        # Written in ASCII: half of a surrogate pair, which JSON data may hold, has no UTF-8.
        request, headers = json.dumps(content), {"Content-Type": "application/json"} | self._headers
        body = b""
        try:
            # httpx's own limits are for each read: a server that sends a byte now and then would never be late.
            async with (
                asyncio.timeout(self._config.timeout_s),
                httpx.AsyncClient(verify=self._ssl, timeout=None) as client,
                client.stream("POST", self._url, content=request, headers=headers) as response,
            ):
                async for piece in response.aiter_bytes():
                    body += piece
                    if len(body) > MAX_ANSWER_BYTES:
                        raise CallError(f"the answer is longer than {MAX_ANSWER_BYTES} bytes")
        except TimeoutError:
            raise CallError(f"timed out after {self._config.timeout_s:g} s", split=False) from None
        except (httpx.ConnectError, httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            raise CallError("no connection", self._secrets.hidden(str(error)), split=False) from None
        except httpx.HTTPError as error:
            reason = f"the connection failed ({type(error).__name__})"
            raise CallError(reason, self._secrets.hidden(str(error)), split=False) from None
        return response.status_code, _pause(response.headers.get("Retry-After")), body


def _pause(retry_after: str | None) -> float | None:
    """Seconds in a Retry-After header; None without one, or for a date, which clocks would have to agree on."""
    return float(retry_after) if retry_after is not None and retry_after.isdecimal() else None
