"""Data sets of the `datasets` library: saved folders, folders of files, and what is said if they cannot be read."""

import json
import socket
import time

import datasets
import pytest

from rayrlhf.config import ConfigError
from rayrlhf.data.files import hub
from rayrlhf.data.ingest.account import DataError
from rayrlhf.data.ingest.records import Answer, Origin, PromptText
from rayrlhf.data.tools import options

ROWS = [{"prompt": f"p{index}", "completion": f"c{index}"} for index in range(5)]
ANSWERS = [Answer(PromptText.of(row["prompt"]), row["completion"]) for row in ROWS]


@pytest.fixture(autouse=True)
def quiet_and_offline(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    yield
    if shown:
        datasets.enable_progress_bars()


@pytest.fixture
def saved(tmp_path):
    """`saved(train=rows, test=rows)` saves these splits, or one set if it has no name, and gives the folder."""

    def save(rows=None, **splits):
        folder = str(tmp_path / "saved")
        if rows is not None:
            datasets.Dataset.from_list(rows).save_to_disk(folder)
        else:
            parts = {name: datasets.Dataset.from_list(part) for name, part in splits.items()}
            datasets.DatasetDict(parts).save_to_disk(folder)
        return folder

    return save


def test_a_saved_set_is_read_with_rows_numbered_from_one(saved, read, monkeypatch):
    monkeypatch.setattr(hub, "CHUNK_ROWS", 2)
    folder = saved(ROWS)
    done = read({"dataset": folder})
    assert done.records == ANSWERS
    assert [record.origin for record in done.records] == [Origin(f"{folder}[train]", row, "row") for row in range(1, 6)]


def test_a_split_of_a_saved_set_is_read(saved, read):
    folder = saved(train=ROWS[:3], test=ROWS[3:])
    assert read({"dataset": folder}).records == ANSWERS[:3]
    assert read({"dataset": folder, "split": "test"}).records == ANSWERS[3:]


@pytest.mark.parametrize("streaming", [False, True])
def test_a_folder_of_files_is_read(tmp_path, read, streaming):
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    assert read({"dataset": str(folder), "streaming": streaming}).records == ANSWERS


def test_columns_limits_and_bad_rows_are_as_with_files(saved, read):
    folder = saved([{"q": {"text": text}} for text in ("a", None, "c", "d")])
    done = read({"dataset": folder, "columns": {"prompt": "q.text"}, "max_rows": 3}, "prompts")
    assert [record.prompt.text for record in done.records] == ["a", "c"]
    assert done.reasons == [(2, "wrong type: prompt")]


def refusal(read, **source) -> str:
    with pytest.raises(DataError) as error:
        read(source)
    return str(error.value)


def test_a_set_or_split_that_is_not_there_is_named(tmp_path, saved, read):
    missing = str(tmp_path / "nowhere" / "set")
    assert refusal(read, dataset=missing).startswith(f"data set {missing}, split train: cannot load it: ")
    folder = saved(train=ROWS, test=ROWS)
    message = refusal(read, dataset=folder, split="dev")
    assert message == f"data set {folder}, split dev: cannot load it: it has the splits train, test"


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("name", "content", "why"),
    [("train.parquet", b"PAR1 and no more", "Parquet magic bytes"), ("train.jsonl", b'{"prompt": "a"}\n{"pro', "JSON")],
)
def test_a_broken_file_of_a_set_is_an_error_that_says_why(tmp_path, read, name, content, why, streaming):
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / name).write_bytes(content)
    message = refusal(read, dataset=str(folder), streaming=streaming)
    assert message.startswith(f"data set {folder}, split train: cannot load it: ")
    assert why in message


def test_a_set_without_rows_is_an_error_that_names_it(tmp_path, saved, read):
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "train.csv").write_text("prompt\n")
    assert refusal(read, dataset=str(folder), streaming=True) == f"{folder}[train]: no rows"
    empty = datasets.Dataset.from_dict({"prompt": []}, datasets.Features({"prompt": datasets.Value("string")}))
    empty.save_to_disk(str(tmp_path / "saved"))  # which the library saves, but cannot load
    assert refusal(read, dataset=str(tmp_path / "saved")).startswith(f"data set {tmp_path / 'saved'}, split train: ")


def test_the_fingerprint_changes_with_the_content(tmp_path, saved):
    first = hub.HubSplit(saved(train=ROWS, test=ROWS[:2])).fingerprint()
    assert hub.HubSplit(str(tmp_path / "saved")).fingerprint() == first
    assert hub.HubSplit(str(tmp_path / "saved"), split="test").fingerprint() != first


def test_a_folder_inside_a_set_is_read_and_named(tmp_path, read):
    for name, rows in {"good": ROWS[:2], "bad": ROWS[2:]}.items():
        (tmp_path / "set" / name).mkdir(parents=True)
        (tmp_path / "set" / name / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = read([{"dataset": str(tmp_path / "set"), "data_dir": name} for name in ("good", "bad")])
    assert done.records == ANSWERS
    assert done.records[0].origin.source == f"{tmp_path / 'set'}/good[train]"


@pytest.mark.parametrize(
    ("given", "settings"),
    [
        ("hf:org/set", {}),
        ("hf:org/set:test[:10%]", {"split": "test[:10%]"}),
        ("hf:org/set,data_dir=a/b", {"data_dir": "a/b"}),
        ("hf:org/set:dev,subset=main,revision=v1.0", {"split": "dev", "subset": "main", "revision": "v1.0"}),
    ],
)
def test_a_command_names_split_subset_revision_and_folder(given, settings):
    assert options.of_hub(given) == {"dataset": "org/set", "split": "train", **settings}


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("hf:", "names no data set"),
        ("hf::test", "names no data set"),
        ("hf:set,split=test", "split is no setting of a data set"),
        ("hf:set,subset=a,subset=b", "says a setting twice"),
        ("hf:set,revision=", "revision is empty"),
    ],
)
def test_a_set_that_is_named_wrongly_is_refused_with_the_right_way(given, problem):
    with pytest.raises(ConfigError, match=f"{problem}; write hf:NAME"):
        options.of_hub(given)


def test_files_that_a_reader_of_the_library_cannot_read_are_an_error_that_says_why(tmp_path, read, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "_hub_answers", lambda: pytest.fail("no hub is asked for files that are here"))
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "rows.json").write_text('{"prompt": "a"}\n{"pro')
    assert "JSON" in refusal(read, dataset="json", data_dir=str(tmp_path / "set"))
    (tmp_path / "set" / "rows.json").write_bytes(b"PK\x03\x04 and no more")  # neither OSError nor ValueError
    assert "zip" in refusal(read, dataset=str(tmp_path / "set"))


@pytest.mark.parametrize("streaming", [False, True])
def test_without_a_network_a_set_is_refused_at_once(monkeypatch, read, streaming):
    from huggingface_hub import constants

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)  # connections are taken, and never answered
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        started = time.monotonic()
        message = refusal(read, dataset="org/set", streaming=streaming)
        assert time.monotonic() - started < 2
    assert message == (
        "data set org/set, split train: cannot load it: the hub did not answer in 1.5 s, and no copy is here"
    )
    assert not datasets.config.HF_HUB_OFFLINE
