import pytest


@pytest.fixture(autouse=True)
def no_foreign_records(monkeypatch, tmp_path):
    """Records of the person who runs the tests are neither read nor written."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("CONVGEN_LOGS", raising=False)
    monkeypatch.chdir(tmp_path)
