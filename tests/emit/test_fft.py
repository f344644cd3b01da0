"""Convolutions by Fourier transforms as kernels of every family, judged by the norm bound."""

import importlib.util
import shutil

import pytest

from convgen import schedules
from convgen.lang import parse
from tests.emit.kernels import target


def _checked(kernels, text, machine, algorithm):
    w = parse(text)
    wrong, (answer,) = kernels.check([w], machine, schedules.space(w.description, machine).leaves[algorithm].default())
    assert not wrong, "\n".join(wrong)
    assert answer["entry"]["oracle"] == "N"


@pytest.mark.parametrize("algorithm, text", [("fft256", "depthwise_conv1d:n2,c5,l300,k270;padding=269_0:f32.f32.f32:ncl:bias"), ("fft1024", "depthwise_conv1d:n1,c16,l90,k530;padding=480_140:f32.f32.f32:nlc")])
def test_kernels(kernels, algorithm, text):
    _checked(kernels, text, target(), algorithm)


@pytest.mark.skipif(importlib.util.find_spec("unicorn") is None, reason="needs unicorn: pip install unicorn")
def test_kernels_for_arm(kernels):
    _checked(kernels, "depthwise_conv1d:n1,c2,l200,k260;padding=259_0:f32.f32.f32:ncl", target("arm:neoverse-n1"), "fft256")


@pytest.mark.skipif(shutil.which("g++") is None, reason="emulating CUDA kernels needs g++")
def test_kernels_for_cuda(kernels):
    _checked(kernels, "depthwise_conv1d:n1,c2,l200,k260;padding=259_0:f32.f32.f32:ncl", target("cuda:sm_90") | {"output": "source"}, "fft256")
