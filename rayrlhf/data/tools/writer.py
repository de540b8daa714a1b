"""Records as JSON lines, JSON, CSV or Parquet, each row with its lineage; and the lineage of the whole."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from rayrlhf import __version__
from rayrlhf.data.ingest.account import Account, DataError
from rayrlhf.data.ingest.records import Answer, Kind, LabeledAnswer, Message, Preference, Record
from rayrlhf.data.tools.output_file import OutputFile, explained

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
PARQUET_BATCH = 2048
OWN_COLUMNS = ("id", "prompt", "chosen", "rejected", "completion", "messages", "input", "lineage")
OWN_OF_KIND: dict[Kind, str] = {"labeled_answers": "label", "preferences": "margin"}


def check_format(path: Path) -> None:
    """Raises DataError if the name says no format."""
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(f"--out {path}: name it {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")


def as_row(record: Record, columns: Sequence[str] = ()) -> dict[str, Any]:
    """A record as it is written: `{prompt, …}`, or `{messages}` for conversations, the values of `columns`, and where
    it comes from.

    Reading such a row gives the same record.
    """
    origin, prompt = record.origin, record.prompt
    row: dict[str, Any] = {} if origin.id is None else {"id": origin.id}
    is_single = len(prompt.messages) == 1 and prompt.messages[0].role == "user"
    if isinstance(record, Preference):
        row["prompt"] = prompt.messages[0].content if is_single else _turns(prompt.messages)
        row |= {"chosen": record.chosen, "rejected": record.rejected}
        if record.margin:
            row["margin"] = record.margin
    elif isinstance(record, LabeledAnswer):
        row["prompt"] = prompt.messages[0].content if is_single else _turns(prompt.messages)
        row |= {"completion": record.text, "label": record.desirable}
    elif is_single:
        row["prompt"] = prompt.messages[0].content
        if isinstance(record, Answer):
            row["completion"] = record.text
    else:
        answer = (Message("assistant", record.text),) if isinstance(record, Answer) else ()
        row["messages"] = _turns(prompt.messages + answer)
    if prompt.context:
        row["input"] = prompt.context
    if record.columns is not None:
        row |= zip(columns, json.loads(record.columns), strict=True)
    lineage: dict[str, Any] = {"source": origin.source, origin.unit: origin.place}
    if origin.rule:
        lineage["rule"] = origin.rule
    if origin.synthetic:
        lineage["synthetic"] = True
    return row | {"lineage": lineage}


def _turns(messages: tuple[Message, ...]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]


class RecordWriter:
    """Writes records to an output in the format of its name.

    JSON lines and JSON are written as they come. CSV and Parquet need all columns first: `finish` makes them of lines
    in a file without a name, on the same disk. columns: names of the records' other columns.
    """

    def __init__(self, output: OutputFile, columns: Sequence[str] = ()) -> None:
        self._output, self._columns = output, columns
        self._suffix = output.path.suffix.lower()
        self._lines: IO[bytes] = output.file
        self.num_records = 0

    def __enter__(self) -> RecordWriter:
        if self._suffix in (".csv", ".parquet"):
            self._lines = tempfile.TemporaryFile(dir=self._output.path.parent)
        return self

    def write(self, record: Record) -> None:
        """Raises DataError if the disk is full."""
        line = json.dumps(as_row(record, self._columns), ensure_ascii=False)
        if self._suffix == ".json":
            line = (",\n" if self.num_records else "[\n") + line
        else:
            line += "\n"
        with explained(self._output.path):
            self._lines.write(line.encode())
        self.num_records += 1

    def finish(self) -> None:
        """Write what comes after the last record. Raises DataError if the disk is full."""
        with explained(self._output.path):
            if self._suffix == ".json":
                self._lines.write(b"\n]\n" if self.num_records else b"[]\n")
            elif self._suffix == ".csv":
                self._to_csv()
            elif self._suffix == ".parquet":
                self._to_parquet()
            self._output.file.flush()

    def _rows(self) -> Iterator[dict[str, Any]]:
        self._lines.seek(0)
        return map(json.loads, self._lines)

    def _to_csv(self) -> None:
        names = list({name: None for row in self._rows() for name in row})
        text = io.TextIOWrapper(self._output.file, encoding="utf-8", newline="", write_through=True)
        table = csv.writer(text, lineterminator="\n")
        table.writerow(names)
        table.writerows([_as_cell(row.get(name)) for name in names] for row in self._rows())
        text.detach()

    def _to_parquet(self) -> None:
        """Conversations are lists of turns; ids, lineage and columns of several types are text."""
        import pyarrow
        import pyarrow.parquet

        if not self.num_records:
            raise DataError(
                f"--out {self._output.path}: no row is left to write, and an empty Parquet file has no columns"
            )
        schema = _schema(self._rows(), self._columns)
        rows = (_uniform(row, schema) for row in self._rows())
        with pyarrow.parquet.ParquetWriter(self._output.file, schema) as writer:
            while batch := list(islice(rows, PARQUET_BATCH)):
                writer.write_table(pyarrow.Table.from_pylist(batch, schema))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lines is not self._output.file:
            with suppress(OSError):  # a full disk, told before
                self._lines.close()


def lineage_text(
    command: str, sources: Mapping[str, str | None], rules: Mapping[str, Any], account: Account, sha256: str
) -> str:
    """`OUT.lineage.json`: sources, rules, and what became of every row. sha256: of the output."""
    content = {
        "rayrlhf": __version__,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "sources": dict(sources),
        "rules": dict(rules),
        "account": account.as_dict(),
        "sha256": sha256,
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _as_cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _schema(rows: Iterator[dict[str, Any]], columns: Sequence[str]) -> Any:
    import pyarrow

    names: dict[str, None] = {}
    conversations = False
    types: dict[str, set[type]] = {name: set() for name in columns}
    for row in rows:
        names |= dict.fromkeys(row)
        conversations |= isinstance(row.get("prompt"), list)
        for name in columns:
            value = row.get(name)
            too_large = isinstance(value, int) and abs(value) >= 2**63
            types[name].add(str if too_large else type(value))
    turns = pyarrow.list_(pyarrow.struct([("role", pyarrow.string()), ("content", pyarrow.string())]))
    fields: dict[str, Any] = {"messages": turns, "label": pyarrow.bool_(), "margin": pyarrow.float64()}
    if conversations:
        fields["prompt"] = turns
    for name, found in types.items():
        numbers = found - {type(None)}
        if numbers == {bool}:
            fields[name] = pyarrow.bool_()
        elif numbers and numbers <= {int, float}:
            fields[name] = pyarrow.float64() if float in numbers else pyarrow.int64()
    return pyarrow.schema([(name, fields.get(name, pyarrow.string())) for name in names])


def _uniform(row: dict[str, Any], schema: Any) -> dict[str, Any]:
    import pyarrow

    for name, value in row.items():
        if schema.field(name).type == pyarrow.string() and value is not None:
            row[name] = _as_cell(value)
    if isinstance(row.get("prompt"), str) and schema.field("prompt").type != pyarrow.string():
        row["prompt"] = [{"role": "user", "content": row["prompt"]}]
    return row
