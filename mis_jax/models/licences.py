"""Licences of pretrained weights, which what is trained from them keeps."""

from ml_collections import ConfigDict

LICENCES = {  # family of published weights, the first part of their names -> licence
    "dino": "Apache-2.0",
    "dinov2": "Apache-2.0",
    "mae": "CC-BY-NC-4.0",
    "mocov3": "CC-BY-NC-4.0",
}


def origin(config: ConfigDict) -> dict[str, str]:
    """What is kept with trained weights of those they began from: "init", and a "licence"."""
    init = config.model.init
    return {"init": init} | ({"licence": LICENCES[init]} if init in LICENCES else {})
