"""Which container a file is; tables and plain text."""

import codecs
import csv
import io
import json
import time
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayrlhf.data.files import BadRow, Decoding, open_chunks, table
from rayrlhf.data.ingest.account import DataError


def read(path, **decoding):
    """[(place, value)] of all rows."""
    chunks = open_chunks(path, Decoding(**decoding))
    return [pair for chunk in chunks for pair in zip(chunk.places, chunk.values, strict=True)]


def reasons(path, **decoding):
    """Rows, with (reason, detail) for bad ones."""
    return [
        (place, (row.reason, row.detail) if isinstance(row, BadRow) else row) for place, row in read(path, **decoding)
    ]


@pytest.fixture
def file(tmp_path):
    """`file(content, name)` writes text or bytes and gives the path."""

    def write(content, name):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


# which container it is

ROW = {"text": "a, b"}
CONTENTS = {
    "lines": b'{"text": "a, b"}\n',
    "array": b'\n [\n {"text": "a, b"}]',
    "table": b'text\n"a, b"\n',
    "tabs": b"text\tother\na, b\tc\n",
}


@pytest.mark.parametrize(
    "name", ["rows.json", "rows.jsonl", "rows.csv", "rows.tsv", "rows.txt", "rows.parquet", "rows"]
)
@pytest.mark.parametrize("content", ["lines", "array"])
def test_json_is_known_by_its_content_under_any_name(tmp_path, name, content):
    path = tmp_path / name
    for mark in (b"", codecs.BOM_UTF8):
        path.write_bytes(mark + CONTENTS[content])
        assert [row for _, row in read(path)] == [ROW]


@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "rows.CSV", "rows.data"])
def test_tables_are_known_by_their_header(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(CONTENTS["tabs"])
    assert [row for _, row in read(path)] == [{"text": "a, b", "other": "c"}]
    if not name.endswith("data"):
        path.write_bytes(CONTENTS["table"])
        assert [row for _, row in read(path)] == [ROW]


def test_brackets_at_the_start_of_prose_do_not_make_it_json(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("[속보] 요약해 줘\n{이름}에게 인사해 줘\n")
    assert [row["line"] for _, row in read(path)] == ["[속보] 요약해 줘", "{이름}에게 인사해 줘"]
    path.write_text("{이름}에게 인사해 줘\n[1, 2]를 더해 줘\n")
    assert [row["line"] for _, row in read(path)] == ["{이름}에게 인사해 줘", "[1, 2]를 더해 줘"]


def test_white_space_longer_than_the_first_look_is_no_empty_file(tmp_path):
    path = tmp_path / "rows"
    path.write_bytes(b"\n" * (1 << 16) + CONTENTS["lines"])
    assert read(path) == [((1 << 16) + 1, ROW)]


def test_what_cannot_be_read_says_what_to_do(tmp_path):
    text = json.dumps(ROW)
    archive = tmp_path / "archive.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("rows.jsonl", text)
    contents = {
        "UTF-16 without a byte order mark": text.encode("utf-16-le"),
        "a ZIP archive or a spreadsheet: unpack it, or save it as CSV": archive.read_bytes(),
        "not JSON lines, a JSON array, CSV, Parquet or a plain-text chat; name it .txt": b"just text",
    }
    path = tmp_path / "rows"
    for message, content in contents.items():
        path.write_bytes(content)
        with pytest.raises(DataError, match=message) as error:
            read(path)
        assert str(error.value).startswith(f"{path}: ")


# CSV


def test_cells_hold_line_breaks_quotes_and_commas_and_the_first_line_names_the_row(file):
    path = file('\ufeffQ,A\r\n"one\ntwo","a ""b"", c"\r\n\r\n  \r\n안녕,"x\r\n\r\ny"\r\n끝,.', "rows.csv")
    assert read(path) == [
        (2, {"Q": "one\ntwo", "A": 'a "b", c'}),
        (6, {"Q": "안녕", "A": "x\r\n\r\ny"}),
        (9, {"Q": "끝", "A": "."}),
    ]


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=8)


@given(
    st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=12), st.sampled_from(["\n", "\r\n"]), st.sampled_from(",\t")
)
def test_whatever_a_table_writer_writes_comes_back(tmp_path_factory, rows, line_end, delimiter):
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator=line_end, delimiter=delimiter, quoting=csv.QUOTE_ALL)
    writer.writerows([("prompt", "completion"), *rows])
    path = tmp_path_factory.mktemp("tables") / "rows.csv"
    path.write_bytes(text.getvalue().encode())
    assert [tuple(row.values()) for _, row in read(path)] == rows


def test_rows_with_too_many_or_too_few_cells_are_malformed(file):
    assert reasons(file("a,b\n1\n1,2\n1,2,3\n", "rows.csv")) == [
        (2, ("malformed row", "1 cells under a header of 2")),
        (3, {"a": "1", "b": "2"}),
        (4, ("malformed row", "3 cells under a header of 2")),
    ]


def test_a_quote_that_is_never_closed_costs_its_line_and_no_other(file):
    found = reasons(file('a,b\n1,2\n"open,2\n3,4\n5,6\n', "rows.csv"))
    ((place, (reason, detail)),) = (row for row in found if isinstance(row[1], tuple))
    assert (place, reason) == (3, "malformed row")
    assert detail == "a quoted cell that begins here is never closed; double the quotes inside a quoted cell"
    assert [row for row in found if isinstance(row[1], dict)] == [
        (2, {"a": "1", "b": "2"}),
        (4, {"a": "3", "b": "4"}),
        (5, {"a": "5", "b": "6"}),
    ]


@given(
    st.lists(st.booleans(), min_size=1, max_size=12), st.sampled_from(['"open,x', '"he said "hi" to me",x', '"a"b,x'])
)
def test_a_row_whose_quotes_do_not_fit_is_one_bad_row(tmp_path_factory, are_good, bad_line):
    path = tmp_path_factory.mktemp("tables") / "rows.csv"
    path.write_text(
        "a,b\n" + "".join(f"good {at},x\n" if good else f"{bad_line}\n" for at, good in enumerate(are_good))
    )
    found = [None if isinstance(row, BadRow) else row["a"] for _, row in read(path)]
    assert found == [f"good {at}" if good else None for at, good in enumerate(are_good)]


def test_an_open_quote_does_not_take_a_large_file_into_memory(file, monkeypatch):
    monkeypatch.setattr(table, "LONGEST_CELL", 50)
    path = file('a,b\n"open,2\n' + "3,4\n" * 100, "rows.csv")
    found = read(path)
    assert found[0][0] == 2
    assert found[0][1].detail.startswith("field larger than field limit (50)")
    assert found[1:] == [(place, {"a": "3", "b": "4"}) for place in range(3, 103)]
    monkeypatch.undo()
    assert len(read(path)) == 101


def test_bad_bytes_in_a_cell_of_several_lines_name_their_own_line(file):
    ((place, (reason, detail)), (_, good)) = reasons(file(b'a,b\n"x\ny\xff\nz",1\nx,1\n', "rows.csv"))
    assert (place, reason) == (2, "invalid UTF-8")
    assert detail == "line 3: byte 1 of the line (0xff) is not utf-8"
    assert good == {"a": "x", "b": "1"}


def test_a_header_of_many_columns_is_read_in_a_moment(file):
    names = ["text", *map(str, range(200_000))]
    path = file(",".join(names) + "\n" + ",".join("x" * len(names)) + "\n", "rows.csv")
    started = time.process_time()
    assert read(path) == [(2, dict.fromkeys(names, "x"))]
    assert time.process_time() - started < 20  # not minutes


def test_an_index_column_without_a_name_is_a_column_like_others(file):
    assert read(file(",prompt\n0,a\n1,b\n", "rows.csv")) == [
        (2, {"": "0", "prompt": "a"}),
        (3, {"": "1", "prompt": "b"}),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a,b,a\n1,2,3\n", "line 1: the header names 'a' twice"),
        (b"\n\na,b\xff\n1,2\n", "line 3: the header cannot be read: line 3: byte 3 of the line (0xff) is not utf-8"),
        (b'a,"b\n1,2\n', "line 1: the header cannot be read: a quoted cell that begins here is never closed"),
        (b"a,b\r1,2\r", "line 1: the header cannot be read: new-line character seen in unquoted field"),
    ],
)
def test_a_header_that_cannot_be_used_is_an_error(file, content, message):
    path = file(content, "rows.csv")
    with pytest.raises(DataError) as error:
        read(path)
    assert str(error.value).startswith(f"{path}, {message}")


# Parquet


def text_of(*cells):
    """A text column whose bytes nobody checked."""
    data = pa.array(cells, pa.binary())
    return pa.Array.from_buffers(pa.string(), len(data), data.buffers())


def parquet(path, **columns):
    pq.write_table(pa.table(columns), path)
    return path


def test_parquet_rows_come_typed_numbered_and_under_any_name(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "CHUNK_ROWS", 2)
    path = parquet(tmp_path / "rows.csv", prompt=["a", None, "c"], ranking=[[0, 1], [], None], score=[1.5, None, 2.0])
    assert read(path) == [
        (1, {"prompt": "a", "ranking": [0, 1], "score": 1.5}),
        (2, {"prompt": None, "ranking": [], "score": None}),
        (3, {"prompt": "c", "ranking": None, "score": 2.0}),
    ]


def test_parquet_text_that_is_none_follows_the_setting(tmp_path):
    path = parquet(tmp_path / "a.parquet", n=[1, 2, 3], p=text_of(b"a", b"b\xffc", None))
    assert reasons(path) == [
        (1, {"n": 1, "p": "a"}),
        (2, ("invalid UTF-8", "p: byte 1 of the row (0xff) is not utf-8")),
        (3, {"n": 3, "p": None}),
    ]
    assert read(path, invalid="replace")[1] == (2, {"n": 2, "p": "b\ufffdc"})
    with pytest.raises(DataError, match=r"row 2: byte 1 of the row \(0xff\) is not utf-8"):
        read(path, invalid="strict")


def test_parquet_text_that_is_none_inside_a_list_is_rejected_even_if_others_are_replaced(tmp_path):
    nested = pa.ListArray.from_arrays([0, 1, 2], text_of(b"ok", b"\xff"))
    path = parquet(tmp_path / "a.parquet", p=nested)
    assert reasons(path, invalid="replace") == [
        (1, {"p": ["ok"]}),
        (2, ("invalid UTF-8", "p: byte 0 of the row (0xff) is not utf-8")),
    ]


@pytest.mark.parametrize("kind", [pa.timestamp("us"), pa.date32(), pa.timestamp("ms")])
def test_a_time_that_python_has_no_value_for_costs_its_row_only(tmp_path, kind):
    width = pa.int32() if kind == pa.date32() else pa.int64()
    times = pa.array([0, (1 << kind.bit_width - 2), None], width).cast(kind)
    found = reasons(parquet(tmp_path / "a.parquet", p=["a", "b", "c"], at=times))
    assert [row["p"] for _, row in (found[0], found[2])] == ["a", "c"]
    place, (reason, detail) = found[1]
    assert (place, reason) == (2, "malformed row")
    assert detail.startswith("at: its ")


def test_a_broken_parquet_file_and_one_of_two_equal_names_are_errors(tmp_path):
    path = parquet(tmp_path / "a.parquet", p=["x"] * 100)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(DataError, match=r"a.parquet: not a readable Parquet file: "):
        read(path)
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["p", "p"]), path)
    with pytest.raises(DataError, match=r"a.parquet: the schema names 'p' twice"):
        read(path)


# plain text


def test_each_line_of_a_text_file_that_is_not_blank_is_a_row(file):
    path = file("\ufeff하나, 둘\r\n\n  \n<b>\n", "prompts.txt")
    assert read(path) == [(1, {"line": "하나, 둘"}), (4, {"line": "<b>"})]


def test_chats_in_plain_text_alternate_and_go_on_over_lines(file):
    text = (
        "\ufeff<<start conversation>>\n<사람>: 안녕: 나야\n<챗봇>: 네,\n둘째 줄\n\n"
        "<<start conversation>>\n<<start conversation>>\n\n누구?\n<사람>: 하나\n"
    )
    (first_place, first), *others = read(file(text, "chats.jsonl"))
    said = [{"role": "user", "content": "안녕: 나야"}, {"role": "assistant", "content": "네,\n둘째 줄"}]
    assert (first_place, first) == (1, {"messages": said})
    assert others[0] == (6, {"messages": []})
    assert others[1][0] == 7
    assert (others[1][1].reason, others[1][1].detail) == ("malformed row", "line 9: no speaker (<사람> or <챗봇>)")
