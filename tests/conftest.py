"""Fixtures that several rooms share. The test library is compiled once per session, and only if a test asks for it."""

import signal

from hypothesis import HealthCheck, settings

from tests.cuda_driver.fixtures import cuda_files, gpu_lib, gpu_library, gpu_path, machine  # noqa: F401
from tests.kernel_library import kernels, library_path  # noqa: F401

# The same examples every time, and none too slow: how long one takes says nothing but what else the machine does. Nothing is kept on disk.
settings.register_profile("repeatable", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("repeatable")

# A runner in the background starts its children with interrupts ignored; the tests of Ctrl-C send some.
signal.signal(signal.SIGINT, signal.default_int_handler)
