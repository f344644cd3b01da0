"""Operators declared outside the catalogue, for tests of the language."""

from convgen.lang import choice, ints, operator, pads, uniform
from convgen.ops.conv import conv2d
from convgen.ops.depthwise import depthwise_conv2d


@operator(dims="N C H W KH KW")
def local_max2d(o, *, stride=ints(2), padding=pads(2), dilation=ints(2)):
    """Largest product of tap and pixel in the window; nothing is declared beside the computation."""
    o.out("P", o.window_size(o.H, o.KH, stride[0], dilation[0], padding[0]))
    o.out("Q", o.window_size(o.W, o.KW, stride[1], dilation[1], padding[1]))
    n, c, p, q = o.axes("N C P Q")
    r, s = o.window("KH KW")
    x = o.input("x", "N C H W", pad=padding, mode="replicate")
    w = o.input("weight", "N KH KW P Q")
    return o.max(w[n, r, s, p, q] * x[n, c, p * stride[0] + r * dilation[0], q * stride[1] + s * dilation[1]], (r, s))


@operator(dims="N C O H W KH KW")
def two_kernels_conv2d(o, *, stride=ints(2), padding=pads(2), groups: int = 1):
    """One convolution with the sum of a kernel and a small one in its centre."""
    o.require(o.KH % 2, "==", 1, "KH must be odd")
    oc, c, r, s = o.axis("oc", o.O), o.axis("ic", o.C // groups), o.axis("r", o.KH), o.axis("s", o.KW)
    big, point = o.param("big", "O", o.C // groups, "KH", "KW"), o.param("point", "O", o.C // groups)
    centre = (r == o.KH // 2) & (s == o.KW // 2)
    merged = o.stage(big[oc, c, r, s] + o.select(centre, point[oc, c], 0.0), name="merged")
    return conv2d(o, weight=merged, stride=stride, padding=padding, groups=groups)


@operator(dims="N C H W K")
def gaussian_conv2d(o, *, padding=pads(2)):
    """Depthwise convolution with a Gaussian whose width per channel is the parameter; the kernel is generated when it is bound."""
    ch, one, r, s = o.axis("ch", o.C), o.axis("one", 1), o.axis("r", o.K), o.axis("s", o.K)
    inverse = o.param("inverse_width", "C", values=uniform(0.1, 1))
    place, i, j = o.axis("place", o.K), o.axis("i", o.K), o.axis("j", o.K)
    square = o.stage(o.float((place - o.K // 2) * (place - o.K // 2)), name="square")  # a table of positions, read by the generator
    weight = o.stage(o.exp(-(square[r] + square[s]) * inverse[ch]), (ch, one, r, s), name="gaussian")
    total = o.stage(o.sum(weight[ch, 0, i, j], (i, j), name="total"))
    normal = o.stage(weight[ch, 0, r, s] / total[ch], (ch, one, r, s), name="normalised")
    return depthwise_conv2d(o, weight=normal, KH=o.K, KW=o.K, padding=padding)


@operator(dims="N C O H W KH KW", cite=None)
def gated_block2d(o, *, squash=choice("sigmoid", "tanh")):
    """Two operators in a row, the first one read at other positions: depthwise, activation, pointwise, times a gate of the input."""
    n, oc, p, q = o.axes("N O H W")
    x = o.input("x", "N C H W")
    first = o.stage(depthwise_conv2d(o, x=x, weight=o.param("weight_dw", "C", 1, "KH", "KW"), bias=o.param("bias_dw", "C"), padding="same", activation="relu"))
    second = o.stage(conv2d(o, x=first, weight=o.param("weight_pw", "O", "C", 1, 1), KH=1, KW=1))
    c = o.axis("c", o.C)
    mean = o.stage(o.sum(x[n, c, p, q], c), (n, p, q), name="mean")
    return second[n, oc, p, q] * o.activation(squash, mean[n, p, q] * 0.5)
