"""`sbd_vitb16` begun from DINO ViT-B/16, whose licence (Apache-2.0) allows commercial use.

MAE's weights, with which the published experiment begins, are CC-BY-NC-4.0, and so is what is
trained from them. No run of this config has been measured yet.
"""

from mis_jax import config


def get_config():
    c = config.load("sbd_vitb16")
    c.model.init = "dino"
    return c
