"""Losses and gradients against the published classes: numbers of tools/fidelity/losses.py."""

import fidelity
import jax
import pytest
import training_inputs

from mis_jax import config
from mis_jax.errors import InputError
from mis_jax.training.train_step import loss

PUBLISHED = fidelity.load("losses")
TOLERANCE = {"value": 5e-6, "gradient": 1e-5}  # of the largest


@pytest.mark.parametrize("kind", ["bce", "smooth", "nfl", "total"])
@pytest.mark.parametrize("case", training_inputs.LOSS_CASES)
def test_loss(kind, case):
    """With the default config: 1 BCE + 10 smoothness in total."""
    if f"{kind} {case} value" not in PUBLISHED:
        assert case == "ignored"  # only the focal loss knows such pixels
        return
    logits, image, target = training_inputs.losses(case)
    fields = config.loss() | {"mask": "nfl" if kind == "nfl" else "bce"}
    name = "loss" if kind == "total" else kind
    batch = {"image": image, "mask": target}
    found = jax.jit(jax.value_and_grad(lambda x: loss(fields, x, batch)[1][name]))(logits)
    for part, array in zip(("value", "gradient"), found, strict=True):
        expected = PUBLISHED[f"{kind} {case} {part}"]
        error = fidelity.relative_error(fidelity.some(array, 4000), expected)
        assert error < TOLERANCE[part], part


def test_unknown_mask_loss_is_named():
    logits, image, target = training_inputs.losses("small")
    with pytest.raises(InputError, match=r'config\.loss\.mask is "dice"; give bce or nfl'):
        loss(config.loss() | {"mask": "dice"}, logits, {"image": image, "mask": target})
