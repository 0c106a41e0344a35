"""prefetch.py: it only asks, so all there is to see is that it does no harm."""

import numpy as np
from numba import njit

from mis_jax.proposals.prefetch import prefetch


@njit
def ask_for(array, rows):
    for row in rows:
        prefetch(array, row, 0)
        prefetch(array, row, 7)
    return array.sum()


def test_any_address_may_be_asked_for():
    for array in (np.arange(40, dtype=np.float32).reshape(10, 4), np.arange(9, dtype=np.int32)):
        assert ask_for(array, np.array([0, 3, 10**9, -(10**12)])) == array.sum()
