"""Your own photos, half an hour on two CPU cores: goes on from the model that comes with mis_jax.

    mis-jax train photos/ --workdir runs/mine --config folder_cpu
    mis-jax annotate photos/ --run runs/mine
    mis-jax evaluate runs/mine --datasets mine=benchmark/    # where you have masks

It learns from nothing but the photos. A line at its end says whether it became better on them.
"""

from mis_jax import config


def get_config():
    c = config.default()
    c.features.model = "embedded"
    c.data.update(crop=256, threads=2, prefetch=1)
    c.clicks.max_next = 7
    c.model.update(evidence=32, start="shipped")
    c.optim.update(batch_size=8, steps=320, lr=3e-4, warmup=5, ema=0.999, clip=5.0)
    c.optim.update(milestones=(160, 256, 300), decay=0.4)
    c.train.update(log_every=5, checkpoint_every=25)
    return c
