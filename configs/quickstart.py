"""The whole flow in minutes on two CPU cores: a Pico model on 64-pixel crops, no network needed.

mis-jax quickstart
"""

from ml_collections import ConfigDict

from mis_jax import config


def get_config():
    c = config.default()
    c.quickstart = ConfigDict(
        {
            # Photographs that ship with scikit-image, by name; the report shows the first ones.
            "photos": (
                "astronaut", "coffee", "chelsea", "motorcycle_left", "rocket", "camera", "coins",
                "hubble_deep_field", "ihc", "moon", "retina", "cell",
            ),
            "unlabelled": 100,  # made-up scenes to learn from besides, without their masks
            "held_out": 24,  # made-up scenes with exact masks to measure on, of another seed
            "shown": 3,  # photographs, and as many held-out scenes, in the report
        }
    )  # fmt: skip
    c.features.model = "embedded"
    c.propose.max_side = 320  # the size of the made-up scenes
    # A crop shows an image of 320 pixels whole, or half of it.
    c.data.update(crop=64, scale=(0.2, 0.4), min_object_area=20, flip_vertical=False)
    c.data.update(rotate90=0.0, threads=2)
    c.clicks.max_next = 2
    c.model.variant = "Pico"
    c.loss.smooth_weight = 0.0
    c.optim.update(batch_size=8, steps=850, lr=1.5e-3, warmup=50, ema=0.985, clip=1.0)
    c.optim.update(milestones=(570, 750), decay=0.3)
    c.train.update(color_aug=False, checkpoint_every=200)
    c.eval.update(size=96, davis_size=96, target=0.90)  # more tokens than a crop: finer outlines
    return c
