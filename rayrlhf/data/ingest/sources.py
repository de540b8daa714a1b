"""Where rows come from: files, or Hugging Face data sets. A plain path is short for `{path: …}`."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, PrivateAttr, field_validator

from rayrlhf.config import Config, short_form
from rayrlhf.data.files import Chunk, Decoding, Table, open_chunks
from rayrlhf.data.files.detect import check_is_file
from rayrlhf.data.files.hub import HubSplit
from rayrlhf.data.ingest.account import DataError
from rayrlhf.data.ingest.rules import RowRules
from rayrlhf.run_directory import resolve

STANDARD_INPUT = ("-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0")


class SourceSettings(Config):
    """Settings of every source."""

    format: str | None = None
    """A format's name; recognized from the rows when not set."""
    columns: dict[str, str] = Field(default={})
    """Field of the format, or name in `data.columns` → column of the data, for columns of other names; `a.b`
    reads a nested column."""
    rules: RowRules = RowRules()
    weight: PositiveFloat = 1.0
    """How often an epoch shows each row: 2 is twice, 0.5 a seeded half of the rows."""
    max_rows: PositiveInt | None = None
    """Read at most this many rows of the source; of a folder or pattern, of each file."""

    @field_validator("format")
    @classmethod
    def _is_known(cls, name: str | None) -> str | None:
        from rayrlhf.data.formats import FORMATS

        known = [row_format.name for row_format in FORMATS]
        if name is not None and name not in known:
            raise ValueError(f"{name!r} is not one of {', '.join(known)}")
        return name


class FileSource(SourceSettings):
    """JSON lines, a JSON array, CSV, Parquet or plain text, detected by content; or a folder or pattern of files."""

    kind: Literal["file"] = "file"
    path: str
    decoding: Decoding = Decoding()
    table: Table = Table()
    _held: IO[bytes] | None = PrivateAttr(None)
    """What came through a pipe, in a file without a name."""

    @property
    def label(self) -> str:
        """Its name in messages and lineage: with what cannot be printed spelled out."""
        return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in self.path)

    @property
    def content(self) -> Path:
        """The file to read."""
        return self.location if self._held is None else Path(f"/proc/self/fd/{self._held.fileno()}")

    @property
    def location(self) -> Path:
        """What must not be written over."""
        return Path("/dev/stdin" if self.path == "-" else self.path)

    def resolved(self) -> FileSource:
        """With an absolute path."""
        return self.model_copy(update={"path": resolve(self.path)})

    def held(self) -> FileSource:
        """Itself; standard input (`-`) or a pipe, which can be read only once, with its content in a temporary file.

        Raises DataError if the temporary file has no room.
        """
        if not self.is_pipe:
            return self
        held = tempfile.TemporaryFile()  # noqa: SIM115 - it goes with the source
        try:
            with ExitStack() as stack:
                shutil.copyfileobj(_opened_pipe(self.path, stack), held)
            held.flush()
        except OSError as error:
            raise DataError(
                f"{self.path}: cannot keep it in a temporary file: {error.strerror or error}; its folder is "
                f"{tempfile.gettempdir()}, TMPDIR names another one"
            ) from None
        source = self.model_copy()
        source._held = held
        return source

    @property
    def is_pipe(self) -> bool:
        """Whether it can be read only once."""
        if self.path == "-":
            return True
        try:
            mode = os.stat(self.path).st_mode
        except (OSError, ValueError):
            return False
        return stat.S_ISFIFO(mode) or (self.path in STANDARD_INPUT and not stat.S_ISREG(mode))

    def chunks(self) -> Iterator[Chunk]:
        """Raw rows in order. Raises DataError for a file that cannot be read at all."""
        return open_chunks(Path(self.label), self.decoding, self.table, self.content)

    def content_hash(self) -> str:
        """SHA-256 of the file. Raises DataError if it cannot be read."""
        self.check()
        return file_hash(self.content)

    def check(self) -> None:
        """Raises DataError if there is no such file, or one that can be read only once."""
        check_is_file(Path(self.label), self.content)

    def state(self) -> tuple[int, ...] | None:
        """Differs when the file was written to or replaced; None if it is not there."""
        try:
            found = self.content.stat()
        except (OSError, ValueError):
            return None
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


class HubSource(SourceSettings):
    """A data set that the `datasets` library loads: a hub name, or a folder."""

    kind: Literal["dataset"] = "dataset"
    dataset: str
    subset: str | None = None
    data_dir: str | None = None
    """Folder inside the data set whose files to read."""
    split: str = "train"
    revision: str | None = None
    streaming: bool = False
    """Read row by row over the network instead of downloading the set first; nothing is cached."""

    @property
    def label(self) -> str:
        return self._loaded.label

    @property
    def location(self) -> Path:
        """Where files of this machine are read, if any are."""
        return Path(self.data_dir or ".") if self._loaded.is_kind_of_files else Path(self.dataset)

    @property
    def _loaded(self) -> HubSplit:
        return HubSplit(self.dataset, self.subset, self.data_dir, self.split, self.revision)

    def resolved(self) -> HubSource:
        return self.model_copy(update={"dataset": resolve(self.dataset)})

    def held(self) -> HubSource:
        return self

    def chunks(self) -> Iterator[Chunk]:
        return self._loaded.chunks(self.streaming)

    def content_hash(self) -> str | None:
        """The library's fingerprint of the split; None for a stream, whose content is not known in advance."""
        return None if self.streaming else self._loaded.fingerprint()

    def state(self) -> None:
        """The library reads a copy of its own."""
        return None


class Snapshot:
    """What sources held before they were read, by hash: what a lineage says of them."""

    def __init__(self, sources: Sequence[Source]) -> None:
        """Raises DataError for a source that cannot be read."""
        self._sources = sources
        self._states = [source.state() for source in sources]
        self.hashes: dict[str, str | None] = {source.label: source.content_hash() for source in sources}

    def check(self) -> None:
        """Raises DataError if a file was changed since: then other rows were read than were hashed."""
        for source, state in zip(self._sources, self._states, strict=True):
            if source.state() != state:
                raise DataError(f"{source.label}: it was changed while it was read; run again when it is complete")


def file_hash(path: Path) -> str:
    """SHA-256 of a file. Raises DataError if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot read it: {error.strerror}") from None


def _opened_pipe(path: str, stack: ExitStack) -> IO[bytes]:
    if path not in STANDARD_INPUT:
        return stack.enter_context(open(path, "rb"))
    if sys.stdin is None:
        raise DataError(f"{path}: standard input is closed")
    return sys.stdin.buffer


Source = Annotated[
    Annotated[FileSource | HubSource, Field(discriminator="kind")],
    short_form("path", kind=lambda tree: "dataset" if "dataset" in tree else "file"),
]
