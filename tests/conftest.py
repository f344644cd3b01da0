"""Fixtures that several rooms share. The test library is compiled once per session, and only if a test asks for it."""

import signal

from tests.cuda_driver.fixtures import cuda_files, gpu_lib, gpu_library, gpu_path, machine  # noqa: F401
from tests.kernel_library import kernels, library_path  # noqa: F401

# A runner in the background starts its children with interrupts ignored; the tests of Ctrl-C send some.
signal.signal(signal.SIGINT, signal.default_int_handler)
