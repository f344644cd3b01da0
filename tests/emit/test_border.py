"""Merged axes inside, the caller's dims outside: kernels take tensors of the shapes that the description shows."""

import random

from convgen import schedules
from convgen.lang import operator, parse
from tests.emit.kernels import complaints, job, target

IDS = ["conv2d:n2,c19,o33,h5,w7,k1x1:f32.f32.f32:nchw:residual", "conv2d:n2,c19,o33,h5,w7,k1x1:f32.f32.f32:nhwc:bias,residual", "conv2d:n1,c16,o32,h14,w14,k1x1:f32.f32.f32:nchw:bias",
       "conv3d:n1,c5,o16,d2,h3,w5,k1x1x1:f32.f32.f32:ncdhw:act=relu", "conv2d:n1,c12,o24,h9,w5,k1x1;groups=3:f32.f32.f32:nchw"]


@operator(dims="N C H W O", epilogue=False)
def placed(o):
    """A pointwise convolution that knows where it is: y[n,o,p,q] = sum_c w[o,c] x[n,c,p,q] + place[p,q]."""
    o.out("P", o.H)
    o.out("Q", o.W)
    n, k, p, q = o.axes("N O P Q")
    c = o.axis("c", o.C)
    return o.sum(o.param("weight", "O", "C")[k, c] * o.input("x", "N C H W")[n, c, p, q], (c,)) + o.param("place", "H", "W")[p, q]


def test_kernels_take_the_callers_dims(kernels):
    asked = []
    for seed, id in enumerate(IDS):
        w = parse(id)
        leaf = schedules.space(w.description, target()).leaves["direct"]
        assert len(leaf.program.output.shape) == 3
        asked += [(w, job(w, choice=c)) for c in (leaf.default(), *leaf.candidates(random.Random(seed), 3))]
    for layout in ("NCHW", "NHWC"):
        w = placed(N=2, C=8, H=5, W=6, O=16, layout=layout)
        program = schedules.space(w.description, target()).leaves["direct"].program
        assert [list(t.shape) for t in program.tensors if t.name == "place"] == [[30]]
        asked.append((w, job(w)))
    wrong = [line for (w, _), answer in zip(asked, kernels.ask([j for _, j in asked])) for line in complaints(w, answer)]
    assert not wrong, "\n".join(wrong)


def test_any_batch(kernels):
    wrong, verdicts = kernels.check_batches(parse("conv2d:n2+,c16,o16,h4,w6,k1x1:f32.f32.f32:nchw:bias"))
    assert not wrong and verdicts == 4
