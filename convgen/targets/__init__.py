"""Targets: what the machines are that kernels are made for, detection of this one, and presets."""

from .detect import Machine, machine, usable_threads
from .presets import NAMES, resolve
from .target import Target

__all__ = ["Machine", "NAMES", "Target", "machine", "resolve", "usable_threads"]
