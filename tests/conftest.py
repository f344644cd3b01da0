"""Fixtures that several rooms share. The test library is compiled once per session, and only if a test asks for it."""

from tests.kernel_library import kernels, library_path  # noqa: F401
