"""What a training sample is made of: proposals, crops, clicks and colours, MIS beside mis_jax.

Writes tests/fixtures/samples.npz and results/fidelity/samples.json. The published side is the
pipeline of models/mis_simpleclick_base448_sbd.py itself, intercepted before it reads data.
"""

import importlib.util
import random
import sys
from unittest import mock

from published import origin, sources, use, write_results

FOLDER = sources(__doc__)
use(FOLDER, "MIS")

import albumentations as A
import cv2
import fidelity
import jax
import numpy as np
import torch
import torchvision.transforms.functional as TF
import training_inputs
from easydict import EasyDict
from isegm.data.sample import DSample
from isegm.engine.trainer import get_next_points
from isegm.model.is_plainvit_model import PlainVitModel
from mis.data.dataset import sample_mask
from mis.model.is_model import MISModel
from mis.ops import top_down_sampling
from random_trees import Minstd, random_tree

from mis_jax import config
from mis_jax.proposals import sampling
from mis_jax.training import augment, color
from mis_jax.training.first_clicks import sample_clicks
from mis_jax.training.next_clicks import click_candidates, iterate_clicks

DRAWS = 20_000
candidates = jax.jit(click_candidates, static_argnums=(2, 3))


def row(part, oracle, cases, worst, unit):
    """A row of the results."""
    return {"part": part, "oracle": oracle, "cases": cases, "worst": worst, "unit": unit}


def pipeline(crop):
    """The augmentation and the sampler of points that MIS trains with, for crops of that side."""
    path = FOLDER / "MIS" / "models" / "mis_simpleclick_base448_sbd.py"
    spec = importlib.util.spec_from_file_location("published_experiment", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["isegm.model.is_hrformer_model"] = mock.MagicMock()  # unused; needs more libraries
    spec.loader.exec_module(module)

    class Stop(Exception):
        pass

    with mock.patch.object(module, "SBDUnsupervisedDataset", side_effect=Stop) as dataset:
        try:
            cfg = EasyDict(batch_size=32, SBD_PATH="", layerwise_decay=False)
            module.train(None, cfg, EasyDict(crop_size=(crop, crop), num_max_points=24))
        except Stop:
            pass
    given = dataset.call_args.kwargs
    return given["augmentator"], given["points_sampler"], given


def next_clicks():
    """Candidates and written points of get_next_points, which is given our uniform numbers."""
    arrays, pixels, points = {}, 0, 0
    cv2.ipp.setUseIPP(False)  # OpenCV's own code
    for kind in training_inputs.ERRORS:
        prob, mask = training_inputs.predictions(kind)
        theirs, written = published_candidates(prob, mask)
        pixels += int((our_candidates(prob, mask, "chamfer") != theirs).sum())
        points += points_differing(prob, mask)
        arrays[f"{kind} candidates"] = np.packbits(theirs)
        arrays[f"{kind} written"] = written
    oracle = "isegm.engine.trainer.get_next_points"
    cases = f"{40 * len(training_inputs.ERRORS)} pairs of 48 x 64"
    rows = [
        row("next click: candidates, chamfer", oracle, cases, pixels, "pixels differ"),
        row("next click: three rounds, chamfer", oracle, cases, points, "points differ"),
    ]
    return arrays, rows + large_candidates(oracle)


def large_candidates(oracle):
    """How far other distances change the candidates, on predictions of 336 x 448."""
    pairs = [training_inputs.predictions(kind, 40, scale=7) for kind in ("blobs", "thin")]
    prob, mask = map(np.concatenate, zip(*pairs, strict=True))
    theirs = published_candidates(prob, mask)[0]
    cv2.ipp.setUseIPP(True)
    ipp = published_candidates(prob, mask)[0]
    cv2.ipp.setUseIPP(False)
    chamfer, exact = (our_candidates(prob, mask, d) for d in ("chamfer", "exact"))
    rows = []
    for name, ours, other, note in (
        ("chamfer", chamfer, theirs, ""),
        ("chamfer", chamfer, ipp, ", OpenCV with Intel's IPP"),
        ("exact distance, the default", exact, theirs, ""),
    ):
        part, cases = f"next click: candidates, {name}", f"{len(prob)} pairs of 336 x 448"
        sets = float((ours != other).any((1, 2)).mean())
        pixels = float((ours != other).sum() / other.sum())
        rows += [row(part, oracle + note, cases, sets, "of the pairs have another set"),
                 row(part, oracle + note, cases, pixels, "of the candidates")]  # fmt: skip
    return rows


def our_candidates(prob, mask, distance):
    """bool [B, H, W]."""
    return np.asarray(candidates(prob, mask, config.clicks()["threshold"], distance)[0])


def published_candidates(prob, mask):
    """The candidates of get_next_points, bool [B, H, W], and rows it writes, int8 [B], -1: none."""
    seen = []
    before = torch.full((len(prob), 48, 3), -1.0)
    listen = lambda x: seen.append(x) or np.transpose(np.nonzero(x))  # noqa: E731
    with mock.patch.object(np, "argwhere", listen):
        after = get_next_points(tensor(prob), tensor(mask), before, 1)
    changed = (after != before).any(-1).numpy()
    return np.array(seen), np.where(changed.any(1), changed.argmax(1), -1).astype(np.int8)


def tensor(x):
    """[B, H, W] -> float32 [B, 1, H, W]."""
    return torch.from_numpy(np.array(x, np.float32))[:, None]


def points_differing(prob, mask):
    """Points that differ after three rounds of the loop; half of the samples have no free row."""
    key = jax.random.key(0)
    rounds = jax.numpy.stack([prob, prob[::-1], prob[:, ::-1]])
    first = np.full((len(prob), 48, 3), -1, np.float32)
    first[::2] = (5, 6, 100)

    def network(image, prev, points):
        latest = jax.numpy.max(jax.numpy.where(points[..., 2] < 9, points[..., 2], 0), 1)
        return jax.scipy.special.logit(rounds[latest.astype(int) % 3, np.arange(len(prob))])

    ours = iterate_clicks(network, None, mask, first, 3, key, distance="chamfer")[1]
    theirs = torch.from_numpy(first)
    for t in range(3):
        seen = tensor(jax.nn.sigmoid(network(None, None, theirs.numpy())))
        uniform = np.asarray(jax.random.uniform(jax.random.fold_in(key, t), (len(prob),)))
        after = theirs.clone()
        for i, u in enumerate(uniform):
            rank = lambda _, n, u=u: min(int(u * np.float32(n)), n - 1)  # noqa: E731
            one = slice(i, i + 1)
            with mock.patch.object(np.random, "randint", rank):
                after[one] = get_next_points(seen[one], tensor(mask[one]), theirs[one], t + 1)
        theirs = after
    return int((np.asarray(ours) != theirs.numpy()).any(-1).sum())


def first_clicks():
    """Histograms of the clicks of MultiPointSampler and of ours."""
    _, sampler, _ = pipeline(448)
    c, arrays, p, variation = config.clicks(), {}, 1.0, 0.0
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    rng = np.random.default_rng(0)
    for kind in training_inputs.CLICK_MASKS:
        mask = training_inputs.click_mask(kind)
        image = np.zeros((64, 64, 3), np.uint8)
        theirs, ours = [], []
        for _ in range(DRAWS):
            sampler.sample_object(DSample(image, mask.copy(), objects_ids=[1] * int(mask.any())))
            theirs.append(np.array(sampler.sample_points(), np.float32))
            options = {"max_points": c["max_points"], "gamma": c["gamma"]}
            ours.append(sample_clicks(mask, rng, **options))
        ours = training_inputs.click_counts(mask, ours)
        for name, counts in training_inputs.click_counts(mask, theirs).items():
            arrays[f"{kind} {name}"] = counts
            p = min(p, training_inputs.p_value(counts, ours[name]))
            if counts.sum():
                variation = max(variation, training_inputs.total_variation(counts, ours[name]))
    tests = len(training_inputs.CLICK_MASKS) * 5
    cases = f"{tests} histograms of {DRAWS} samples each"
    oracle = "isegm.data.points_sampler.MultiPointSampler"
    return arrays, [
        row("first clicks: number and place", oracle, cases, p, f"least p-value of {tests}"),
        row("first clicks: number and place", oracle, cases, variation, "total variation"),
    ]


def run_chain(chain, image, mask):
    """Image and mask of the published chain, and its parameters as training_inputs has them."""
    drawn, taken = [], {}
    uniform = random.uniform

    def listen(transform):
        apply = type(transform).apply_with_params

        def listening(params, force_apply=False, **kwargs):
            taken[type(transform).__name__] = dict(params)
            return apply(transform, params, force_apply, **kwargs)

        transform.apply_with_params = listening

    for transform in chain.transforms:
        listen(transform)
    with mock.patch.object(random, "uniform", lambda *a: drawn.append(uniform(*a)) or drawn[-1]):
        out = chain(image=image, mask=mask[:, :, None])
    get = lambda name, key: taken.get(name, {}).get(key, np.nan)  # noqa: E731
    parameters = [
        drawn[0], get("Flip", "d"), get("RandomRotate90", "factor"),
        *(get("ShiftScaleRotate", k) for k in ("angle", "dx", "dy")),
        get("RandomCrop", "h_start"), get("RandomCrop", "w_start"),
        *(get("RandomBrightnessContrast", k) for k in ("alpha", "beta")),
        *(get("RGBShift", f"{c}_shift") for c in "rgb"),
    ]  # fmt: skip
    return out["image"], out["mask"][:, :, 0], np.array(parameters, np.float64)


def our_crop(parameters, image, proposal, crop):
    """The crop that mis_jax makes of the same parameters."""
    chances = {"flip": 0.5, "rotate90": 0.5, "shift_scale_rotate": 0.5,
               "brightness_contrast": 0.5, "rgb_shift": 0.5}  # fmt: skip
    a = augment.Augmentation(crop, (0, 9), flip_vertical=True, keep_background=0, **chances)
    rng, shape = training_inputs.Replay(parameters), image.shape[:2]
    place = a.draw_place(rng, *shape)
    mask = augment.warp_mask(proposal.view(bool), place, *shape, crop)
    made = augment.Crop(place, mask, a.draw_table(rng))
    png = cv2.imencode(".png", image[..., ::-1])[1].tobytes()
    return augment.cut(png, made, *shape), made


def enlarge(proposal, image):
    """A proposal in the image's pixels."""
    size = image.shape[1::-1]
    return cv2.resize(proposal, size, interpolation=cv2.INTER_NEAREST)


def limited(crop, group):
    """The published chain, as it is ("all"), without small rotations, or without resize too."""
    chain, _, _ = pipeline(crop)
    for transform in chain.transforms:
        name = type(transform).__name__
        if name == "ShiftScaleRotate" and group != "all":
            transform.p = 0.0
        if name == "UniformRandomResize" and group == "no resize, no rotation":
            transform.scale_range = (1.0, 1.0)
    return chain


def crops():
    """Recorded crops of small images; differences on images of the size of SBD's."""
    arrays, rows = {"parameters": []}, []
    groups = ("no resize, no rotation", "no rotation", "all")
    random.seed(1)
    for group in groups:
        chain = limited(96, group)
        for i, shape in enumerate(training_inputs.AUGMENTED * 2):
            image, proposal = training_inputs.augmented(i, *shape)
            out, mask, parameters = run_chain(chain, image, enlarge(proposal, image))
            name = f"{group} {i}"
            arrays[f"{name} mask"] = np.packbits(mask)
            arrays[f"{name} image"] = fidelity.some(out, 600)
            arrays["parameters"].append(parameters)
    arrays["parameters"] = np.array(arrays["parameters"])
    for group in groups:
        rows += large_crops(limited(448, group), group)
    return arrays, rows


def large_crops(chain, group, count=200):
    """Rows of the largest differences between crops of 448 of images of 375 x 500."""
    masks, worst, mean, far, shift = 0, 0, 0.0, 0, 0.0
    for i in range(count):
        image, proposal = training_inputs.augmented(i, *((375, 500), (500, 375), (500, 500))[i % 3])
        out, mask, parameters = run_chain(chain, image, enlarge(proposal, image))
        ours, made = our_crop(parameters, image, proposal, 448)
        masks += int((made.mask != mask).sum())
        off = np.abs(ours.astype(int) - out)
        worst, mean = max(worst, int(off.max())), max(mean, float(off.mean()))
        far += int((off > 8).any(-1).sum())
        shift = max(shift, moved(ours, out))
    oracle = f"albumentations {A.__version__} chain of MIS, {group}"
    pixels, cases = count * 448 * 448, f"{count} crops of 448"
    return [
        row("crop: mask", oracle, cases, masks / pixels, "of the pixels differ"),
        row("crop: image, largest difference", oracle, cases, worst, "grey levels"),
        row("crop: image, mean difference of the worst crop", oracle, cases, mean, "grey levels"),
        row("crop: image, pixels more than 8 levels off", oracle, cases, far / pixels,
            "of the pixels"),
        row("crop: image, how far all of it is moved", oracle, cases, shift, "pixels"),
    ]  # fmt: skip


def moved(a, b):
    """Pixels by which image b is moved against a, by least squares on the slopes of a."""
    a, b = a.mean(-1), b.mean(-1)
    down, right = np.gradient(a)
    inner = np.s_[40:-40, 40:-40]
    slopes = np.stack([down[inner].ravel(), right[inner].ravel()], 1)
    return float(np.hypot(*np.linalg.lstsq(slopes, (b - a)[inner].ravel(), rcond=None)[0]))


def tables():
    """The look-up tables of brightness, contrast and shifts, bit for bit."""
    chain, _, _ = pipeline(256)
    ramp = np.arange(256, dtype=np.uint8)[:, None, None].repeat(256, 1).repeat(3, 2)
    chain.transforms[0].scale_range = (1.0, 1.0)
    for transform in chain.transforms[1:6]:  # geometry
        transform.p = 0.0
    random.seed(2)
    wrong, arrays = 0, {"tables": [], "table parameters": []}
    for _ in range(500):
        out, _, parameters = run_chain(chain, ramp, ramp[..., 0])
        wrong += int((our_table(parameters) != out[:, 0].T).sum())
        if len(arrays["tables"]) < 40:
            arrays["tables"].append(out[:, 0].T)
            arrays["table parameters"].append(parameters)
    oracle = "albumentations RandomBrightnessContrast, then RGBShift"
    found = row("colour tables", oracle, "500 draws of 3 x 256", wrong, "values differ")
    return {k: np.array(v) for k, v in arrays.items()}, [found]


def our_table(parameters):
    """The table that mis_jax makes of the same parameters."""
    a = augment.Augmentation(96, (0, 9), 0.5, True, 0.5, 0.5, 0.5, 0.5, 0)
    rng = training_inputs.Replay(parameters)
    rng.skip_place()
    return a.draw_table(rng)


def parameter_draws(count=5000):
    """Histograms of the places and tables that the published chain draws and that ours does."""
    d = config.data()
    names = ("scale", "flip", "flip_vertical", "rotate90", "shift_scale_rotate",
             "brightness_contrast", "rgb_shift", "keep_background")  # fmt: skip
    a = augment.Augmentation(crop=64, **{k: d[k] for k in names})
    chain, _, given = pipeline(64)
    rules = [given["keep_background_prob"], given["min_object_area"]]
    chances = [chain.transforms[k].p for k in (1, 2, 3, 6, 7)]  # of what Augmentation draws
    arrays = {"rules": np.array(rules + chances)}
    random.seed(3)
    rng, p, variation = np.random.default_rng(3), 1.0, 0.0
    for kind, (height, width, reach) in training_inputs.PLACED.items():
        image = np.zeros((height, width, 3), np.uint8)
        drawn = [run_chain(chain, image, image[..., 0])[2] for _ in range(count)]
        replays = [training_inputs.Replay(x) for x in drawn]
        theirs = [a.draw_place(r, height, width) for r in replays], [our_table(x) for x in drawn]
        ours = zip(
            *((a.draw_place(rng, height, width), a.draw_table(rng)) for _ in range(count)),
            strict=True,
        )
        ours = training_inputs.place_counts(*ours, reach)
        for name, counts in training_inputs.place_counts(*theirs, reach).items():
            arrays[f"{kind} {name}"] = counts
            p = min(p, training_inputs.p_value(counts, ours[name]))
            variation = max(variation, training_inputs.total_variation(counts, ours[name]))
    tests = len(arrays) - 1
    cases = f"{tests} histograms of {count} draws each"
    oracle = "albumentations chain of MIS"
    return arrays, [
        row("crop: distribution of its parameters", oracle, cases, p, f"least p-value of {tests}"),
        row("crop: distribution of its parameters", oracle, cases, variation, "total variation"),
    ]


def proposals(seeds=3000):
    """Nodes of top_down_sampling for seeds, and how often sample_mask takes each node."""
    arrays, wrong, p, variation = {}, 0, 1.0, 0.0
    d = config.data()
    for name, tree in training_inputs.sampled_trees(random_tree).items():
        merges, areas = [tuple(map(int, m)) for m in tree.merges], tree.areas()
        nodes = {tree.mask(k).tobytes(): k for k in range(tree.num_nodes)}
        arrays[f"{name} merges"] = tree.merges.astype(np.int16)
        found = []
        for seed in range(seeds):
            leaves = top_down_sampling(merges, d["alpha"], seed)
            node = sampling._walk.py_func(tree.merges, areas, np.float32(d["alpha"]), Minstd(seed))
            wrong += leaves != tree.leaves(node).tolist()
            mask = np.zeros(tree.n, bool)
            mask[leaves] = True
            found.append(nodes[mask.tobytes()])
        arrays[f"{name} nodes"] = np.array(found[:1000], np.int16)
        np.random.seed(0)  # noqa: NPY002
        data, image = {"tree": merges, "size": tree.grid}, np.zeros(tree.grid)
        theirs = [nodes[sample_mask(data, image).tobytes()] for _ in range(DRAWS)]
        rng = np.random.default_rng(0)
        ours = [tree.sample(rng, d["alpha"], d["min_area"]) for _ in range(DRAWS)]
        theirs, ours = (np.bincount(x, minlength=tree.num_nodes) for x in (theirs, ours))
        arrays[f"{name} counts"] = theirs.astype(np.int32)
        for a, b in ((theirs, ours), (by_depth(tree, theirs), by_depth(tree, ours))):
            p = min(p, training_inputs.p_value(a, b))
            variation = max(variation, training_inputs.total_variation(a, b))
    cases = f"2 trees, {DRAWS} draws each, by node and by depth"
    return arrays, [
        row("proposals: nodes of the same random numbers", "mis.ops.top_down_sampling",
            f"2 trees, {seeds} seeds each", wrong, "nodes differ"),
        row("proposals: distribution", "mis.data.dataset.sample_mask", cases, p,
            "least p-value of 4"),
        row("proposals: distribution", "mis.data.dataset.sample_mask", cases, variation,
            "total variation"),
    ]  # fmt: skip


def by_depth(tree, counts):
    """A histogram over nodes as one over their depths."""
    return np.bincount(tree.depths(), counts)


def colours():
    """MISModel's colour transforms, with given factors, and its probabilities and ranges."""
    image, order, factors, turn, sigma = training_inputs.coloured()
    pixels = torch.from_numpy(image).permute(0, 3, 1, 2)
    back = lambda x: torch.stack(x).permute(0, 2, 3, 1).numpy()  # noqa: E731
    operations = (TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation, TF.adjust_hue)
    jittered = []
    for i, x in enumerate(pixels):
        for k in order[i]:
            x = operations[k](x, float([*factors[:, i], turn[i]][k]))
        jittered.append(x)
    theirs = {
        "jitter": back(jittered),
        "grey": back([TF.rgb_to_grayscale(x, 3) for x in pixels]),
        "blur": back([TF.gaussian_blur(x, [3, 3], [float(s)] * 2)
                      for x, s in zip(pixels, sigma, strict=True)]),
    }  # fmt: skip
    ours = {
        "jitter": jax.jit(color.adjust)(image, order, factors, turn),
        "grey": color._grey(image),
        "blur": jax.jit(color.blur)(image, sigma),
    }
    rows = [
        row(f"colour in the model: {k}", "torchvision", "24 images",
            float(np.abs(np.asarray(ours[k]) - theirs[k]).max()), "of 1")
        for k in theirs
    ]  # fmt: skip
    with mock.patch.object(PlainVitModel, "__init__", lambda self: torch.nn.Module.__init__(self)):
        jitter, grey, blur = MISModel().transform.transforms
    inner, soft = jitter.transforms[0], blur.transforms[0]
    theirs["chances"] = np.array([jitter.p, grey.p, blur.p])
    ranges = [inner.brightness, inner.contrast, inner.saturation, inner.hue, soft.sigma]
    theirs["ranges"] = np.array(ranges, np.float64)
    return theirs, rows


def main():
    """Records all parts."""
    arrays, rows = {}, []
    for part in (
        next_clicks,
        first_clicks,
        crops,
        tables,
        parameter_draws,
        proposals,
        colours,
    ):
        found, told = part()
        arrays |= {f"{part.__name__}: {k}": v for k, v in found.items()}
        rows += told
    fidelity.save("samples", arrays, origin(__file__, "MIS"))
    write_results(__file__, rows, "MIS")


cv2.setNumThreads(1)
main()
