"""Inputs of the losses and of the training sample, from seeds: for tests and tools/fidelity."""

import cv2
import fidelity
import numpy as np

LOSS_CASES = {  # name: batch, height, width
    "plain": (2, 40, 56), "small": (1, 7, 5), "line": (1, 1, 3), "padded": (2, 33, 32),
    "extreme": (2, 24, 24), "empty": (2, 16, 20), "full": (1, 16, 20), "ignored": (3, 24, 30),
}  # fmt: skip


def losses(case: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits float32 [B, H, W], image uint8 [B, H, W, 3], target float32 [B, H, W].

    "padded" has black margins, "extreme" logits up to 1e4, "ignored" targets of -1, which only the
    focal loss knows.
    """
    shape, rng = LOSS_CASES[case], fidelity.generator(f"losses {case}")
    logits = (3 * rng.standard_normal(shape)).astype(np.float32)
    target = (smooth_noise(rng, shape, 3) > 0).astype(np.float32)
    image = 128 + 90 * smooth_noise(rng, (*shape, 3), 4) + rng.uniform(-3, 3, (*shape, 3))
    image = np.clip(image, 0, 255).astype(np.uint8)
    if case == "padded":
        image[:, :6] = image[:, :, -9:] = 0
        target[:, :6] = target[:, :, -9:] = 0
    if case == "extreme":
        logits *= rng.choice([1, 10, 3000], shape)
    if case in ("empty", "full"):
        target[:] = case == "full"
    if case == "ignored":
        target[smooth_noise(rng, shape, 2) > 0.8] = -1
        target[2] = -1
    return logits, image, target


def smooth_noise(rng: np.random.RandomState, shape: tuple[int, ...], sigma: float) -> np.ndarray:
    """Noise [B, H, W] or [B, H, W, C] of about unit variance, smooth over `sigma` pixels."""
    noise = rng.standard_normal(shape)
    for image in noise:
        image[:] = cv2.GaussianBlur(image, (0, 0), sigma).reshape(image.shape)
    return noise / max(noise.std(), 1e-6)
