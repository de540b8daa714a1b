"""Secrets of rewards: out of configurations, which a run's folder keeps, and out of messages."""

from __future__ import annotations

import os
import re
from urllib.parse import parse_qsl, urlsplit

from pydantic_core import PydanticCustomError

from rayrlhf.config import SECRET, ConfigError

ENVIRONMENT = "env:"
SECRET_NAME = re.compile(
    r"auth(?!or(?!i[sz]))|(?<!max.)(?<!num.)token(?!i[sz])|(?<!mon)key(?!board|word)"
    r"|secret|cookie|passw|credential|private",
    re.IGNORECASE,
)
"""What names of headers, parameters and variables that hold secrets have in them: `AUTH`, but not `AUTHOR` nor
`XAUTHORITY`; `TOKEN`, but neither `TOKENIZER` nor `MAX_TOKENS`; `KEY`, but neither `KEYBOARD` nor `MONKEY`."""
UNSENDABLE = re.compile(r"[^\x20-\x7e\t]")


def is_secret_name(name: str) -> bool:
    """Whether something of this name is taken for a secret."""
    return SECRET_NAME.search(name) is not None


def check_header(name: str, value: str) -> None:
    """Raises ValueError for a secret that is written out, and for a value that cannot be sent; it is not in the
    message."""
    if value.startswith(ENVIRONMENT):
        return
    if is_secret_name(name):
        raise ValueError(
            f"{name}: a secret written here would lie in the run's config.yaml: set an environment variable where the "
            f"workers run, and write {ENVIRONMENT}ITS_NAME"
        )
    if UNSENDABLE.search(value):
        raise ValueError(f"{name}: its value has a line break or another character that no header may have")


def check_url(url: str) -> None:
    """Raises ValueError for an address that is not HTTP, or that holds a secret; that is not in the message."""
    if not url.startswith(("http://", "https://")):
        raise PydanticCustomError(SECRET, "write it with http:// or https://")
    parts = urlsplit(url)
    if parts.username or parts.password or any(is_secret_name(name) for name, _ in parse_qsl(parts.query)):
        raise PydanticCustomError(
            SECRET,
            "a password or key in it would lie in the run's config.yaml: set an environment variable to the whole URL "
            f"where the workers run, and write url: {ENVIRONMENT}ITS_NAME",
        )


class Secrets:
    """Values that came from the environment."""

    def __init__(self) -> None:
        self._values: list[str] = []

    def look_up(self, setting: str, value: str) -> str:
        """`value`, or the environment variable's that it names. Raises ConfigError, without the secret in it."""
        if not value.startswith(ENVIRONMENT):
            return value
        variable = value.removeprefix(ENVIRONMENT)
        if variable not in os.environ:
            raise ConfigError(f"{setting}: {value!r}, but {variable} is not set where the worker runs")
        secret = os.environ[variable].strip()  # files that secrets are read from end with a line break
        if not secret or UNSENDABLE.search(secret):
            raise ConfigError(
                f"{setting}: the value of {variable} is empty, or has a line break or another character that cannot be "
                "sent: set it to the secret alone"
            )
        if setting.endswith("url") and not secret.startswith(("http://", "https://")):
            raise ConfigError(f"{setting}: the value of {variable} must begin with http:// or https://")
        self._values.append(secret)
        return secret

    def hidden(self, text: str) -> str:
        """`text` with what is secret taken out, also the parts behind a scheme such as `Bearer`."""
        for value in self._values:
            for part in (value, value.rpartition(" ")[2]):
                text = text.replace(part, "***")
        return text
