"""Every setting of the flow, documented once: propose -> train -> evaluate.

The defaults are the published run (SBD, ViT-B/16 at 448 pixels). A file in `configs/`
changes what its experiment changes, and the command line overrides both:
`mis-jax train photos --workdir run --config tiny_cpu --config.optim.lr=1e-3`.
"""

import os
import runpy
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from mis_jax.errors import InputError, instead, last_line

SHIPPED = "shipped"  # in place of a run: the model that comes with the package
CHOICES = {  # the words that a field takes
    "data.sampling": ("top_down", "uniform", "fixed"),
    "data.area_of": ("image", "crop"),
    "clicks.distance": ("exact", "chamfer"),
    "loss.mask": ("bce", "nfl"),
    "model.init": ("random", "mae", "dino"),
    "model.dtype": ("auto", "float32", "bfloat16"),
    "model.remat": (
        "none",
        "nothing_saveable",
        "dots_saveable",
        "dots_with_no_batch_dims_saveable",
    ),
    "loss.smooth_on": ("logits", "probs"),
    "loss.yuv": ("official_transposed", "correct"),
    "loss.reduction": ("mean", "sum"),
}
COUNTS = (  # fields that are at least 1
    "data.crop", "clicks.max_points", "loss.kernel", "loss.dilation", "optim.batch_size",
    "optim.steps", "mesh.fsdp", "train.log_every", "train.checkpoint_every", "train.keep",
    "eval.size", "eval.davis_size", "eval.max_clicks",
)  # fmt: skip
LATER = (  # older runs lack these and did what is the default
    "clicks.distance", "loss.mask", "model.start", "optim.accumulate", "train.picture_every",
    "train.noc_every", "train.noc_objects", "train.tensorboard", "eval.random",
    "images.range", "images.bands", "data.targets", "model.evidence", "train.made_up",
)  # fmt: skip


def names() -> list[str]:
    """Names of the experiments that ship, the files of `configs/`."""
    return sorted(p.stem for p in _folder().glob("*.py") if p.stem != "__init__")


def find(choice: str) -> Path:
    """The file of an experiment that ships, by its name, or of the user's own, by its path.

    Raises:
        InputError: there is neither.
    """
    if choice in names():
        return _folder() / f"{choice}.py"
    if not os.path.isfile(choice):
        raise InputError(f'there is no config or file "{choice}"{instead(choice, names())}')
    return Path(choice)


def load(choice: str | os.PathLike[str]) -> ConfigDict:
    """What `get_config()` of an experiment returns; `choice` as `find` takes it.

    Raises:
        InputError: there is no such file, or it fails.
    """
    file = find(str(choice))
    try:
        return runpy.run_path(str(file))["get_config"]()
    except Exception as error:  # it is the user's program
        raise InputError(f"{file}: {type(error).__name__}: {last_line(error)}") from error


def _folder() -> Path:
    """`configs/` of the repository, which an installed wheel has inside the package."""
    inside = Path(__file__).parent / "configs"
    return inside if inside.is_dir() else Path(__file__).parents[1] / "configs"


def default() -> ConfigDict:
    """The configuration of the paper's SBD experiment, every field of it."""
    return ConfigDict(
        {
            "seed": 0,  # of the data stream, the initial parameters and the clicks
            "images": images(),
            "features": features(),
            "propose": propose(),
            "data": data(),
            "clicks": clicks(),
            "model": model(),
            "loss": loss(),
            "optim": optim(),
            "mesh": mesh(),
            "train": train(),
            "eval": evaluation(),
        }
    )


def fields(config: ConfigDict) -> dict[str, Any]:
    """Name -> value of all fields: "seed", "features.model", ..."""
    flat: dict[str, Any] = {}
    for section, value in config.items():
        inner = value.items() if isinstance(value, ConfigDict) else ()
        flat |= {f"{section}.{name}": x for name, x in inner} if inner else {section: value}
    return flat


def add_later(config: ConfigDict) -> None:
    """Gives a config that was written before there were some fields their defaults."""
    for name in LATER:
        section, _, leaf = name.partition(".")
        if section not in config:
            config[section] = ConfigDict()
        if leaf not in config[section]:
            config[section][leaf] = default()[section][leaf]


def check(config: ConfigDict) -> None:
    """Raises `InputError` that names a field too few, too many, or of a senseless value.

    Sections that the default lacks may be there: a binary's own.
    """
    values, known = fields(config), fields(default())
    for name in known.keys() - values.keys():
        raise InputError(f"there is no config.{name}; start from mis_jax.config.default().")
    for name in values.keys() - known.keys():
        if name.partition(".")[0] in default():
            raise InputError(f"config.{name} is no field; mis_jax/config.py lists all.")
    for name, usual in known.items():
        if not _is_like(values[name], usual):
            raise InputError(f"config.{name} is {values[name]!r}; it has to be like {usual!r}.")
    for name, words in CHOICES.items():
        if values[name] not in words:
            raise InputError(f'config.{name} is "{values[name]}", none of {", ".join(words)}.')
    for name in COUNTS:
        if values[name] < 1:
            raise InputError(f"config.{name} is {values[name]}; it has to be at least 1.")
    scale = tuple(values["data.scale"])
    if len(scale) != 2 or not 0 < scale[0] <= scale[1]:
        raise InputError(f"config.data.scale is {scale}; it has to be a range such as (0.5, 2.0).")
    if values["model.evidence"]:
        _check_evidence(values)


def _check_evidence(values: dict[str, Any]) -> None:
    """Raises `InputError` where the settings of an evidence network make no sense."""
    shares = tuple(values["data.targets"])
    if len(shares) != 3 or min(shares) < 0 or not 0 < sum(shares) < float("inf"):
        raise InputError(
            f"config.data.targets is {shares}; it has to be three shares of at least 0, not all 0."
        )
    width = values["model.evidence"]
    needs = (
        ("model.evidence", width > 0 and width % 2 == 0, "even and at least 0"),
        ("model.init", values["model.init"] == "random", "random"),
        ("data.crop", values["data.crop"] % 32 == 0, "a multiple of 32"),
        ("optim.batch_size", values["optim.batch_size"] % 2 == 0, "a multiple of 2"),
        ("optim.accumulate", values["optim.accumulate"] == 1, "1"),
        ("clicks.max_next", values["clicks.max_next"] > 0, "at least 1"),
        ("train.made_up", values["train.made_up"] >= 0, "at least 0"),
    )
    for name, fits, wanted in needs:
        if not fits:
            raise InputError(
                f"config.{name} is {values[name]}; with an evidence network (config.model.evidence)"
                f" it has to be {wanted}."
            )


def _is_like(value: object, usual: object) -> bool:
    """Whether a value is of the type of the usual one; whole numbers may stand for others."""
    if isinstance(usual, tuple):
        numbers = isinstance(value, list | tuple) and all(type(v) in (int, float) for v in value)
        return numbers or (usual == () and isinstance(value, list | tuple))  # Reading says more
    return type(value) is type(usual) or (type(usual) is float and type(value) is int)


def images() -> dict:
    """Image files of more than 8 bits or three bands (datasets/depth.py, datasets/bands.py)."""
    return {
        # (black, white): the values that become 0 and 255 in files of more than 8 bits, such as
        # (0, 4095). (): 16 bits whose values use their range give their high byte, and in
        # floating-point files within 0 to 1 white is 1; all others are stretched, each from
        # percentile 0.1 to 99.9 of its values, and counted.
        "range": (),
        # From 0: (red, green, blue), or one that is grey, of every file. (): the first three, or
        # the first of a grey file; what is left out is counted.
        "bands": (),
    }


def features() -> dict:
    """Image -> one feature per patch (features/extractors.py)."""
    return {
        # A ViT: dino-vits8 | dino-vits16 | dino-vitb8 | dino-vitb16 | dinov2-vits14 |
        # dinov2-vitb14 | dinov2-vitl14 | dinov2-vitg14 | mocov3-vits16 | mocov3-vitb16; or
        # embedded, the descriptor that needs no weights; or auto: dino-vits8 where its weights are
        # at hand, else embedded, and the log says which.
        "model": "auto",
        "weights": "",  # .safetensors or .pth of the chosen ViT; empty: the cache folder
        "stride": 4,  # pixels between two neighbouring features of the embedded descriptor
        # How the ViT's position embeddings are resized: "bicubic_offset" as DINO's own code does,
        # with 0.1 added to the grid, or "bilinear", the paper's words.
        "pos_interp": "bicubic_offset",
        "final_norm": True,  # False: tokens before the last LayerNorm, the paper's words
        "scale_to_patch8": True,  # enlarge the image by patch/8 first, so every ViT gives stride 8
        "batch_size": 8,  # images a device computes at once
        "bucket": 64,  # images of a batch are padded to a multiple of this many pixels
    }


def propose() -> dict:
    """Folder of images -> shards of records (records/propose.py)."""
    return {
        "max_side": 1024,  # longer images are shrunk to this many pixels before anything; 0: never
        "shard_size": 256,  # images a shard
        "threads": 0,  # merging threads; 0: one per core
    }


def data() -> dict:
    """Record -> training sample (proposals/sampling.py; training/augment.py, input.py)."""
    return {
        "crop": 448,  # side of the square training crop, pixels
        "sampling": "top_down",  # Algorithm 2; "uniform" (Table 5); "fixed": a child of the root
        "alpha": 0.9,  # decay of the probability to go one level deeper, Algorithm 2
        "min_area": 0.05,  # a proposal at most this fraction of the image is drawn again
        "max_tries": 100,  # draws before a proposal of any size is taken
        # What min_area is a fraction of. "crop": the crop is drawn first and its proposal by the
        # regions it shows, as if it were the image, so that of an image of 200 cells one cell can
        # be a proposal; min_area then is of what the crop shows.
        "area_of": "image",
        # Of the evidence network, which learns from cut-and-paste composites: how likely a target
        # is a pasted layer, a node of the background's tree, a pair of neighbouring nodes.
        "targets": (0.85, 0.1, 0.05),
        "scale": (0.75, 1.25),  # range of the random resize, factors
        "rotate90": 0.5,  # probability of drawing a quarter turn (0, 90, 180 or 270 degrees)
        "flip": 0.5,  # probability of drawing a flip (up-down, left-right or both)
        "flip_vertical": True,  # False: left-right only, for photographs
        "shift_scale_rotate": 0.75,  # probability of a small shift (3 %) and rotation (3 degrees)
        "brightness_contrast": 0.75,  # probability of a change of brightness and contrast
        "rgb_shift": 0.75,  # probability of a shift of each colour channel
        "keep_background": 0.01,  # probability of keeping a crop that holds none of the proposal
        "min_object_area": 80,  # pixels; a smaller rest of a proposal makes an empty target
        "threads": 16,  # that read and prepare samples on each host
        "prefetch": 2,  # batches kept ready
    }


def clicks() -> dict:
    """Simulated clicks (training/first_clicks.py, next_clicks.py)."""
    return {
        "max_points": 24,  # rows for positive clicks, and as many for negative ones
        "gamma": 0.8,  # P(k clicks) is proportional to gamma**k
        # Up to this many clicks answer the model's own errors in a train step; with the evidence
        # network each object gets exactly so many.
        "max_next": 3,
        "threshold": 0.49,  # probability above which the simulation calls a pixel foreground
        "distance": "exact",  # or "chamfer", OpenCV's 5x5 approximation, as the public code
    }


def model() -> dict:
    """SimpleClick (models/simpleclick.py), or the evidence network (models/correction.py)."""
    return {
        # 0: SimpleClick. Else a network that corrects what trees, colours and edges say
        # (models/correction.py), with so many channels at its finest scale, such as 32; of what
        # follows it heeds init, which has to be random, start and dtype.
        "evidence": 0,
        "variant": "B",  # a key of simpleclick.VARIANTS: B | L | H | xTiny, and our S | Nano | Pico
        "patch": 0,  # patch size in pixels; 0: the variant's own
        "init": "random",  # of the backbone: random | mae | dino
        "weights": "",  # .safetensors or .pth for init mae or dino; empty: the cache folder
        # A run, or a file as mis-jax evaluate takes it, to begin from with all its parameters, as
        # fine-tuning does; its own init must be the one above, for the sake of the licence. Here
        # and wherever a run is taken, the word shipped is the evidence network that comes with
        # mis_jax; beside a file or folder of that name the word is refused, and ./shipped is that.
        "start": "",
        "dtype": "auto",  # compute type; auto: bfloat16 on accelerators, float32 on the CPU
        "remat": "none",  # or a name of jax.checkpoint_policies, such as nothing_saveable
        "binary_prev_mask": False,  # True: the previous mask enters as 0/1, the paper's words
    }


def loss() -> dict:
    """What is minimised (training/losses.py), Eq. 6 to 8.

    Where the paper and its code (mis/model/losses.py) differ, the default is the code's.
    """
    return {
        "mask": "bce",  # or "nfl", the normalised focal loss of supervised SimpleClick
        "smooth_weight": 10.0,  # lambda of Eq. 8; 0 switches the term off
        "smooth_on": "logits",  # or "probs", the paper's words
        "kernel": 3,  # neighbours a side; the paper has 5, undilated
        "dilation": 2,  # pixels between two neighbours; the paper has 1
        "square_sigma": False,  # True: divide by 2 sigma^2 as in the paper, not by 2 sigma
        "yuv": "official_transposed",  # the colour matrix as the code applies it, or "correct"
        "reduction": "mean",  # or "sum" over pixels, as in Eq. 7
        "sigma_xy": 16.0,  # extent in space, pixels
        "sigma_luma": 16.0,  # extent in luma, levels of 0..255
        "sigma_chroma": 8.0,  # extent in chroma, levels of 0..255
    }


def optim() -> dict:
    """Adam and its schedule (training/train_step.py)."""
    return {
        # Samples a step, over all devices; of the evidence network objects an update, of which a
        # step has several (training/evidence_step.py).
        "batch_size": 32,
        "accumulate": 1,  # parts a batch is computed in, one after the other, to save memory
        "steps": 14_575,  # 55 epochs of 265 steps
        "lr": 5e-5,  # learning rate before the first milestone
        "warmup": 0,  # steps over which the rate rises linearly from zero
        "milestones": (13_250,),  # steps after which the rate is multiplied by `decay`
        "decay": 0.1,  # factor of the rate at each milestone
        "b1": 0.9,  # Adam's decay of the mean of the gradients
        "b2": 0.999,  # Adam's decay of the mean of their squares
        "eps": 1e-8,  # Adam's addend of the denominator
        "clip": 0.0,  # largest global norm of the gradient; 0: none
        "ema": 0.0,  # decay of a running mean of the parameters for evaluation; 0: none
    }


def mesh() -> dict:
    """Devices (training/sharding.py)."""
    return {
        "fsdp": 1,  # devices over which parameters and optimizer state are split
    }


def train() -> dict:
    """The loop (training/train.py)."""
    return {
        "color_aug": True,  # jitter, grey and blur on the device, as in mis/model/is_model.py
        "log_every": 20,  # steps between two updates of the progress line
        "checkpoint_every": 500,  # steps
        "keep": 2,  # checkpoints, the latest ones
        "picture_every": 0,  # steps between two pictures of samples and predictions; 0: none
        "noc_every": 0,  # steps between two rounds of clicks on --held_out objects; 0: none
        "noc_objects": 16,  # of each benchmark in --held_out, the first ones
        "tensorboard": False,  # True: metrics for TensorBoard too
        # Objects that the evidence network is clicked on at its end and as it began, pasted ones on
        # photos kept out of training: RUN/made_up.json says if it got better; 0: none.
        "made_up": 48,
    }


def evaluation() -> dict:
    """Predictor and NoC (predictors/network.py, evaluation/evaluate.py)."""
    return {
        "size": 448,  # side of the square that ZoomIn feeds the network, pixels
        "davis_size": 672,  # the same for DAVIS
        "max_clicks": 20,  # an object not done by then counts as so many
        "target": 0.95,  # IoU at which an object is done; 1.01: never, for exact mean IoUs
        "threshold": 0.5,  # probability above which a pixel is foreground
        "flip": True,  # average the logits with those of the mirrored image
        "random": 0,  # further rounds, by users who click at random places of the right errors
    }
