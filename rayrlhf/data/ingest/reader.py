"""Rows of files and data sets → records, in order. Every row that gives none is counted with its reason."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rayrlhf.data.files import BadRow, Chunk
from rayrlhf.data.files.detect import TABLE_NAMES, data_suffix
from rayrlhf.data.formats import FORMATS, GroupedRow, Row
from rayrlhf.data.formats.asked import LABELS
from rayrlhf.data.formats.recognition import best_formats
from rayrlhf.data.ingest.account import Account, DataError, Rejected
from rayrlhf.data.ingest.excerpts import row_names, short
from rayrlhf.data.ingest.extra_columns import ExtraColumns, look_up
from rayrlhf.data.ingest.records import Kind, Origin, Record
from rayrlhf.data.ingest.source_columns import ID_NAMES, ColumnWatch, SourceColumns
from rayrlhf.data.ingest.sources import Source

NEEDED: dict[Kind, str] = {
    "answers": "answer to train on (completion, output, chosen, …)",
    "preferences": "chosen/rejected pair",
    "labeled_answers": "answer labeled good or bad (completion and label), and no pair",
    "prompts": "prompt",
}
ROWS_TO_RECOGNIZE = 100
LIKE_PROMPTS = ("question", "query", "instruction", "input", "text", "title", "post", "content", "user", "질문")
"""Names that other data gives the column of prompts, the likeliest first."""
FOR_KTO = (
    "they are single answers labeled good or bad, which KTO learns from (stage: dpo, loss: kto). If the label says "
    "something else, name their format without it: format: "
)
NO_HEADER = ". If the file has no header, name its columns: table.header=[prompt,completion]"


def read_records(
    sources: Sequence[Source], kind: Kind, account: Account, columns: Sequence[str] = ()
) -> Iterator[Record]:
    """Records of one kind from all sources, one source after the other, with the values of `columns`.

    The caller passes each one to `account.keep` or `account.reject`, and then calls `account.finish`. Raises DataError
    for a source that cannot be read, has an unknown schema, gives no records of this kind, or is named twice (rows are
    identified by source and place), and at the end for a column that no row has.
    """
    check_different(sources)
    extra = ExtraColumns(columns)
    for source in sources:
        chunks = _chunks(source)
        first = next(chunks)
        row_format = _format_of(source, first, columns)
        if not row_format.can_give(kind):
            advice = FOR_KTO + row_format.without_label if row_format.without_label else row_format.advice
            raise DataError(
                f"{source.label}: {row_format.name!r} rows have no {NEEDED[kind]}" + (f": {advice}" if advice else "")
            )
        chunks = _up_to(source.max_rows, itertools.chain([first], chunks))
        if issubclass(row_format, GroupedRow) and kind in ("preferences", "labeled_answers"):
            yield from _grouped(row_format, chunks, source, kind, account, extra)
        else:
            yield from _single(row_format, chunks, source, kind, account, extra)
    extra.check_found(sources)


def check_different(sources: Sequence[Source]) -> None:
    """Raises DataError if a source is named twice, or one file under two names."""
    for label, count in Counter(source.label for source in sources).items():
        if count > 1:
            raise DataError(f"{label} is named {count} times: name it once (in a configuration, with weight: {count})")
    names: dict[tuple[int, ...], str] = {}
    for source in sources:
        state = source.state()
        if state is not None and (first := names.setdefault(state[:2], source.label)) != source.label:
            raise DataError(f"{first} and {source.label} are one file: name it once")


def recognize(source: Source, extra: Sequence[str] = ()) -> type[Row]:
    """The format of a source's rows: the one configured, or that of most of its first rows.

    extra: names in `columns` that are no field of a format.
    """
    return _format_of(source, next(_chunks(source)), extra)


def columns_of(source: Source, row_format: type[Row], kept: Sequence[str] = ()) -> SourceColumns:
    """The columns of a source's first rows."""
    watch = ColumnWatch(row_format, source.columns, kept)
    for raw in next(_chunks(source)).values[:ROWS_TO_RECOGNIZE]:
        if isinstance(raw, dict):
            watch.look(raw)
    return watch.found


def _chunks(source: Source) -> Iterator[Chunk]:
    """The source's chunks that hold rows. Raises DataError if none does."""
    is_empty = True
    for chunk in source.chunks():
        if chunk.values:
            is_empty = False
            yield chunk
    if is_empty:
        raise DataError(f"{source.label}: no rows")


def _single(
    row_format: type[Row], chunks: Iterable[Chunk], source: Source, kind: Kind, account: Account, extra: ExtraColumns
) -> Iterator[Record]:
    rules = source.rules
    give: Callable[[Any, Origin], Sequence[Record]] = {
        "preferences": lambda row, origin: row.preferences(origin, rules),
        "labeled_answers": lambda row, origin: row.labeled_answers(origin, rules),
        "answers": lambda row, origin: row.answers(origin, rules),
        "prompts": lambda row, origin: row.prompts(origin, rules),
    }[kind]
    for row, origin, raw in _rows(row_format, chunks, source, account, extra):
        try:
            records = give(row, origin)
            if extra.names:
                values = extra.of(raw, source.columns)
                for record in records:
                    record.columns = values
        except Rejected as rejection:
            account.reject_row(origin, rejection.reason, rejection.detail, raw)
            continue
        except DataError as error:
            raise DataError(f"{origin}: {error}") from None
        account.made(records)
        yield from records


def _grouped(
    row_format: type[GroupedRow],
    chunks: Iterable[Chunk],
    source: Source,
    kind: Kind,
    account: Account,
    extra: ExtraColumns,
) -> Iterator[Record]:
    groups: dict[str, list[tuple[Any, Origin, Any]]] = {}
    values: dict[str, list[str]] = {}
    for row, origin, raw in _rows(row_format, chunks, source, account, extra):
        try:
            if extra.names:
                values.setdefault(row.group_key(), []).append(extra.of(raw, source.columns))
        except Rejected as rejection:
            account.reject_row(origin, rejection.reason, rejection.detail, raw)
        else:
            groups.setdefault(row.group_key(), []).append((row, origin, raw))
    for key, group in groups.items():
        try:
            pairs, unused, unmade = row_format.group_preferences(
                [row for row, _, _ in group], [origin for _, origin, _ in group], source.rules
            )
        except DataError as error:
            raise DataError(f"{group[0][1]}: {error}") from None
        for reason, count in unmade.items():
            account.notes[f"pairs not made: {reason}"] += count
        for index, (_, origin, raw) in enumerate(group):
            if index in unused:
                account.reject_row(origin, unused[index], row=raw)
            else:
                account.keep_row()
        for pair in pairs:
            if extra.names:
                pair.columns = extra.shared(values[key])
            records = [pair] if kind == "preferences" else pair.labeled
            account.made(records)
            yield from records


def _rows(
    row_format: type[Row], chunks: Iterable[Chunk], source: Source, account: Account, extra: ExtraColumns
) -> Iterator[tuple[Any, Origin, Any]]:
    """(row, origin, raw row) of every row that fits the format; the others are counted as rejected.

    A row does not fit either if its further columns make it one of another format: by their names, or by a label.
    """
    watch = ColumnWatch(row_format, source.columns, extra.names)
    account.columns[source.label] = watch.found
    formats = _candidates(source, extra.names)
    fitting: set[frozenset[str]] = set()
    validate = row_format.__pydantic_validator__.validate_python
    columns, label = _read_by(row_format, source.columns), source.label
    is_grouped = issubclass(row_format, GroupedRow)  # an id then names the group, in each of its rows
    for chunk in chunks:
        account.read(label, len(chunk.values), chunk.num_bytes)
        unit = chunk.unit
        for raw, place in zip(chunk.values, chunk.places, strict=True):
            origin = Origin(label, place, unit, None if is_grouped else _id_of(raw))
            if isinstance(raw, BadRow):
                account.reject_row(origin, raw.reason, raw.detail, raw.raw)
                continue
            value = raw
            try:
                if columns:
                    value = _mapped(raw, columns)
                row = validate(value)
                unread = watch.look(raw)
                if unread and not source.format and (unread not in fitting or not unread.isdisjoint(LABELS)):
                    best = best_formats(value, formats)
                    if best != [row_format]:
                        names = " or ".join(f.name for f in best)
                        raise Rejected(f"another schema: {names}", f"the file was read as {row_format.name}")
                    fitting.add(unread)
            except Rejected as rejection:
                account.reject_row(origin, rejection.reason, rejection.detail, raw)
            except ValidationError as error:
                account.reject_row(origin, *_explain(error, row_format, value), raw)
            else:
                yield row, origin, raw


def _up_to(max_rows: int | None, chunks: Iterable[Chunk]) -> Iterator[Chunk]:
    if max_rows is None:
        yield from chunks
        return
    for chunk in chunks:
        chunk = replace(chunk, values=chunk.values[:max_rows], places=chunk.places[:max_rows])
        yield chunk
        max_rows -= len(chunk.values)
        if not max_rows:
            return


def _id_of(raw: Any) -> str | int | None:
    if isinstance(raw, dict):
        for name in ID_NAMES:
            if name in raw and isinstance(raw[name], str | int):
                found: str | int = raw[name]
                return found
    return None


def _mapped(raw: Any, columns: Mapping[str, str], optional: Sequence[str] = ()) -> dict[str, Any]:
    """The row under the format's field names. Raises Rejected for a missing column that is not `optional`."""
    if not isinstance(raw, dict):
        raise Rejected("malformed row", f"expected named fields, found {short(raw)}")
    value = dict(raw)
    for field, column in columns.items():
        if column in value and column not in columns and field not in (*optional, *ID_NAMES):
            del value[column]  # it is read under the field's name, and not under its own too
    for field, column in columns.items():
        if not column:
            value.pop(field, None)  # left out on purpose
            continue
        try:
            value[field] = look_up(raw, column)
        except Rejected:
            if field not in optional:
                raise
    return value


def _read_by(row_format: type[Row], columns: Mapping[str, str]) -> dict[str, str]:
    """Those of a source's `columns` that its format reads."""
    return {
        field: column for field, column in columns.items() if row_format.reads(field) or field in ID_NAMES or not column
    }


def _candidates(source: Source, extra: Sequence[str]) -> list[type[Row]]:
    """The formats that a source may have by its settings. Raises DataError if it may have none."""
    formats = [f for f in FORMATS if source.format in (None, f.name)]
    for field, column in source.columns.items():
        formats = [f for f in formats if f.reads(field) or not column or field in (*ID_NAMES, *extra)]
        if not formats:
            raise DataError(f"{source.label}: columns: no field of {source.format or 'any one format'} is {field!r}")
    return formats


def _format_of(source: Source, chunk: Chunk, extra: Sequence[str] = ()) -> type[Row]:
    formats = _candidates(source, extra)
    if source.format is not None:
        return formats[0]
    votes: Counter[type[Row]] = Counter()
    problems: list[str] = []
    for raw, place in zip(chunk.values[:ROWS_TO_RECOGNIZE], chunk.places, strict=False):
        try:
            votes[_recognized(raw, source.columns, formats, extra)] += 1
        except Rejected as rejection:
            problems.append(f"{source.label}, {chunk.unit} {place}: {rejection.reason}: {rejection.detail}")
    if not votes:
        is_table = source.kind == "file" and data_suffix(Path(source.path)) in TABLE_NAMES
        raise DataError(problems[0] + (NO_HEADER if is_table else ""))
    most = max(votes.values())
    tied = [f for f, count in votes.items() if count == most]
    # A row that lacks a column is no row of the schema that never has it.
    whole = (f for f in tied if not any(f.required() < other.required() for other in tied))
    first, *others = sorted(whole, key=lambda f: f.name)
    if others:
        names = ", ".join(f.name for f in (first, *others))
        raise DataError(
            f"{source.label}: as many of the first rows are of one schema as of another ({names}: {most} each): set "
            "format to one of them, or make a file of each"
        )
    return first


def _recognized(raw: Any, columns: Mapping[str, str], formats: Sequence[type[Row]], extra: Sequence[str]) -> type[Row]:
    """The one of `formats` that a row has. Raises Rejected if it has none of them, or several alike."""
    if isinstance(raw, BadRow):
        raise Rejected(raw.reason, raw.detail)
    value = _mapped(raw, columns, optional=extra)
    best = best_formats(value, formats)
    if len(best) == 1:
        return best[0]
    if best:
        raise Rejected(
            "unknown schema",
            f"the fields {row_names(value)} are those of {' and of '.join(f.name for f in best)}: set format to one",
        )
    known = "; ".join(f"{f.name}: {', '.join(sorted(f.required()))}" for f in formats)
    names = {str(name).lower(): str(name) for name in value}
    example = next((names[like] for like in LIKE_PROMPTS if like in names), "NAME_OF_THE_COLUMN")
    raise Rejected(
        "unknown schema",
        f"no known schema has the fields {row_names(value)}. If its columns have other names, map them "
        f"with columns, for example columns: {{prompt: {example}}}. Known schemas: {known}",
    )


def _explain(error: ValidationError, row_format: type[Row], value: Any) -> tuple[str, str]:
    """(reason, detail) for a row that does not fit the format of its file."""
    if not isinstance(value, dict):
        return "malformed row", f"expected named fields, found {short(value)}"
    missing = row_format.missing(value)
    if not row_format.recognizes(value):
        other = next(iter(best_formats(value, FORMATS)), None)
        if other is not None and not (missing and other.required() < row_format.required()):
            return f"another schema: {other.name}", f"the file was read as {row_format.name}"
    if missing:
        return f"missing column: {missing[0]}", f"the row has {row_names(value)}"
    problem = error.errors()[0]
    field = ".".join(str(part) for part in problem["loc"]) or "the row"
    if problem["type"] == "missing":
        names = [part for part in problem["loc"] if isinstance(part, str)]
        return f"missing column: {'.'.join(names)}", f"{field} is missing"
    is_malformed = not problem["loc"] or problem["type"] in ("too_short", "too_long")
    reason = "malformed row" if is_malformed else f"wrong type: {problem['loc'][0]}"
    return reason, f"{field}: {problem['msg']} (found {short(problem['input'])})"


def default_kind(source: Source, extra: Sequence[str] = ()) -> Kind:
    """What a source is read as by default: the richest kind that its rows give."""
    row_format = recognize(source, extra)
    if not row_format.gives:
        raise DataError(f"{source.label}: {row_format.name!r} rows cannot be read: {row_format.advice}")
    return row_format.gives[0]


def common_kind(sources: Sequence[Source], extra: Sequence[str] = ()) -> Kind:
    """What several sources are read as by default, in whatever order. Raises DataError if they do not agree."""
    found: dict[Kind, str] = {}
    for source in sorted(sources, key=lambda source: source.label):
        found.setdefault(default_kind(source, extra), source.label)
    if len(found) > 1:
        kinds = ", ".join(f"{label} gives {kind}" for kind, label in sorted(found.items()))
        raise DataError(f"{kinds}: say with read_as what to read them all as")
    return next(iter(found))
