"""Colour models of the object's and the background's seeds -> how likely a colour is the object's.

Mixtures of Gaussians as in Gulshan et al. (CVPR 2010), of their published code: five components,
found by splitting (Orchard and Bouman, 1991), and a uniform one.
"""

import numpy as np
from numba import njit

COMPONENTS = 5
UNIFORM = 0.05  # weight of the uniform density, of 1 over colours in 0..1
SMALLEST = 3  # pixels of a component; smaller ones are left out
FLOOR = 1e-4  # added to the variances: 2.5 levels of 255, squared

Mixture = tuple[np.ndarray, np.ndarray, np.ndarray]  # weights / norms [K], means [K, 3], whitening


def object_likelihood(colours: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """p(colour | object) / (p(colour | object) + p(colour | background)), float32 [h, w].

    Args:
        colours: float32 [h, w, 3] in 0..1.
        seeds: int8 [h, w], 1 object, 0 background. Without one of them its colours are uniform.
    """
    flat = np.ascontiguousarray(colours.reshape(-1, 3))
    likely = [density(flat, mixture(colours[seeds == label])) for label in (1, 0)]
    return (likely[0] / (likely[0] + likely[1])).reshape(seeds.shape)


def mixture(colours: np.ndarray) -> Mixture:
    """The Gaussians of up to `COMPONENTS` clusters of colours, float32 [m, 3]."""
    factors, means, whitenings = [], [], []
    for cluster in split(colours.astype(np.float64), COMPONENTS) if len(colours) else []:
        if len(cluster) < min(SMALLEST, len(colours)):
            continue
        mean = cluster.mean(0)
        covariance = (cluster - mean).T @ (cluster - mean) / len(cluster) + FLOOR * np.eye(3)
        whitening = np.linalg.inv(np.linalg.cholesky(covariance))
        norm = np.sqrt((2 * np.pi) ** 3 * np.linalg.det(covariance))
        factors.append(len(cluster) / len(colours) / norm)
        means.append(mean)
        whitenings.append(whitening)
    parts = np.array(factors), np.reshape(means, (-1, 3)), np.reshape(whitenings, (-1, 3, 3))
    norms, centres, roots = (part.astype(np.float32) for part in parts)
    return norms, centres, roots


def split(points: np.ndarray, count: int) -> list[np.ndarray]:
    """Halves the cluster of largest principal variance until there are `count`; float64 [m, 3]."""
    clusters = [points]
    while len(clusters) < count:
        axes = [np.linalg.eigh((c - c.mean(0)).T @ (c - c.mean(0))) for c in clusters]
        widest = int(np.argmax([values[-1] for values, _ in axes]))
        cluster, axis = clusters[widest], axes[widest].eigenvectors[:, -1]
        above = (cluster - cluster.mean(0)) @ axis > 0
        if above.all() or not above.any():
            break
        clusters[widest : widest + 1] = [cluster[above], cluster[~above]]
    return clusters


def density(colours: np.ndarray, model: Mixture) -> np.ndarray:
    """UNIFORM + (1 - UNIFORM) times the mixture's density at colours [n, 3]: float32 [n]."""
    return _density(colours, *model, np.float32(UNIFORM))


@njit(nogil=True, cache=True)
def _density(
    colours: np.ndarray,
    factors: np.ndarray,
    means: np.ndarray,
    whitenings: np.ndarray,
    uniform: np.float32,
) -> np.ndarray:
    out = np.empty(len(colours), np.float32)
    for i in range(len(colours)):
        total = np.float32(0)
        for k in range(len(factors)):
            squared = np.float32(0)
            for row in range(3):
                z = np.float32(0)
                for col in range(row + 1):
                    z += whitenings[k, row, col] * (colours[i, col] - means[k, col])
                squared += z * z
            if squared < 60:
                total += factors[k] * np.exp(-squared / np.float32(2))
        out[i] = uniform + (1 - uniform) * total
    return out
