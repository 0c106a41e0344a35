"""Losses and their gradients: the classes of MIS and SimpleClick beside training/losses.py.

Writes tests/fixtures/losses.npz and results/fidelity/losses.json.
"""

from published import origin, sources, use, write_results

FOLDER = sources(__doc__)
use(FOLDER, "MIS")

import fidelity
import jax
import numpy as np
import torch
import training_inputs
from isegm.model.losses import NormalizedFocalLossSigmoid
from mis.model.losses import BCEWithLogitsLoss, SmoothLoss

from mis_jax import config
from mis_jax.training.train_step import loss as train_loss

BCE, SMOOTH, FOCAL = BCEWithLogitsLoss(), SmoothLoss(), NormalizedFocalLossSigmoid(alpha=0.5)
PUBLISHED = {
    "bce": lambda x, y, image: BCE(x, y, image),
    "smooth": lambda x, y, image: SMOOTH(x, y, image),
    "nfl": lambda x, y, image: FOCAL(x, y).mean(),
    "total": lambda x, y, image: BCE(x, y, image) + 10 * SMOOTH(x, y, image),
}
ORACLES = {
    "bce": "mis.model.losses.BCEWithLogitsLoss",
    "smooth": "mis.model.losses.SmoothLoss",
    "nfl": "isegm.model.losses.NormalizedFocalLossSigmoid(alpha=0.5, gamma=2)",
    "total": "1 BCEWithLogitsLoss + 10 SmoothLoss, as MISTrainer adds them",
}


def published(kind, logits, image, target):
    """Value and gradient w.r.t. the logits; the image reaches the trainer as uint8 / 255."""
    x = torch.from_numpy(logits)[:, None].requires_grad_()
    y = torch.from_numpy(target)[:, None]
    pixels = torch.from_numpy(image).permute(0, 3, 1, 2).float().div(255) * 255
    value = PUBLISHED[kind](x, y, pixels)
    value.backward()
    return np.float32(value.item()), x.grad[:, 0].numpy()


def ours(kind, logits, image, target):
    """The same of train_step.loss, with the default config but for the kind of mask loss."""
    fields = config.loss() | {"mask": "nfl" if kind == "nfl" else "bce"}
    name = "loss" if kind == "total" else kind
    batch = {"image": image, "mask": target}
    return jax.value_and_grad(lambda x: train_loss(fields, x, batch)[1][name])(logits)


def main():
    """Records and compares all cases that each loss is defined for."""
    arrays, rows = {}, []
    for kind in PUBLISHED:
        cases = [c for c in training_inputs.LOSS_CASES if kind == "nfl" or c != "ignored"]
        worst = {"value": 0.0, "gradient": 0.0}
        for case in cases:
            inputs = training_inputs.losses(case)
            theirs, found = published(kind, *inputs), ours(kind, *inputs)
            for part, a, b in zip(worst, found, theirs, strict=True):
                worst[part] = max(worst[part], fidelity.relative_error(a, b))
                arrays[f"{kind} {case} {part}"] = fidelity.some(b, 4000)
        for part, error in worst.items():
            rows.append(
                {"part": f"{kind}: {part}", "oracle": ORACLES[kind], "cases": ", ".join(cases),
                 "worst": error, "unit": "of the largest value"}
            )  # fmt: skip
    fidelity.save("losses", arrays, origin(__file__, "MIS"))
    write_results(__file__, rows, "MIS")


main()
