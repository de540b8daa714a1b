"""Folders and patterns of data files → one source for each file."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from pathlib import Path

from rayrlhf.data.files.detect import DATA_NAMES, data_suffix
from rayrlhf.data.ingest.account import DataError
from rayrlhf.data.ingest.sources import FileSource, Source

BESIDE_OUTPUTS = (".rejected.jsonl", ".lineage.json")
"""What the tools write beside their outputs: no data, unless it is named."""
SAVED_SETS = ("dataset_dict.json", "state.json")


def each_file(sources: Iterable[Source]) -> list[Source]:
    """`sources`, with those of a folder or a pattern (`data/*.jsonl`, `data/**/*.jsonl`) replaced by their files.

    Files are sorted by name; of a folder only data files in it itself are taken. Raises DataError for a folder or a
    pattern without any.
    """
    found: list[Source] = []
    for source in sources:
        found += _files_of(source) if source.kind == "file" else [source]
    return found


def _files_of(source: FileSource) -> list[FileSource]:
    if os.path.isdir(source.path):
        paths = _in_folder(Path(source.path))
    elif glob.has_magic(source.path) and not os.path.lexists(source.path):
        paths = sorted(path for path in glob.glob(source.path, recursive=True) if os.path.isfile(path))
        paths = [path for path in paths if not path.endswith(BESIDE_OUTPUTS)]
        if not paths:
            raise DataError(f"{source.path}: no file matches the pattern")
    else:
        return [source]
    return [source.model_copy(update={"path": path}) for path in paths]


def _in_folder(folder: Path) -> list[str]:
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise DataError(f"{folder}: cannot read the folder: {error.strerror}") from None
    if any(name in names for name in SAVED_SETS):
        raise DataError(
            f"{folder}: a data set that `datasets` saved: name it {{dataset: {folder}}} in a configuration, "
            f"hf:{folder} in a command"
        )
    paths = [folder / name for name in names if not name.startswith(".") and not name.endswith(BESIDE_OUTPUTS)]
    files = [str(path) for path in paths if data_suffix(path) in DATA_NAMES and path.is_file()]
    if not files:
        raise DataError(
            f"{folder}: no data file is in the folder ({', '.join(DATA_NAMES)}); for folders in it, "
            f"write a pattern: '{folder}/**/*.jsonl'"
        )
    return files
