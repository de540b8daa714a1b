"""`rayrlhf data leaks`: what it compares, what it shows, and the file without leaks that it writes."""

import json
import os

import pytest
from typer.testing import CliRunner

from rayrlhf.cli import app
from rayrlhf.data.tools.leaks import short_names

ROWS = [{"prompt": f"What is {i}?", "completion": f"It is {i}."} for i in range(10)]


def call(*arguments, status=0):
    result = CliRunner().invoke(app, ["data", "leaks", *map(str, arguments)])
    assert result.exit_code == status, result.output
    return result.output


@pytest.mark.parametrize(
    "prompt", ["[INST] hi [/INST]", "[/b] [red]x[/red]", "[link=file:///x]y", ":warning: [bold]", "{a} %s [", "\\[x]"]
)
def test_a_prompt_is_shown_as_it_is_whatever_markup_is_in_it(file, prompt):
    rows = [{"prompt": prompt, "completion": "[/a]"}]
    shown = call(file(rows, "[a].jsonl"), file([*rows, *ROWS], "[b].jsonl"), status=1)
    assert repr(prompt) in shown
    assert "[a].jsonl" in shown


def test_a_file_compared_with_itself_is_said_to_be_so(tmp_path, file, monkeypatch):
    path = file(ROWS)
    monkeypatch.chdir(tmp_path)
    os.link(path, "linked.jsonl")
    for other in ("rows.jsonl", "linked.jsonl", path):
        shown = call(path, other, status=2)
        assert "are one file" in shown or "is named 2 times" in shown
    assert "rows.jsonl and copy.jsonl have the same content: one is a copy" in call(
        path, file(ROWS, "copy.jsonl"), status=1
    )


def test_only_files_that_share_prompts_are_in_the_table_by_their_short_names(tmp_path, file):
    (tmp_path / "deep").mkdir()
    names = ["deep/a.jsonl", "deep/b.jsonl", "c.jsonl"]
    paths = [file(rows, name) for rows, name in zip([ROWS, ROWS[4:6], [{"prompt": "x"}]], names, strict=True)]
    shown = call(*paths, status=1)
    assert str(tmp_path) not in shown
    rows = [line for line in shown.splitlines() if line.startswith("│")]
    assert len(rows) == 1
    assert [cell.strip() for cell in rows[0].strip("│").split("│")] == [names[1], names[0], "2", "2", "0", "100.0%"]
    assert "2 pairs of files share no prompt" in shown
    assert "┃" not in call(*paths[1:])


@pytest.mark.parametrize(
    ("labels", "short"),
    [
        (["/a/b/x.jsonl", "/a/c/x.jsonl"], ["b/x.jsonl", "c/x.jsonl"]),
        (["/a/b/x.jsonl", "/a/y.jsonl"], ["b/x.jsonl", "y.jsonl"]),
        (["x.jsonl", "b/y.jsonl"], ["x.jsonl", "b/y.jsonl"]),
        (["b/x.jsonl", "b/y.jsonl"], ["x.jsonl", "y.jsonl"]),
        (["/a/x.jsonl", "y.jsonl"], ["/a/x.jsonl", "y.jsonl"]),
        (["org/set[train]", "org/set[test]"], ["set[train]", "set[test]"]),
    ],
)
def test_names_are_shown_without_the_folders_that_all_share(labels, short):
    assert list(short_names(labels).values()) == short


def test_leaking_rows_are_dropped_from_the_last_file(tmp_path, file):
    chat = [{"role": "user", "content": "WHAT is 3?"}, {"role": "assistant", "content": "3"}]
    train = [*ROWS, ROWS[2] | {"completion": "again"}, {"prompt": "what  is 5?", "completion": "5"}, {"messages": chat}]
    held, out = file(ROWS[2:4], "held.jsonl"), tmp_path / "clean.jsonl"
    path = file(train[:-1])
    call(held, path, "--drop", out)
    left = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(row["prompt"], row["completion"]) for row in left] == [
        (row["prompt"], row["completion"]) for row in train[:-1] if row["prompt"] not in ("What is 2?", "What is 3?")
    ]
    rejected = [json.loads(line) for line in (tmp_path / "clean.jsonl.rejected.jsonl").read_text().splitlines()]
    assert [(row["reason"], row["line"]) for row in rejected] == [("leak", 3), ("leak", 4), ("leak", 11)]
    assert rejected[0]["detail"] == f"equal: {held}, line 1"
    call(held, out)
    chats = file([{"messages": [*chat, *chat]}, {"messages": chat}], "chats.jsonl")
    call(held, chats, "--drop", tmp_path / "chats.clean.jsonl", "-s", "rules.turns=all")
    assert len((tmp_path / "chats.clean.jsonl").read_text().splitlines()) == 1


def test_leaks_between_the_other_files_are_left_and_told(tmp_path, file):
    paths = [file(ROWS, "a.jsonl"), file(ROWS[:1], "b.jsonl"), file(ROWS[5:], "c.jsonl")]
    assert "no usable row is left" in call(*paths, "--drop", tmp_path / "none.jsonl", status=2)
    paths[2] = file([*ROWS[5:], {"prompt": "new", "completion": "row"}], "c.jsonl")
    call(*paths, "--drop", tmp_path / "clean.jsonl", status=1)
    assert len((tmp_path / "clean.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("out", ["clean.jsonl", "clean.jsonl.rejected.jsonl", "sub/../clean.jsonl.lineage.json"])
def test_the_report_and_the_rows_that_stay_are_different_files(tmp_path, file, out, force):
    (tmp_path / "sub").mkdir()
    names = [
        file([{"prompt": text, "completion": "x"} for text in texts], name)
        for name, texts in {"a.jsonl": "ab", "b.jsonl": "bc"}.items()
    ]
    options = ["--out", tmp_path / out, "--drop", tmp_path / "clean.jsonl", *["--force"] * force]
    assert "writes this file, too; give another name" in call(*names, *options, status=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "b.jsonl", "sub"]


@pytest.mark.parametrize("existing", ["", "clean.jsonl", "clean.jsonl.rejected.jsonl", "clean.jsonl.lineage.json"])
def test_either_the_report_and_the_rows_that_stay_are_written_or_neither(tmp_path, file, existing):
    texts = "b" if existing == "" else "bc"  # without c, no row is left
    names = [
        file([{"prompt": text, "completion": "x"} for text in texts], name)
        for name, texts in {"a.jsonl": "ab", "b.jsonl": texts}.items()
    ]
    if existing:
        (tmp_path / existing).write_text("mine")
    options = ["--out", tmp_path / "leaks.jsonl", "--drop", tmp_path / "clean.jsonl"]
    message = "it exists; give another name, or --force" if existing else "no usable row is left"
    shown = call(*names, *options, status=2)
    assert message in shown
    assert not (tmp_path / "leaks.jsonl").exists()
    assert ("prompts in two files" in shown) == (not existing)  # what is there is found out before all is compared


def test_rows_that_cannot_be_compared_are_told_with_their_reasons(file):
    rows = [*ROWS, *[{"prompt": 1, "completion": "x"}] * 3]
    shown = " ".join(call(file(ROWS[:1], "a.jsonl"), file(rows, "b.jsonl"), status=1).split())
    assert "b.jsonl: compared 10 of 13 rows (left out: 3 wrong type: prompt)" in shown
    assert "a.jsonl: compared" not in shown


def test_all_leaks_are_written_with_their_places(tmp_path, file):
    a, b, out = file(ROWS, "a.jsonl"), file(ROWS[3:5], "b.jsonl"), tmp_path / "leaks.jsonl"
    call(a, b, "--out", out, status=1)
    first = json.loads(out.read_text().splitlines()[0])
    assert first == {
        "how": "equal",
        "prompt": "What is 3?",
        "at": f"{b}, line 1",
        "like": "What is 3?",
        "like_at": f"{a}, line 4",
    }
