"""From files to token arrays: read, clean, split, augment, tokenize. What the jobs train on, made once and cached."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Self, TypeAlias

import numpy as np
from pydantic import Field, field_validator

from rayrlhf.config import Config
from rayrlhf.data.cleaning.augment import Augmentation
from rayrlhf.data.cleaning.rules import Cleaning
from rayrlhf.data.ingest.account import Account, DataError, Rejected, RejectedFile
from rayrlhf.data.ingest.patterns import each_file
from rayrlhf.data.ingest.reader import check_different, read_records
from rayrlhf.data.ingest.records import Kind, Preference, Record
from rayrlhf.data.ingest.sources import Snapshot, Source
from rayrlhf.data.templates import ChatTemplate, Template
from rayrlhf.data.templates.special_tokens import InText
from rayrlhf.data.tokens.cache import cache_key, find_entry, new_entry
from rayrlhf.data.tokens.columns import Columns, ColumnsWriter, map_columns
from rayrlhf.data.tokens.sequences import Sequences, SequencesWriter, TokenRow, map_array, map_sequences
from rayrlhf.data.tokens.splits import position, split_of
from rayrlhf.data.tokens.tokenise import Limit, SpelledRows, Tokenized, tokenize

BATCH = 1024
BATCHES_AHEAD = 2
"""Batches being tokenized while the next one is read."""
SIDES: dict[Kind, tuple[str, ...]] = {
    "prompts": ("prompt",),
    "answers": ("answer",),
    "labeled_answers": ("answer",),
    "preferences": ("chosen", "rejected"),
}

TokenSet: TypeAlias = tuple[Sequences, ...]
"""(prompts,), (answers,) or (chosen, rejected), with the same rows."""


@dataclass(frozen=True)
class Part:
    """The training or the held-out rows."""

    tokens: TokenSet
    values: np.ndarray  # [N] float32, each record's `value`


class DataConfig(Config):
    """Data of a stage."""

    train: list[Source] = Field(min_length=1)
    """Files or data sets; a plain path is short for `{path: …}`."""
    heldout: list[Source] = Field(default=[])
    """What to evaluate on; without any, a share of the training prompts is held out."""
    heldout_share: float = Field(default=0.05, ge=0, lt=1)
    template: Template = ChatTemplate()
    special_tokens_in_text: InText = "split"
    """Special tokens that people wrote in prompts and answers, such as `<|endoftext|>`: `split` encodes them as plain
    text, `reject` leaves the row out, `allow` makes control tokens of them."""
    clean: Cleaning = Cleaning()
    cache: bool = True
    """Keep the tokens for the next run on the same data."""

    @field_validator("train", "heldout")
    @classmethod
    def _are_different(cls, sources: list[Source]) -> list[Source]:
        try:
            check_different(sources)
        except DataError as error:
            raise ValueError(str(error)) from None
        return sources

    def resolved(self) -> Self:
        """With absolute paths, as workers in other working directories need them, of each file of folders and patterns.

        Raises DataError for a folder or a pattern without files.
        """
        parts = {"train": self.train, "heldout": self.heldout}
        resolved: dict[str, list[Source]] = {}
        for name, sources in parts.items():
            files = each_file(source.resolved() for source in sources)
            check_different(files)
            resolved[name] = [source.resolved() for source in files]  # what a pattern found here may be relative
        return self.model_copy(update=resolved)

    @property
    def files(self) -> list[str]:
        """Paths of all sources that are files."""
        return [source.path for source in (*self.train, *self.heldout) if source.kind == "file"]


@dataclass(frozen=True)
class Prepared:
    """A stage's data as tokens."""

    train: TokenSet
    heldout: TokenSet
    train_values: np.ndarray  # [N] float32, each training record's `value`
    heldout_values: np.ndarray
    account: Account
    sources: dict[str, str | None]
    """Content hash of every source."""
    rejected: Path
    """JSON lines of the rows that were left out; absent if none was."""
    train_columns: Columns | None = None
    """Row by row the values of `data.columns`; None if no column is named."""
    heldout_columns: Columns | None = None


def prepare(
    config: DataConfig,
    kind: Kind,
    tokenizer: Any,
    limit: Limit,
    seed: int,
    advance: Callable[[int], None] = lambda _: None,
) -> Prepared:
    """Tokens of all training and held-out records of one kind.

    Rows are read, cleaned and tokenized in batches and written to files, which the result maps: a set larger than
    memory works. Raises DataError for sources that cannot be used, and if a part has no row left.
    """
    snapshot = Snapshot([*config.train, *config.heldout])
    sources = snapshot.hashes
    augmentation: Augmentation | None = getattr(config, "augment", None)
    columns: tuple[str, ...] = getattr(config, "columns", ())
    key = cache_key(
        {
            "sources": sources,
            "data": config.model_dump(mode="json", exclude={"cache"}),
            "kind": kind,
            "limit": {"kind": type(limit).__name__, **limit.model_dump(include=set(type(limit).model_fields))},
            "seed": seed,
            "tokenizer": tokenizer_hash(tokenizer),
        }
    )
    cached = config.cache and None not in sources.values()
    if not cached:
        key = f"{key}-{uuid.uuid4().hex[:8]}"
    entry = find_entry(key)
    if entry is None:
        with new_entry(key) as folder:
            left_out = folder.with_name(f"rejected{folder.name}.jsonl")  # stays if the rows are too bad to go on
            with Account(config.clean.max_reject_share, RejectedFile(left_out), advance=advance) as account:
                _Work(config, kind, tokenizer, limit, seed, augmentation, columns, account).run(folder)
            snapshot.check()
            (folder / "account.json").write_text(json.dumps(account.as_dict(), ensure_ascii=False), encoding="utf-8")
            if left_out.exists():
                left_out.rename(folder / "rejected.jsonl")
        entry = find_entry(key)
        assert entry is not None
    prepared = Prepared(
        train=tuple(map_sequences(entry, f"train.{side}") for side in SIDES[kind]),
        heldout=tuple(map_sequences(entry, f"heldout.{side}") for side in SIDES[kind]),
        train_values=map_array(_values_path(entry, "train"), np.float32),
        heldout_values=map_array(_values_path(entry, "heldout"), np.float32),
        account=Account.from_dict(json.loads((entry / "account.json").read_text(encoding="utf-8"))),
        sources=sources,
        rejected=entry / "rejected.jsonl",
        train_columns=map_columns(entry, "train", columns) if columns else None,
        heldout_columns=map_columns(entry, "heldout", columns) if columns else None,
    )
    wanted = {"data.train": prepared.train}
    if config.heldout or config.heldout_share:
        wanted["data.heldout"] = prepared.heldout
    for setting, part in wanted.items():
        if not len(part[0]):
            raise DataError(f"{setting}: no row is left: {prepared.account}; give it more, or raise the token limit")
    return prepared


def tokenizer_hash(tokenizer: Any) -> str:
    """A hash of everything that decides a text's tokens."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    state = json.loads(backend.to_str()) if backend is not None else {"python": repr(tokenizer)}
    parts = {name: value for name, value in state.items() if name not in ("truncation", "padding")}
    parts |= {"chat_template": tokenizer.chat_template, "eos": tokenizer.eos_token}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@dataclass
class _Work:
    config: DataConfig
    kind: Kind
    tokenizer: Any
    limit: Limit
    seed: int
    augmentation: Augmentation | None
    columns: tuple[str, ...]
    account: Account

    def run(self, folder: Path) -> None:
        """Write `train.*` and `heldout.*` into `folder`."""
        config = self.config
        with _Parts(folder, self.kind, bool(self.columns)) as parts:
            heldout_prompts = self._write(parts, config.heldout, heldout_share=1.0) if config.heldout else set()
            train_prompts = self._write(parts, config.train, 0.0 if config.heldout else config.heldout_share)
            if leaked := len(heldout_prompts & train_prompts):
                self.account.notes["held-out prompts that are trained on too"] = leaked

    def _write(self, parts: _Parts, sources: list[Source], heldout_share: float) -> set[int]:
        """Write the records of `sources`; returns hashes of the prompts if some sources are only held out."""
        account = self.account
        weights = {source.label: source.weight for source in sources}
        records = self.config.clean.clean(read_records(sources, self.kind, account, self.columns), account)
        train: list[Preference] = []
        prompts: set[int] = set()
        spelled = SpelledRows(self.config.template.special_tokens(self.tokenizer), self.config.special_tokens_in_text)
        for batch, results in self._tokenized(records):
            for record, result in zip(batch, results, strict=True):
                is_heldout = split_of(record.prompt, (heldout_share, 1 - heldout_share), self.seed) == 0
                copies = 1 if is_heldout else self._copies(record, weights[record.origin.source])
                if isinstance(result, Rejected):
                    account.reject(record, result.reason, result.detail)
                elif not copies:
                    account.reject(record, "left out by the weight of its source")
                else:
                    account.keep(record)
                    spelled.add(record)
                    parts.add("heldout" if is_heldout else "train", result, copies, record)
                    if self.config.heldout:
                        prompts.add(hash(record.prompt.key))
                    if self.augmentation is not None and not is_heldout and isinstance(record, Preference):
                        train.append(record)
            parts.flush()
        account.finish()
        account.notes.update(spelled.note)
        if self.augmentation is not None:
            for batch, results in self._tokenized(self.augmentation.make(train, self.seed, account)):
                for record, result in zip(batch, results, strict=True):
                    if isinstance(result, Rejected):
                        account.notes[f"synthetic pairs left out: {result.reason}"] += 1
                    else:
                        parts.add("train", result, 1, record)
                parts.flush()
        return prompts

    def _copies(self, record: Record, weight: float) -> int:
        """How often an epoch shows a record: the weight, rounded up or down by the record's own place."""
        if weight == 1:
            return 1
        at = position(f"{record.origin}\x1e{record.prompt.key}", self.seed)
        return int(weight) + (at < weight % 1)

    def _tokenize(self, batch: list[Record]) -> list[Tokenized]:
        config = self.config
        return tokenize(batch, config.template, self.tokenizer, self.limit, config.special_tokens_in_text)

    def _tokenized(self, records: Iterable[Record]) -> Iterator[tuple[list[Record], list[Tokenized]]]:
        """Batches in order. A thread encodes them, outside Python's lock and on all cores, while the next is read."""
        stream = iter(records)
        waiting: deque[tuple[list[Record], Future[list[Tokenized]]]] = deque()
        with ThreadPoolExecutor(1) as pool:
            while batch := list(islice(stream, BATCH)):
                waiting.append((batch, pool.submit(self._tokenize, batch)))
                if len(waiting) > BATCHES_AHEAD:
                    oldest, future = waiting.popleft()
                    yield oldest, future.result()
            for oldest, future in waiting:
                yield oldest, future.result()


class _Parts:
    """Writers of the training and the held-out rows."""

    def __init__(self, folder: Path, kind: Kind, with_columns: bool) -> None:
        names = ("train", "heldout")
        self._writers = {part: [SequencesWriter(folder, f"{part}.{side}") for side in SIDES[kind]] for part in names}
        self._value_files = {part: _values_path(folder, part).open("wb") for part in names}
        self._column_writers = {part: ColumnsWriter(folder, part) for part in names} if with_columns else {}
        self._values: dict[str, list[float]] = {part: [] for part in names}
        self._columns: dict[str, list[str]] = {part: [] for part in self._column_writers}
        self._rows: dict[str, list[tuple[TokenRow, ...]]] = {part: [] for part in self._writers}

    def __enter__(self) -> _Parts:
        return self

    def __exit__(self, *error: object) -> None:
        for writers in self._writers.values():
            for writer in writers:
                writer.close()
        for file in self._value_files.values():
            file.close()
        for column_writer in self._column_writers.values():
            column_writer.close()

    def add(self, part: str, rows: tuple[TokenRow, ...], copies: int, record: Record) -> None:
        self._rows[part] += [rows] * copies
        self._values[part] += [record.value] * copies
        if record.columns is not None:
            self._columns[part] += [record.columns] * copies

    def flush(self) -> None:
        """Write what was added."""
        for part, rows in self._rows.items():
            for side, writer in enumerate(self._writers[part]):
                writer.append([row[side] for row in rows])
            rows.clear()
        for part, values in self._values.items():
            self._value_files[part].write(np.array(values, dtype=np.float32).tobytes())
            values.clear()
        for part, columns in self._columns.items():
            self._column_writers[part].append(columns)
            columns.clear()


def _values_path(folder: Path, part: str) -> Path:
    return folder / f"{part}.values.f32"
