"""How a command ends that was given something it cannot use, or was interrupted: without a trace."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from rich.text import Text

from rayrlhf.config import UserError
from rayrlhf.metrics import console

USER_ERROR_EXIT = 2
INTERRUPTED_EXIT = 130
"""After Ctrl-C: 128 and the number of SIGINT."""
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def user_errors() -> Iterator[None]:
    """Show a UserError as its message and exit with status 2; exit with status 130 after Ctrl-C.

    Text that the terminal's encoding lacks, such as the name of a file that is no UTF-8, is spelled out.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        yield
    except UserError as error:
        sys.stdout.flush()
        console.print(Text.assemble(("error:", "bold red"), f" {error}"))
        sys.exit(USER_ERROR_EXIT)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED_EXIT)


@contextmanager
def file_errors() -> Iterator[None]:
    """`user_errors` for a command that writes files: it clears temporary files away when the process is told to end,
    and tells of a full disk that standard output goes to."""
    with user_errors(), _cleared_when_ended():
        try:
            yield
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            sys.stderr.write(f"error: cannot write to standard output: {error.strerror}\n")
            os._exit(USER_ERROR_EXIT)  # the usual way out tries to write what is left


@contextmanager
def _cleared_when_ended() -> Iterator[None]:
    def end(number: int, frame: FrameType | None) -> NoReturn:
        sys.exit(128 + number)

    ours = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) == signal.SIG_DFL]
    for number in ours:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)
