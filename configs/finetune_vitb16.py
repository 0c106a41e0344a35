"""Fine-tuning on a few labelled images (Table 2 of the paper), here 5 % of SBD's: 424 images.

    mis-jax masks sbd=SBD --records records/sbd-5 --few 0.05
    mis-jax train records/sbd-5 --workdir runs/sbd-5 --config finetune_vitb16 \\
        --config.model.start=runs/sbd
    mis-jax evaluate runs/sbd-5 --datasets grabcut=GrabCut,berkeley=Berkeley,davis=DAVIS

Without config.model.start it begins from MAE's backbone, the table's other row. Steps are 55 epochs
of whole batches; 1 % takes --config.optim.steps=110 --config.optim.milestones='(100,)', and 10 %
1430 and (1300,). The paper gives no recipe for the table: this is SimpleClick's for labelled SBD,
but for two draws of its own: objects are drawn with equal probability and never two as one, and the
object is drawn before the crop that has to show it. No run of this config has been measured yet.
"""

from mis_jax import config


def get_config():
    c = config.load("sbd_vitb16")
    c.data.min_area = 0.0  # objects of any size
    c.loss.update(mask="nfl", smooth_weight=0.0)
    c.train.color_aug = False
    c.optim.update(steps=715, milestones=(650,))
    return c
