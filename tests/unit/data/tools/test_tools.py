"""`rayrlhf data …`, as a user calls it."""

import csv
import json
import re
from collections import Counter

import pytest
from typer.testing import CliRunner

from rayrlhf.cli import app
from rayrlhf.data.ingest.account import Account
from rayrlhf.data.ingest.reader import read_records
from rayrlhf.data.tools.options import read_options
from rayrlhf.data.tools.strata import Strata

PAIRS = [{"id": i, "prompt": f"What is {i}?", "chosen": f"It is {i}.", "rejected": "No."} for i in range(40)]


@pytest.fixture
def file(tmp_path):
    def write(rows, name="rows.jsonl"):
        path = tmp_path / name
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        return str(path)

    return write


def call(*arguments, status=0):
    result = CliRunner().invoke(app, ["data", *map(str, arguments)])
    assert result.exit_code == status, result.output
    return result.output


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_scores_become_pairs_with_their_lineage_and_rejected_rows(file, tmp_path):
    row = {"prompt": "p", "response1": "a", "scores1": [], "sum1": 25, "response2": "b", "scores2": [], "sum2": 20}
    path = file([row, row | {"sum2": 25}, row | {"sum1": 3, "sum2": 4}])
    out = tmp_path / "pairs.jsonl"
    shown = call("pairs", path, "--out", out, "-s", "clean.max_reject_share=1")
    assert "tie" in shown
    assert "both scores low" in shown
    (pair,) = lines(out)
    assert {key: pair[key] for key in ("prompt", "chosen", "rejected")} == {
        "prompt": "p",
        "chosen": "a",
        "rejected": "b",
    }
    assert pair["lineage"] == {"source": path, "line": 1, "rule": "scores"}
    assert [(r["reason"], r["line"]) for r in lines(tmp_path / "pairs.jsonl.rejected.jsonl")] == [
        ("tie", 2),
        ("both scores low", 3),
    ]
    lineage = json.loads((tmp_path / "pairs.jsonl.lineage.json").read_text(encoding="utf-8"))
    assert lineage["account"]["rows"] == 3
    assert list(lineage["sources"]) == [path]


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
@pytest.mark.parametrize(
    "rows",
    [
        PAIRS,
        [{"instruction": "a", "input": "context", "output": "b"}],
        [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}] * 2}],
        [{"prompt": "only"}],
        [
            {
                "prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}],
                "chosen": "b",
                "rejected": "c",
            }
        ],
    ],
)
def test_what_is_written_reads_as_the_same_records(file, tmp_path, rows, suffix):
    from rayrlhf.data.ingest.account import Account
    from rayrlhf.data.ingest.reader import read_records

    def records(path):
        inputs = read_options([str(path)], [])
        return list(read_records(inputs.sources, inputs.kind, Account()))

    path = file(rows)
    out = tmp_path / f"out{suffix}"
    call("convert", path, "--out", out)
    assert records(out) == records(path)


def test_cleaning_what_was_cleaned_rejects_nothing(file, tmp_path):
    path = file([*PAIRS, *PAIRS[:3]])
    assert "duplicate id" in call("clean", path, "--out", tmp_path / "a.jsonl")
    call("clean", tmp_path / "a.jsonl", "--out", tmp_path / "b.jsonl")
    assert not (tmp_path / "b.jsonl.rejected.jsonl").exists()
    assert len(lines(tmp_path / "b.jsonl")) == 40


def test_a_split_has_no_leaks_and_a_copy_has(file, tmp_path):
    path = file(PAIRS)
    call("split", path, "--out", tmp_path / "parts", "--shares", "train=0.7,test=0.3")
    parts = [tmp_path / "parts" / name for name in ("train.jsonl", "test.jsonl")]
    assert sum(len(lines(part)) for part in parts) == 40
    call("leaks", *parts)
    shown = call("leaks", path, parts[1], status=1)
    assert "equal" in shown
    shouted = file([{"prompt": "WHAT  IS 3?"}, {"prompt": "something else"}], "shouted.jsonl")
    assert "but for case and space" in call("leaks", path, shouted, status=1)
    near = file([{"prompt": "What is 3 then?"}], "near.jsonl")
    call("leaks", path, near)
    call("leaks", path, near, "--near", "0.3", status=1)


def test_inspect_and_stats_show_schema_rows_and_lengths(file):
    path = file(PAIRS)
    shown = call("inspect", path, "-s", "template=kochatgpt")
    assert "preference_pair, read as preferences" in shown
    assert "### Response(응답):\nchosen:\nIt is 0.\n" in shown
    assert "prompt, characters" in call("stats", path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["clean", "{}", "--out", "{out}.jsonl", "-s", "clean.min_promt_chars=3"], "did you mean"),
        (["clean", "{}", "--out", "{out}.xls"], "name it .jsonl, .json, .csv or .parquet"),
        (["pairs", "{prompts}", "--out", "{out}.jsonl"], "rows have no chosen/rejected pair"),
        (["split", "{}", "--out", "{out}", "--shares", "a=0.5,b=0.1"], "do not add up to 1"),
        (["split", "{}", "--out", "{out}", "--shares", "a=nan"], "do not add up to 1"),
        (["leaks", "{}"], "give at least two"),
        (["stats", "{out}/none.jsonl"], "no such file"),
        (["stats", "{}", "-s", "format=alpaca"], "is not one of"),
        (["convert", "{}", "--out", "{out}.jsonl", "-s", "keep_columns=[prompt]"], "is a column of the output"),
        (["convert", "{}", "--out", "{out}.jsonl", "-s", "keep_columns=[topic]"], "no row of"),
        (["split", "{}", "--out", "{out}", "--stratify", "topic"], "no row of"),
        (["stats", "{out}/*.jsonl"], "no file matches the pattern"),
    ],
)
def test_a_mistake_is_answered_with_a_message(file, tmp_path, capfd, arguments, message):
    names = {"{}": file(PAIRS), "{prompts}": file([{"prompt": "a"}], "prompts.jsonl")}
    filled = [names.get(a, a.replace("{out}", str(tmp_path / "out"))) for a in arguments]
    output = call(*filled, status=2)
    assert message in " ".join((output + capfd.readouterr().out).split())


# what is written


def test_json_is_an_array_and_no_row_is_an_empty_one(file, tmp_path):
    call("convert", file(PAIRS), "--out", tmp_path / "out.json")
    rows = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert [row["prompt"] for row in rows] == [row["prompt"] for row in PAIRS]
    call("split", file(PAIRS[:1]), "--out", tmp_path / "parts")
    assert sorted(len(lines(path)) for path in (tmp_path / "parts").glob("*.jsonl")) == [0, 1]


def test_csv_has_a_column_for_each_field_of_any_row(file, tmp_path):
    rows = [{"prompt": 'a "b", c\nd', "completion": "1"}, {"prompt": "e", "completion": "2", "input": ";"}]
    call("convert", file(rows), "--out", tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as table:
        found = list(csv.DictReader(table))
    assert [(row["prompt"], row["completion"], row["input"]) for row in found] == [
        ('a "b", c\nd', "1", ""),
        ("e", "2", ";"),
    ]
    assert json.loads(found[1]["lineage"])["line"] == 2


KEPT = [
    {
        "prompt": "a",
        "completion": "b",
        "topic": "math",
        "meta": {"level": 1, "score": 1.5, "tags": ["x"]},
        "big": 2**70,
    },
    {"prompt": "c", "completion": "d", "topic": None, "meta": {"level": 2, "score": 2}, "big": 1},
]


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
def test_named_columns_go_with_their_rows(file, tmp_path, suffix):
    from rayrlhf.data.files import Decoding, open_chunks

    out = tmp_path / f"out{suffix}"
    names = "keep_columns=[topic,meta.level,how_good,tags,big]"
    settings = ["-s", names, "-s", "columns.how_good=meta.score", "-s", "columns.tags=meta.tags"]
    call("clean", file(KEPT), "--out", out, *settings)
    found = [row for chunk in open_chunks(out, Decoding()) for row in chunk.values]
    values = [[row.get(name) for name in ("topic", "meta.level", "how_good", "tags", "big")] for row in found]
    wanted = [["math", 1, 1.5, ["x"], 2**70], [None, 2, 2, None, 1]]
    if suffix == ".csv":
        wanted = [["math", "1", "1.5", '["x"]', str(2**70)], ["", "2", "2", "", "1"]]
    elif suffix == ".parquet":
        wanted = [["math", 1, 1.5, '["x"]', str(2**70)], [None, 2, 2.0, None, "1"]]
    assert values == wanted


RATED = [
    {
        "id": f"d{i // 2}",
        "dialogue": f"hello {i // 2}",
        "summary": f"s{i}",
        "model_id": f"m{i % 2}",
        "topic": f"t{i // 2 % 2}",
        "annotations": [{"rating": 1 + i % 2}],
    }
    for i in range(40)
]


def test_a_pair_of_several_rows_has_the_columns_in_which_they_agree(file, tmp_path):
    path = file(RATED)
    call("pairs", path, "--out", tmp_path / "out.jsonl", "-s", "keep_columns=[topic,model_id]")
    found = {row["prompt"]: (row["topic"], row["model_id"]) for row in lines(tmp_path / "out.jsonl")}
    assert found == {f"hello {i}": (f"t{i % 2}", None) for i in range(20)}
    call("split", path, "--out", tmp_path / "parts", "--shares", "a=0.5,b=0.5", "--stratify", "topic")
    for part in ("a", "b"):
        topics = Counter(int(row["prompt"].split()[1]) % 2 for row in lines(tmp_path / "parts" / f"{part}.jsonl"))
        assert topics == {0: 5, 1: 5}


def test_a_split_by_strata_shares_out_each_value_alike(file, tmp_path):
    labels = ["rare"] * 10 + ["common"] * 90 + [None] * 20
    rows = [{"prompt": f"What is {i}?", "completion": "x", "label": label} for i, label in enumerate(labels)]
    rows += [{"prompt": "What is 0?", "completion": "y", "label": "common"}]  # a prompt in two strata
    shares = ["--shares", "train=0.7,dev=0.2,test=0.1", "--stratify", "label", "-s", "keep_columns=[label]"]
    call("split", file(rows), "--out", tmp_path / "parts", *shares)
    parts = {name: lines(tmp_path / "parts" / f"{name}.jsonl") for name in ("train", "dev", "test")}
    counts = {name: Counter(row["label"] for row in part if row["completion"] == "x") for name, part in parts.items()}
    assert counts == {
        "train": {"rare": 7, "common": 63, None: 14},
        "dev": {"rare": 2, "common": 18, None: 4},
        "test": {"rare": 1, "common": 9, None: 2},
    }
    prompts = [{row["prompt"] for row in part} for part in parts.values()]
    assert len(set.union(*prompts)) == sum(map(len, prompts)) == 120


def test_a_prompt_that_came_while_strata_were_made_is_an_error(file, tmp_path, monkeypatch):
    path = file([{"prompt": f"What is {i}?", "completion": "x", "label": "a"} for i in range(10)])
    of = Strata.of

    def then_appended(*arguments):
        strata = of(*arguments)
        with open(path, "a") as rows:
            rows.write('{"prompt": "new", "completion": "row"}\n')
        return strata

    monkeypatch.setattr(Strata, "of", then_appended)
    shown = call("split", path, "--out", tmp_path / "parts", "--stratify", "label", status=2)
    assert "line 11: it was changed while it was read" in " ".join(shown.split())
    assert not list((tmp_path / "parts").iterdir())


def test_the_account_of_a_run_that_stopped_early_says_what_was_not_decided(file, tmp_path):
    ambiguous = {"prompt": "p", "completions": ["a", "b", "c"], "ranking": [1, 2, 0]}
    rows = [ambiguous | {"ranking": [0, 1, 2]}] * 3 + [ambiguous] + [ambiguous] * 5
    shown = call("pairs", file(rows), "--out", tmp_path / "out.jsonl", status=2)
    assert re.search(r"in +│ +9 ", shown)
    assert re.search(r"kept +│ +3 ", shown)
    assert re.search(r"not decided when the reading stopped +│ +6 ", shown)


LABELED = [
    {"prompt": "Why?", "completion": "So.", "label": True},
    {"prompt": "Why?", "completion": "No.", "label": False},
    {"messages": [{"role": role, "content": role} for role in ("system", "user", "assistant")], "label": False},
    {"prompt": "Who?", "completion": "She.", "label": 1, "input": "A text."},
]
SCORED = [
    {"prompt": f"What is {i}?", "chosen": "a", "rejected": "b", "margin": margin} for i, margin in enumerate((0, 2.5))
]


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
@pytest.mark.parametrize(("rows", "kind"), [(LABELED, "labeled_answers"), (SCORED, "preferences")])
def test_labels_and_margins_are_read_back_as_they_were_written(file, tmp_path, suffix, rows, kind):
    path = file([row for row in rows if "messages" not in row])
    chats = file([row for row in rows if "messages" in row], "chats.jsonl")
    inputs = [path, chats] if kind == "labeled_answers" else [path]
    out = tmp_path / f"out{suffix}"
    call("convert", *inputs, "--out", out)

    def records(*paths):
        options = read_options([str(path) for path in paths], [])
        assert options.kind == kind
        account = Account()
        found = []
        for record in read_records(options.sources, kind, account):
            account.keep(record)
            found.append(record)
        account.finish()
        return found

    assert records(out) == records(*inputs)
    assert len(records(out)) == len(rows)


def test_statistics_say_what_the_better_guess_by_length_reaches(file):
    lengths = [("aaa", "b"), ("a", "bbb"), ("a", "bb"), ("aa", "bb")]  # longer, shorter, shorter, as long
    rows = [{"prompt": f"What is {i}?", "chosen": a, "rejected": b} for i, (a, b) in enumerate(lengths)]
    shown = " ".join(call("stats", file(rows)).split())
    assert "the longer one in 37.5% of 4 pairs, the shorter one in 62.5%" in shown
    assert "must do better than 62.5%" in shown


def test_statistics_say_how_many_labeled_answers_are_good(file):
    assert "labels: 50.0% of the answers are good" in call("stats", file(LABELED[:2]))


def test_a_column_named_as_one_that_the_output_has_is_refused(file, tmp_path):
    for rows, name in ((LABELED[:2], "label"), (SCORED, "margin")):
        settings = ["--out", tmp_path / "out.jsonl", "-s", f"keep_columns=[{name}]"]
        assert f"keep_columns: '{name}' is a column of the output" in call("convert", file(rows), *settings, status=2)
