"""Every schema: a row as its files have it is known among all others, and gives what it says and nothing else."""

import csv
import io
import json
import random

import pytest

from rayrlhf.data.formats import FORMATS
from rayrlhf.data.formats.recognition import best_formats
from rayrlhf.data.ingest.account import DataError
from rayrlhf.data.ingest.reader import recognize
from rayrlhf.data.ingest.records import Answer, Kind, Preference, PromptText, Record
from rayrlhf.data.ingest.sources import FileSource

KINDS: tuple[Kind, ...] = ("preferences", "labeled_answers", "answers", "prompts")
NEEDED = {
    "preferences": "chosen/rejected pair",
    "labeled_answers": "answer labeled good or bad",
    "answers": "answer to train on",
    "prompts": "prompt",
}
TOLD_BY_CONTENT = ("hh_rlhf", "dialogue_pair", "chat_prompt")
"""Formats whose rows others have too, but for what is in them."""
NUMERIC = {"choice", "sum1", "sum2", "tokens", "helpfulness", "preference_strength", "labels", "label", "preference"}
NUMERIC |= {"score_0", "score_1", "better_response_id", "safer_response_id", "completions", "kto_tag"}
USER, BOT = {"role": "user", "content": "질문"}, {"role": "assistant", "content": "답"}
SCORES = {"response1": "낮음", "scores1": [3] * 6, "sum1": 18, "response2": "높음", "scores2": [4] * 6, "sum2": 24}

# format → (a row, its prompt, [(chosen, rejected)], answers)
ROWS = {
    "vaiv_scores": ({"id": 3, "prompt": "p", **SCORES}, "p", [("높음", "낮음", 6.0)], ["높음"]),
    "kochatgpt_ranking": (
        {"prompt": "p", "completion_0": "a", "completion_1": "b", "completion_2": "c", "ranking": [2, 0, 1]},
        "p",
        [("c", "a"), ("c", "b"), ("a", "b")],
        ["c"],
    ),
    "ranking": (
        {"prompt": "p", "completions": ["a", "b", "c", "d"], "ranking": [2, 1, 4, 4]},
        "p",
        [("b", "a"), ("b", "c"), ("b", "d"), ("a", "c"), ("a", "d")],
        ["b"],
    ),
    "raccoon_choice_a": (
        {"article": "x", "abstract": [{"text": "a", "policy": 1}, {"text": "b"}], "choice": 1, "user": "u"},
        "x",
        [("b", "a")],
        ["b"],
    ),
    "raccoon_choice_b": (
        {"original_text": "x", "summarize_0": "a", "summarize_1": "b", "choice": 0},
        "x",
        [("a", "b")],
        ["a"],
    ),
    "raccoon_choice_c": ({"original_text": "x", "good_summarize": "a", "bad_summarize": "b"}, "x", [("a", "b")], ["a"]),
    "feedback_comparison": (
        {
            "info": {"id": "t3", "post": "x", "title": "t", "subreddit": "s"},
            "summaries": [{"text": "a", "policy": "sup1", "note": None}, {"text": "b", "policy": "ref"}],
            "choice": 1,
            "worker": "w",
            "batch": "batch3",
            "split": "train",
            "extra": {"confidence": None},
        },
        "x",
        [("b", "a")],
        ["b"],
    ),
    "feedback_axis": (
        {"info": {"post": None, "article": "x"}, "summary": {"text": "a", "axes": {"overall": 6}}, "split": "test"},
        "x",
        None,
        ["a"],
    ),
    "dialsummeval": (
        {"id": "0", "dialogue": "d", "summary": "s", "annotations": [{"coherence": 4}], "model_id": "BART"},
        "d",
        [],
        None,
    ),
    "chat_pair": (
        {"prompt": [USER], "chosen": [USER, BOT], "rejected": [{"role": "assistant", "content": "몰라"}]},
        "질문",
        [("답", "몰라")],
        ["답"],
    ),
    "preference_pair": ({"id": 1, "id2": 2, "prompt": "p", "chosen": "a", "rejected": "b"}, "p", [("a", "b")], ["a"]),
    "hh_rlhf": (
        {"chosen": "\n\nHuman: hi\n\nAssistant: a", "rejected": "\n\nHuman: hi\n\nAssistant: b"},
        "hi",
        [("a", "b")],
        ["a"],
    ),
    "dialogue_pair": (
        {"prompt": "\n\nHuman: hi\n\nAssistant:", "chosen": " a", "rejected": " b"},
        "hi",
        [("a", "b")],
        ["a"],
    ),
    "kochatgpt_sft": ({"prompt": "p", "completion": "'a\\nb", "tokens": 288}, "p", None, ["a\nb"]),
    "prompt_completion": ({"prompt": "p", "completion": "'a\\nb"}, "p", None, ["'a\\nb"]),
    "self_instruct": (
        {"id": "user_0", "instruction": "i", "instances": [{"input": "", "output": "o"}], "motivation_app": "x"},
        "i",
        None,
        ["o"],
    ),
    "labeled_completion": ({"prompt": "p", "completion": "a", "label": False}, "p", None, None),
    "labeled_instruction": ({"instruction": "i", "input": "", "output": "o", "kto_tag": True}, "i", None, None),
    "labeled_chat": ({"messages": [USER, BOT], "label": True}, "질문", None, None),
    "instruction": ({"id": 7, "instruction": "i", "input": None, "output": "o", "url": "u"}, "i", None, ["o"]),
    "chat": ({"messages": [USER, BOT]}, "질문", None, ["답"]),
    "raccoon_policy": ({"original_text": "x", "sum_text": "s"}, "x", None, ["s"]),
    "songys": ({"Q": "12시 땡!", "A": "하루가 또 가네요.", "label": "0"}, "12시 땡!", None, ["하루가 또 가네요."]),
    "question_answer": ({"question": "1+1?", "answer": "2\n#### 2"}, "1+1?", None, ["2\n#### 2"]),
    "prompt_only": ({"id3": 5, "prompt": "p"}, "p", None, None),
    "raccoon_prompts": ({"original_text": "x"}, "x", None, None),
    "text_line": ({"line": "t"}, "t", None, None),
    "prompt_response": ({"id": "flan.1", "question": "q", "response": "a", "system_prompt": ""}, "q", None, ["a"]),
    "chat_prompt": ({"prompt": [USER], "data_source": "gsm8k"}, "질문", None, None),
    "chat_completion": ({"prompt": [USER], "completion": [BOT]}, "질문", None, ["답"]),
    "helpsteer": (
        {"prompt": "p", "response": "r", "helpfulness": 3, "correctness": 4, "coherence": 4, "verbosity": 1},
        "p",
        [],
        None,
    ),
    "helpsteer_preference": (
        {"split": "train", "prompt": "p", "response_1": "a", "response_2": "b", "preference_strength": -2},
        "p",
        [("a", "b", 2)],
        ["a"],
    ),
    "safe_rlhf": (
        {
            "prompt": "p",
            "response_0": "a",
            "response_1": "b",
            "is_response_0_safe": True,
            "is_response_1_safe": False,
            "better_response_id": 1,
            "safer_response_id": 0,
        },
        "p",
        [("b", "a")],
        ["b"],
    ),
    "nectar": (
        {
            "prompt": "\n\nHuman: p\n\nAssistant: ",
            "answers": [{"answer": "b", "model": "m", "rank": 2.0}, {"answer": "a", "model": "n", "rank": 1.0}],
            "turns": 1,
            "num_responses": 2,
        },
        "p",
        [("a", "b")],
        ["a"],
    ),
    "auto_j": (
        {"scenario": "planning", "label": 1, "prompt": "p", "response 1": "a", "response 2": "b"},
        "p",
        [("b", "a")],
        ["b"],
    ),
    "ultrafeedback": (
        {
            "source": "evol_instruct",
            "instruction": "p",
            "models": ["m", "n"],
            "completions": [
                {"response": "a", "overall_score": 4.5, "annotations": {"honesty": {"Rating": "5"}}, "model": "m"},
                {"response": "b", "overall_score": 7.0, "annotations": {"honesty": {"Rating": "2"}}, "model": "n"},
            ],
            "correct_answers": ["None"],
        },
        "p",
        [("b", "a", 2.5)],
        ["b"],
    ),
    "shp": (
        {
            "post_id": "x",
            "history": "p",
            "human_ref_A": "a",
            "human_ref_B": "b",
            "labels": 0,
            "score_A": 4,
            "score_B": 18,
            "score_ratio": 4.5,
        },
        "p",
        [("b", "a", 14)],
        ["b"],
    ),
    "webgpt": (
        {
            "question": {"dataset": "eli5", "id": "1", "full_text": "p"},
            "answer_0": "a",
            "answer_1": "b",
            "score_0": 0.25,
            "score_1": -0.25,
            "quotes_0": {"title": []},
        },
        "p",
        [("a", "b", 0.5)],
        ["a"],
    ),
    "alpaca_farm": (
        {"instruction": "p", "input": "", "output_1": "a", "output_2": "b", "preference": 2},
        "p",
        [("b", "a")],
        ["b"],
    ),
    "rated_generations": (
        {"input": "p", "generations": ["a", "b"], "rating": [7.0, 9.0], "rationale": "r"},
        "p",
        [("b", "a", 2)],
        ["b"],
    ),
    "stepwise": ({"prompt": "p", "completions": ["one", "two"], "labels": [True, False]}, "p", None, None),
}
NOT_AT_ONCE = {
    "implicit_prompt": {"chosen": "The sky is blue.", "rejected": "The sky is green."},
    "text": {"text": "t", "meta": "m"},
}
"""Rows that are recognized, and read only if a setting says how."""


def test_there_is_a_row_for_every_format():
    assert ROWS.keys() | NOT_AT_ONCE.keys() == {row_format.name for row_format in FORMATS}


@pytest.mark.parametrize("name", ROWS)
def test_a_row_is_recognized_among_all_formats_and_gives_what_it_holds(file, read, name):
    row, prompt, pairs, answers = ROWS[name]
    path = file([row])
    assert recognize(FileSource(path=path)).name == name
    asked = PromptText.of(prompt)
    assert read(path, "prompts").records == [Record(asked)]
    if pairs is not None:
        assert read(path, "preferences").records == [Preference(asked, *pair) for pair in pairs]
    if answers is not None:
        assert read(path, "answers").records == [Answer(asked, answer) for answer in answers]


@pytest.mark.parametrize("seed", range(200))
def test_no_order_of_the_formats_changes_what_a_row_is(seed):
    formats = random.Random(seed).sample(FORMATS, len(FORMATS))
    for name, row in {**{name: row for name, (row, *_) in ROWS.items()}, **NOT_AT_ONCE}.items():
        assert [found.name for found in best_formats(row, formats)] == [name]


@pytest.mark.parametrize("row_format", [f for f in FORMATS if f.name in ROWS], ids=lambda row_format: row_format.name)
def test_a_format_gives_what_it_says_and_refuses_the_rest(file, read, row_format):
    row, _, pairs, answers = ROWS[row_format.name]
    labeled = row_format.name.startswith("labeled_")
    held = {
        "preferences": pairs is not None,
        "labeled_answers": labeled,
        "answers": answers is not None,
        "prompts": True,
    }
    assert row_format.gives == tuple(kind for kind in KINDS if held[kind])
    for kind in KINDS:
        if not held[kind] and not (kind == "labeled_answers" and held["preferences"]):
            with pytest.raises(DataError, match=f"'{row_format.name}' rows have no {NEEDED[kind]}"):
                read(file([row]), kind)


@pytest.mark.parametrize("name", ROWS)
def test_a_row_of_another_schema_in_the_middle_is_rejected_with_its_name(file, read, name):
    other = "songys" if name != "songys" else "instruction"
    row, stranger = ROWS[name][0], ROWS[other][0]
    done = read(file([row, stranger, row]), "prompts")
    ((place, reason, detail, _),) = done.rejected
    assert (place, reason) == (2, f"another schema: {other}")
    assert detail == f"the file was read as {name}"
    assert done.account.kept == 2


def test_messages_among_pairs_of_text_are_another_schema(file, read):
    pair, chats = ROWS["preference_pair"][0], ROWS["chat_pair"][0]
    assert read(file([pair, chats, pair]), "preferences").reasons == [(2, "another schema: chat_pair")]


@pytest.mark.parametrize("name", ROWS)
def test_a_row_without_one_of_its_columns_is_rejected_and_named(file, read, name):
    row = ROWS[name][0]
    row_format = next(row_format for row_format in FORMATS if row_format.name == name)
    for left_out in row.keys() - {"completion_0"}:  # without it completions are numbered from 1
        less = {key: value for key, value in row.items() if key != left_out}
        if not (missing := row_format.missing(less)):
            continue
        (column,) = missing
        done = read(file([row, less, less, row]), "prompts", format=name)
        assert done.account.kept == 2
        assert done.reasons in (
            [(2, f"missing column: {column}"), (3, f"missing column: {column}")],
            [(2, f"another schema: {recognize_row(less)}"), (3, f"another schema: {recognize_row(less)}")],
        )


def recognize_row(row) -> str | None:
    return next((row_format.name for row_format in best_formats(row, FORMATS)), None)


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("number", [7, 7.5, True])
def test_a_number_where_text_is_due_is_of_the_wrong_type(file, read, name, number):
    row = ROWS[name][0]
    row_format = next(row_format for row_format in FORMATS if row_format.name == name)
    numeric = NUMERIC | ({"id"} if name != "dialsummeval" else set())
    for column in row_format.required() - numeric:
        done = read(file([row, row | {column: number}, row]), "prompts")
        (place, reason), (_, _, detail, _) = done.reasons[0], done.rejected[0]
        assert place == 2
        named = "completions" if column.startswith("completion_") else column
        if name in TOLD_BY_CONTENT:
            assert reason.startswith(("wrong type: ", "another schema: "))
            continue
        assert reason == f"wrong type: {named}"
        assert f"(found {number})" in detail


# the same rows in tables


def cell(value) -> str:
    return value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)


@pytest.mark.parametrize("name", ROWS)
def test_a_row_in_a_table_with_json_in_its_cells_gives_the_same(file, read, name):
    row, _, pairs, answers = ROWS[name]
    text = io.StringIO(newline="")
    csv.writer(text).writerows([row.keys(), map(cell, row.values())])
    kinds = ["prompts"] + ["preferences"] * bool(pairs) + ["answers"] * bool(answers)
    for kind in kinds:
        as_table = read(file("\ufeff" + text.getvalue(), "rows.csv"), kind)
        assert as_table.records == read(file([row]), kind).records
        assert as_table.records[0].origin.place == 2


def test_half_a_character_in_the_json_of_a_cell_is_rejected(file, read):
    text = 'article,abstract,choice\nx,"[{""text"": ""a""}, {""text"": ""b""}]",0\nx,"[{""text"": ""\\ud83d""}]",0\n'
    assert read(file(text, "rows.csv"), "preferences").reasons == [(3, "half of a character")]


def test_calculations_stay_in_a_solution_unless_they_are_to_be_removed(file, read):
    solution = "48/2 = <<48/2=24>>24 clips, $<<.5*2=1>>1.\n1 << 2 and 2 >> 1, and\n<<\n>>\n#### 24"
    path = file([{"question": "How many?", "answer": solution}])
    assert read(path).records[0].answers == (solution,)
    (record,) = read(path, rules={"calculations": "remove"}).records
    assert record.text == "48/2 = 24 clips, $1.\n1 << 2 and 2 >> 1, and\n<<\n>>\n#### 24"
