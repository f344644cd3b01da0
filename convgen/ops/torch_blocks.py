"""Independent PyTorch formulations of the blocks; see torch_forms."""

from __future__ import annotations

from ..lang import Prepared


def _linear_layers(w, x, weight_dw, bias_dw, norm, weight_1, bias_1, weight_2, bias_2, layer_scale):
    """The authors' block: linear layers on channels-last values. Deployed: the layer scale in the second layer."""
    return {"x": x, "weight_dw": weight_dw, "bias_dw": bias_dw, "norm": norm, "weight_1": weight_1, "bias_1": bias_1,
            "weight_2": weight_2 * layer_scale[:, None], "bias_2": bias_2 * layer_scale}


def _convnext_linear(w, x, weight_dw, bias_dw, norm, weight_1, bias_1, weight_2, bias_2):
    import torch.nn.functional as F
    y = F.conv2d(x, weight_dw, bias_dw, padding=tuple(k // 2 for k in weight_dw.shape[2:]), groups=x.shape[1]).permute(0, 2, 3, 1)
    y = F.layer_norm(y, y.shape[-1:], norm[0], norm[1], w.attributes["eps"])
    y = F.linear(F.gelu(F.linear(y, weight_1, bias_1)), weight_2, bias_2)
    return x + y.permute(0, 3, 1, 2)


def _convolutions(w, x, weight_dw, bias_dw, norm, weight_1, bias_1, weight_2, bias_2, layer_scale):
    """As 1x1 convolutions in the input's own format, with norm and layer scale folded into them."""
    return {"x": x, "weight_dw": weight_dw, "bias_dw": bias_dw, "weight_1": (weight_1 * norm[0])[..., None, None], "bias_1": bias_1 + weight_1 @ norm[1],
            "weight_2": (weight_2 * layer_scale[:, None])[..., None, None], "bias_2": bias_2 * layer_scale}


def _convnext_convolutions(w, x, weight_dw, bias_dw, weight_1, bias_1, weight_2, bias_2):
    import torch
    import torch.nn.functional as F
    y = F.conv2d(x, weight_dw, bias_dw, padding=tuple(k // 2 for k in weight_dw.shape[2:]), groups=x.shape[1])
    variance, mean = torch.var_mean(y, 1, correction=0, keepdim=True)
    y = (y - mean) * torch.rsqrt(variance + w.attributes["eps"])
    return x + F.conv2d(F.gelu(F.conv2d(y, weight_1, bias_1)), weight_2, bias_2)


CONVNEXT_LINEAR = Prepared(_linear_layers, _convnext_linear)
CONVNEXT_CONVOLUTIONS = Prepared(_convolutions, _convnext_convolutions)


def inverted_residual2d(w, x, weight_dw, bias_dw, weight_project, bias_project, weight_expand=None, bias_expand=None):
    """torchvision's InvertedResidual with its batch norms folded."""
    import torch.nn.functional as F
    stride, inner = w.attributes["stride"], getattr(F, w.attributes["inner"])
    y = x if weight_expand is None else inner(F.conv2d(x, weight_expand, bias_expand))
    y = inner(F.conv2d(y, weight_dw, bias_dw, stride, tuple(k // 2 for k in weight_dw.shape[2:]), groups=y.shape[1]))
    y = F.conv2d(y, weight_project, bias_project)
    return x + y if tuple(stride) == (1, 1) and y.shape[1] == x.shape[1] else y


def large_kernel_attention2d(w, x, weight_dw, bias_dw, weight_dilated, bias_dilated, weight_pw, bias_pw):
    """AttentionModule of the authors' VAN."""
    import torch.nn.functional as F
    dilation, c = w.attributes["dilation"], x.shape[1]
    y = F.conv2d(x, weight_dw, bias_dw, padding=weight_dw.shape[-1] // 2, groups=c)
    y = F.conv2d(y, weight_dilated, bias_dilated, padding=tuple(d * (k // 2) for d, k in zip(dilation, weight_dilated.shape[2:])), dilation=dilation, groups=c)
    return x * F.conv2d(y, weight_pw, bias_pw)
