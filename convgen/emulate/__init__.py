"""Kernels of targets that are not here, run for correctness only. Knows kernel entries, no operators; its times mean nothing."""
