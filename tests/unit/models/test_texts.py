"""All text of files of any kind, for tokenizers."""

import pytest

from rayrlhf.data.ingest.account import DataError
from rayrlhf.models.texts import read_texts


def texts_of(tmp_path, name: str, content: str) -> list[str]:
    (tmp_path / name).write_text(content, encoding="utf-8")
    return list(read_texts([tmp_path / name]))


@pytest.mark.parametrize(
    ("name", "content", "texts"),
    [
        ("a.txt", "하나\n둘\u2028셋\n", ["하나", "둘\u2028셋"]),
        ("b.json", '[{"x": "셋", "y": [{"z": "넷"}, 5, null]}]', ["셋", "넷"]),
        ("c.jsonl", '\ufeff{"x": "다섯"}\n\n{"x": "여섯\u2028일곱"}\n', ["다섯", "여섯\u2028일곱"]),
        ("d.csv", 'x,y\n"여덟, 아홉",열\n', ["여덟, 아홉", "열"]),
        ("e.jsonl", '{"x": "하나"}\n{"x": "둘\n{"x": "셋"}\n', ["하나", "셋"]),
    ],
)
def test_every_string_of_every_good_row_is_read(name, content, texts, tmp_path):
    assert texts_of(tmp_path, name, content) == texts


@pytest.mark.parametrize(
    ("content", "problem"), [('{"x": 5}\n', r"the file holds no text$"), ('{"x": "cut\n', r"line 1: truncated JSON")]
)
def test_a_file_without_text_is_refused_with_its_first_bad_row(content, problem, tmp_path):
    with pytest.raises(DataError, match=problem):
        texts_of(tmp_path, "a.jsonl", content)
