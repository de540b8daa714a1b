"""Checkpoints are whole or not there."""

from pathlib import Path

import pytest

from rayrlhf.checkpoint import Checkpoints
from rayrlhf.config import UserError


def save_text(text: str):
    return lambda folder: Path(folder, "model.txt").write_text(text)


def names(checkpoints: Checkpoints) -> list[str]:
    return [folder.name for folder in checkpoints.all()]


def test_a_checkpoint_is_a_folder_named_by_its_step(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=2)
    path = checkpoints.write(20, save_text("twenty"))
    assert path == tmp_path / "checkpoints" / "step-000020"
    assert (path / "model.txt").read_text() == "twenty"


def test_only_the_newest_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (5, 10, 100, 1000):
        checkpoints.write(step, save_text(str(step)))
    assert names(checkpoints) == ["step-000100", "step-001000"]
    assert [(folder / "model.txt").read_text() for folder in checkpoints.all()] == ["100", "1000"]


def test_there_are_none_before_the_first(tmp_path):
    assert Checkpoints(tmp_path / "nowhere", keep=2).all() == []


def test_a_save_that_raises_leaves_the_earlier_checkpoints_as_they_were(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.write(1, save_text("one"))

    def fail_half_way(folder: str) -> None:
        Path(folder, "model.txt").write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        checkpoints.write(2, fail_half_way)
    assert names(checkpoints) == ["step-000001"]
    assert (tmp_path / "step-000001" / "model.txt").read_text() == "one"


def test_earlier_checkpoints_are_there_until_the_new_one_is_complete(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.write(1, save_text("one"))
    seen = []
    checkpoints.write(2, lambda folder: (seen.append(names(checkpoints)), save_text("two")(folder)))
    assert seen == [["step-000001"]]
    assert names(checkpoints) == ["step-000002"]


def test_a_step_that_failed_can_be_saved_again_and_nothing_of_the_failure_stays(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)

    def leave_rubbish(folder: str) -> None:
        Path(folder, "rubbish").write_text("x")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        checkpoints.write(3, leave_rubbish)
    path = checkpoints.write(3, save_text("three"))
    assert [file.name for file in path.iterdir()] == ["model.txt"]
    assert [folder.name for folder in tmp_path.iterdir()] == ["step-000003"]


def test_a_step_can_be_written_again(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.write(3, save_text("old"))
    folder = checkpoints.write(3, save_text("new"))
    assert names(checkpoints) == ["step-000003"]
    assert next(folder.iterdir()).read_text() == "new"


def test_steps_beyond_a_million_are_still_in_order(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.write(999_999, save_text("old"))
    assert checkpoints.write(1_000_000, save_text("new")).is_dir()


def test_a_checkpoint_without_files_replaces_none(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.write(1, save_text("one"))
    with pytest.raises(UserError, match="set RAYRLHF_RUNS to a folder that all machines of the cluster share"):
        checkpoints.write(2, lambda folder: Path(folder, "policy").mkdir())
    assert names(checkpoints) == ["step-000001"]


@pytest.mark.parametrize("step", [1, 2])
def test_a_kill_while_the_old_one_is_removed_leaves_only_whole_ones(tmp_path, monkeypatch, step):
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.write(1, save_text("one"))
    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", lambda folder: (Path(folder) / "model.txt").unlink() or 1 / 0)
        with pytest.raises(ZeroDivisionError):
            checkpoints.write(step, save_text("new"))
    assert [(folder / "model.txt").read_text() for folder in checkpoints.all()] == ["new"]
    checkpoints.write(3, save_text("three"))
    assert [folder.name for folder in tmp_path.iterdir()] == ["step-000003"]
