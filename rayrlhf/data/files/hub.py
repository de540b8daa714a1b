"""Hugging Face data sets, by hub name or folder, through the `datasets` library."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rayrlhf.data.files.base import CHUNK_ROWS, Chunk
from rayrlhf.data.ingest.account import DataError


def hub_chunks(dataset: str, subset: str | None, split: str, revision: str | None, streaming: bool) -> Iterator[Chunk]:
    """Rows of one split, numbered from 1. Raises DataError if there is no such set, subset or split."""
    rows = iter(_load(dataset, subset, split, revision, streaming))
    row = 1
    while True:
        with _explained(dataset, subset, split):
            values = list(itertools.islice(rows, CHUNK_ROWS))
        if not values:
            return
        yield Chunk(values, range(row, row + len(values)), unit="row")
        row += len(values)


def hub_fingerprint(dataset: str, subset: str | None, split: str, revision: str | None) -> str:
    """The library's own fingerprint of the split's content."""
    return str(_load(dataset, subset, split, revision, streaming=False)._fingerprint)


def _load(dataset: str, subset: str | None, split: str, revision: str | None, streaming: bool) -> Any:
    import datasets

    folder = Path(dataset)
    with _explained(dataset, subset, split):
        if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
            saved = datasets.load_from_disk(dataset)
            if isinstance(saved, datasets.DatasetDict):
                if split not in saved:
                    raise ValueError(f"it has the splits {', '.join(saved)}")
                return saved[split]
            return saved
        return datasets.load_dataset(dataset, subset, split=split, revision=revision, streaming=streaming)


@contextmanager
def _explained(dataset: str, subset: str | None, split: str) -> Iterator[None]:
    """Turns the library's errors for names, files and networks into DataError."""
    import pyarrow
    from datasets.exceptions import DatasetsError

    try:
        yield
    except (DatasetsError, pyarrow.ArrowException, OSError, ValueError, LookupError) as error:
        what = "/".join(filter(None, [dataset, subset]))
        texts = [str(error), str(error.__cause__ or "")]  # "An error occurred", and which one
        reason = " ".join(" ".join(texts).split())
        raise DataError(f"data set {what}, split {split}: cannot load it: {reason}") from None
