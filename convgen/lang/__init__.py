"""The description language: axes with roles, tensors, index expressions, stages, operators, and what follows from them."""

from .operator import Operator, choice, integer, ints, operator, pads
from .program import Program
from .workload import Workload, parse

__all__ = ["Operator", "Program", "Workload", "choice", "integer", "ints", "operator", "pads", "parse"]
