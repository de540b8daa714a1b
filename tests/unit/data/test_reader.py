"""Data files: what is read, what is left out and counted, and what each bad file is told."""

import json

import pytest

from rayrlhf.data.reader import DataError, Tally, read_answers, read_preferences, read_prompts, read_rows
from rayrlhf.data.records import Answer, Message, Preference, PromptText

ROWS = [{"prompt": "안녕하세요?", "completion": "반갑습니다."}, {"prompt": "Hello?", "completion": "Hi."}]
ANSWERS = [Answer(PromptText.of(row["prompt"]), row["completion"]) for row in ROWS]


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


# shapes of files


def test_json_lines_and_a_json_array_in_a_jsonl_file_read_alike(file):
    assert read_answers([file(ROWS)], Tally()) == ANSWERS
    assert read_answers([file(json.dumps(ROWS, indent=2))], Tally()) == ANSWERS
    assert read_answers([file("\n  " + json.dumps(ROWS), "rows.json")], Tally()) == ANSWERS


@pytest.mark.parametrize("as_array", [True, False])
def test_a_byte_order_mark_is_not_part_of_the_data(file, as_array):
    text = json.dumps(ROWS) if as_array else "\n".join(map(json.dumps, ROWS))
    assert read_answers([file(b"\xef\xbb\xbf" + text.encode())], Tally()) == ANSWERS


def test_blank_lines_and_windows_line_ends_are_no_rows(file):
    text = "\r\n\r\n".join(map(json.dumps, ROWS)) + "\r\n \r\n"
    assert read_answers([file(text)], Tally()) == ANSWERS


def test_line_separators_inside_strings_do_not_end_a_row(file):
    row = {"prompt": "one\u2028two\x85three", "completion": "yes"}
    (answer,) = read_answers([file([row])], Tally())
    assert answer.prompt == PromptText.of(row["prompt"])


# schemas


@pytest.mark.parametrize(
    ("row", "answer"),
    [
        ({"prompt": "a", "completion": "b", "tokens": 3}, Answer(PromptText.of("a"), "b")),
        ({"instruction": "a", "output": "b", "url": None}, Answer(PromptText.of("a"), "b")),
        ({"id": 1, "instruction": "a", "input": None, "output": "b"}, Answer(PromptText.of("a"), "b")),
        ({"instruction": "a", "input": "", "output": "b"}, Answer(PromptText.of("a"), "b")),
        ({"instruction": "a", "input": "c", "output": "b"}, Answer(PromptText.of("a", "c"), "b")),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, Answer(PromptText.of("a"), "b")),
        (
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
            Answer(PromptText.of("a"), "b"),
        ),
    ],
)
def test_every_schema_with_an_answer_is_recognised_by_its_keys(file, row, answer):
    assert read_answers([file([row])], Tally()) == [answer]


@pytest.mark.parametrize(
    "row", [{"prompt": "a"}, {"id3": 7, "prompt": "a"}, {"messages": [{"role": "user", "content": "a"}]}]
)
def test_every_schema_gives_prompts(file, row):
    assert read_prompts([file([row])], Tally()) == [PromptText.of("a")]


def test_a_chat_is_a_prompt_up_to_its_last_assistant_turn(file):
    roles = ["system", "user", "assistant", "user", "assistant"]
    messages = [{"role": role, "content": str(index)} for index, role in enumerate(roles)]
    (answer,) = read_answers([file([{"messages": messages}])], Tally())
    assert answer.text == "4"
    assert answer.prompt.messages == tuple(Message(m["role"], m["content"]) for m in messages[:-1])


def test_preferences_lose_the_end_marker_and_nothing_else(file):
    row = {"id": 1, "prompt": "p", "chosen": " 좋아요<|endoftext|>", "rejected": "end<|endoftext|> "}
    assert read_preferences([file([row])], Tally()) == [Preference(PromptText.of("p"), " 좋아요", "end<|endoftext|> ")]


# rows left out


def test_empty_prompts_and_answers_are_left_out_and_counted(file):
    rows = [
        *ROWS,
        {"prompt": " \n", "completion": "x"},
        {"prompt": "x", "completion": ""},
        {"prompt": "x", "completion": "\u200b\u200d \ufeff"},
        {"prompt": "x", "completion": "<|endoftext|>"},
    ]
    tally = Tally()
    assert read_answers([file(rows)], tally) == ANSWERS
    assert (tally.rows, tally.kept, tally.dropped) == (6, 2, {"empty prompt": 1, "empty answer": 3})
    assert str(tally) == "2 of 6 rows (left out: 3 empty answer, 1 empty prompt)"


def test_equal_and_empty_sides_of_a_pair_are_left_out_and_counted(file):
    rows = [
        {"prompt": "p", "chosen": "good", "rejected": "bad"},
        {"prompt": "p", "chosen": "same", "rejected": "same<|endoftext|>"},
        {"prompt": "p", "chosen": "good", "rejected": " "},
        {"prompt": "", "chosen": "good", "rejected": "bad"},
    ]
    tally = Tally()
    assert len(read_preferences([file(rows)], tally)) == 1
    assert tally.dropped == {"chosen equals rejected": 1, "empty answer": 1, "empty prompt": 1}


def test_prompts_repeated_in_any_of_the_files_are_left_out_and_counted(file):
    tally = Tally()
    files = [
        file([{"prompt": "a"}, {"prompt": "b"}, {"prompt": "a"}], "1"),
        file([{"prompt": "b"}, {"prompt": ""}], "2"),
    ]
    assert read_prompts(files, tally) == [PromptText.of("a"), PromptText.of("b")]
    assert (tally.rows, tally.dropped) == (5, {"repeated prompt": 2, "empty prompt": 1})


def test_equal_instructions_on_different_inputs_are_different_prompts(file):
    rows = [{"instruction": "요약해줘", "input": text, "output": "네"} for text in ("하나", "둘", "하나")]
    assert len(read_prompts([file(rows)], Tally())) == 2


def test_a_file_without_a_usable_row_is_an_error_that_counts_why(file):
    with pytest.raises(DataError, match=r"no usable row is left: 0 of 1 rows \(left out: 1 empty prompt\)"):
        read_prompts([file([{"prompt": ""}])], Tally())


# bad files


def message_of(path) -> str:
    with pytest.raises(DataError) as error:
        list(read_rows(path))
    return str(error.value)


def test_a_missing_file_is_named(tmp_path):
    assert message_of(tmp_path / "none.jsonl") == f"{tmp_path}/none.jsonl: no such file"


def test_a_folder_is_no_data_file(tmp_path):
    assert "cannot read it" in message_of(tmp_path)


@pytest.mark.parametrize("content", ["", "\n \n", "[]", b"\xef\xbb\xbf"])
def test_an_empty_file_is_named(file, content):
    path = file(content)
    assert message_of(path) == f"{path}: the file is empty"


def test_an_unknown_schema_names_file_line_found_and_known_fields(file):
    path = file('\n{"question": "a", "reply": "b"}\n')
    message = message_of(path)
    assert message.startswith(f"{path}, line 2: no known schema has the fields question, reply; known schemas: ")
    assert "prompt_completion: completion, prompt" in message
    assert "preference_pair: chosen, prompt, rejected" in message


def test_a_row_that_is_no_object_is_shown(file):
    assert "line 1: expected an object with named fields, found 'just text'" in message_of(file('"just text"\n'))
    assert "row 1: expected an object with named fields, found 3" in message_of(file("[3]"))


def test_invalid_json_names_its_line(file):
    path = file('{"prompt": "a"}\n\n{"prompt": "b",}\n')
    assert message_of(path).startswith(f"{path}, line 3: not valid JSON: ")


def test_invalid_json_in_an_array_names_its_line(file):
    path = file('[\n{"prompt": "a"},\n{"prompt": }\n]')
    assert message_of(path).startswith(f"{path}, line 3: not valid JSON: ")


def test_a_file_that_is_not_utf8_names_the_byte(file):
    path = file(b'{"prompt": "' + "안녕".encode("euc-kr") + b'"}')
    assert message_of(path) == f"{path}: byte 12 is not UTF-8; convert the file to UTF-8"


def test_a_value_of_the_wrong_type_names_row_field_and_value(file):
    path = file([{"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": 7}])
    message = message_of(path)
    assert message.startswith(f"{path}, line 2: completion: ")
    assert "(found 7)" in message
    assert "read as 'prompt_completion' because of its first row" in message


def test_a_row_of_another_schema_than_the_first_is_an_error_that_says_so(file):
    message = message_of(file([{"prompt": "a", "completion": "b"}, {"instruction": "a", "output": "b"}]))
    assert "line 2: prompt: Field required" in message


def test_a_chat_role_nobody_knows_is_named_with_its_place(file):
    message = message_of(file([{"messages": [{"role": "bot", "content": "a"}]}]))
    assert "line 1: messages.0.role: " in message
    assert "(found 'bot')" in message


def test_prompts_where_answers_are_needed_are_an_error_that_names_the_schema(file):
    path = file([{"prompt": "a"}])
    with pytest.raises(DataError, match="'prompt_only' rows have not an answer to learn"):
        read_answers([path], Tally())
    with pytest.raises(DataError, match="'prompt_completion' rows have not a chosen and a rejected answer"):
        read_preferences([file(ROWS)], Tally())


def test_half_a_character_is_refused_with_its_place(file):
    path = file('{"prompt": "fine"}\n{"prompt": "cut \\ud83d"}\n')
    with pytest.raises(DataError, match=r"line 2.*half of a character"):
        list(read_rows(path))
