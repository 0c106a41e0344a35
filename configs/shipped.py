"""The model that ships: an evidence network on composites, from nothing, an hour on two CPU cores.

    mis-jax train photos --workdir runs/shipped --config shipped
    mis-jax evaluate runs/shipped --datasets mine=benchmark

It learns from nothing but photos: no labels, and no other network's weights.
"""

from mis_jax import config


def get_config():
    c = config.default()
    c.features.model = "embedded"
    c.data.update(crop=256, threads=2, prefetch=1)
    c.clicks.max_next = 7
    c.model.evidence = 32
    c.optim.update(batch_size=8, steps=400, lr=1e-3, warmup=5, ema=0.999, clip=5.0)
    c.optim.update(milestones=(200, 280, 340, 380), decay=0.4)
    c.train.update(log_every=5, checkpoint_every=25)
    return c
