import pytest

from convgen import paths


@pytest.fixture(autouse=True)
def no_foreign_records(monkeypatch, tmp_path):
    """Records of the person who runs the tests are neither read nor written, those shipped with convgen not read."""
    monkeypatch.setattr(paths, "shipped_logs", lambda: tmp_path / "shipped")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("CONVGEN_LOGS", raising=False)
    monkeypatch.chdir(tmp_path)
