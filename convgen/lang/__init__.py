"""The description language: axes with roles, tensors, index expressions, stages, operators, and what follows from them."""

from .operator import Operator, Prepared, choice, integer, ints, operator, pads
from .program import Program
from .sampling import normal, rows, uniform
from .workload import Workload, parse

__all__ = ["Operator", "Prepared", "Program", "Workload", "choice", "integer", "ints", "normal", "operator", "pads", "parse", "rows", "uniform"]
