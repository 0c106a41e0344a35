"""Your own photos on two CPU cores: an evidence network such as comes with mis_jax.

    mis-jax train photos --workdir runs/mine --config evidence
    mis-jax evaluate runs/mine --datasets mine=benchmark

It learns from nothing but photos: no labels, and no other network's weights. With
--config.model.start=shipped it begins from the one that comes with mis_jax.
"""

from mis_jax import config


def get_config():
    c = config.default()
    c.features.model = "embedded"
    c.data.update(crop=256, threads=2)
    c.clicks.max_next = 12
    c.model.evidence = 32
    c.optim.update(batch_size=16, steps=3000, lr=1e-3, warmup=20, ema=0.999, clip=5.0)
    c.optim.update(milestones=(1800, 2400, 2760), decay=0.35)
    c.train.update(log_every=5, checkpoint_every=50)
    return c
