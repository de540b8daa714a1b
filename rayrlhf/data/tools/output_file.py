"""A file that a tool makes. It is written under a name of its own: a run that fails leaves what was there as it was."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO

from rayrlhf.data.ingest.account import DataError


class OutputFile:
    """A new file, under its temporary name until `publish`.

    That name is locked: of two runs with one output the second is refused. The lock goes with the process, so what a
    killed run leaves behind is overwritten by the next one.
    """

    def __init__(self, path: Path, force: bool) -> None:
        self.path, self._force = path, force
        self.temporary = temporary_name(path)
        self.file: IO[bytes]

    def __enter__(self) -> OutputFile:
        """Raises DataError if the file cannot be made, is being written, or exists and `force` is not set."""
        with explained(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.file = self._locked()
            try:
                check_free(self.path, self._force)
            except DataError:
                self._discard()
                raise
        return self

    def _locked(self) -> IO[bytes]:
        while True:
            file = self.temporary.open("a+b")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                raise DataError(
                    f"--out {self.path}: another run is writing it; wait for it, or give another name"
                ) from None
            with suppress(FileNotFoundError):
                if os.path.samestat(os.stat(self.temporary), os.fstat(file.fileno())):
                    file.truncate(0)
                    return file
            file.close()  # the other run ended in between and took the file away

    def write(self, text: str) -> None:
        """Raises DataError if the disk is full."""
        with explained(self.path):
            self.file.write(text.encode())

    def publish(self) -> None:
        """Give the file its name, in place of one that may be there."""
        with explained(self.path):
            self.file.flush()
            self.temporary.replace(self.path)

    def _discard(self) -> None:
        with suppress(OSError):  # gone once it is published
            self.temporary.unlink(missing_ok=True)
        with suppress(OSError):  # a full disk, told before
            self.file.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._discard()


def check_free(path: Path, force: bool) -> None:
    """Raises DataError if the file is there and may not be replaced."""
    if os.path.lexists(path) and not force:
        raise DataError(f"--out {path}: it exists; give another name, or --force to replace it")


def temporary_name(path: Path) -> Path:
    """Where the file lies until it is complete."""
    return path.with_name(f".{path.name}.new")


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns errors of the file system into a DataError that names the output."""
    try:
        yield
    except OSError as error:
        raise DataError(f"--out {path}: cannot write it: {error.strerror or error}") from None
