"""What `import convgen` and the light verbs load: counted in modules, since times vary."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {"torch", "tvm", "tvm_ffi", "numpy", "xgboost", "scipy", "onnxruntime"}


def modules_after(statement: str) -> set[str]:
    """Modules that a fresh interpreter has loaded after a statement and not before."""
    code = f"import sys, json; before = set(sys.modules)\n{statement}\njson.dump(sorted(set(sys.modules) - before), open(sys.argv[1], 'w'))"
    import tempfile
    with tempfile.NamedTemporaryFile() as file:
        subprocess.run([sys.executable, "-c", code, file.name], cwd=ROOT, check=True, capture_output=True, timeout=280)
        return set(json.load(open(file.name)))


def roots(modules: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules}


def test_import_loads_nothing_but_itself():
    assert {name for name in modules_after("import convgen") if name.startswith("convgen")} == {"convgen"}


def test_import_loads_no_heavy_package():
    loaded = modules_after("import convgen; dir(convgen)")
    assert roots(loaded) & HEAVY == set()
    assert len(loaded) < 10


@pytest.mark.parametrize("words", [["--help"], ["ops", "--help"], ["targets"], ["logs", "best"]])
def test_light_verbs_stay_light(words):
    loaded = modules_after(f"from convgen.cli import main; main({words})")
    assert roots(loaded) & {"torch", "tvm", "tvm_ffi", "xgboost"} == set()


@pytest.mark.parametrize("statement", [
    "import convgen; convgen.operators(); convgen.operator('conv2d')(N=1, C=4, O=4, H=8, W=8, kernel=3).description",
    "import convgen.targets; convgen.targets.resolve('x86:avx2')",
    "import convgen.tune.records",
])
def test_describing_loads_neither_compiler_nor_torch(statement):
    assert roots(modules_after(statement)) & {"torch", "tvm", "tvm_ffi", "xgboost"} == set()


def test_public_names():
    import convgen
    for name in convgen.__all__:
        assert getattr(convgen, name) is not None
    assert set(convgen.__all__) <= set(dir(convgen))
    with pytest.raises(AttributeError, match="module 'convgen' has no attribute 'convolve'"):
        convgen.convolve


def test_functions_that_share_a_name_with_a_room_stay_callable():
    import convgen
    import convgen.export.link  # noqa: F401
    import convgen.tune.records  # noqa: F401
    assert callable(convgen.tune) and callable(convgen.export)
    assert convgen.tune.records.FORMAT == 1
