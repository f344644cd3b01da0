import importlib.util

import pytest

from tests.emit.kernels import Kernels


@pytest.fixture(scope="session")
def kernels():
    """Worker processes that build and check."""
    if importlib.util.find_spec("tvm") is None:
        pytest.skip("needs the compiler: pip install convgen[tune]")
    found = Kernels()
    yield found
    found.close()
