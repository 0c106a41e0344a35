"""Trees merged at random, and the random numbers that the published code draws proposals with."""

import numpy as np

from mis_jax import Tree


class Minstd:
    """The uniform numbers of C++'s `default_random_engine`: two states a number."""

    def __init__(self, seed):
        self.state = seed % 2147483647 or 1

    def _next(self):
        self.state = 16807 * self.state % 2147483647
        return self.state - 1

    def random(self):
        low, high = self._next(), self._next()
        return np.float64((low + high * 2147483646.0) / float(2147483646**2))


def random_tree(seed, height, width):
    """Merges any two nodes, connected or not, one after the other."""
    rng = np.random.default_rng(seed)
    n = height * width
    unmerged, merges = list(range(n)), []
    for node in range(n, 2 * n - 1):
        rng.shuffle(unmerged)
        merges.append([unmerged.pop(), unmerged.pop()])
        unmerged.append(node)
    costs = rng.uniform(0, 100, n - 1) * (rng.random(n - 1) < 0.9)
    return Tree(np.array(merges, np.int32).reshape(n - 1, 2), costs, (height, width))
