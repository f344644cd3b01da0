"""An operator outside the catalogue: grayscale dilation of every channel by a structuring element of its own."""

import torch
import torch.nn.functional as F

from convgen.lang import operator, pads


def by_unfold(w, x, weight):
    """Windows side by side, add, maximum."""
    n, c, k = x.shape[0], x.shape[1], weight.shape[2:]
    (top, bottom), (left, right) = w.attributes["padding"]
    x = F.pad(x, (left, right, top, bottom))
    size = x.shape[2] - k[0] + 1, x.shape[3] - k[1] + 1
    windows = F.unfold(x, k).reshape(n, c, k[0] * k[1], *size)
    return (windows + weight.reshape(1, c, -1, 1, 1)).amax(2)


def by_shifts(w, x, weight):
    """One shifted copy per tap, with a running maximum."""
    (top, bottom), (left, right) = w.attributes["padding"]
    x, result = F.pad(x, (left, right, top, bottom)), None
    rows, columns = x.shape[2] - weight.shape[2] + 1, x.shape[3] - weight.shape[3] + 1
    for r in range(weight.shape[2]):
        for s in range(weight.shape[3]):
            term = x[:, :, r:r + rows, s:s + columns] + weight[:, 0, r, s].reshape(1, -1, 1, 1)
            result = term if result is None else torch.maximum(result, term)
    return result


@operator(dims="N C H W KH KW", cite="doi:10.1109/TPAMI.1987.4767941", formulations={"shifted maximum": by_shifts, "unfold": by_unfold},
          workloads=["n1,c64,h56,w56,k5x5;padding=2:f32.f32.f32:nchw", "n1,c64,h56,w56,k5x5;padding=2:f32.f32.f32:nhwc"])
def dilation2d(o, *, padding=pads(2)):
    """Grayscale dilation: y[n,c,p,q] = max over r, s of x[n,c,p+r,q+s] + weight[c,0,r,s], with zeros outside x."""
    o.out("P", o.window_size(o.H, o.KH, 1, 1, padding[0]))
    o.out("Q", o.window_size(o.W, o.KW, 1, 1, padding[1]))
    n, c, p, q = o.axes("N C P Q")
    r, s = o.window("KH KW")
    x = o.input("x", "N C H W", pad=padding)
    w = o.param("weight", "C", 1, "KH", "KW")
    return o.max(x[n, c, p + r, q + s] + w[c, 0, r, s], (r, s))
