"""Reading: rows of any source as records in order, each bad row counted with its reason, each bad source explained."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from rayrlhf.data.ingest.account import Account, DataError
from rayrlhf.data.ingest.reader import default_kind, read_records, recognize
from rayrlhf.data.ingest.records import Answer, Origin, Preference, PromptText, Record
from rayrlhf.data.ingest.sources import Source

ROWS = [{"prompt": "안녕하세요?", "completion": "반갑습니다."}, {"prompt": "Hello?", "completion": "Hi."}]
ANSWERS = [Answer(PromptText.of(row["prompt"]), row["completion"]) for row in ROWS]
PAIR = {"prompt": "p", "chosen": "good", "rejected": "bad"}
GOOD = {"prompt": "a", "completion": "b"}


def source_of(**settings):
    return TypeAdapter(Source).validate_python(settings)


# shapes of files


def test_json_lines_and_a_json_array_in_a_jsonl_file_read_alike(file, read):
    assert read(file(ROWS)).records == ANSWERS
    assert read(file(json.dumps(ROWS, indent=2))).records == ANSWERS
    assert read(file("\n  " + json.dumps(ROWS), "rows.json")).records == ANSWERS


@pytest.mark.parametrize("as_array", [True, False])
def test_a_byte_order_mark_is_not_part_of_the_data(file, read, as_array):
    text = json.dumps(ROWS) if as_array else "\n".join(map(json.dumps, ROWS))
    assert read(file(b"\xef\xbb\xbf" + text.encode())).records == ANSWERS


def test_blank_lines_and_windows_line_ends_are_no_rows(file, read):
    done = read(file("\r\n\r\n".join(map(json.dumps, ROWS)) + "\r\n \r\n"))
    assert done.records == ANSWERS
    assert done.account.rows == 2
    assert [record.origin.place for record in done.records] == [1, 3]


def test_line_separators_inside_strings_do_not_end_a_row(file, read):
    row = {"prompt": "one\u2028two\x85three", "completion": "yes"}
    (answer,) = read(file([row])).records
    assert answer.prompt == PromptText.of(row["prompt"])


def test_a_source_named_twice_is_refused(file):
    source = source_of(path=file(ROWS))
    with pytest.raises(DataError, match=r"is named 2 times: name it once"):
        list(read_records([source, source], "answers", Account()))


def test_every_record_says_where_it_comes_from(file, read):
    path = file([{**PAIR, "id": "x7"}, {**PAIR, "id3": 9}, PAIR])
    origins = [record.origin for record in read(path, "preferences").records]
    assert origins == [Origin(path, 1, "line", "x7"), Origin(path, 2, "line", 9), Origin(path, 3, "line", None)]
    array = file(json.dumps([PAIR]), "array.json")
    assert str(read(array, "preferences").records[0].origin) == f"{array}, row 1"


# what is read for what


@pytest.mark.parametrize(
    ("row", "answer"),
    [
        ({"prompt": "a", "completion": "b", "tokens": 3}, Answer(PromptText.of("a"), "b")),
        ({"instruction": "a", "output": "b", "url": None}, Answer(PromptText.of("a"), "b")),
        ({"id": 1, "instruction": "a", "input": None, "output": "b"}, Answer(PromptText.of("a"), "b")),
        ({"instruction": "a", "input": "", "output": "b"}, Answer(PromptText.of("a"), "b")),
        ({"instruction": "a", "input": "c", "output": "b"}, Answer(PromptText.of("a", "c"), "b")),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, Answer(PromptText.of("a"), "b")),
    ],
)
def test_a_schema_with_an_answer_is_recognized_by_its_keys(file, read, row, answer):
    assert read(file([row])).records == [answer]


@pytest.mark.parametrize("row", [{"prompt": "a"}, {"id3": 7, "prompt": "a"}, {"line": "a"}, {"original_text": "a"}])
def test_schemas_without_answers_give_prompts(file, read, row):
    assert read(file([row]), "prompts").records == [Record(PromptText.of("a"))]


def test_prompts_where_answers_are_needed_are_an_error_that_names_the_schema(file, read):
    with pytest.raises(DataError, match="'prompt_only' rows have no answer to train on"):
        read(file([{"prompt": "a"}]), "answers")
    with pytest.raises(DataError, match="'prompt_completion' rows have no chosen/rejected pair"):
        read(file(ROWS), "preferences")


def test_the_default_kind_is_the_richest_that_the_schema_gives(file):
    assert default_kind(source_of(path=file([PAIR]))) == "preferences"
    assert default_kind(source_of(path=file([GOOD]))) == "answers"
    assert default_kind(source_of(path=file([{"prompt": "a"}]))) == "prompts"


def test_the_format_is_the_one_that_most_of_the_first_rows_have(file, read):
    rows = [{"prompt": "lonely"}, PAIR, "no object", PAIR]
    assert recognize(source_of(path=file(rows))).name == "preference_pair"
    done = read(file(rows), "preferences")
    assert done.reasons == [(1, "missing column: chosen"), (3, "malformed row")]
    assert done.account.kept == 2


# several sources


def test_sources_are_read_one_after_the_other_and_counted_apart(file, read):
    first, second = file(ROWS, "1.jsonl"), file("instruction,output\na,b\n", "2.csv")
    done = read([first, {"path": second}], "answers")
    assert done.records == [*ANSWERS, Answer(PromptText.of("a"), "b")]
    assert done.account.as_dict()["sources"] == {
        first: {"rows": 2, "records": 2},
        second: {"rows": 1, "records": 1},
    }


def test_max_rows_stops_before_anything_behind_it_is_looked_at(file, read, monkeypatch):
    monkeypatch.setattr("rayrlhf.data.files.json_array.CHUNK_BYTES", 16)
    path = file("[" + ",\n".join([json.dumps(GOOD)] * 3) + ",\nno json")
    done = read(path, max_rows=3)
    assert done.account.rows == done.account.kept == 3
    with pytest.raises(DataError, match="line 4: not valid JSON"):
        read(path, max_rows=4)


@given(st.integers(1, 30), st.integers(1, 40), st.integers(1, 200))
def test_max_rows_keeps_the_first_rows_however_the_file_is_cut(tmp_path_factory, read, num_rows, max_rows, chunk_bytes):
    path = tmp_path_factory.mktemp("cut") / "rows.jsonl"
    path.write_text("".join(f'{{"prompt": "{row}"}}\n' for row in range(num_rows)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rayrlhf.data.files.json_lines.CHUNK_BYTES", chunk_bytes)
        done = read(path, "prompts", max_rows=max_rows)
    assert [record.prompt.text for record in done.records] == [str(row) for row in range(min(num_rows, max_rows))]
    assert done.account.rows == len(done.records)


# bad rows


def test_bad_rows_are_counted_with_their_reasons_and_the_others_stay(file, read):
    lines = [
        GOOD,
        {"prompt": "a", "completion": 7},
        {"prompt": "a"},
        {"prompt": "a", "completion": None},
        ["a", "b"],
        "just text",
        {"instruction": "a", "output": "b"},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    done = read(file(text + '{"prompt": "a", "comp\n{"prompt": "a",}\n' + json.dumps(GOOD)))
    assert done.reasons == [
        (2, "wrong type: completion"),
        (3, "missing column: completion"),
        (4, "wrong type: completion"),
        (5, "malformed row"),
        (6, "malformed row"),
        (7, "another schema: instruction"),
        (8, "truncated JSON"),
        (9, "invalid JSON"),
    ]
    assert (done.account.rows, done.account.kept) == (10, 2)


def test_a_value_of_the_wrong_type_is_told_with_field_and_value(file, read):
    ((place, reason, detail, row),) = read(file([GOOD, {"prompt": "a", "completion": 7}])).rejected
    assert (place, reason, row) == (2, "wrong type: completion", {"prompt": "a", "completion": 7})
    assert detail == "completion: Input should be a valid string (found 7)"


def test_a_huge_value_is_told_in_a_line(file, read):
    ((_, _, detail, _),) = read(file([GOOD, {"prompt": ["x" * 10**6] * 9, "completion": "b"}])).rejected
    assert len(detail) < 120


def test_a_row_of_a_thousand_columns_is_told_in_a_line(file, read):
    wide = {f"column{index}": "x" * 10 for index in range(1000)}
    ((_, reason, detail, _),) = read(file([GOOD, wide])).rejected
    assert reason == "missing column: completion"
    assert detail.endswith("column19 and 980 more")


@pytest.mark.parametrize("as_array", [True, False])
def test_half_a_character_is_rejected_with_its_place(file, read, as_array):
    rows = ['{"prompt": "fine \\ud83d\\ude00"}', '{"prompt": "cut \\ud83d"}', '{"prompt": "\\ude00 cut"}']
    done = read(file("[" + ",".join(rows) + "]" if as_array else "\n".join(rows)), "prompts")
    assert [record.prompt.text for record in done.records] == ["fine 😀"]
    assert done.reasons == [(2, "half of a character"), (3, "half of a character")]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec="utf-8"), max_size=5),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.sampled_from("ab"), values, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from(["prompt", "chosen", "rejected", "messages", "completions", "ranking", "choice", "text", ""])


@given(st.lists(st.dictionaries(FIELDS, JSON, max_size=5) | JSON, max_size=8), st.booleans())
def test_rows_in_are_rows_kept_and_rows_rejected_whatever_they_hold(tmp_path_factory, read, rows, as_array):
    path = tmp_path_factory.mktemp("any") / "rows.jsonl"
    rows = [PAIR, PAIR, *rows]
    path.write_text(json.dumps(rows) if as_array else "\n".join(map(json.dumps, rows)))
    done = read({"path": str(path), "format": "preference_pair"}, "preferences")
    assert done.account.rows == len(rows)
    assert done.account.kept >= 2
    assert all(reason and detail for _, reason, detail, _ in done.rejected)


# bad sources


def message_of(path, **settings) -> str:
    with pytest.raises(DataError) as error:
        list(read_records([source_of(path=str(path), **settings)], "prompts", Account()))
    return str(error.value)


def test_a_missing_file_is_named(tmp_path):
    assert message_of(tmp_path / "none.jsonl") == f"{tmp_path}/none.jsonl: no such file"


def test_a_folder_is_no_data_file(tmp_path):
    assert message_of(tmp_path) == f"{tmp_path}: cannot read it: Is a directory"


@pytest.mark.parametrize("named", [{}, {"format": "prompt_only"}])
@pytest.mark.parametrize(
    ("content", "name"),
    [("", "a"), ("\n \n", "a.jsonl"), (b"\xef\xbb\xbf", "a.csv")],
)
def test_an_empty_file_is_named(file, content, name, named):
    path = file(content, name)
    assert message_of(path, **named) == f"{path}: the file is empty"


def test_a_file_without_rows_is_not_called_empty(file):
    path = file("[]", "a.json")
    assert message_of(path) == f"{path}: no rows"


@pytest.mark.parametrize("columns", [["id", "reply"], ["label", "a b"], ["0", "1"]])
def test_no_column_is_suggested_as_the_prompt_that_has_no_name_of_one(file, columns):
    assert "columns: {prompt: NAME_OF_THE_COLUMN}" in message_of(file([dict.fromkeys(columns, "text")]))


def test_a_table_of_no_known_schema_may_have_no_header(file):
    text = "What is 2?,It is 2.\nWhat is 3?,It is 3.\n"
    assert "table.header=[prompt,completion]" in message_of(file(text, "a.csv"))
    assert "table.header" not in message_of(file('{"What is 2?": "It is 2."}\n'))
    source = source_of(path=file(text, "a.csv"), table={"header": ["prompt", "completion"]})
    assert recognize(source).name == "prompt_completion"


def test_one_file_under_two_names_is_an_error(file, tmp_path):
    path = file(ROWS)
    (tmp_path / "linked.jsonl").symlink_to(path)
    sources = [source_of(path=path), source_of(path=str(tmp_path / "linked.jsonl"))]
    with pytest.raises(DataError, match=r"rows.jsonl and .*linked.jsonl are one file: name it once"):
        list(read_records(sources, "prompts", Account()))


@pytest.mark.parametrize("near", [False, True])
def test_the_books_balance_when_too_many_bad_rows_stop_the_reading(file, near):
    # Chunks of half a MB hold thousands of rows: those of the chunk that was not looked at are not counted.
    rows = ['{"prompt": "%s"}' % ("a" * 40)] * 5000 + ['{"prompt": "%s", }' % ("a" * 40)] * 15000
    account = Account(max_reject_share=0.1)
    with pytest.raises(DataError, match="rows are bad") as error:
        for record in read_records([source_of(path=file("\n".join(rows)))], "prompts", account):
            if not near:
                account.keep(record)
    assert account.rows < 20_000
    assert account.num_rejected == account.rows - 5000
    assert account.undecided == (5000 if near else 0)
    assert f"{account.num_rejected} of {account.rows} rows are bad ({account.num_rejected / account.rows:.1%})" in str(
        error.value
    )


def test_an_unknown_schema_names_file_line_found_and_known_fields(file):
    path = file('\n{"question": "a", "reply": "b"}\n')
    message = message_of(path)
    assert message.startswith(f"{path}, line 2: unknown schema: no known schema has the fields question, reply. ")
    assert "columns: {prompt: question}" in message
    assert "prompt_completion: completion, prompt" in message
    assert "preference_pair: chosen, prompt, rejected" in message


def test_a_file_of_bad_rows_only_tells_of_the_first(file):
    assert "line 1: malformed row: expected named fields, found 'just text'" in message_of(file('"just text"\n'))
    assert "row 1: malformed row: expected named fields, found 3" in message_of(file("[3]"))
    assert "line 1: truncated JSON: " in message_of(file('{"prompt": "a'))


def test_a_file_without_a_usable_row_is_an_error_that_counts_why(file):
    account = Account()
    path = file([{"prompt": 1}, {"prompt": None}])
    assert list(read_records([source_of(path=path)], "prompts", account)) == []
    with pytest.raises(DataError, match=r"no usable row is left: 0 of 2 rows \(left out: 2 wrong type: prompt\)"):
        account.finish()


def test_a_format_that_nobody_knows_is_refused_with_those_there_are(file):
    with pytest.raises(ValidationError, match="'alpaca' is not one of vaiv_scores, "):
        source_of(path=file(ROWS), format="alpaca")


# column maps


@pytest.mark.parametrize("settings", [{}, {"format": "preference_pair"}])
def test_columns_of_other_names_and_nested_ones_are_mapped(file, read, settings):
    rows = [{"q": "p", "a": {"good": {"text": "c"}, "bad": "r"}, "x.y": 1}]
    columns = {"prompt": "q", "chosen": "a.good.text", "rejected": "a.bad"}
    assert read(file(rows), "preferences", columns=columns, **settings).records == [
        Preference(PromptText.of("p"), "c", "r")
    ]


def test_a_mapped_column_whose_own_name_has_a_dot_is_found(file, read):
    assert read(file([{"a.b": "p"}]), "prompts", columns={"prompt": "a.b"}).records == [Record(PromptText.of("p"))]


def test_a_row_without_a_mapped_column_is_rejected_and_one_that_is_no_mapping_too(file, read):
    rows = [{"q": {"text": "p"}}, {"q": "p"}, {"r": 1}, [1]]
    done = read(file(rows), "prompts", columns={"prompt": "q.text"})
    assert done.reasons == [(2, "missing column: q.text"), (3, "missing column: q.text"), (4, "malformed row")]


def test_a_map_decides_between_schemas_that_the_row_has_both(file, read):
    rows = [{"question": "q", "answer": "a", "topic": "t"}]
    assert recognize(source_of(path=file(rows))).name == "question_answer"
    assert recognize(source_of(path=file(rows), columns={"prompt": "topic"})).name == "prompt_only"


@pytest.mark.parametrize("settings", [{}, {"format": "prompt_only"}])
def test_a_map_of_a_field_that_no_format_has_is_an_error(file, settings):
    assert "'promt'" in message_of(file([{"q": "a", "prompt": "b"}]), columns={"promt": "q"}, **settings)


def test_of_several_columns_that_might_be_the_prompt_the_likeliest_is_suggested(file, read):
    row = {"title": "t", "context": "c", "question": "q", "answers": {"text": ["a"]}}
    for columns in (row, dict(reversed(row.items()))):
        with pytest.raises(DataError, match=r"for example columns: \{prompt: question\}"):
            read(file([columns]))


@pytest.mark.parametrize("more", [{}, {"topic": "t"}])
def test_a_format_that_is_named_is_obeyed_whatever_other_columns_a_row_has(file, read, more):
    path = file([{"prompt": "q", "completion": "a"} | more])
    assert read(path, format="prompt_response").records == [Answer(PromptText.of("q"), "a")]
