"""A machine described by files: /proc and /sys below a temporary folder."""

from __future__ import annotations

import pytest

from convgen.targets.microarchitectures import AVX2, AVX512


@pytest.fixture
def describe(tmp_path):
    """describe(vendor, family, model, flags, files) writes a machine below a folder and returns the folder."""

    def write(vendor="AuthenticAMD", family=0x1A, model=2, flags=AVX2 + AVX512, name="Test CPU", files=None):
        cpuinfo = f"processor\t: 0\nvendor_id\t: {vendor}\ncpu family\t: {family}\nmodel\t\t: {model}\nmodel name\t: {name}\nflags\t\t: {' '.join(flags)}\n\n"
        for path, text in {"proc/cpuinfo": cpuinfo + cpuinfo.replace("model\t\t: ", "model\t\t: 9"), **(files or {})}.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(text)
        return tmp_path

    return write
