"""The paper's experiment: SBD's training images, DINO ViT-S/8 trees, SimpleClick ViT-B from MAE.

    mis-jax propose SBD/img --records records/sbd --config sbd_vitb16
    mis-jax train records/sbd --workdir runs/sbd --config sbd_vitb16
    mis-jax evaluate runs/sbd --datasets grabcut=GrabCut,berkeley=Berkeley,davis=DAVIS

The paper reports NoC@85/90 of 1.94/2.32 on GrabCut, 3.09/4.58 on Berkeley, 6.33/8.44 on DAVIS.
"""

from mis_jax import config


def get_config():
    c = config.default()
    c.features.model = "dino-vits8"
    c.model.init = "mae"
    return c
