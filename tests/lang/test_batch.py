"""any_batch is granted exactly where samples are independent."""

import pytest

from convgen.errors import ArgumentError
from convgen.lang import operator
from convgen.ops.table import TABLE
from tests.ops.test_table import small


@pytest.mark.parametrize("op", TABLE, ids=lambda op: op.name)
def test_every_catalogue_operator_takes_any_batch(op):
    w = small(op, any_batch=True)
    assert w.program.any_batch and ":n2+," in w.id


def total(o):
    n, c = o.axis("n", o.N), o.axes("C")[0]
    return o.sum(o.input("x", "N C")[n, c], n)


def index(o):
    n, c = o.axes("N C")
    return o.input("x", "N C")[n, c] * n


def average(o):
    n, c = o.axes("N C")
    return o.input("x", "N C")[n, c] / o.N


def decision(o):
    n, c = o.axes("N C")
    return o.input("x", "N C")[n, c] * (2.0 if o.N > 1 else 1.0)


def flattened(o):
    o.size("I", o.N * o.C)
    i, = o.axes("I")
    return o.input("x", "I")[i]


@pytest.mark.parametrize("body, why", [
    (total, "the stage sum reduces over it"), (index, "computes with its index or size"), (average, "computes with its index or size"),
    (decision, "the declaration decides by its size"), (flattened, "a tensor's shape computes with its size"),
])
def test_batches_that_are_not_independent_are_refused(body, why):
    op = operator(dims="N C")(body)
    assert op(N=4, C=3)
    with pytest.raises(ArgumentError, match=f"{body.__name__}: any_batch needs a batch of independent samples, and .*{why}"):
        op(N=4, C=3, any_batch=True)
