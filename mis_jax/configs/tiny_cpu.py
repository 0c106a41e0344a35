"""The whole flow on two CPU cores, from nothing: a Nano model on 128-pixel crops.

    mis-jax train photos --workdir runs/tiny --config tiny_cpu
    mis-jax evaluate runs/tiny --datasets grabcut=GrabCut
"""

from mis_jax import config


def get_config():
    c = config.default()
    c.data.update(crop=128, scale=(0.3, 0.7), min_object_area=40, flip_vertical=False)
    c.data.update(rotate90=0.0, threads=2)
    c.model.variant = "Nano"
    c.loss.smooth_weight = 1.0
    c.optim.update(batch_size=16, steps=6000, lr=1e-3, warmup=200, ema=0.999, clip=1.0)
    c.optim.update(milestones=(4000, 5200, 5700), decay=0.3)
    c.train.update(color_aug=False, checkpoint_every=200)
    c.eval.update(size=128, davis_size=192)
    return c
