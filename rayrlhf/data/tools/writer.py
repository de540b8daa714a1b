"""Writes records as JSON lines or Parquet, each row with its lineage, and a lineage file for the whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from rayrlhf import __version__
from rayrlhf.data.ingest.account import Account, DataError
from rayrlhf.data.ingest.records import Answer, Message, Preference, Record
from rayrlhf.data.ingest.sources import file_hash

PARQUET_BATCH = 2048


def as_row(record: Record) -> dict[str, Any]:
    """A record as it is written: `{prompt, …}`, or `{messages}` for conversations, and where it comes from.

    Reading such a row gives the same record.
    """
    origin, prompt = record.origin, record.prompt
    row: dict[str, Any] = {} if origin.id is None else {"id": origin.id}
    is_single = len(prompt.messages) == 1 and prompt.messages[0].role == "user"
    if isinstance(record, Preference):
        row["prompt"] = prompt.messages[0].content if is_single else _turns(prompt.messages)
        row |= {"chosen": record.chosen, "rejected": record.rejected}
    elif is_single:
        row["prompt"] = prompt.messages[0].content
        if isinstance(record, Answer):
            row["completion"] = record.text
    else:
        answer = (Message("assistant", record.text),) if isinstance(record, Answer) else ()
        row["messages"] = _turns(prompt.messages + answer)
    if prompt.context:
        row["input"] = prompt.context
    lineage: dict[str, Any] = {"source": origin.source, origin.unit: origin.place}
    if origin.rule:
        lineage["rule"] = origin.rule
    if origin.synthetic:
        lineage["synthetic"] = True
    return row | {"lineage": lineage}


def _turns(messages: tuple[Message, ...]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]


class RecordWriter:
    """Writes to a temporary file, which replaces `path` when the block ends without an error."""

    def __init__(self, path: Path) -> None:
        if path.suffix not in (".jsonl", ".json", ".parquet"):
            raise DataError(f"--out {path}: name it .jsonl or .parquet")
        self.path = path
        self._lines = path.with_name(f".{path.name}.new")
        self.num_records = 0

    def __enter__(self) -> RecordWriter:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._lines.open("w", encoding="utf-8")
        except OSError as error:
            raise DataError(f"--out {self.path}: cannot write there: {error.strerror}") from None
        return self

    def write(self, record: Record) -> None:
        self._file.write(json.dumps(as_row(record), ensure_ascii=False) + "\n")
        self.num_records += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        try:
            if kind is None and self.path.suffix == ".parquet":
                _to_parquet(self._lines, self.path)
            elif kind is None:
                self._lines.replace(self.path)
        finally:
            self._lines.unlink(missing_ok=True)


def write_lineage(
    out: Path, command: str, sources: Mapping[str, str | None], rules: Mapping[str, Any], account: Account
) -> Path:
    """Write `OUT.lineage.json`: sources, rules, and what became of every row. Returns its path."""
    path = out.with_name(f"{out.name}.lineage.json")
    content = {
        "rayrlhf": __version__,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "sources": dict(sources),
        "rules": dict(rules),
        "account": account.as_dict(),
        "sha256": file_hash(out),
    }
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def _to_parquet(lines: Path, path: Path) -> None:
    """JSON lines → Parquet. Columns are the union over all rows; ids are text, conversations lists of turns."""
    import pyarrow
    import pyarrow.parquet

    if lines.stat().st_size == 0:
        raise DataError(f"--out {path}: no row is left to write, and an empty Parquet file has no columns")
    schema = _schema(lines)
    new = path.with_name(f".{path.name}.parquet.new")
    try:
        with pyarrow.parquet.ParquetWriter(new, schema) as writer, lines.open(encoding="utf-8") as file:
            batch: list[dict[str, Any]] = []
            for line in file:
                batch.append(_uniform(json.loads(line), schema))
                if len(batch) == PARQUET_BATCH:
                    writer.write_table(pyarrow.Table.from_pylist(batch, schema))
                    batch = []
            writer.write_table(pyarrow.Table.from_pylist(batch, schema))
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def _schema(lines: Path) -> Any:
    import pyarrow

    names: dict[str, None] = {}
    conversations = False
    with lines.open(encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            names |= dict.fromkeys(row)
            conversations |= isinstance(row.get("prompt"), list)
    turns = pyarrow.list_(pyarrow.struct([("role", pyarrow.string()), ("content", pyarrow.string())]))
    fields: dict[str, Any] = {"messages": turns, "lineage": pyarrow.string()}
    if conversations:
        fields["prompt"] = turns
    return pyarrow.schema([(name, fields.get(name, pyarrow.string())) for name in names])


def _uniform(row: dict[str, Any], schema: Any) -> dict[str, Any]:
    import pyarrow

    row["lineage"] = json.dumps(row["lineage"], ensure_ascii=False)
    if "id" in row:
        row["id"] = str(row["id"])
    if isinstance(row.get("prompt"), str) and schema.field("prompt").type != pyarrow.string():
        row["prompt"] = [{"role": "user", "content": row["prompt"]}]
    return row
