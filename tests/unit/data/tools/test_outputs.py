"""What `--out` may replace and what it never does; what is left of a run that fails, is killed or has no room."""

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import datasets
import pytest
from typer.testing import CliRunner

from rayrlhf.cli import app
from rayrlhf.data.tools.output_file import OutputFile
from rayrlhf.data.tools.statistics import Statistics

ROWS = [{"prompt": f"What is {i}?", "completion": f"It is {i}."} for i in range(30)]
COMMAND = [sys.executable, "-c", "from rayrlhf.cli import app; app()", "data"]


def call(*arguments, status=0):
    result = CliRunner().invoke(app, ["data", *map(str, arguments)])
    assert result.exit_code == status, result.output
    return " ".join(result.output.split())


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# inputs


@pytest.fixture
def spellings(tmp_path, file, monkeypatch):
    """An input, and a function that names it in other ways."""
    path = file(ROWS)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()

    def spell(how):
        link = tmp_path / "sub" / f"{how}.jsonl"
        if how == "symbolic link":
            link.symlink_to(path)
        elif how == "hard link":
            os.link(path, link)
        elif how == "linked folder":
            (tmp_path / "folder").symlink_to(tmp_path)
            link = tmp_path / "folder" / "rows.jsonl"
        return {"itself": path, "relative": "rows.jsonl", "roundabout": "sub/../rows.jsonl"}.get(how, str(link))

    return path, spell


HOW = ["itself", "relative", "roundabout", "symbolic link", "hard link", "linked folder"]


@pytest.mark.parametrize("command", ["convert", "clean", "leaks", "leaks --drop"])
@pytest.mark.parametrize("how", HOW)
def test_an_input_is_never_an_output_however_it_is_named(tmp_path, file, spellings, how, command):
    path, spell = spellings
    other = [file(ROWS[:3], "other.jsonl")] if command.startswith("leaks") else []
    out = spell(how)
    before = contents(tmp_path)
    name, _, option = command.partition(" ")
    shown = call(name, *other, path, option or "--out", out, "--force", status=2)
    assert "it is the input" in shown
    assert contents(tmp_path) == before


@pytest.mark.parametrize("given", ["-", "/dev/stdin", "/proc/self/fd/0"])
def test_a_file_on_standard_input_is_an_input_like_any_other(tmp_path, file, given):
    path = file(ROWS)
    before = contents(tmp_path)
    for arguments, message in [
        (["convert", given, "--out", path, "--force"], "it is the input"),
        (["stats", given, path], "are one file: name it once"),
    ]:
        with open(path) as rows:
            done = subprocess.run([*COMMAND, *arguments], stdin=rows, capture_output=True, text=True)
        assert done.returncode == 2, done.stderr
        assert message in done.stdout
        assert contents(tmp_path) == before


@pytest.mark.parametrize("data_dir", [",data_dir=.", ""])
def test_files_that_the_datasets_library_reads_are_inputs_too(tmp_path, file, monkeypatch, data_dir):
    path = file(ROWS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    shown = call("convert", f"hf:json{data_dir}", "--out", path, "--force", status=2)
    assert "it would become a part of the input" in shown
    assert [json.loads(line) for line in Path(path).read_text().splitlines()] == ROWS


def test_a_name_that_cannot_be_printed_is_spelled_out(tmp_path, file):
    path = os.fsencode(tmp_path) + b"/caf\xe9\nerror: all is lost\x1b[2J.jsonl"
    os.rename(file(ROWS), path)
    shown = r"caf\udce9\nerror: all is lost\x1b[2J.jsonl"
    encoding = os.environ | {"PYTHONIOENCODING": "utf-8"}
    for command in ("inspect", "convert"):
        out = [] if command == "inspect" else ["--out", tmp_path / "out.jsonl"]
        done = subprocess.run([*COMMAND, command, path, *out], env=encoding, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert command != "inspect" or shown in done.stdout
    assert json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])["lineage"]["source"].endswith(shown)


def test_text_that_the_terminal_cannot_show_is_spelled_out(file):
    done = subprocess.run(
        [*COMMAND, "inspect", file([{"prompt": "안녕", "completion": "네"}])],
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert r"user: \uc548\ub155" in done.stdout


def test_rejected_rows_can_be_read_again_and_are_not_lost(tmp_path, file):
    path = file([*ROWS, {"prompt": "", "completion": "a"}])
    out = tmp_path / "out.jsonl"
    call("clean", path, "--out", out)
    rejected = tmp_path / "out.jsonl.rejected.jsonl"
    before = contents(tmp_path)
    columns = ["-s", "columns.prompt=reason", "-s", "columns.completion=content.answer"]
    assert "it is the input" in call("convert", rejected, "--out", out, *columns, "--force", status=2)
    assert contents(tmp_path) == before
    call("convert", rejected, "--out", tmp_path / "again.jsonl", *columns)
    assert json.loads((tmp_path / "again.jsonl").read_text())["prompt"] == "empty prompt"


def test_a_split_into_its_own_input_and_an_output_in_an_input_folder_are_refused(tmp_path, file):
    (tmp_path / "parts").mkdir()
    path = file(ROWS, "parts/train.jsonl")
    before = contents(tmp_path)
    assert "it is the input" in call("split", path, "--out", tmp_path / "parts", "--force", status=2)
    folder = tmp_path / "parts"
    assert "become a part of the input" in call("clean", folder, "--out", folder / "new.jsonl", status=2)
    assert contents(tmp_path) == before


# files that are there


@pytest.mark.parametrize("existing", ["out.jsonl", "out.jsonl.rejected.jsonl", "out.jsonl.lineage.json"])
def test_a_file_that_is_there_is_replaced_only_by_force(tmp_path, file, existing):
    path, out = file(ROWS), tmp_path / "out.jsonl"
    (tmp_path / existing).write_text("mine")
    before = contents(tmp_path)
    assert f"{existing}: it exists; give another name, or --force" in call("convert", path, "--out", out, status=2)
    assert contents(tmp_path) == before
    call("convert", path, "--out", out, "--force")
    assert len(out.read_text().splitlines()) == 30
    assert not (tmp_path / "out.jsonl.rejected.jsonl").exists()  # of the rows that this run rejected: none


def test_a_link_that_is_an_output_is_replaced_and_what_it_points_to_stays(tmp_path, file):
    (tmp_path / "precious.jsonl").write_text("mine")
    (tmp_path / "out.jsonl").symlink_to(tmp_path / "precious.jsonl")
    call("convert", file(ROWS), "--out", tmp_path / "out.jsonl", status=2)
    call("convert", file(ROWS), "--out", tmp_path / "out.jsonl", "--force")
    assert (tmp_path / "precious.jsonl").read_text() == "mine"


def test_of_two_runs_with_one_output_the_second_is_refused(tmp_path, file):
    path, out = file(ROWS), tmp_path / "out.jsonl"
    with OutputFile(out, force=False) as first:
        assert "another run is writing it" in call("convert", path, "--out", out, "--force", status=2)
        first.write("first")
        first.publish()
    assert out.read_text() == "first"
    call("convert", path, "--out", out, status=2)


def test_what_a_killed_run_left_is_written_over(tmp_path, file):
    (tmp_path / ".out.jsonl.new").write_text("half of a row")
    call("convert", file(ROWS), "--out", tmp_path / "out.jsonl")
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 30
    assert not list(tmp_path.glob(".*"))


def test_a_run_that_fails_leaves_what_was_there_and_its_rejected_rows(tmp_path, file):
    path, out = file([*ROWS, *[{"prompt": 1}] * 30]), tmp_path / "out.jsonl"
    out.write_text("mine")
    shown = call("clean", path, "--out", out, "--force", status=2)
    rejected = tmp_path / "out.jsonl.rejected.jsonl"
    assert f"they are in {rejected}" in shown
    assert len(rejected.read_text().splitlines()) == 30
    assert out.read_text() == "mine"
    assert not list(tmp_path.glob(".*"))


def test_a_forced_run_that_fails_leaves_the_rejected_rows_of_the_run_before(tmp_path, file):
    out = tmp_path / "out.jsonl"
    call("convert", file([*ROWS, {"prompt": 1}]), "--out", out)
    before = {name: content for name, content in contents(tmp_path).items() if name.startswith("out")}
    assert "out.jsonl.rejected.jsonl" in before
    (tmp_path / "rows.json").write_text(f"[{json.dumps(ROWS[0])}, no JSON]")
    assert "not valid JSON" in call("convert", tmp_path / "rows.json", "--out", out, "--force", status=2)
    assert {name: content for name, content in contents(tmp_path).items() if name.startswith("out")} == before


# lineage


def test_the_lineage_has_the_hash_of_what_was_read(tmp_path, file):
    path, out = file(ROWS), tmp_path / "out.jsonl"
    call("convert", path, "--out", out)
    lineage = json.loads((tmp_path / "out.jsonl.lineage.json").read_text())
    assert lineage["sources"] == {path: hashlib.sha256(Path(path).read_bytes()).hexdigest()}
    assert lineage["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()


def test_a_file_that_changes_while_it_is_read_is_an_error(tmp_path, file, monkeypatch):
    path = file(ROWS)

    def appended(self, record):
        if record.origin.place == 1:
            with open(path, "a") as rows:
                rows.write('{"prompt": "new", "completion": "row"}\n')

    monkeypatch.setattr(Statistics, "add", appended)
    shown = call("convert", path, "--out", tmp_path / "out.jsonl", status=2)
    assert "it was changed while it was read" in shown
    assert not (tmp_path / "out.jsonl").exists()


# places that cannot be written


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("folder.jsonl", "it is a folder; name a file in it"),
        ("rows.jsonl/out.jsonl", "cannot write it: Not a directory"),
        ("rows.jsonl/sub/out.jsonl", "cannot write it: Not a directory"),
        ("n" * 300 + ".jsonl", "cannot write it: File name too long"),
        ("n" * 240 + ".jsonl", "cannot write it: File name too long"),  # with .rejected.jsonl
        ("/proc/out.jsonl", "cannot write it: "),
    ],
)
@pytest.mark.parametrize("command", ["convert", "leaks"])
def test_an_output_that_cannot_be_made_is_a_message(tmp_path, file, monkeypatch, out, message, command):
    path, other = file(ROWS), file(ROWS[:3], "other.jsonl")
    (tmp_path / "folder.jsonl").mkdir()
    monkeypatch.chdir(tmp_path)
    if command == "leaks" and len(out) == 246:
        pytest.skip("only the leaks are written")
    inputs = [path, other] if command == "leaks" else [path]
    assert message in call(command, *inputs, "--out", out, status=2)
    assert sorted(os.listdir(tmp_path)) == ["folder.jsonl", "other.jsonl", "rows.jsonl"]


@pytest.mark.parametrize("name", ["out.jsonl", "out.json", "out.csv", "out.parquet"])
def test_a_full_disk_is_a_message_and_leaves_nothing(tmp_path, file, name):
    path = file([{"prompt": f"{i} {'word ' * 200}", "completion": "yes"} for i in range(400)])
    done = subprocess.run(
        [*COMMAND, "convert", path, "--out", str(tmp_path / name)],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    assert "cannot write it: File too large" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert os.listdir(tmp_path) == ["rows.jsonl"]


def test_standard_output_without_room_is_a_message(file):
    with open("/dev/full", "w") as full:
        done = subprocess.run([*COMMAND, "stats", file(ROWS)], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "error: cannot write to standard output: No space left on device"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_run_that_is_ended_takes_its_temporary_files_away(tmp_path, file, number):
    path = file([{"prompt": f"prompt {i}", "completion": "yes"} for i in range(200_000)])
    with subprocess.Popen([*COMMAND, "clean", path, "--out", str(tmp_path / "out.csv")]) as run:
        while not (tmp_path / ".out.csv.new").exists():
            assert run.poll() is None
            time.sleep(0.01)
        time.sleep(0.1)
        run.send_signal(number)
        assert run.wait(30) == 128 + number
    assert os.listdir(tmp_path) == ["rows.jsonl"]
