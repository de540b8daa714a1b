"""Columns of the data that no format reads: kept with their rows, from file to the token cache and back."""

import json
import re
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rayrlhf.data.ingest.account import DataError
from rayrlhf.data.tokens import prepare as module
from rayrlhf.data.tokens.columns import ColumnNames, Columns, ColumnsWriter, map_columns
from rayrlhf.data.tokens.prepare import DataConfig, Prepared, prepare
from rayrlhf.data.tokens.tokenise import PromptLimit

PLAIN = {"kind": "custom", "text": "{prompt}"}
LIMIT = PromptLimit(max_prompt_tokens=64)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=3), values, max_size=3),
    max_leaves=6,
)


class PromptData(DataConfig):
    columns: ColumnNames = ()


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RAYRLHF_CACHE", str(tmp_path / "cache"))


def write(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def problems(count: int) -> list[dict]:
    return [{"question": f"질문 {i}", "answer": f"답 {i}", "place": i, "tags": [f"t{i}", None]} for i in range(count)]


def config_of(*sources, **settings) -> PromptData:
    return PromptData(train=list(sources), **({"template": PLAIN, "columns": ["place", "tags"]} | settings))


def prepared_rows(prepared: Prepared, tokenizer) -> list[tuple[str, dict]]:
    """(prompt, its columns) of every row, held-out ones last."""
    rows = []
    for (data,), columns in (
        (prepared.train, prepared.train_columns),
        (prepared.heldout, prepared.heldout_columns),
    ):
        assert len(columns) == len(data)
        prompts = [tokenizer.decode(data.row(i)[:n]) for i, n in enumerate(data.prompt_lengths)]
        rows += [(prompt, columns.row(i)) for i, prompt in enumerate(prompts)]
    return rows


@pytest.mark.parametrize("kind", ["prompts", "answers"])
def test_each_prompt_keeps_its_own_values_through_cleaning_splits_and_weights(tmp_path, tokenizer, kind):
    rows = [*problems(40), {"question": "\u200b", "answer": "x", "place": -1}, problems(3)[2]]
    rows.insert(7, {"question": "질문 없음", "answer": "답"})
    rows.insert(9, {"question": "질문 " * 200, "answer": "답", "place": -2})
    source = {"path": write(tmp_path / "a.jsonl", rows), "weight": 2}
    prepared = prepare(config_of(source, heldout_share=0.3), kind, tokenizer, LIMIT, 0)
    found = prepared_rows(prepared, tokenizer)
    assert len(prepared.train[0]) + 2 * len(prepared.heldout[0]) == 2 * 41
    assert len(prepared.heldout[0]) > 5
    for prompt, columns in found:
        if prompt == "질문 없음":
            assert columns == {"place": None, "tags": None}
        else:
            assert (prompt, columns["tags"]) == (f"질문 {columns['place']}", [f"t{columns['place']}", None])
    assert {columns["place"] for _, columns in found} == {None, *range(40)}


def test_the_cache_gives_the_same_columns_and_other_columns_are_another_entry(tmp_path, tokenizer, monkeypatch):
    path = write(tmp_path / "a.jsonl", problems(20))
    first = prepare(config_of(path), "prompts", tokenizer, LIMIT, 0)
    reads = []
    original = module.read_records
    monkeypatch.setattr(module, "read_records", lambda *given: reads.append(given) or original(*given))
    second = prepare(config_of(path), "prompts", tokenizer, LIMIT, 0)
    assert not reads
    assert prepared_rows(first, tokenizer) == prepared_rows(second, tokenizer)
    tags = prepare(config_of(path, columns=["tags"]), "prompts", tokenizer, LIMIT, 0)
    assert reads
    assert set(prepared_rows(tags, tokenizer)[0][1]) == {"tags"}
    without = prepare(config_of(path, columns=[]), "prompts", tokenizer, LIMIT, 0)
    assert without.train_columns is without.heldout_columns is None


@given(st.lists(st.tuples(JSON, JSON), max_size=8), st.integers(0, 8))
def test_any_json_comes_back_as_it_was(tmp_path_factory, rows, cut):
    folder = tmp_path_factory.mktemp("columns")
    writer = ColumnsWriter(folder, "train")
    for part in (rows[:cut], rows[cut:]):
        writer.append([json.dumps(row) for row in part])
    writer.close()
    mapped = map_columns(folder, "train", ["a", "b"])
    in_memory = Columns.of(["a", "b"], rows)
    joined = Columns.concat([in_memory, mapped])
    assert len(mapped) == len(in_memory) == len(rows)
    for index, (a, b) in enumerate(rows):
        assert mapped.row(index) == in_memory.row(index) == joined.row(len(rows) + index) == {"a": a, "b": b}


def test_columns_are_mapped_files_and_no_python_objects(tmp_path):
    writer = ColumnsWriter(tmp_path, "train")
    writer.append(['["a"]'] * 1000)
    writer.close()
    columns = map_columns(tmp_path, "train", ["kind"])
    assert isinstance(columns.content.base, np.memmap)
    assert columns.offsets.nbytes == 8 * 1001


def test_a_source_may_give_a_column_another_name_and_look_inside(tmp_path, tokenizer):
    rows = [{"prompt": f"질문 {i}", "meta": {"place": i} if i else {}, "category": "art"} for i in range(5)]
    source = {
        "path": write(tmp_path / "a.jsonl", rows),
        "columns": {"my_prompt": "prompt", "place": "meta.place", "label": "category"},
    }
    names = ["my_prompt", "place", "label", "meta.place"]
    prepared = prepare(config_of(source, columns=names, heldout_share=0), "prompts", tokenizer, LIMIT, 0)
    assert prepared_rows(prepared, tokenizer) == [
        (f"질문 {i}", {"my_prompt": f"질문 {i}", "place": i or None, "label": "art", "meta.place": i or None})
        for i in range(5)
    ]


def test_sources_may_lack_a_column_that_others_have(tmp_path, tokenizer):
    sources = write(tmp_path / "a.jsonl", problems(3)), write(tmp_path / "b.jsonl", [{"prompt": "b"}])
    prepared = prepare(config_of(*sources, heldout_share=0), "prompts", tokenizer, LIMIT, 0)
    assert [columns["place"] for _, columns in prepared_rows(prepared, tokenizer)] == [0, 1, 2, None]


def test_a_column_that_no_row_has_is_an_error_that_says_what_is_there(tmp_path, tokenizer):
    path = write(tmp_path / "a.jsonl", problems(3))
    with pytest.raises(DataError, match=r"data\.columns: no row of .*a\.jsonl has 'plaice'; a row has question, ans"):
        prepare(config_of(path, columns=["place", "plaice"]), "prompts", tokenizer, LIMIT, 0)


def test_a_column_of_nulls_is_there(tmp_path, tokenizer):
    rows = [{"prompt": f"q{i}", "place": None} for i in range(3)]
    config = config_of(write(tmp_path / "a.jsonl", rows), columns=["place"], heldout_share=0)
    assert {c["place"] for _, c in prepared_rows(prepare(config, "prompts", tokenizer, LIMIT, 0), tokenizer)} == {None}


def test_cells_of_a_csv_are_text(tmp_path, tokenizer):
    (tmp_path / "a.csv").write_text("prompt,place,tags\na,1,[2]\nb,,x\n")
    config = config_of(str(tmp_path / "a.csv"), heldout_share=0)
    prepared = prepare(config, "prompts", tokenizer, LIMIT, 0)
    assert [columns["place"] for _, columns in prepared_rows(prepared, tokenizer)] == ["1", ""]


def test_a_value_that_json_cannot_hold_rejects_the_row_with_the_reason(tmp_path, tokenizer):
    table = pyarrow.table({"prompt": ["a", "b"], "place": pyarrow.array([0, 1], pyarrow.timestamp("s"))})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"wrong type") as error:
        prepare(config_of(str(tmp_path / "a.parquet"), columns=["place"]), "prompts", tokenizer, LIMIT, 0)
    assert re.search(r"datetime", str(error.value))


def test_a_column_is_named_once():
    with pytest.raises(ValidationError, match="'a' is there 2 times: name it once"):
        config_of("x.jsonl", columns=["a", "b", "a"])
