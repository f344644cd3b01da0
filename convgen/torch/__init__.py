"""PyTorch networks: which workloads they run."""

from .trace import Layers, workloads

__all__ = ["Layers", "workloads"]
