"""How a command ends that was given something it cannot use, or was interrupted: without a trace."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.markup import escape

from rayrlhf.config import UserError
from rayrlhf.metrics import console

USER_ERROR_EXIT = 2
INTERRUPTED_EXIT = 130
"""After Ctrl-C: 128 and the number of SIGINT."""


@contextmanager
def user_errors() -> Iterator[None]:
    """Show a UserError as its message and exit with status 2; exit with status 130 after Ctrl-C."""
    try:
        yield
    except UserError as error:
        sys.stdout.flush()
        console.print(f"[bold red]error:[/] {escape(str(error))}")
        sys.exit(USER_ERROR_EXIT)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED_EXIT)
