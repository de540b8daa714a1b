"""How a job starts: read the configuration, show or run it, and end with a message instead of a trace."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import yaml
from rich.markup import escape

from rayrlhf.config import Config, UserError, load_config
from rayrlhf.metrics import console

ConfigT = TypeVar("ConfigT", bound=Config)

USER_ERROR_EXIT = 2


@contextmanager
def user_errors() -> Iterator[None]:
    """Show a UserError as its message and exit with status 2."""
    try:
        yield
    except UserError as error:
        sys.stdout.flush()
        console.print(f"[bold red]error:[/] {escape(str(error))}")
        sys.exit(USER_ERROR_EXIT)


def run_job(
    cls: type[ConfigT],
    path: Path,
    overrides: Sequence[str] | None,
    dry_run: bool,
    run: Callable[[ConfigT], Any],
    describe: Callable[[ConfigT], dict[str, Any]],
) -> None:
    """Load `path` as a `cls` and run it, or with `dry_run` print what would happen and start nothing."""
    with user_errors():
        config = load_config(cls, path, overrides or ())
        if dry_run:
            console.print(dump({"config": config.model_dump(mode="json"), **describe(config)}), markup=False)
            return
        run(config)


def dump(tree: Any) -> str:
    """`tree` as YAML."""
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
