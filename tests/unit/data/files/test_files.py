"""JSON lines and arrays, cut anywhere; bytes that are no text, in every container."""

import json
from contextlib import contextmanager

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from rayrlhf.data.files import BadRow, Decoding, open_chunks
from rayrlhf.data.files import json_array as arrays
from rayrlhf.data.files import json_lines as lines
from rayrlhf.data.ingest.account import DataError

TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda values: st.lists(values, max_size=4) | st.dictionaries(TEXTS, values, max_size=4),
    max_leaves=8,
)
OBJECTS = st.dictionaries(TEXTS, VALUES, max_size=4)
BAD_LINES = {
    b'{"a": 1': "truncated JSON",
    b'{"a": "b': "truncated JSON",
    b'{"a": tr': "truncated JSON",
    b'{"a": -': "truncated JSON",
    b'{"a": 1.': "truncated JSON",
    b'{"a": 2e': "truncated JSON",
    b'{"a": "\\u12': "truncated JSON",
    b'{"a": }': "invalid JSON",
    b'{"a": trve}': "invalid JSON",
    b'{"a": 1}, ': "invalid JSON",
    b'{"a": 1}{"b": 2}': "invalid JSON",
    b'{"a": 1} {"b": 2}': "invalid JSON",
    b'{"a": "\t"}': "invalid JSON",
    b'{"a": ' + b"1" * 5000 + b"}": "invalid JSON",
    b"[" * 5000: "invalid JSON",
    b'{"a": "\xff"}': "invalid UTF-8",
    b'{"a": "\xed\xa0\x80"}': "invalid UTF-8",
    b'{"\\ud83d": 1}': "half of a character",
    b"\xef\xbb\xbf{}": "invalid JSON",
}


def read(path, **decoding):
    """[(place, value)] of all rows, and the chunks."""
    chunks = list(open_chunks(path, Decoding(**decoding)))
    assert sum(chunk.num_bytes for chunk in chunks) <= path.stat().st_size + 1
    return [pair for chunk in chunks for pair in zip(chunk.places, chunk.values, strict=True)]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    """A file of no telling name, written anew by each example."""
    return tmp_path_factory.mktemp("files") / "rows"


@contextmanager
def cut_into(num_bytes):
    """Chunks of so many bytes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "CHUNK_BYTES", num_bytes)
        patch.setattr(arrays, "CHUNK_BYTES", num_bytes)
        yield


# JSON lines


@given(
    st.lists(st.tuples(OBJECTS, st.sampled_from(["", "\r", " "]), st.integers(0, 2)), max_size=20),
    st.lists(st.tuples(st.integers(0, 20), st.sampled_from(sorted(BAD_LINES))), max_size=4),
    st.integers(1, 400),
    st.booleans(),
)
def test_bad_lines_anywhere_leave_all_other_rows_in_their_places(scratch, good, bad, chunk_bytes, ends):
    wanted, text = [], [b'{"first": 0}']
    for value, ending, blank_lines in good:
        text += [json.dumps(value).encode() + ending.encode()] + [b" \r"] * blank_lines
    for at, line in bad:
        text.insert(1 + at % len(text), line)
    for place, line in enumerate(text, start=1):
        if line.strip():
            wanted.append((place, BAD_LINES.get(line) or json.loads(line)))
    scratch.write_bytes(b"\n".join(text) + b"\n" * ends)
    with cut_into(chunk_bytes):
        found = read(scratch)
    assert [(place, row.reason if isinstance(row, BadRow) else row) for place, row in found] == wanted


@pytest.mark.parametrize("line", BAD_LINES, ids=lambda line: repr(line[:12]))
def test_a_bad_line_is_one_row_with_its_reason_and_its_text(tmp_path, line):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"{}\n" + line + b"\n{}\n")
    first, (place, bad), last = read(path)
    assert (first, place, last) == ((1, {}), 2, (3, {}))
    assert bad.reason == BAD_LINES[line]
    assert bad.detail
    assert bad.raw[:6] == line.decode(errors="backslashreplace")[:6]


@given(st.lists(OBJECTS, min_size=1, max_size=20), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_whole_chunks_and_single_lines_decode_alike(scratch, rows, line_end, ends):
    text = line_end.join(json.dumps(row, ensure_ascii=False) for row in rows) + line_end * ends
    scratch.write_bytes(text.encode())
    whole = read(scratch)
    assert whole == list(enumerate(rows, start=1))
    scratch.write_bytes(text.encode() + (b"" if ends else line_end.encode()) + b"no json")
    *single, (_, last) = read(scratch)
    assert single == whole
    assert isinstance(last, BadRow)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ('{"a":1}{"b":2}\n\n', []),
        ('{"a":\n1} {"b":2}\n', []),
        ('{"a":\n1}\n{"b":2}\n{"c":3} {"d":4}', [(3, {"b": 2})]),
    ],
)
def test_values_that_are_not_one_a_line_are_not_taken_for_rows(tmp_path, text, rows):
    # As many values as lines: a decoder that only counts would take them.
    path = tmp_path / "rows.jsonl"
    path.write_text(text)
    assert [pair for pair in read(path) if not isinstance(pair[1], BadRow)] == rows


def test_numbers_that_are_none_and_the_largest_ones_are_read_as_python_reads_them(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{{"a": -Infinity}}\n{{"a": {2**200}}}\n{{"a": 1e999}}\n{{"a": {-(2**63) - 1}}}')
    assert [row["a"] for _, row in read(path)] == [float("-inf"), 2**200, float("inf"), -(2**63) - 1]


# JSON arrays


@given(st.lists(VALUES, min_size=1, max_size=8), st.integers(1, 20), st.sampled_from([None, 1]), st.booleans())
@example([1, 23, -4.5e6, True, None], 1, None, False)
@example(["\\", '"', "\u2028", "😀", "]"], 1, None, True)
def test_an_array_reads_alike_however_it_is_cut(scratch, rows, chunk_bytes, indent, ascii_only):
    scratch.write_text(json.dumps(rows, indent=indent, ensure_ascii=ascii_only) + "\n ", encoding="utf-8")
    with cut_into(chunk_bytes):
        assert read(scratch) == list(enumerate(rows, start=1))


@given(st.lists(OBJECTS, min_size=1, max_size=5), st.integers(1, 60), st.data())
def test_a_truncated_array_keeps_what_is_whole_and_counts_the_last_row(scratch, rows, chunk_bytes, data):
    text = json.dumps(rows, ensure_ascii=False).encode()
    ends = [len(json.dumps(rows[: n + 1], ensure_ascii=False).encode()) - 1 for n in range(len(rows))]
    cut = data.draw(st.integers(1, len(text) - 1))
    scratch.write_bytes(text[:cut])
    with cut_into(chunk_bytes):
        found = read(scratch)
    whole = sum(end <= cut for end in ends)
    assert found[:-1] == list(enumerate(rows[:whole], start=1))
    place, last = found[-1]
    assert (place, last.reason) == (whole + 1, "truncated JSON")


@pytest.mark.parametrize("chunk_bytes", [1, 7, 1 << 20])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"a": 1},\n{"a": }\n, {"a": 2}]', "line 2: not valid JSON: Expecting value"),
        ('[{"a": 1}\n\n{"a": 2}]', "line 3: not valid JSON: expected a comma between rows"),
        ('[{"a": 1},\n{"a": "x\ny"}]', "line 2: not valid JSON: Invalid control character"),
        ('[\n{"a": tru}]', "line 2: not valid JSON: Expecting value"),
        ('[{"a": 1}]\n\n[{"a": 2}]', "line 3: not valid JSON: text after the end of the array"),
        ('[{"a": 1}]' + " " * 50 + "x", "line 1: not valid JSON: text after the end of the array"),
        ('[{"a": 1},\n' + "[" * 5000, "line 2: not valid JSON: nested too deeply"),
        ('[{"a": 1},\n{"a": ' + "1" * 5000 + "}]", "line 2: not valid JSON: a number has too many digits"),
    ],
)
def test_a_mistake_in_an_array_is_an_error_with_its_line(tmp_path, text, message, chunk_bytes):
    path = tmp_path / "rows.json"
    path.write_text(text)
    with cut_into(chunk_bytes), pytest.raises(DataError) as error:
        read(path)
    assert str(error.value).startswith(f"{path}, {message}")


# bytes that are no text

CONTAINERS = {
    "lines.jsonl": (b'{"p": "ok"}\n{"p": "abc\xff"}\n{"p": "ok"}', 10, "line"),
    "array.json": (b'[{"p": "ok"}, {"p": "abc\xff"}, {"p": "ok"}]', 10, "row"),
    "table.csv": (b"p,q\nok,1\nabc\xff,1\nok,1\n", 3, "line"),
    "prompts.txt": (b"ok\nabc\xff\nok\n", 3, "line"),
    "chats": (b"<<start conversation>>\n<\xec\x82\xac\xeb\x9e\x8c>: abc\xff\n", 13, "line"),
}


def write(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(CONTAINERS[name][0])
    return path


@pytest.mark.parametrize("chunk_bytes", [3, 1 << 20])
@pytest.mark.parametrize("name", CONTAINERS)
def test_bytes_that_are_no_text_reject_their_row_and_are_named(tmp_path, name, chunk_bytes):
    _, byte, unit = CONTAINERS[name]
    with cut_into(chunk_bytes):
        rows = [row for _, row in read(write(tmp_path, name))]
    (bad,) = (row for row in rows if isinstance(row, BadRow))
    assert bad.reason == "invalid UTF-8"
    assert bad.detail.endswith(f"byte {byte} of the {unit} (0xff) is not utf-8")
    assert "abc\\xff" in bad.raw
    assert len(rows) == (1 if name == "chats" else 3)


@pytest.mark.parametrize("name", CONTAINERS)
def test_bytes_that_are_no_text_stop_a_strict_reading(tmp_path, name):
    _, byte, unit = CONTAINERS[name]
    path = write(tmp_path, name)
    place = {"table.csv": 3}.get(name, 2)
    with pytest.raises(DataError) as error:
        read(path, invalid="strict")
    assert str(error.value).startswith(f"{path}, {unit} {place}: byte {byte} of the {unit} (0xff) is not utf-8; ")


@pytest.mark.parametrize("name", CONTAINERS)
def test_bytes_that_are_no_text_can_be_replaced(tmp_path, name):
    rows = [row for _, row in read(write(tmp_path, name), invalid="replace")]
    assert not any(isinstance(row, BadRow) for row in rows)
    assert "abc\ufffd" in json.dumps(rows, ensure_ascii=False)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv", "rows.txt"])
def test_old_korean_files_are_read_by_the_name_of_their_encoding(tmp_path, name):
    path = tmp_path / name
    texts = {"rows.jsonl": '{"text": "똠방각하"}\n', "rows.json": '[{"text": "똠방각하"}]', "rows.txt": "똠방각하\r\n"}
    path.write_bytes(texts.get(name, 'text\r\n"똠방각하"\r\n').encode("cp949"))
    key = "line" if name == "rows.txt" else "text"
    assert [row for _, row in read(path, encoding="cp949")] == [{key: "똠방각하"}]


@pytest.mark.parametrize("name", ["utf-7", "cp037", "base64", "rot13", "no-such-thing", "punycode"])
def test_encodings_that_hide_line_breaks_are_refused(name):
    with pytest.raises(ValidationError, match=r"convert the file to UTF-8|not a text encoding that Python knows"):
        Decoding(encoding=name)


@pytest.mark.parametrize("name", ["UTF8", "utf_8", "utf-8-sig"])
def test_all_names_of_utf8_are_one(name):
    assert Decoding(encoding=name) == Decoding()
