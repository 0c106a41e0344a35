"""A short training run of the published trainer and of ours, step by step on the same batches.

python tools/fidelity/training.py SOURCES
"""

import random
from types import SimpleNamespace

import cv2
import numpy as np
import published

FOLDER = published.sources(__doc__)
published.use(FOLDER, "MIS")

import torch
from fidelity import save
from mis.model.is_model import MISModel
from mis.model.losses import BCEWithLogitsLoss, SmoothLoss
from mis.training import MISTrainer
from test_fidelity_training import (
    BATCH,
    MILESTONE,
    RATE,
    SIDE,
    STEPS,
    batch,
    draws,
    initial_tensors,
    our_losses,
)

NOISE = (1, 2, 10)  # first steps, over which rounding alone should tell the two apart
LAST = 50  # steps whose means are compared
PERTURBED = 1e-7  # of every weight: rounding alone leads the same code elsewhere in the end


class KeptChannels(torch.nn.Module):
    """Dropout of channels that were drawn elsewhere; `kept` is [B, C]."""

    def forward(self, x):
        return x * self.kept[:, :, None, None] if self.training else x


def main() -> None:
    """Writes the fixture and the results."""
    cv2.ipp.setUseIPP(False)  # OpenCV's own chamfer distances, not Intel's
    theirs, ours = their_losses(), our_losses(STEPS)
    again = [their_losses(PERTURBED * k) for k in (1, 2, 3)]
    save("training", {"losses": theirs}, published.origin(__file__, "MIS"))
    apart, spread = _apart([ours], theirs), _apart(again, theirs)
    oracle = f"MISTrainer.batch_forward, Adam, MultiStepLR; SimpleClick xTiny, {SIDE} pixels"
    cases = f"{STEPS} steps of {BATCH} samples"
    rows = []
    for part in apart:
        self = f"; of that code from itself, weights moved by 1e-7: {spread[part]:.2g}"
        rows.append({"part": part, "oracle": oracle + self, "cases": cases,
                     "worst": apart[part], "unit": "relative"})  # fmt: skip
    runs = {"ours": ours, "published": theirs}
    runs |= {f"published, perturbed {k + 1}": x for k, x in enumerate(again)}
    curves = {name: _total(x).round(6).tolist() for name, x in runs.items()}
    published.write_results(__file__, rows, "MIS", curves=curves)


def _total(losses: np.ndarray) -> np.ndarray:
    """Eq. 8 of each step."""
    return losses[:, 0] + 10 * losses[:, 1]


def _apart(runs: list[np.ndarray], theirs: np.ndarray) -> dict[str, float]:
    """How far the farthest of some runs is from theirs."""
    found = {}
    for steps in NOISE:
        steps_apart = [np.abs(_total(x) / _total(theirs) - 1)[:steps].max() for x in runs]
        found[f"Loss of every step up to {steps}"] = float(max(steps_apart))
    means = [_total(x)[-LAST:].mean() / _total(theirs)[-LAST:].mean() - 1 for x in runs]
    found[f"Mean loss of the last {LAST} steps"] = float(np.abs(means).max())
    return found


def their_losses(perturbed: float = 0.0) -> np.ndarray:
    """float64 [STEPS, 3]: BCE, smoothness and norm of the gradient."""
    torch.manual_seed(0)
    trainer = _trainer()
    net = trainer.net
    with torch.no_grad():
        for parameter in net.parameters():
            parameter *= 1 + perturbed
    optimizer = torch.optim.Adam(net.parameters(), lr=RATE, betas=(0.9, 0.999), eps=1e-8)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[MILESTONE], gamma=0.1)
    found = []
    for step in range(STEPS):
        rounds, uniform, kept = draws(step)
        net.head.dropout.kept = torch.as_tensor(kept.copy())
        optimizer.zero_grad()
        with _Draws(rounds, uniform) as drawn:
            loss, parts, _, _ = trainer.batch_forward(_tensors(batch(step)))
        assert drawn.count == rounds * BATCH, "a prediction without errors draws no place"
        loss.backward()
        gradients = [p.grad for p in net.parameters() if p.grad is not None]
        norm = torch.sqrt(sum((g.double() ** 2).sum() for g in gradients))
        optimizer.step()
        schedule.step()
        names = ("instance_pseudo_loss", "instance_smooth_loss")
        found.append([*(float(parts[name]) for name in names), float(norm)])
    return np.array(found)


def _trainer() -> MISTrainer:
    """The published trainer without its data loaders, with the initial weights of the test."""
    dims = (96, 192, 288, 384)
    net = MISModel(
        use_disks=True,
        norm_radius=5,
        with_prev_mask=True,
        backbone_params=dict(
            img_size=(SIDE, SIDE), patch_size=(16, 16), in_chans=3, embed_dim=160, depth=8,
            num_heads=4, mlp_ratio=4, qkv_bias=True,
        ),
        neck_params=dict(in_dim=160, out_dims=list(dims)),
        head_params=dict(
            in_channels=list(dims), in_index=[0, 1, 2, 3], dropout_ratio=0.1, num_classes=1,
            loss_decode=None, align_corners=False, upsample="x1", channels=128,
        ),
    )  # fmt: skip
    tensors = {key: torch.as_tensor(x) for key, x in initial_tensors().items()}
    missing, left_over = net.load_state_dict(tensors, strict=False)
    print("not of ours:", ", ".join(missing))
    assert not left_over
    net.transform = lambda x: x
    net.head.dropout = KeptChannels()
    net.train()
    trainer = MISTrainer.__new__(MISTrainer)
    vars(trainer).update(
        net=net, device=torch.device("cpu"), train_metrics=[], max_num_next_clicks=3,
        click_models=None, prev_mask_drop_prob=0.0,
        cfg=SimpleNamespace(local_rank=1),  # not the process that logs
        loss_cfg=dict(
            instance_pseudo_loss=BCEWithLogitsLoss(), instance_pseudo_loss_weight=1.0,
            instance_smooth_loss=SmoothLoss(), instance_smooth_loss_weight=10.0,
        ),
    )  # fmt: skip
    return trainer


def _tensors(arrays: dict) -> dict:
    image = torch.as_tensor(arrays["image"]).permute(0, 3, 1, 2).float() / 255
    mask = torch.as_tensor(arrays["mask"])[:, None].float()
    return {"images": image, "instances": mask, "points": torch.as_tensor(arrays["points"])}


class _Draws:
    """Lets the published code draw the numbers of our step."""

    def __init__(self, rounds: int, uniform: np.ndarray):
        self._rounds, self._uniform, self.count = rounds, uniform.reshape(-1), 0

    def __enter__(self) -> "_Draws":
        self._kept = random.randint, np.random.randint
        random.randint = lambda low, high: self._rounds
        np.random.randint = self._place
        return self

    def __exit__(self, *_):
        random.randint, np.random.randint = self._kept

    def _place(self, low: int, high: int) -> int:
        self.count += 1
        return min(int(self._uniform[self.count - 1] * np.float32(high)), high - 1)


if __name__ == "__main__":
    main()
