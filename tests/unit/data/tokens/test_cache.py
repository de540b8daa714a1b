"""Entries of the cache: whole or not at all, and which go when there are too many."""

import os

import pytest

from rayrlhf.data.tokens import cache
from rayrlhf.data.tokens.cache import cache_key, cache_root, find_entry, new_entry


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RAYRLHF_CACHE", str(tmp_path / "cache"))


def entries() -> list[str]:
    return sorted(path.name for path in cache_root().iterdir())


def test_keys_do_not_depend_on_the_order_of_their_parts():
    assert cache_key({"a": 1, "b": 2}) == cache_key({"b": 2, "a": 1}) != cache_key({"a": 2, "b": 1})


def test_what_another_job_is_still_making_is_not_evicted(monkeypatch):
    monkeypatch.setattr(cache, "MAX_ENTRIES", 1)
    with new_entry("slow") as slow:
        (slow / "part").write_text("…", encoding="utf-8")
        for key in ("a", "b"):
            with new_entry(key):
                pass
        assert (slow / "part").exists()
    assert entries() == ["slow"]


def test_rejected_rows_of_failed_jobs_push_out_no_entry_and_are_not_kept_for_ever(monkeypatch):
    monkeypatch.setattr(cache, "MAX_ENTRIES", 2)
    for key in ("a", "b", "c"):
        with new_entry(key):
            for index in range(3):
                (cache_root() / f"rejected.{key}{index}.jsonl").touch()
    assert [name for name in entries() if "." not in name] == ["b", "c"]
    assert len(entries()) == 4


def test_what_a_killed_job_left_goes_after_a_day():
    cache_root().mkdir(parents=True)
    old, new, growing = (cache_root() / f".new-{name}" for name in ("old", "new", "growing"))
    for folder in (old, new, growing):
        folder.mkdir()
        (folder / "part").touch()
    for path in (old / "part", old, growing):
        os.utime(path, (0, 0))
    with new_entry("a"):
        pass
    assert entries() == [".new-growing", ".new-new", "a"]


def test_an_entry_becomes_visible_only_when_it_is_whole():
    with new_entry("key") as folder:
        (folder / "part").write_text("…", encoding="utf-8")
        assert find_entry("key") is None
    entry = find_entry("key")
    assert entry is not None
    assert [path.name for path in entry.iterdir()] == ["part"]
    with pytest.raises(RuntimeError), new_entry("other"):
        raise RuntimeError
    assert find_entry("other") is None
    assert entries() == ["key"]
