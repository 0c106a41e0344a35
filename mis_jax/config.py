"""Every setting of the flow, documented once: propose -> records -> train -> checkpoint -> evaluate.

The defaults are the published run (SBD, ViT-B/16 at 448 pixels). A file in `mis_jax/configs/`
changes what its experiment changes, and the command line overrides both:
`mis-jax train photos --workdir run --config tiny_cpu --config.optim.lr=1e-3`.
"""

from ml_collections import ConfigDict


def default() -> ConfigDict:
    """The configuration of the paper's SBD experiment, every field of it."""
    return ConfigDict(
        {
            "seed": 0,  # of the data stream, the initial parameters and the clicks
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


def features() -> dict:
    """Image -> one feature per patch (features.py)."""
    return {
        # dino-vits8 | dino-vits16 | dino-vitb8 | dino-vitb16 | embedded | auto. auto: dino-vits8
        # where its weights are at hand, else the embedded descriptor, and the log says which.
        "model": "auto",
        "weights": "",  # .safetensors or .pth of the chosen ViT; empty: the cache folder
        "stride": 8,  # pixels between two neighbouring features of the embedded descriptor
        "pos_interp": "bicubic_offset",  # or "bilinear", the paper's words (reference 1.3)
        "final_norm": True,  # False: tokens before the last LayerNorm, the paper's words
        "scale_to_patch8": True,  # enlarge the image by patch/8 first, so every ViT gives stride 8
        "batch_size": 8,  # images a device computes at once
        "bucket": 64,  # images of a batch are padded to a multiple of this many pixels
    }


def propose() -> dict:
    """Folder of images -> shards of records (propose.py)."""
    return {
        "max_side": 1024,  # longer images are shrunk to this many pixels before anything; 0: never
        "shard_size": 256,  # images a shard
        "threads": 0,  # merging threads; 0: one per core
    }


def data() -> dict:
    """Record -> training sample (tree.py, augment.py, input.py)."""
    return {
        "crop": 448,  # side of the square training crop, pixels
        "sampling": "top_down",  # Algorithm 2; "uniform" (Table 5); "fixed": a child of the root
        "alpha": 0.9,  # decay of the probability to go one level deeper, Algorithm 2
        "min_area": 0.05,  # a proposal at most this fraction of the image is drawn again
        "max_tries": 100,  # draws before a proposal of any size is taken
        "scale": (0.75, 1.25),  # range of the random resize
        "rotate90": 0.5,  # probability of drawing a quarter turn (0, 90, 180 or 270 degrees)
        "flip": 0.5,  # probability of drawing a flip (up-down, left-right or both)
        "flip_vertical": True,  # False: left-right only, for photographs
        "shift_scale_rotate": 0.75,  # probability of a small shift (3 %) and rotation (3 degrees)
        "brightness_contrast": 0.75,  # probability
        "rgb_shift": 0.75,  # probability
        "keep_background": 0.01,  # probability of keeping a crop that holds none of the proposal
        "min_object_area": 80,  # smaller remains of a proposal in the crop make an empty target
        "threads": 16,  # that read and prepare samples on each host
        "prefetch": 2,  # batches kept ready
    }


def clicks() -> dict:
    """Simulated clicks (clicks.py)."""
    return {
        "max_points": 24,  # rows for positive clicks, and as many for negative ones
        "gamma": 0.8,  # P(k clicks) is proportional to gamma**k
        "max_next": 3,  # up to this many clicks answer the model's own errors in a train step
        "threshold": 0.49,  # probability above which the simulation calls a pixel foreground
    }


def model() -> dict:
    """SimpleClick (simpleclick.py)."""
    return {
        "variant": "B",  # B | L | H | S | xTiny (reference 4.10), a key of simpleclick.VARIANTS
        "patch": 0,  # patch size in pixels; 0: the variant's own
        "init": "random",  # random | mae | dino
        "weights": "",  # .safetensors or .pth for init mae or dino; empty: the cache folder
        "dtype": "auto",  # compute type; auto: bfloat16 on accelerators, float32 on the CPU
        "remat": "none",  # or a name of jax.checkpoint_policies, such as nothing_saveable
        "binary_prev_mask": False,  # True: the previous mask enters as 0/1, the paper's words
    }


def loss() -> dict:
    """Binary cross entropy and bilateral smoothness (losses.py); reference section 6 for each."""
    return {
        "smooth_weight": 10.0,  # lambda of Eq. 8; 0 switches the term off
        "smooth_on": "logits",  # or "probs", the paper's words
        "kernel": 3,  # neighbours per side: 3 dilated by 2 in the code, 5 by 1 in the paper
        "dilation": 2,
        "square_sigma": False,  # True: divide by 2 sigma^2 as in the paper, not by 2 sigma
        "yuv": "official_transposed",  # or "correct"
        "reduction": "mean",  # or "sum" over pixels, as in Eq. 7
        "sigma_xy": 16.0,
        "sigma_luma": 16.0,
        "sigma_chroma": 8.0,
    }


def optim() -> dict:
    """Adam and its schedule (train.py)."""
    return {
        "batch_size": 32,  # samples a step, over all devices
        "steps": 14_575,  # 55 epochs of 265 steps
        "lr": 5e-5,
        "warmup": 0,  # steps over which the rate rises linearly from zero
        "milestones": (13_250,),  # steps after which the rate is multiplied by `decay`
        "decay": 0.1,
        "b1": 0.9,
        "b2": 0.999,
        "eps": 1e-8,
        "clip": 0.0,  # largest global norm of the gradient; 0: none
        "ema": 0.0,  # decay of a running mean of the parameters, which evaluation then uses
    }


def mesh() -> dict:
    """Devices (sharding.py)."""
    return {
        "fsdp": 1,  # devices over which parameters and optimizer state are split
    }


def train() -> dict:
    """The loop (train.py)."""
    return {
        "color_aug": True,  # jitter, grey and blur of the image on the device (reference 3.6)
        "log_every": 20,  # steps
        "checkpoint_every": 500,  # steps
        "keep": 2,  # checkpoints
    }


def evaluation() -> dict:
    """Predictor and NoC (predictor.py, evaluate.py)."""
    return {
        "size": 448,  # side of the square that ZoomIn feeds the network, pixels
        "davis_size": 672,  # the same for DAVIS
        "max_clicks": 20,
        "target": 0.90,  # IoU at which an object is done
        "threshold": 0.5,  # probability above which a pixel is foreground
        "flip": True,  # average the logits with those of the mirrored image
    }
