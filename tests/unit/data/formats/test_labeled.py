"""Unpaired feedback: answers labeled good or bad. It becomes KTO's records, and never an answer to imitate."""

import csv
import io
import json

import pytest

from rayrlhf.data.formats import FORMATS
from rayrlhf.data.ingest.account import DataError
from rayrlhf.data.ingest.reader import recognize
from rayrlhf.data.ingest.records import LabeledAnswer, Message, Origin, Preference, PromptText
from rayrlhf.data.ingest.sources import FileSource

USER, BOT = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}
SYSTEM = {"role": "system", "content": "Be short."}
WHY = PromptText.of("Why?")

# (rows of each label as the project or hub card has them, the prompt); the answer is "So."
SHAPES = {
    "TRL, text": ({"prompt": "Why?", "completion": "So.", "label": ...}, WHY),
    "TRL, messages": ({"prompt": [USER], "completion": [BOT], "label": ...}, WHY),
    "TRL, messages with a system prompt": (
        {"prompt": [SYSTEM, USER], "completion": [BOT], "label": ...},
        PromptText((Message("system", "Be short."), Message("user", "Why?"))),
    ),
    "a chat with a label": ({"messages": [USER, BOT], "label": ...}, WHY),
    "LLaMA-Factory, messages": ({"messages": [USER, BOT], "kto_tag": ...}, WHY),
    "LLaMA-Factory, ShareGPT": (
        {"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}], "kto_tag": ...},
        WHY,
    ),
    "TRL's columns, LLaMA-Factory's label": ({"prompt": "Why?", "completion": "So.", "kto_tag": ...}, WHY),
    "prompt and response": ({"prompt": "Why?", "response": "So.", "label": ...}, WHY),
    "WikiQA": ({"question": "Why?", "answer": "So.", "label": ...}, WHY),
    "an instruction with a label": ({"instruction": "Why?", "output": "So.", "label": ...}, WHY),
    "BeaverTails": ({"prompt": "Why?", "response": "So.", "category": "{}", "is_safe": ...}, WHY),
    "messages under other names": ({"prompt": [USER], "completion": "So.", "kto_tag": ...}, WHY),
    "LLaMA-Factory, Alpaca": ({"instruction": "Why?", "input": "", "output": "So.", "kto_tag": ...}, WHY),
    "LLaMA-Factory, Alpaca with an input": (
        {"instruction": "Why?", "input": "Rain.", "output": "So.", "kto_tag": ...},
        PromptText.of("Why?", "Rain."),
    ),
}


def labeled(shape: str, label: object) -> dict[str, object]:
    return {name: label if value is ... else value for name, value in SHAPES[shape][0].items()}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("written", "good"), [(True, True), (False, False), (1, True), (0, False)])
def test_labels_stay_with_their_answers(file, read, shape, written, good):
    records = read(file([labeled(shape, written)]), "labeled_answers").records
    assert records == [LabeledAnswer(SHAPES[shape][1], "So.", good)]


@pytest.mark.parametrize("shape", SHAPES)
def test_an_answer_with_a_label_is_no_answer_to_imitate_wherever_its_row_stands(file, read, shape):
    unjudged = [labeled(shape, None) | {"id": at} for at in range(3)]
    done = read(file([*unjudged, labeled(shape, False), unjudged[0] | {"id": 3}, labeled(shape, True)]))
    assert [place for place, _ in done.reasons] == [4, 6]
    assert all(reason.startswith("another schema: labeled_") for _, reason in done.reasons)


@pytest.mark.parametrize("shape", SHAPES)
def test_minus_one_is_a_label_that_has_to_be_written_otherwise(file, read, shape):
    done = read(file([labeled(shape, -1), labeled(shape, -1), labeled(shape, 1)]), "labeled_answers")
    assert [(place, "write 0 for bad" in detail) for place, _, detail, _ in done.rejected] == [(1, True), (2, True)]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_format_that_a_message_names_reads_the_rows_without_their_label(file, read, shape):
    path = file([labeled(shape, 1) | {"topic": "t"}])
    with pytest.raises(DataError, match="name their format without it") as error:
        read(path)
    named = str(error.value).partition("format: ")[2].split(" or ")
    assert {answer.text for name in named for answer in read(path, format=name).records} == {"So."}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("written", "good"), [("true", True), ("False", False), ("1", True), ("0.0", False)])
def test_labels_in_a_table_are_text(file, read, shape, written, good):
    row = labeled(shape, written)
    text = io.StringIO(newline="")
    cells = [v if isinstance(v, str) else json.dumps(v) for v in row.values()]
    csv.writer(text).writerows([row.keys(), cells])
    records = read(file(text.getvalue(), "rows.csv"), "labeled_answers").records
    assert records == [LabeledAnswer(SHAPES[shape][1], "So.", good)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["answers", "preferences"])
def test_labeled_answers_are_never_answers_to_imitate(file, read, shape, kind):
    with pytest.raises(DataError, match=r"rows have no .*KTO learns from \(stage: dpo, loss: kto\)"):
        read(file([labeled(shape, False)] * 3), kind)


@pytest.mark.parametrize("shape", SHAPES)
def test_only_a_format_of_labeled_answers_comes_first(shape):
    row = labeled(shape, True)
    first = next(row_format for row_format in FORMATS if row_format.recognizes(row))
    assert first.gives[0] == "labeled_answers"


@pytest.mark.parametrize("row", [{"prompt": "p", "completion": "c"}, {"messages": [USER, BOT]}])
@pytest.mark.parametrize("topic", ["weather", 2, 0.5])
def test_a_label_that_names_a_topic_leaves_a_row_what_it_is(file, read, row, topic):
    path = file([row | {"label": topic}])
    assert recognize(FileSource(path=path)).gives[0] == "answers"
    assert len(read(path, "answers").records) == 1


@pytest.mark.parametrize("label", [None, "good", 2])
def test_an_answer_without_a_label_among_labeled_ones_is_rejected(file, read, label):
    good = labeled("TRL, text", True)
    done = read(file([good, good | {"label": label, "prompt": "q"}, good | {"prompt": "r"}]), "labeled_answers")
    assert [place for place, _ in done.reasons] == [2]
    assert len(done.records) == 2


def test_a_chat_that_ends_with_the_user_has_no_answer_to_judge(file, read):
    rows = [{"messages": [USER, BOT], "label": True}, {"messages": [USER, BOT, USER], "label": True}]
    assert read(file(rows), "labeled_answers").reasons == [(2, "no answer at the end")]


def test_a_label_column_may_have_another_name(file, read):
    path = file([{"q": "Why?", "a": "So.", "thumbs": "true"}])
    columns = {"prompt": "q", "completion": "a", "label": "thumbs"}
    assert read(path, "labeled_answers", columns=columns).records == [LabeledAnswer(WHY, "So.", True)]


def test_each_pair_is_a_good_and_a_bad_answer(file, read):
    ranked = {"prompt": "Why?", "completions": ["a", "b", "c"], "ranking": [2, 1, 2]}
    done = read(file([ranked]), "labeled_answers")
    wanted = [("b", True), ("a", False), ("b", True), ("c", False)]
    assert done.records == [LabeledAnswer(WHY, text, good) for text, good in wanted]
    assert (done.account.rows, done.account.kept, done.account.records_kept) == (1, 1, 4)


def test_pairs_made_of_several_rows_are_labeled_too(file, read):
    rows = [
        {"id": "0", "dialogue": "Why?", "summary": summary, "annotations": [{"coherence": mark}]}
        for summary, mark in (("poor", 1), ("fine", 5))
    ]
    records = read(file(rows), "labeled_answers").records
    assert records == [LabeledAnswer(WHY, "fine", True), LabeledAnswer(WHY, "poor", False)]


def test_people_may_disagree_about_an_answer_but_not_say_the_same_twice(clean):
    said = zip((True, False, True), places(3), strict=True)
    answers = [LabeledAnswer(WHY, "So.", good, origin=origin) for good, origin in said]
    kept, why = clean(answers)
    assert [record.desirable for record in kept] == [True, False]
    assert [reason for _, reason, _ in why] == ["exact duplicate"]


def test_end_markers_come_off_labeled_answers(clean):
    (record,) = clean([LabeledAnswer(WHY, "So.<|endoftext|>", False, origin=places(1)[0])])[0]
    assert (record.text, record.desirable) == ("So.", False)


def places(count: int) -> list[Origin]:
    return [Origin("f", place) for place in range(1, count + 1)]


# margins


def test_the_margin_of_two_scores_is_their_difference(file, read):
    scores = {"response1": "a", "scores1": [], "sum1": 25.5, "response2": "b", "scores2": [], "sum2": 30}
    assert read(file([{"prompt": "Why?", **scores}]), "preferences").records == [Preference(WHY, "b", "a", 4.5)]


@pytest.mark.parametrize(("written", "margin"), [(1.5, 1.5), ("2", 2.0), (None, 0.0), ("", 0.0)])
@pytest.mark.parametrize("prompt", ["Why?", [USER]])
def test_a_margin_that_data_give_is_the_pairs(file, read, prompt, written, margin):
    row = {"prompt": prompt, "chosen": "a", "rejected": "b", "margin": written}
    assert read(file([row]), "preferences").records == [Preference(WHY, "a", "b", margin)]


def test_a_margin_below_zero_contradicts_its_pair(file, read):
    rows = [{"prompt": "Why?", "chosen": "a", "rejected": "b", "margin": margin} for margin in (1, -1)]
    assert read(file(rows), "preferences").reasons == [(2, "scores contradict the choice")]
