"""The folder of compiled kernels: complete or absent, bounded, harmless when it cannot be written."""

import logging
import os

import pytest

from convgen import cache, paths


def fill(size):
    return lambda folder: (folder / "kernel.so").write_bytes(b"x" * size)


def test_made_once(home):
    made = []
    for _ in range(2):
        folder = cache.entry("aa11", lambda folder: (made.append(1), fill(10)(folder)))
    assert made == [1] and (folder / "kernel.so").stat().st_size == 10
    assert cache.size() == (1, 10)


def test_a_failure_leaves_nothing(home):
    def fail(folder):
        fill(10)(folder)
        raise ValueError("no compiler")

    with pytest.raises(ValueError):
        cache.entry("aa11", fail)
    assert cache.size() == (0, 0)
    assert list((paths.cache_dir() / "kernels").iterdir()) == []


def test_another_process_may_be_faster(home):
    def slow(folder):
        fill(10)(folder)
        cache.entry("aa11", fill(20))

    assert (cache.entry("aa11", slow) / "kernel.so").stat().st_size == 20


def test_the_least_recently_used_goes_first(home):
    folders = [cache.entry(f"{i}{i}", fill(100)) for i in range(4)]
    for age, folder in enumerate(reversed(folders)):
        os.utime(folder, (1000 - age, 1000 - age))
    cache.entry("00", fill(0))  # used again just now
    cache.trim(200, keep=folders[1])
    assert [folder.exists() for folder in folders] == [True, True, False, False]


def test_unfinished_folders_of_killed_processes_go_after_a_day(home):
    cache.entry("aa11", fill(1))
    root = paths.cache_dir() / "kernels"
    for name, age in (("making-old", 2 * cache.ABANDONED), ("making-new", 0)):
        (root / name).mkdir()
        past = os.stat(root).st_mtime - age
        os.utime(root / name, (past, past))
    cache.trim(10**6)
    assert sorted(p.name for p in root.iterdir()) == ["aa", "making-new"]


def test_folders_that_other_processes_remove_meanwhile(home, monkeypatch):
    """Listed, and gone a moment later."""
    root = cache.entry("aa11", fill(1)).parents[1]
    (root / "making-gone").symlink_to(root / "nowhere")
    listed = cache._entries
    monkeypatch.setattr(cache, "_entries", lambda root: [*listed(root), root / "bb" / "bb22"])
    cache.trim(0)
    assert listed(root) == [] and cache.size() == (1, 0) and sorted(p.name for p in root.iterdir()) == ["aa", "making-gone"]


def test_discard_and_clear(home):
    for key in ("aa11", "bb22", "bb33"):
        cache.entry(key, fill(5))
    cache.discard("bb22")
    cache.discard("never there")
    assert cache.size() == (2, 10)
    assert cache.clear() == 2 and cache.size() == (0, 0)


def test_a_home_that_cannot_be_written_costs_one_warning(home, monkeypatch, caplog):
    (home / "file").touch()
    monkeypatch.setenv("CONVGEN_CACHE", str(home / "file" / "below"))
    monkeypatch.setattr(cache, "_fallback", None)
    with caplog.at_level(logging.WARNING, "convgen"):
        folders = {cache.entry("aa11", fill(3)), cache.entry("aa11", fill(4))}
    assert [f.joinpath("kernel.so").stat().st_size for f in folders] == [3]
    assert len(caplog.records) == 1 and "kept in" in caplog.text
