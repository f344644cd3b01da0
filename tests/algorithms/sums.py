"""What every rewrite has to keep."""

import numpy as np


def assert_equal_sums(program, rewritten):
    """Each of the rewritten programs computes in float64 what `program` does, up to rounding."""
    tensors = program.sample(0)
    expected = program.reference(tensors)
    for other in rewritten:
        np.testing.assert_allclose(other.reference(tensors), expected, rtol=0, atol=1e-12 * np.abs(expected).max())
