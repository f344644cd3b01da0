from tests.kernel_library import kernels, library_path  # noqa: F401
