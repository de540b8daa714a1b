"""Folders, patterns, pipes and standard input as sources."""

import gzip
import json
import os
import subprocess
import sys
import threading

import pytest
from typer.testing import CliRunner

from rayrlhf.cli import app
from rayrlhf.data.ingest.account import DataError
from rayrlhf.data.ingest.patterns import each_file
from rayrlhf.data.ingest.sources import FileSource
from rayrlhf.data.tokens.prepare import DataConfig

ROWS = [{"prompt": f"p{i}", "completion": f"c{i}"} for i in range(3)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
COMMAND = [sys.executable, "-c", "from rayrlhf.cli import app; app()", "data"]


def found(*paths, **settings):
    return [(source.path, source.max_rows) for source in each_file(FileSource(path=str(p), **settings) for p in paths)]


@pytest.fixture
def folder(tmp_path):
    names = [
        "b.jsonl",
        "a.csv",
        "c.json.gz",
        "out.jsonl.rejected.jsonl",
        "out.jsonl.lineage.json",
        ".hidden.jsonl",
        "x.md",
    ]
    for name in [*names, "deep/d.jsonl"]:
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    return tmp_path / "data"


def test_a_folder_is_its_data_files_in_order(folder):
    assert found(folder, max_rows=5) == [(str(folder / name), 5) for name in ("a.csv", "b.jsonl", "c.json.gz")]


def test_a_pattern_is_the_files_that_match_in_order(folder):
    assert found(folder / "*.jsonl") == [(str(folder / "b.jsonl"), None)]
    assert found(folder / "**" / "[b-d].jsonl") == [(str(folder / n), None) for n in ("b.jsonl", "deep/d.jsonl")]


def test_a_name_with_brackets_that_is_there_is_no_pattern(folder):
    (folder / "[b].jsonl").write_text("{}")
    assert found(folder / "[b].jsonl") == [(str(folder / "[b].jsonl"), None)]


def test_a_folder_or_pattern_without_files_says_what_was_looked_for(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "state.json").write_text("{}")
    for path, message in {
        "empty": "no data file is in the folder",
        "data/*.parquet": "no file matches the pattern",
        "saved": "a data set that `datasets` saved: name it {dataset: ",
    }.items():
        with pytest.raises(DataError, match=message):
            found(tmp_path / path)


def test_a_configuration_reads_folders_and_patterns_too(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    for name in "ab":
        (tmp_path / "data" / f"{name}.jsonl").write_text(LINES)
    monkeypatch.chdir(tmp_path)
    for named in ("data", "data/*.jsonl", "data/[ab].jsonl"):
        config = DataConfig(train=[{"path": named, "weight": 2}]).resolved()
        assert config.files == [str(tmp_path / "data" / f"{name}.jsonl") for name in "ab"]
        assert {source.weight for source in config.train} == {2}
    with pytest.raises(DataError, match=r"are one file|is named 2 times"):
        DataConfig(train=["data", "data/a.jsonl"]).resolved()


# what can be read only once


@pytest.mark.parametrize("name", ["-", "/dev/stdin", "/dev/fd/0"])
@pytest.mark.parametrize("packed", [False, True])
def test_standard_input_is_read_like_a_file(tmp_path, name, packed):
    content = gzip.compress(LINES.encode()) if packed else LINES.encode()
    out = tmp_path / "out.jsonl"
    done = subprocess.run([*COMMAND, "convert", name, "--out", str(out)], input=content, capture_output=True)
    assert done.returncode == 0, done.stdout
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["prompt"] for row in rows] == ["p0", "p1", "p2"]
    assert rows[1]["lineage"] == {"source": name, "line": 2}
    assert json.loads((tmp_path / "out.jsonl.lineage.json").read_text())["sources"][name]


def test_a_redirected_file_and_closed_standard_input_are_no_traceback(tmp_path, file):
    with open(file(ROWS)) as rows:
        done = subprocess.run([*COMMAND, "stats", "/dev/stdin"], stdin=rows, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    shell = ["sh", "-c", '"$0" "$@" <&-', *COMMAND, "stats"]
    done = subprocess.run([*shell, "-"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "standard input is closed" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_a_named_pipe_is_read_by_tools_and_refused_by_runs(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=(LINES,))
    writer.start()
    result = CliRunner().invoke(app, ["data", "inspect", str(pipe)])
    writer.join()
    assert result.exit_code == 0, result.output
    assert "p0" in result.output
    with pytest.raises(DataError, match="a pipe or a device can be read only once"):
        list(FileSource(path=str(pipe)).chunks())
    with pytest.raises(DataError, match="a pipe or a device can be read only once"):
        FileSource(path=str(pipe)).content_hash()


@pytest.mark.parametrize(
    ("path", "message"),
    [("/dev/null", "a pipe or a device"), ("n" * 300, "File name too long"), ("/proc/self/mem", "cannot read it: ")],
)
def test_what_is_no_file_is_a_message(path, message):
    result = CliRunner().invoke(app, ["data", "stats", path])
    assert result.exit_code == 2, result.output
    assert f"{path}: " in result.output
    assert message in result.output
