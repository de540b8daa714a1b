"""Where a run lives: taken names, missing room, and what `runs/` means."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from rayrlhf.config import Config, ConfigError, UserError, parse_config
from rayrlhf.run_directory import RUNS_VARIABLE, RunConfig, RunDirectory, check_room, resolve, runs_root


class Job(Config):
    run: RunConfig
    greeting: str = "안녕"


@pytest.fixture
def runs(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv(RUNS_VARIABLE, str(tmp_path / "runs"))
    return tmp_path / "runs"


def create(name: str, **settings) -> RunDirectory:
    job = Job(run=RunConfig(name=name, **settings))
    return RunDirectory.create(job.run, job)


def test_a_new_run_has_its_configuration_in_its_folder(runs):
    directory = create("demo/first", seed=3)
    assert directory.path == runs / "demo" / "first"
    text = (directory.path / "config.yaml").read_text(encoding="utf-8")
    assert "안녕" in text
    assert Job.model_validate(yaml.safe_load(text)) == Job(run=RunConfig(name="demo/first", seed=3))


def test_a_name_that_is_taken_is_refused_and_nothing_is_touched(runs):
    first = create("demo")
    before = (first.path / "config.yaml").stat().st_mtime_ns
    with pytest.raises(
        UserError, match=r"a run of this name exists; choose another run\.name or set run\.overwrite=true"
    ):
        create("demo")
    assert (first.path / "config.yaml").stat().st_mtime_ns == before


def test_overwrite_removes_the_earlier_run(runs):
    first = create("demo").path
    (first / "metrics.jsonl").write_text("old")
    (first / "checkpoints" / "step-000001").mkdir(parents=True)
    second = create("demo", overwrite=True)
    assert [file.name for file in second.path.iterdir()] == ["config.yaml"]


def test_an_empty_folder_is_free_to_use(runs):
    (runs / "demo").mkdir(parents=True)
    assert create("demo").path.is_dir()


def test_no_room_is_an_error_that_names_the_folder_and_the_variable(runs, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2**28))
    with pytest.raises(UserError) as error:
        create("demo")
    assert str(error.value) == (
        f"{runs}/demo: the disk has 0.2 GiB free, the run needs 0.5 GiB; "
        "free some space, or set RAYRLHF_RUNS to a folder on another disk"
    )
    assert not (runs / "demo" / "config.yaml").exists()


def test_enough_room_is_no_error(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    check_room(tmp_path, 1000)
    with pytest.raises(UserError):
        check_room(tmp_path, 1001)


def test_a_folder_that_can_not_be_made_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv(RUNS_VARIABLE, str(tmp_path / "file"))
    with pytest.raises(UserError, match="file/demo: cannot make the run directory"):
        create("demo")


@pytest.mark.parametrize("name", ["demo", "demo/sft", "v1.2_a-b", "실험/1"])
def test_names_with_parts_letters_and_dots_are_fine(name):
    assert RunConfig(name=name).name == name


@pytest.mark.parametrize("name", ["", "/abs", "a/../b", "a//b", ".hidden", "a/", "a b"])
def test_names_that_leave_the_runs_folder_are_refused(name):
    with pytest.raises(ConfigError, match="name"):
        parse_config(RunConfig, {"name": name}, "here")


def test_runs_paths_are_below_the_folder_that_the_variable_names(runs):
    assert runs_root() == runs
    assert resolve("runs/demo/sft/model") == str(runs / "demo" / "sft" / "model")


def test_without_the_variable_runs_are_here_or_at_home_inside_a_job(tmp_path, monkeypatch):
    monkeypatch.delenv(RUNS_VARIABLE, raising=False)
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    monkeypatch.chdir(tmp_path)
    assert runs_root() == tmp_path / "runs"
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert runs_root() == tmp_path / "home" / "rayrlhf" / "runs"


def test_other_paths_become_absolute_and_hub_names_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    assert resolve("models") == str(tmp_path / "models")
    assert resolve("/abs/model") == "/abs/model"
    assert resolve("Qwen/Qwen2-0.5B") == "Qwen/Qwen2-0.5B"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve("~/models") == str(tmp_path / "models")


def test_lineage_holds_the_hash_of_every_source(runs):
    directory = create("demo")
    directory.write_lineage({"data.jsonl": "abc"}, {"start": "some/model"})
    lineage = json.loads((directory.path / "lineage.json").read_text())
    assert lineage["data"] == {"data.jsonl": "abc"}
    assert lineage["models"] == {"start": "some/model"}


def test_the_data_report_has_the_account_and_the_rejected_rows(runs, tmp_path):
    directory = create("demo")
    rejected = tmp_path / "left_out.jsonl"
    rejected.write_text("{}\n")
    directory.write_data_report({"rows": 3}, rejected)
    assert json.loads((directory.path / "data.json").read_text()) == {"rows": 3}
    assert (directory.path / "rejected.jsonl").read_text() == "{}\n"


def test_the_summary_is_readable_json(runs):
    directory = create("demo")
    directory.write_summary({"reward/score_mean": 1.5, "note": "끝"})
    text = (directory.path / "summary.json").read_text(encoding="utf-8")
    assert "끝" in text
    assert json.loads(text) == {"reward/score_mean": 1.5, "note": "끝"}


def test_overwriting_keeps_the_runs_that_lie_below(runs):
    (create("demo").path / "metrics.jsonl").write_text("old")
    below = create("demo/sft").path
    create("demo", overwrite=True)
    assert (below / "config.yaml").exists()
    assert not (runs / "demo" / "metrics.jsonl").exists()


def test_a_folder_that_only_holds_other_runs_is_free_to_use(runs):
    create("demo/sft")
    assert create("demo").path == runs / "demo"


def test_a_run_never_overwrites_its_own_input(runs):
    model = create("demo").path / "model"
    model.mkdir()
    job = Job(run=RunConfig(name="demo", overwrite=True))
    with pytest.raises(UserError, match=r"is an input of this run, and run\.overwrite would remove it"):
        RunDirectory.create(job.run, job, [str(model)])
    assert model.is_dir()


def test_a_file_in_the_way_is_named(runs):
    runs.mkdir()
    (runs / "demo").write_text("")
    with pytest.raises(UserError, match="cannot make the run directory"):
        create("demo")


@pytest.mark.parametrize("spelling", ["link/model", "other/../demo/model"])
def test_an_input_under_another_name_is_not_overwritten_either(runs, spelling):
    model = create("demo").path / "model"
    model.mkdir()
    (runs / "other").mkdir()
    (runs / "link").symlink_to(runs / "demo")
    job = Job(run=RunConfig(name="demo", overwrite=True))
    with pytest.raises(UserError, match="is an input of this run"):
        RunDirectory.create(job.run, job, [str(runs / spelling)])
    assert model.is_dir()


@pytest.mark.parametrize("name", ["demo/model", "demo/checkpoints/second", "a/b/config.yaml"])
def test_a_run_among_the_files_of_another_one_is_refused(name):
    with pytest.raises(ConfigError, match="is what a run calls one of its files: choose another name for that part"):
        parse_config(RunConfig, {"name": name}, source="run.yaml")
