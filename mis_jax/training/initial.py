"""What a model begins from: pretrained backbones, or all parameters of another run."""

import jax
from ml_collections import ConfigDict

from mis_jax.downloads import download_weights
from mis_jax.errors import InputError
from mis_jax.models import loading, simpleclick, state_dicts


def initial_backbone(fields: ConfigDict, params: dict) -> dict | None:
    """`params` with the backbone of MAE or DINO weights, for `config.model.init`; None: random."""
    if fields.init == "random":
        return None
    known = {
        ("mae", "B"): "mae-vitb16", ("mae", "L"): "mae-vitl16", ("mae", "H"): "mae-vith14",
        ("dino", "B"): "dino-vitb16", ("dino", "S"): "dino-vits16",
    }  # fmt: skip
    if not fields.weights and (fields.init, fields.variant) not in known:
        raise InputError(
            f"config.model.init={fields.init} has no known weights for variant {fields.variant}; "
            f"give config.model.weights, or one of {', '.join(map('/'.join, known))}."
        )
    path = fields.weights or download_weights(known[fields.init, fields.variant])
    return simpleclick.with_backbone(params, state_dicts.load_state_dict(path))


def _kind(fields: ConfigDict) -> str:
    """What a model is, of `config.model`."""
    return f"an evidence network of width {fields.evidence}" if fields.evidence else "SimpleClick"


def start_from(fields: ConfigDict, params: dict) -> dict:
    """The parameters of the run or file `config.model.start`, of the shapes of `params`."""
    config, found = loading.load(fields.start)
    kinds = _kind(config.model), _kind(fields)
    if kinds[0] != kinds[1]:
        raise InputError(
            f"config.model.start={fields.start} is {kinds[0]}, and this config's model is "
            f"{kinds[1]}; give it the same config.model.evidence."
        )
    if config.model.init != fields.init:
        raise InputError(
            f"config.model.start={fields.start} began from {config.model.init}, and "
            f"config.model.init is {fields.init}; give --config.model.init={config.model.init}."
        )
    shapes = [jax.tree.map(lambda x: x.shape, tree) for tree in (found, params)]
    if shapes[0] != shapes[1]:
        raise InputError(
            f"config.model.start={fields.start} is a model of variant {config.model.variant} for "
            f"crops of {config.data.crop} pixels, not {fields.variant} and this config's crops; "
            "give it the same config.model and config.data.crop."
        )
    return jax.device_get(found)
