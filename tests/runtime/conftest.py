import pytest


@pytest.fixture(scope="session")
def lib(library_path):
    import torch  # noqa: F401  imported first, so that the library is registered with torch

    from convgen.runtime import load

    return load(library_path)
