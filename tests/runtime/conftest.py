import pytest

from tests.kernel_library import kernels, library_path  # noqa: F401


@pytest.fixture(scope="session")
def lib(library_path):  # noqa: F811
    import torch  # noqa: F401  imported first, so that the library is registered with torch

    from convgen.runtime import load

    return load(library_path)
