"""Where rows come from: files, or Hugging Face data sets. A plain path is short for `{path: …}`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator

from rayrlhf.config import Config, short_form
from rayrlhf.data.files import Chunk, Decoding, open_chunks
from rayrlhf.data.files.hub import hub_chunks, hub_fingerprint
from rayrlhf.data.ingest.account import DataError
from rayrlhf.data.ingest.rules import RowRules
from rayrlhf.run_directory import resolve


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
    """Read at most this many rows of the source."""

    @field_validator("format")
    @classmethod
    def _is_known(cls, name: str | None) -> str | None:
        from rayrlhf.data.formats import FORMATS

        known = [row_format.name for row_format in FORMATS]
        if name is not None and name not in known:
            raise ValueError(f"{name!r} is not one of {', '.join(known)}")
        return name


class FileSource(SourceSettings):
    """JSON lines, a JSON array, CSV, Parquet or plain text, detected by content."""

    kind: Literal["file"] = "file"
    path: str
    decoding: Decoding = Decoding()

    @property
    def label(self) -> str:
        """Its name in messages and lineage."""
        return self.path

    def resolved(self) -> FileSource:
        """With an absolute path."""
        return self.model_copy(update={"path": resolve(self.path)})

    def chunks(self) -> Iterator[Chunk]:
        """Raw rows in order. Raises DataError for a file that cannot be read at all."""
        return open_chunks(Path(self.path), self.decoding)

    def content_hash(self) -> str:
        """SHA-256 of the file."""
        return file_hash(Path(self.path))


class HubSource(SourceSettings):
    """A data set that the `datasets` library loads: a hub name, or a folder."""

    kind: Literal["dataset"] = "dataset"
    dataset: str
    subset: str | None = None
    split: str = "train"
    revision: str | None = None
    streaming: bool = False
    """Read row by row over the network instead of downloading the set first; nothing is cached."""

    @property
    def label(self) -> str:
        return "/".join(filter(None, [self.dataset, self.subset])) + f"[{self.split}]"

    def resolved(self) -> HubSource:
        return self.model_copy(update={"dataset": resolve(self.dataset)})

    def chunks(self) -> Iterator[Chunk]:
        return hub_chunks(self.dataset, self.subset, self.split, self.revision, self.streaming)

    def content_hash(self) -> str | None:
        """The library's fingerprint of the split; None for a stream, whose content is not known in advance."""
        return None if self.streaming else hub_fingerprint(self.dataset, self.subset, self.split, self.revision)


def file_hash(path: Path) -> str:
    """SHA-256 of a file. Raises DataError if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot read it: {error.strerror}") from None


Source = Annotated[
    Annotated[FileSource | HubSource, Field(discriminator="kind")],
    short_form("path", kind=lambda tree: "dataset" if "dataset" in tree else "file"),
]
