"""Compressed files, UTF-16, tables of other layouts, and messages that say what a file is."""

import bz2
import gzip
import json
import lzma

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rayrlhf.data.files import BadRow, Decoding, Table, open_chunks
from rayrlhf.data.files import json_array as arrays
from rayrlhf.data.ingest.account import DataError

ROWS = [{"line": "a, b"}, {"line": "안녕 하세요"}, {"line": "𝄞"}]
TEXTS = {
    "rows.jsonl": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS),
    "rows.json": json.dumps(ROWS, ensure_ascii=False, indent=1),
    "rows.csv": 'line\r\n"a, b"\r\n안녕 하세요\r\n𝄞\r\n',
    "rows.txt": "a, b\n안녕 하세요\n𝄞\n",
}
PACK = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": lambda data: pa.compress(data, "zstd", True),
}


def read(path, table=Table(), **decoding):  # noqa: B008
    chunks = list(open_chunks(path, Decoding(**decoding), table))
    assert sum(chunk.num_bytes for chunk in chunks) <= path.stat().st_size + 1
    return [value for chunk in chunks for value in chunk.values]


def message(path, table=Table(), **decoding):  # noqa: B008
    with pytest.raises(DataError) as error:
        read(path, table, **decoding)
    assert str(error.value).startswith(f"{path}")
    return str(error.value)


# compressed


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("suffix", PACK)
def test_a_compressed_file_is_read_as_what_is_in_it(tmp_path, name, suffix):
    path = tmp_path / f"{name}.{suffix}"
    path.write_bytes(PACK[suffix](TEXTS[name].encode()))
    assert read(path) == ROWS
    if name != "rows.txt":  # the content says it, whatever the name
        path = path.rename(tmp_path / "rows.csv")
        assert read(path) == ROWS


@pytest.mark.parametrize("suffix", PACK)
def test_a_file_of_several_compressed_parts_is_read_to_its_end(tmp_path, suffix):
    path = tmp_path / f"rows.jsonl.{suffix}"
    path.write_bytes(b"".join(PACK[suffix](line.encode()) for line in TEXTS["rows.jsonl"].splitlines(keepends=True)))
    assert read(path) == ROWS


@pytest.mark.parametrize("suffix", PACK)
def test_a_damaged_or_cut_compressed_file_is_said_to_be_so(tmp_path, suffix):
    path = tmp_path / f"rows.jsonl.{suffix}"
    rows = "".join(json.dumps({"text": f"{i * 7919 % 10007}"}) + "\n" for i in range(100_000))
    whole = PACK[suffix](rows.encode())
    for content in (whole[: len(whole) // 2], whole[:5000] + bytes(200) + whole[5200:]):
        path.write_bytes(content)
        assert "cannot unpack it, it is damaged or not complete: " in message(path)


@pytest.mark.parametrize("suffix", PACK)
def test_what_was_packed_twice_or_holds_nothing_is_said_to_be_so(tmp_path, suffix):
    path = tmp_path / f"rows.jsonl.{suffix}"
    path.write_bytes(PACK[suffix](PACK[suffix](TEXTS["rows.jsonl"].encode())))
    assert "unpack it once" in message(path)
    path.write_bytes(PACK[suffix](b""))
    assert message(path) == f"{path}: the file is empty"


def test_frames_that_zstd_skips_are_skipped(tmp_path):
    path = tmp_path / "rows.jsonl.zst"
    frame = b"\x50\x2a\x4d\x18" + len(b"note").to_bytes(4, "little") + b"note"
    path.write_bytes(frame + PACK["zst"](TEXTS["rows.jsonl"].encode()))
    assert read(path) == ROWS


def test_parquet_inside_gzip_has_to_be_unpacked(tmp_path):
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "rows.parquet")
    path = tmp_path / "rows.parquet.gz"
    path.write_bytes(gzip.compress((tmp_path / "rows.parquet").read_bytes()))
    assert message(path) == f"{path}: a Parquet file inside gzip: unpack it"


# UTF-16


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_utf_16_is_read_with_a_byte_order_mark_or_by_its_name(tmp_path, name, encoding):
    path = tmp_path / name
    path.write_bytes(TEXTS[name].encode(encoding))
    assert read(path, encoding=encoding) == ROWS
    mark = "\ufeff" if encoding.endswith(("le", "be")) else ""  # the others write one themselves
    path.write_bytes((mark + TEXTS[name]).encode(encoding))
    assert read(path) == ROWS


def test_utf_16_without_a_mark_or_a_name_says_how_to_name_it(tmp_path):
    path = tmp_path / "rows.jsonl"
    for text in ('{"a": 1}\n', "질문 하나\n대답 둘\n"):
        for encoding in ("utf-16-le", "utf-16-be"):
            path.write_bytes(text.encode(encoding))
            assert "name its encoding (decoding.encoding=utf-16-le or utf-16-be)" in message(path)


def test_a_zero_in_a_text_does_not_make_it_utf_16(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("text\na\0b\n")
    assert read(path) == [{"text": "a\0b"}]


def test_what_is_no_utf_16_costs_its_row_only(tmp_path):
    path = tmp_path / "rows.jsonl"
    lines = [b'{"text": "a"}\n', b'{"text": "', b'"}\n', b'{"text": "b"}\n']
    a, before, after, b = (line.decode().encode("utf-16-le") for line in lines)
    path.write_bytes(b"\xff\xfe" + a + before + b"\x00\xd8" + after + b + b"\n")
    first, bad, second, last = read(path)
    assert (first, second) == ({"text": "a"}, {"text": "b"})
    assert (bad.reason, last.reason) == ("invalid UTF-8", "invalid UTF-8")  # half a pair, half a character
    assert read(path, invalid="replace")[1]["text"].strip("\ufffd") == ""


# tables


@pytest.mark.parametrize(
    ("text", "settings", "rows"),
    [
        ("q;a\nx, y;z\n", {}, [{"q": "x, y", "a": "z"}]),
        ('"q;1";a\n1;2\n', {}, [{"q;1": "1", "a": "2"}]),
        ("q|a\nx;y,z|1\n", {"delimiter": "|"}, [{"q": "x;y,z", "a": "1"}]),
        ("q a\n1 2\n", {"delimiter": "space"}, [{"q": "1", "a": "2"}]),
        ("1,2\n3,4\n", {"header": False}, [{"1": "1", "2": "2"}, {"1": "3", "2": "4"}]),
        ("1;2\n3;4\n", {"header": ["q", "a"]}, [{"q": "1", "a": "2"}, {"q": "3", "a": "4"}]),
        ('{"a": 1};[2]\n', {"header": False, "delimiter": "semicolon"}, [{"1": '{"a": 1}', "2": "[2]"}]),
    ],
)
def test_tables_of_other_layouts_are_read(tmp_path, text, settings, rows):
    path = tmp_path / "rows.csv"
    path.write_text(text.replace('{"a": 1}', '"{""a"": 1}"') if "{" in text else text)
    assert read(path, Table(**settings)) == rows


def test_rows_that_do_not_have_the_named_columns_are_malformed(tmp_path):
    path = tmp_path / "rows.txt"
    path.write_text("1,2,3\n1,2\n")
    bad, good = read(path, Table(header=["a", "b"]))
    assert (bad.reason, good) == ("malformed row", {"a": "1", "b": "2"})


@pytest.mark.parametrize(
    "settings", [{"delimiter": ""}, {"delimiter": ";;"}, {"delimiter": '"'}, {"header": ["a", "a"]}]
)
def test_a_layout_that_cannot_be_is_refused(settings):
    with pytest.raises(ValidationError):
        Table(**settings)


# messages


@pytest.mark.parametrize("indent", [1, 4])
@pytest.mark.parametrize("end", ["", "\n"])
@pytest.mark.parametrize("count", [1, 3, 20_000])
@pytest.mark.parametrize("cut", [0, 3])
def test_pretty_printed_json_is_named_as_such_and_not_as_truncated(tmp_path, indent, end, count, cut):
    path = tmp_path / "rows.jsonl"
    text = (json.dumps({"prompt": "a", "list": [{"x": 1}]}, indent=indent) + "\n") * count
    path.write_text(text[: len(text) - 1 - cut] + end)
    assert "go on over several lines (pretty-printed): write one object per line" in message(path)


@given(st.lists(st.sampled_from(['{"a": 1}', '{"a": "b', '{"a": 1', "{", '{"a": tr', "[1]", ""]), min_size=1))
def test_rows_of_one_line_are_never_taken_for_pretty_printed(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_text("\n".join(['{"first": 1}', *lines]))
    assert read(path)[0] == {"first": 1}


def test_a_table_of_a_header_only_is_named_as_such(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("prompt,completion\n")
    assert message(path) == f"{path}: a header (prompt, completion) and no rows"
    for header in ("a" * 100_000, ",".join(map(str, range(100_000))), f"{'a' * 100_000},{'a' * 100_000}"):
        path.write_text(f"{header}\n")
        assert len(message(path)) < 1000


def test_a_pointer_to_a_large_file_is_named_as_such(tmp_path):
    path = tmp_path / "rows.parquet"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1234\nsize 12\n")
    assert "a pointer of Git LFS, not the data" in message(path)


@pytest.mark.parametrize("start", ["<!DOCTYPE html>\n<html>", "\n<HTML lang='en'>", "<!doctype HTML>"])
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv", "rows.txt", "rows"])
def test_a_web_page_is_named_as_such_whatever_its_name(tmp_path, name, start):
    path = tmp_path / name
    path.write_text(f"{start}<body>404, not found</body></html>\n")
    assert "a web page, not the data" in message(path)


KOREAN = "오늘 날씨는 어때요"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rows.jsonl", f'{{"prompt": "{KOREAN}"}}\n'),
        ("rows.json", f'[{{"prompt": "{KOREAN}"}}]'),
        ("rows.csv", f"prompt,completion\n{KOREAN},1\n"),
        ("rows.txt", f"{KOREAN}\n"),
    ],
)
def test_korean_text_of_another_encoding_is_named_as_such(tmp_path, name, text):
    path = tmp_path / name
    path.write_bytes(text.encode("cp949"))
    (bad,) = read(path)
    assert isinstance(bad, BadRow)
    assert f"as cp949 it reads {KOREAN[:2]}" in bad.detail.replace("'", "")
    assert "set decoding.encoding=cp949" in bad.detail
    assert "set decoding.encoding=cp949" in message(path, invalid="strict")


def test_a_korean_header_of_another_encoding_is_named_as_such(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes("질문이다,대답이다\n1,2\n".encode("cp949"))
    assert "set decoding.encoding=cp949" in message(path)


# large rows


def test_a_row_over_many_pieces_is_tried_a_few_times_only(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "CHUNK_BYTES", 1 << 10)
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"text": "a" * (1 << 20)}, {"text": "b"}]))
    tried = 0
    decode = json.JSONDecoder.raw_decode

    def counted(self, text, at=0):
        nonlocal tried
        tried += len(text) - at
        return decode(self, text, at)

    monkeypatch.setattr(json.JSONDecoder, "raw_decode", counted)
    assert [len(row["text"]) for row in read(path)] == [1 << 20, 1]
    assert tried < 4 * (1 << 20)
