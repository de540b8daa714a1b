"""Columns that nothing reads are named, and no order of rows or inputs decides what they are read as."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from rayrlhf.cli import app
from rayrlhf.data.ingest.account import Account, DataError
from rayrlhf.data.ingest.reader import common_kind, read_records, recognize
from rayrlhf.data.ingest.sources import FileSource

GOOD = {"prompt": "q", "completion": "a"}
PAIR = {"prompt": "q", "chosen": "a", "rejected": "b"}
NAMES = st.text("xyz_", min_size=1, max_size=4)  # no format has such names
VALUES = st.integers() | st.text("ab", max_size=2) | st.none() | st.lists(st.integers(), max_size=1)


@given(st.lists(st.dictionaries(NAMES, VALUES, max_size=4), min_size=1, max_size=6))
def test_every_column_that_holds_something_and_that_nothing_reads_is_named(tmp_path_factory, read, extras):
    path = tmp_path_factory.mktemp("columns") / "rows.jsonl"
    path.write_text("".join(json.dumps({"id": at, **GOOD, **extra}) + "\n" for at, extra in enumerate(extras)))
    wanted = {}
    for extra in extras:
        for name, value in extra.items():
            if value is not None and value not in ("", []):
                wanted[name] = wanted.get(name, 0) + 1
    done = read(path)
    (columns,) = done.account.columns.values()
    assert (columns.format, columns.read, columns.unread) == ("prompt_completion", ["prompt", "completion"], wanted)
    assert bool(done.account.unread) == bool(wanted)
    assert all(name in done.account.unread[0] for name in wanted)
    assert Account.from_dict(json.loads(json.dumps(done.account.as_dict()))).columns == done.account.columns


@pytest.mark.parametrize(
    ("row", "unread"),
    [
        ({"problem": "q", "solution": "a", "answer": "5"}, {"answer"}),
        ({"prompt": "q", "question": "other", "response": "a"}, {"question"}),
        ({"instruction": "q", "input": "c", "response": "a"}, set()),
        ({"input": "q", "output": "a"}, set()),
        ({"prompt": "q", "chosen": "a", "rejected": "b", "score_chosen": 2, "chosen_rating": 1}, {"chosen_rating"}),
    ],
)
def test_a_column_that_another_one_stands_before_is_not_read(file, read, row, unread):
    path = file([row, {**row, "id": 2}])
    (columns,) = read(path).account.columns.values()
    assert (columns.unread.keys(), set(columns.read)) == (unread, row.keys() - unread)


def test_columns_that_are_kept_or_mapped_are_read(file):
    path = file([GOOD | {"topic": "t", "meta": {"level": 1}, "score": 3, "lineage": {"source": "x"}}])
    for columns, kept, unread in [
        ({}, (), {"topic", "meta", "score"}),
        ({}, ("topic", "meta.level"), {"score"}),
        ({"input": "topic"}, ("meta.level",), {"score"}),
    ]:
        account = Account()
        list(read_records([FileSource(path=path, columns=columns)], "answers", account, kept))
        assert account.columns[path].unread.keys() == unread


def test_the_tools_name_the_columns_that_nothing_reads(file):
    path = file([GOOD | {"score": 3}, GOOD | {"prompt": "other", "score": 1}, GOOD | {"prompt": "third"}])
    for command in ("inspect", "stats"):
        shown = " ".join(CliRunner().invoke(app, ["data", command, path]).output.split())
        assert "columns that nothing reads" in shown
        assert "score (2 rows)" in shown


def test_rows_that_would_be_read_as_less_than_they_are_are_rejected(file, read):
    prompts = [{"prompt": str(at)} for at in range(3)]
    done = read(file([*prompts, GOOD, PAIR]), "prompts")
    assert done.reasons == [(4, "another schema: prompt_completion"), (5, "another schema: preference_pair")]
    named = read(file([*prompts, GOOD, PAIR]), "prompts", format="prompt_only")  # it was said
    assert not named.reasons


def test_a_row_that_two_schemas_fit_alike_is_not_guessed(file):
    row = GOOD | {"instruction": "other", "output": "different"}
    with pytest.raises(DataError, match=r"those of instruction and of prompt_completion: set format to one"):
        recognize(FileSource(path=file([row])))


ROWS = [GOOD, GOOD | {"prompt": "w"}, {"question": "q", "answer": "a"}, {"instruction": "i", "output": "o"}]


def outcome(read, path):
    try:
        done = read(path, "answers")
    except DataError as error:
        return str(error)
    return {(record.prompt, record.text) for record in done.records}, sorted(reason for _, reason in done.reasons)


@pytest.mark.parametrize("rows", [ROWS, ROWS[1:], [PAIR, *ROWS[2:]], [PAIR, PAIR, GOOD]])
def test_no_order_of_the_rows_decides_their_schema(file, read, rows):
    first, *others = [outcome(read, file(list(order))) for order in itertools.permutations(rows)]
    assert all(other == first for other in others)


def test_two_schemas_with_as_many_rows_are_both_named(file):
    with pytest.raises(DataError, match=r"\(preference_pair, prompt_completion: 2 each\): set format to one of them"):
        recognize(FileSource(path=file([GOOD, PAIR, PAIR, GOOD])))


def test_of_rows_with_and_without_a_column_half_lack_it(file, read):
    done = read(file([{"prompt": "lonely"}, PAIR]), "preferences")
    assert done.reasons == [(1, "missing column: chosen")]


@pytest.mark.parametrize("with_pairs", [False, True])
def test_no_order_of_the_inputs_decides_what_they_are_read_as(file, with_pairs):
    paths = [file([GOOD], "1.jsonl"), file([{"question": "2", "answer": "a"}], "2.jsonl")]
    paths += [file([PAIR], "3.jsonl")] * with_pairs
    found = set()
    for order in itertools.permutations(paths):
        sources = [FileSource(path=path) for path in order]
        try:
            records = read_records(sources, common_kind(sources), Account())
            found.add(frozenset((record.prompt, record.answers) for record in records))
        except DataError as error:
            found.add(str(error))
    (only,) = found
    if with_pairs:
        assert (
            only == f"{paths[0]} gives answers, {paths[2]} gives preferences: say with read_as what to read them all as"
        )
    else:
        assert len(only) == 2
