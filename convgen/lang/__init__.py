"""The description language: axes with roles, tensors, index expressions, stages, operators, and what follows from them."""

from .ids import parse
from .operator import Operator, Prepared, choice, integer, ints, operator, pads
from .program import Program
from .sampling import BATCH_NORM, either, normal, rows, uniform, whole
from .workload import Workload

__all__ = ["BATCH_NORM", "Operator", "Prepared", "Program", "Workload", "choice", "either", "integer", "ints", "normal", "operator", "pads", "parse", "rows", "uniform", "whole"]
