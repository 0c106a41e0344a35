"""`sbd_vitb16` begun from DINO ViT-B/16, whose licence (Apache-2.0) allows commercial use.

MAE's weights, with which the published experiment begins, are CC-BY-NC-4.0, and so is what is
trained from them. No run of this config has been measured yet.
"""

from mis_jax.configs import sbd_vitb16


def get_config():
    c = sbd_vitb16.get_config()
    c.model.init = "dino"
    return c
