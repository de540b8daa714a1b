"""Files as records: recognised by content, and every row accounted for."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from rayrlhf.data.account import Account, DataError
from rayrlhf.data.formats import FORMATS
from rayrlhf.data.reader import default_kind, read_records, recognise
from rayrlhf.data.records import Answer, Message, PromptText
from rayrlhf.data.sources import Source

SOURCE = TypeAdapter(Source)
ROWS = [{"prompt": "안녕하세요?", "completion": "반갑습니다."}, {"prompt": "Hello?", "completion": "Hi."}]
TURNS = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
HH = "\n\nHuman: a\n\nAssistant: {}"
EXAMPLES = {
    "vaiv_scores": {"prompt": "a", "response1": "b", "scores1": [5], "sum1": 25.0, "response2": "c", "sum2": 20.0},
    "kochatgpt_ranking": {"prompt": "a", "completion_0": "c", "completion_1": "b", "ranking": [1, 0]},
    "ranking": {"prompt": "a", "completions": ["b", "c"], "ranking": [1, 2]},
    "raccoon_choice_a": {"article": "a", "abstract": [{"text": "c"}, {"text": "b"}], "choice": 1},
    "raccoon_choice_b": {"original_text": "a", "summarize_0": "b", "summarize_1": "c", "choice": 0},
    "raccoon_choice_c": {"original_text": "a", "good_summarize": "b", "bad_summarize": "c"},
    "feedback_comparison": {"info": {"post": "a"}, "summaries": [{"text": "b"}, {"text": "c"}], "choice": 0},
    "chat_pair": {"prompt": TURNS[:1], "chosen": TURNS[1:], "rejected": [{"role": "assistant", "content": "c"}]},
    "preference_pair": {"prompt": "a", "chosen": "b", "rejected": "c"},
    "hh_rlhf": {"chosen": HH.format("b"), "rejected": HH.format("c")},
    "feedback_axis": {"info": {"article": "a"}, "summary": {"text": "b"}},
    "kochatgpt_sft": {"prompt": "a", "completion": "b", "tokens": 1},
    "prompt_completion": {"prompt": "a", "completion": "b"},
    "self_instruct": {"instruction": "a", "instances": [{"input": "", "output": "b"}]},
    "instruction": {"instruction": "a", "input": None, "output": "b"},
    "chat": {"messages": TURNS},
    "raccoon_policy": {"original_text": "a", "sum_text": "b"},
    "songys": {"Q": "a", "A": "b", "label": "0"},
    "question_answer": {"question": "a", "answer": "b"},
    "prompt_only": {"id3": "x", "prompt": "a"},
    "raccoon_prompts": {"original_text": "a"},
}


@pytest.fixture
def file(tmp_path):
    """`file(content)` writes text, bytes, or JSON lines of a list, and gives the path."""

    def write(content, name="rows.jsonl"):
        path = tmp_path / name
        if isinstance(content, list):
            content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


def read(path, kind="answers", **settings):
    """(records, account) of one file, its books checked."""
    account = Account()
    records = []
    for record in read_records([SOURCE.validate_python({"path": path, **settings})], kind, account):
        account.keep(record)
        records.append(record)
    assert account.rows == account.kept + account.num_rejected
    return records, account


def texts(records):
    return [(record.prompt.messages[-1].content, *record.answers) for record in records]


@pytest.mark.parametrize("as_array", [True, False])
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf", b"\n  "])
def test_json_lines_and_arrays_are_told_apart_by_content(file, as_array, start):
    content = json.dumps(ROWS, indent=2) if as_array else "\r\n\r\n".join(map(json.dumps, ROWS))
    records, account = read(file(start + content.encode()))
    assert texts(records) == [tuple(row.values()) for row in ROWS]
    assert account.rows == 2


def test_line_separators_inside_strings_do_not_end_a_row(file):
    records, _ = read(file([{"prompt": "one\u2028two\x85three", "completion": "yes"}]))
    assert texts(records) == [("one\u2028two\x85three", "yes")]


def test_csv_and_parquet_read_like_json(file, tmp_path):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "t.parquet")
    table = 'prompt,completion\n"안녕하세요?",반갑습니다.\nHello?,Hi.\n'
    for path in (file(table, "t.csv"), file(b"\xef\xbb\xbf" + table.encode(), "t.any"), str(tmp_path / "t.parquet")):
        assert texts(read(path)[0]) == [tuple(row.values()) for row in ROWS]


def test_conversations_in_plain_text_give_one_or_all_answers(file):
    path = file("<<start conversation>>\n<사람>: a\n<챗봇>: b\nmore\n<사람>: c\n<챗봇>: d\n", "chat.jsonl")
    assert texts(read(path)[0]) == [("c", "d")]
    records, account = read(path, rules={"turns": "all"})
    assert texts(records) == [("a", "b\nmore"), ("c", "d")]
    assert (account.rows, account.kept, account.records) == (1, 1, 2)


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_format_is_recognised_among_all_others_and_gives_what_it_says(file, name):
    path = file([EXAMPLES[name]])
    source = SOURCE.validate_python(path)
    row_format = recognise(source)
    assert row_format.name == name
    assert default_kind(source) == row_format.gives[0]
    expected = {"prompts": [("a",)], "answers": [("a", "b")], "preferences": [("a", "b", "c")]}
    for kind, wanted in expected.items():
        if kind in row_format.gives:
            assert texts(read(path, kind)[0]) == wanted
        else:
            with pytest.raises(DataError, match="rows have not"):
                read(path, kind)


def test_every_format_has_an_example():
    assert {row_format.name for row_format in FORMATS} == {*EXAMPLES, "dialsummeval", "text_line"}


def test_columns_map_any_other_shape(file):
    path = file([{"title": "a", "body": {"text": "b"}}, {"title": "x"}])
    records, account = read(path, columns={"prompt": "title", "completion": "body.text"})
    assert texts(records) == [("a", "b")]
    assert account.rejected == {"missing column: body.text": 1}


def test_rated_systems_are_compared_within_their_dialogue(file):
    def row(dialogue, summary, marks):
        return {
            "id": dialogue,
            "dialogue": dialogue,
            "summary": summary,
            "annotations": [{"fluency": m} for m in marks],
        }

    path = file([row("x", "good", [5, 4]), row("x", "bad", [1, 2]), row("y", "u", [3]), row("y", "v", [3])])
    records, account = read(path, "preferences")
    assert texts(records) == [("x", "good", "bad")]
    assert (account.rows, account.kept, account.rejected) == (4, 2, {"tie": 2})


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ('{"prompt": "a", "completion": "b', "truncated JSON"),
        ('{"prompt": "a",, "completion": "b"}', "invalid JSON"),
        ('{"prompt": "cut \\ud83d", "completion": "b"}', "half of a character"),
        ('{"prompt": 3, "completion": "b"}', "wrong type: prompt"),
        ('{"prompt": "a"}', "missing column: completion"),
        ('{"instruction": "a", "output": "b"}', "another schema: instruction"),
        ('["a"]', "malformed row"),
    ],
)
def test_a_bad_row_is_rejected_with_its_reason_and_the_others_stay(file, row, reason):
    good = json.dumps(ROWS[0])
    records, account = read(file(f"{good}\n{row}\n{good}\n"))
    assert len(records) == 2
    assert account.rejected == {reason: 1}


def test_invalid_utf8_is_rejected_replaced_or_refused_by_a_setting(file):
    path = file(json.dumps(ROWS[0]).encode() + b'\n{"prompt": "\xff", "completion": "b"}\n')
    _, account = read(path)
    assert account.rejected == {"invalid UTF-8": 1}
    records, _ = read(path, decoding={"invalid": "replace"})
    assert texts(records)[1] == ("\ufffd", "b")
    with pytest.raises(DataError, match=r"line 2: byte 12 of the line \(0xff\)"):
        read(path, decoding={"invalid": "strict"})


def test_an_old_korean_file_is_read_by_its_encoding(file):
    path = file("안녕\n반가워요\n".encode("cp949"), "old.txt")
    records, _ = read(path, "prompts", decoding={"encoding": "cp949"})
    assert texts(records) == [("안녕",), ("반가워요",)]


@pytest.mark.parametrize(("choice", "reason"), [(2, "choice out of range"), (-1, "choice out of range")])
def test_a_choice_of_no_answer_is_rejected(file, choice, reason):
    rows = [EXAMPLES["raccoon_choice_b"], EXAMPLES["raccoon_choice_b"] | {"choice": choice}]
    _, account = read(file(rows), "preferences")
    assert account.rejected == {reason: 1}


def test_a_truncated_array_loses_its_last_row_only(file):
    records, account = read(file(json.dumps(ROWS)[:-10]))
    assert len(records) == 1
    assert account.rejected == {"truncated JSON": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file is empty"),
        (b"\xff\xfea", "UTF-16"),
        (b"\x1f\x8b", "gzip"),
        ('[{"prompt": "a"}\n{"prompt": "b"}]', "line 2: not valid JSON"),
        ('{"text_a": "a"}', "no known schema has the fields text_a"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_what_is_wrong(file, content, message):
    path = file(content)
    with pytest.raises(DataError, match=message) as error:
        read(path)
    assert str(path) in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read(str(tmp_path / "none.jsonl"))


def test_max_rows_stops_the_reading(file):
    records, account = read(file(ROWS * 5), max_rows=3)
    assert len(records) == account.rows == 3


def test_saved_hugging_face_data_sets_are_read(tmp_path):
    import datasets

    datasets.Dataset.from_list(ROWS).save_to_disk(str(tmp_path / "set"))
    account = Account()
    records = list(read_records([SOURCE.validate_python({"dataset": str(tmp_path / "set")})], "answers", account))
    assert texts(records) == [tuple(row.values()) for row in ROWS]


def test_a_chat_is_a_prompt_up_to_its_last_answer(file):
    roles = ["system", "user", "assistant", "user", "assistant"]
    messages = [{"role": role, "content": str(index)} for index, role in enumerate(roles)]
    ((answer,), _) = read(file([{"messages": messages}]))
    assert answer == Answer(PromptText(tuple(Message(m["role"], m["content"]) for m in messages[:-1])), "4")


@given(
    st.lists(st.sampled_from([json.dumps(ROWS[0]), "{", "", "3", '{"prompt": null, "completion": "x"}']), max_size=30)
)
def test_rows_in_are_rows_kept_and_rejected_whatever_the_file_holds(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("any") / "rows.jsonl"
    path.write_text("\n".join([json.dumps(ROWS[0]), *lines]), encoding="utf-8")
    records, account = read(str(path))
    assert account.rows == 1 + sum(bool(line) for line in lines)
    assert len(records) == 1 + lines.count(json.dumps(ROWS[0]))
