"""Hugging Face data sets, by hub name or folder, through the `datasets` library."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rayrlhf.data.files.base import CHUNK_ROWS, Chunk
from rayrlhf.data.ingest.account import DataError

CONNECT_S = 1.5
"""Seconds to reach the hub in; the libraries would try again for minutes."""


@dataclass(frozen=True)
class HubSplit:
    """One split of a data set."""

    dataset: str
    """A hub name, or a folder."""
    subset: str | None = None
    data_dir: str | None = None
    split: str = "train"
    revision: str | None = None

    @property
    def label(self) -> str:
        """Its name in messages: different for different rows."""
        name = "/".join(filter(None, [self.dataset, self.subset, self.data_dir]))
        return f"{name}{f'@{self.revision}' if self.revision else ''}[{self.split}]"

    @property
    def is_kind_of_files(self) -> bool:
        """Whether its name is one of the library's readers (`json`, `csv`, …) of files in `data_dir`, or here."""
        from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES

        return self.dataset in _PACKAGED_DATASETS_MODULES

    def chunks(self, streaming: bool) -> Iterator[Chunk]:
        """Rows, numbered from 1. Raises DataError if there is no such set, subset or split."""
        rows = iter(self._load(streaming))
        row = 1
        while True:
            with self._explained():
                values = list(itertools.islice(rows, CHUNK_ROWS))
            if not values:
                return
            yield Chunk(values, range(row, row + len(values)), unit="row")
            row += len(values)

    def fingerprint(self) -> str:
        """The library's own fingerprint of the split's content."""
        return str(self._load(streaming=False)._fingerprint)

    def _load(self, streaming: bool) -> Any:
        import datasets
        from datasets.exceptions import DatasetsError

        folder = Path(self.dataset)
        with self._explained():
            if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
                saved = datasets.load_from_disk(self.dataset)
                if isinstance(saved, datasets.DatasetDict):
                    if self.split not in saved:
                        raise ValueError(f"it has the splits {', '.join(saved)}")
                    return saved[self.split]
                return saved
            is_here = folder.is_dir() or self.is_kind_of_files
            if is_here or datasets.config.HF_HUB_OFFLINE or _hub_answers():
                return self._load_by_name(streaming)
            with _offline():
                try:
                    return self._load_by_name(streaming)  # a copy may be here
                except (OSError, ValueError, DatasetsError):
                    raise ConnectionError(f"the hub did not answer in {CONNECT_S:g} s, and no copy is here") from None

    def _load_by_name(self, streaming: bool) -> Any:
        import datasets

        return datasets.load_dataset(
            self.dataset,
            self.subset,
            data_dir=self.data_dir,
            split=self.split,
            revision=self.revision,
            streaming=streaming,
        )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns what the library raises for names, files and networks into DataError.

        That is any exception: its own, and those of the packages that it reads archives, tables and networks with.
        """
        try:
            yield
        except Exception as error:
            texts = [str(error), str(error.__cause__ or "")]  # "An error occurred", and which one
            reason = " ".join(" ".join(texts).split())
            name = self.label.removesuffix(f"[{self.split}]")
            raise DataError(f"data set {name}, split {self.split}: cannot load it: {reason}") from None


def _hub_answers() -> bool:
    """Whether there is a hub at the other end. In a thread: looking up its name has no time limit of its own."""
    import requests
    from huggingface_hub import constants

    answered = threading.Event()

    def ask() -> None:
        try:
            requests.head(constants.ENDPOINT, timeout=CONNECT_S)
        except requests.RequestException:
            return
        answered.set()

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(CONNECT_S)
    return answered.is_set()


@contextmanager
def _offline() -> Iterator[None]:
    """The libraries look only at what is on this machine."""
    from datasets import config
    from huggingface_hub import constants

    before = config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
    config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = before
