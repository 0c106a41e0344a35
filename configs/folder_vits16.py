"""Your own photos on one GPU: SimpleClick S on 224-pixel crops, from DINO ViT-S/16.

    mis-jax train photos --workdir runs/mine --config folder_vits16
    mis-jax evaluate runs/mine --datasets mine=benchmark

Trees come from DINO ViT-S/8 where its weights are at hand, else from the embedded descriptor.
Without a network add --config.model.init=random. No run of this config has been measured yet.
"""

from mis_jax import config


def get_config():
    c = config.default()
    c.data.update(crop=224, scale=(0.4, 1.0), min_object_area=40, flip_vertical=False)
    c.data.update(rotate90=0.0)
    c.model.update(variant="S", init="dino")
    c.optim.update(batch_size=64, steps=8000, lr=2e-4, warmup=500, ema=0.999, clip=1.0)
    c.optim.update(milestones=(6000, 7500), decay=0.1)
    c.eval.update(size=224, davis_size=448)
    return c
