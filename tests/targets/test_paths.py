"""Where records and compiled kernels are looked for."""

from pathlib import Path

import pytest

from convgen import paths


@pytest.fixture
def home(tmp_path, monkeypatch):
    for name in ("CONVGEN_CACHE", "CONVGEN_LOGS", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_cache_folder(home, monkeypatch):
    assert paths.cache_dir() == home / ".cache/convgen"
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert paths.cache_dir() == Path("/x/convgen")
    monkeypatch.setenv("CONVGEN_CACHE", "~/kernels")
    assert paths.cache_dir() == home / "kernels"


def test_a_relative_xdg_folder_is_ignored_as_its_specification_says(home, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert paths.cache_dir() == home / ".cache/convgen"


def test_records_are_read_in_the_documented_order(home, monkeypatch):
    (home / "pyproject.toml").touch()
    (home / "convgen").mkdir()
    (home / "convgen/errors.py").touch()
    monkeypatch.setenv("CONVGEN_LOGS", "/one::/two")
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    expected = ["/given", "/one", "/two", home / "tuning_logs", "/data/convgen/tuning_logs", paths.shipped_logs()]
    assert paths.log_roots("/given") == [Path(p) for p in expected]
    assert paths.write_root("/given") == Path("/given")
    assert paths.write_root() == Path("/one")


def test_without_anything_set_the_users_store_is_written(home):
    assert paths.log_roots() == [home / ".local/share/convgen/tuning_logs", paths.shipped_logs()]
    assert paths.write_root() == home / ".local/share/convgen/tuning_logs"


def test_installed_records_are_never_written(home, monkeypatch):
    monkeypatch.setattr(paths, "PACKAGE", home / "site-packages/convgen")
    assert paths.shipped_logs() == home / "site-packages/convgen/tuning_logs"
    monkeypatch.setenv("CONVGEN_LOGS", str(paths.shipped_logs()))
    assert paths.write_root() == home / ".local/share/convgen/tuning_logs"


def test_the_same_folder_is_read_once(home):
    assert paths.log_roots([home / "a", str(home / "b/../a")])[0] == home / "a"
    assert len(paths.log_roots([home / "a", str(home / "b/../a")])) == 3
