"""Keeping a terminal for answers: what libraries print on the way goes to a file, unless something fails."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from rayrlhf.config import UserError


@contextmanager
def quiet() -> Iterator[TextIO]:
    """Yields what writes to the terminal, while standard output and error go to a file.

    The redirection is of file descriptors, since native code of torch and vLLM writes there too. An error that is not
    the user's shows the file.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(1), os.dup(2)]
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        for standard in (1, 2):
            os.dup2(log.fileno(), standard)
        try:
            with os.fdopen(os.dup(kept[0]), "w", encoding="utf-8") as terminal:
                yield terminal
        except Exception as error:
            if not isinstance(error, UserError):
                log.seek(0)
                os.write(kept[1], log.read().encode())
            raise
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for standard, original in enumerate(kept, start=1):
                os.dup2(original, standard)
                os.close(original)
