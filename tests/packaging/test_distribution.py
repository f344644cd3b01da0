"""pyproject.toml against the tree, and a wheel that works without torch, tvm and network."""

import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import numpy
import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def packages_of(folder: Path, name: str) -> set[str]:
    return {".".join((name, *path.parent.relative_to(folder).parts)) for path in folder.rglob("*.py")}


def test_every_package_is_listed():
    expected = packages_of(ROOT / "convgen", "convgen") | packages_of(ROOT / "schedules", "convgen.schedules") | {"convgen.tuning_logs"}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == expected


def test_versions_agree():
    import convgen
    assert PROJECT["project"]["version"] == convgen.__version__


def test_pins():
    """The compiler is pinned exactly, and its pin satisfies the range that serving allows."""
    from packaging.requirements import Requirement
    from packaging.version import Version
    extras = PROJECT["project"]["optional-dependencies"]
    tune = {r.name: r for r in map(Requirement, extras["tune"])}
    core = {r.name: r for r in map(Requirement, PROJECT["project"]["dependencies"])}
    assert str(tune["apache-tvm"].specifier) == "==0.27.0.post1" and str(tune["apache-tvm-ffi"].specifier) == "==0.1.14.post1"
    assert Version("0.1.14.post1") in core["apache-tvm-ffi"].specifier
    assert Version("0.1.15") not in core["apache-tvm-ffi"].specifier and Version("0.1.15.post1") not in core["apache-tvm-ffi"].specifier
    assert set(core) == {"numpy", "apache-tvm-ffi"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """A wheel of a copy of the tree (building leaves files beside the sources)."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "LICENSE", "README.md"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, source)
    for name in ("convgen", "schedules", "tuning_logs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", "-w", str(out), str(source)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert result.returncode == 0, result.stderr
    (built,) = out.glob("*.whl")
    return built


def test_wheel_holds_the_whole_product(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "convgen").rglob("*") if path.suffix in (".py", ".c", ".h", ".hpp", ".json", ".txt") or path.name == "py.typed"}
    sources |= {f"convgen/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "schedules").rglob("*.py")}
    sources |= {f"convgen/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "tuning_logs").rglob("*.jsonl")}
    assert sources - names == set()
    assert {name for name in names if name.endswith(".so") or name.startswith(("tests/", "tools/", "schedules/"))} == set()
    assert wheel.name.endswith("-py3-none-any.whl")


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """Python of an environment with the wheel and numpy alone, made without pip or network."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, with_pip=False, symlinks=True)
    site = home / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    zipfile.ZipFile(wheel).extractall(site)
    for folder in Path(numpy.__file__).parents[1].glob("numpy*"):
        os.symlink(folder, site / folder.name)
    return home / "bin" / "python"


def run(python: Path, *words: str, cwd: Path) -> subprocess.CompletedProcess:
    environment = {"PATH": os.environ["PATH"], "HOME": str(cwd)}
    return subprocess.run([str(python), "-I", *words], capture_output=True, text=True, timeout=240, cwd=cwd, env=environment)


MAIN = "import sys; from convgen.cli import main; sys.exit(main(sys.argv[1:]))"


def test_installed_command_line_works_with_numpy_alone(installed, tmp_path):
    assert re.search(r'^convgen = "convgen.cli:main"$', (ROOT / "pyproject.toml").read_text(), re.M)
    for words in (["--help"], ["ops"], ["show", "conv2d"], ["targets", "x86:avx2"], ["logs", "check"]):
        result = run(installed, "-c", MAIN, *words, cwd=tmp_path)
        assert (result.returncode, result.stderr) == (0, ""), words
        assert result.stdout


def test_installed_package_stands_alone(installed, tmp_path):
    code = """
import convgen, importlib.util, sys
assert not [name for name in ("torch", "tvm", "tvm_ffi") if importlib.util.find_spec(name)]
from convgen import paths
assert paths.checkout_root() is None and paths.shipped_logs().parent.name == "convgen" and paths.shipped_logs().is_dir()
assert paths.write_root() != paths.shipped_logs()
import convgen.schedules
assert convgen.schedules.__file__.startswith(convgen.__path__[0])
w = convgen.operator("conv2d")(N=1, C=2, O=3, H=5, W=5, kernel=3, padding=1)
assert w.reference(**w.sample(seed=0)).shape == (1, 3, 5, 5)
"""
    result = run(installed, "-c", code, cwd=tmp_path)
    assert result.returncode == 0, result.stderr


def test_what_needs_more_than_numpy_says_so(installed, tmp_path):
    result = run(installed, "-c", MAIN, "trace", "a:b", "--input", "1,3,8,8", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (3, "convgen: this needs the module torch: pip install 'convgen[torch]'\n")
    result = run(installed, "-c", MAIN, "export", "conv2d", "N=1", "C=3", "O=4", "H=8", "W=8", "k=3", "--target", "x86:avx2", "-o", "x.cvg", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (3, "convgen: this needs the module tvm: pip install 'convgen[tune]'\n")
    result = run(installed, "-c", MAIN, "doctor", cwd=tmp_path)
    assert result.returncode == 1 and "not installed: pip install convgen" in result.stdout and "Traceback" not in result.stderr


def test_scripts_are_executable():
    for script in ("tools/test.sh", ".ci/run"):
        assert os.access(ROOT / script, os.X_OK)
        assert subprocess.run(["bash", "-n", str(ROOT / script)]).returncode == 0
