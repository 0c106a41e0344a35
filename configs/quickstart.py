"""The whole flow in minutes on two CPU cores, offline.

mis-jax quickstart

The model that comes with mis_jax learns on from made-up scenes, without their masks.
"""

from ml_collections import ConfigDict

from mis_jax import config


def get_config():
    c = config.default()
    c.quickstart = ConfigDict(
        {
            # Photographs that ship with scikit-image, by name; the report shows the trees of the
            # first ones.
            "photos": (
                "astronaut", "coffee", "chelsea", "camera", "motorcycle_left", "rocket", "coins",
                "hubble_deep_field", "ihc", "moon", "retina", "cell",
            ),
            # Clicks that the report begins with: photograph, x, y, and 1 on the object or 0 beside.
            "clicks": (
                ("astronaut", 220, 100, 1), ("astronaut", 235, 35, 0),
                ("coffee", 180, 230, 1), ("coffee", 270, 100, 1),
                ("camera", 200, 250, 1), ("camera", 225, 105, 1),
            ),
            "unlabelled": 100,  # made-up scenes to learn from besides, without their masks
            "held_out": 24,  # made-up scenes with exact masks to measure on, of another seed
            "shown": 3,  # photographs, and as many held-out scenes, in the report
        }
    )  # fmt: skip
    c.features.model = "embedded"
    c.propose.max_side = 320  # the size of the made-up scenes
    c.data.update(crop=192, threads=2, prefetch=1)
    c.clicks.max_next = 7
    c.model.update(evidence=32, start=config.SHIPPED)
    c.optim.update(batch_size=8, steps=30, lr=1e-4, warmup=2, ema=0.99, clip=5.0)
    c.optim.update(milestones=(15, 24), decay=0.3)
    c.train.update(log_every=5, checkpoint_every=10)
    c.eval.target = 0.90
    return c
