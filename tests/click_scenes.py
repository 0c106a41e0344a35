"""Scenes, a network that answers clicks on them, and the click protocol written out again."""

import numpy as np
from scipy import ndimage

SIZE = 48  # side of the network's square


def colour_network(image, previous, points):
    """Logits from likeness to the clicked colours; not symmetric, and pulled to the last mask."""
    side = image.shape[1]
    grid = np.stack(np.mgrid[:side, :side], -1).astype(np.float64)
    logits = []
    for picture, prev, rows in zip(image, previous, points, strict=True):
        support = []
        for half in np.split(np.asarray(rows, np.float64), 2):
            best = np.zeros((side, side))
            for y, x, _ in half[half[:, 2] >= 0]:
                row, col = (int(np.clip(round(v), 0, side - 1)) for v in (y, x))
                unlike = ((picture - picture[row, col]) ** 2).sum(-1).astype(np.float64)
                far = ((grid - (y, x)) ** 2).sum(-1)
                likeness = np.exp(-unlike / 0.1 - far / (0.5 * side) ** 2) + np.exp(-far / 12)
                best = np.maximum(best, likeness)
            support.append(best)
        slope = 0.4 * grid[..., 1] / side
        logits.append(6 * support[0] - 7 * support[1] + 1.5 * prev - 2.2 + slope)
    return np.stack(logits)


def oracle_resize(x, height, width):
    """Four weighted neighbours in float32, fused as in PyTorch's CPU kernel."""

    def between(p, q, weight):
        exact = (1 - weight).astype(np.float64) * p + (weight * q)
        return exact.astype(np.float32)  # rounded once

    taps = []
    for n, out in zip(x.shape, (height, width), strict=False):
        at = (np.float32(n - 1) / np.float32(out - 1)) * np.arange(out, dtype=np.float32)
        first = np.floor(at).astype(int)
        taps.append((first, first + (first < n - 1), at - first.astype(np.float32)))
    (r0, r1, u), (c0, c1, v) = taps
    u, v = u.reshape(-1, 1), v.reshape(1, -1)
    if x.ndim == 3:
        u, v = u[..., None], v[..., None]
    a, b, c, d = (x[np.ix_(r, q)] for r in (r0, r1) for q in (c0, c1))
    return between(between(a, b, v), between(c, d, v), u)


def oracle_candidate(probs, clicks):
    height, width = probs.shape
    seen = probs > 0.5
    if not seen.sum():
        return 0, height - 1, 0, width - 1
    for row, col, positive in clicks:
        if positive:
            seen[int(row), int(col)] = True
    box = []
    for axis, side in ((1, height), (0, width)):
        hit = np.where(seen.any(axis))[0]
        centre = 0.5 * (hit[0] + hit[-1])
        extent = max(1.4 * (hit[-1] - hit[0] + 1), 200)
        first, last = round(centre - 0.5 * extent), round(centre + 0.5 * extent)
        box += [max(0, first), min(side - 1, last)]
    return tuple(box)


def oracle_overlap(a, b):
    product = 1.0
    for k in (0, 2):
        inner = max(0, min(a[k + 1], b[k + 1]) - max(a[k], b[k]) + 1)
        product *= inner / max(1e-6, max(a[k + 1], b[k + 1]) - min(a[k], b[k]) + 1)
    return product


class OraclePredictor:
    """ZoomIn, flip and previous mask, one state variable for each of the published code."""

    def __init__(self, image):
        self.image = image.astype(np.float32) / 255
        self.roi = self.probs = None
        self.previous = np.zeros(image.shape[:2], np.float32)

    def answer(self, clicks):
        height, width = self.previous.shape
        candidate = (0, height - 1, 0, width - 1)
        if self.probs is not None:
            candidate = oracle_candidate(self.probs, clicks)
        outside = self.roi is not None and any(
            p and (y < self.roi[0] or y >= self.roi[1] or x < self.roi[2] or x >= self.roi[3])
            for y, x, p in clicks
        )
        if self.roi is None or outside or oracle_overlap(candidate, self.roi) < 0.5:
            self.roi = candidate
        r0, r1, c0, c1 = self.roi
        stack = np.dstack([self.image, self.previous])[r0 : r1 + 1, c0 : c1 + 1]
        x = oracle_resize(stack, SIZE, SIZE)
        kinds = {True: [], False: []}
        for order, (row, col, positive) in enumerate(clicks):
            y = SIZE * (row - r0) / (r1 - r0 + 1)
            kinds[positive].append((y, SIZE * (col - c0) / (c1 - c0 + 1), order))
        n = max(1, *map(len, kinds.values()))
        points = np.array([p for k in (True, False) for p in (kinds[k] + [(-1, -1, -1)] * n)[:n]])
        flipped = np.array([(y, SIZE - c - 1 if o >= 0 else -1, o) for y, c, o in points])
        batch = np.stack([x, x[:, ::-1]])
        logits = colour_network(
            batch[..., :3], batch[..., 3], np.stack([points, flipped]).astype(np.float32)
        )
        logits = logits.astype(np.float32)
        mean = 0.5 * (logits[0] + logits[1][:, ::-1]).astype(np.float64)
        probs = (1 / (1 + np.exp(-mean))).astype(np.float32)
        inner = oracle_resize(probs, r1 - r0 + 1, c1 - c0 + 1)
        result = inner
        if self.probs is not None:
            result = np.zeros((height, width), np.float32)
            result[r0 : r1 + 1, c0 : c1 + 1] = inner
        self.probs = self.previous = result
        return result


def oracle_click(truth, pred, free):
    fn = np.logical_and(np.logical_and(truth == 1, ~pred), truth != -1)
    fp = np.logical_and(np.logical_and(truth != 1, pred), truth != -1)
    depth = []
    for region in (fn, fp):
        exact = np.rint(ndimage.distance_transform_edt(np.pad(region, 1)) ** 2)
        depth.append(np.sqrt(exact.astype(np.float32))[1:-1, 1:-1] * free)
    positive = depth[0].max() > depth[1].max()
    chosen = depth[0] if positive else depth[1]
    rows, cols = np.where(chosen == chosen.max())
    return rows[0], cols[0], bool(positive)


def oracle_rounds(image, truth, target, max_clicks):
    predictor, free = OraclePredictor(image), np.ones(truth.shape, bool)
    pred, clicks, rois, ious = np.zeros(truth.shape, bool), [], [], []
    for _ in range(max_clicks):
        click = oracle_click(truth, pred, free)
        free[click[:2]] = False
        clicks.append(click)
        pred = predictor.answer(clicks) > 0.5
        rois.append(predictor.roi)
        counted = truth != -1
        inter = np.sum(pred & (truth == 1) & counted)
        ious.append(inter / np.sum((pred | (truth == 1)) & counted))
        if ious[-1] >= target:
            break
    return clicks, rois, ious


def scene(seed, smallest=280, largest=460):
    """An image with a target of one to four pieces, some at the border, and a ring not counted."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(smallest, largest, 2)
    grid = np.mgrid[:height, :width].astype(np.float64)
    target = np.zeros((height, width), bool)
    anchor = rng.uniform(0, 1, 2) * (height, width)
    for _ in range(rng.integers(1, 5)):
        centre = anchor + rng.uniform(-80, 80, 2)
        radii = rng.uniform(14, 45, 2)
        target |= (((grid - centre[:, None, None]) / radii[:, None, None]) ** 2).sum(0) < 1
    if seed % 3 == 0:
        target[-25:, 5:30] = True
    noise = ndimage.gaussian_filter(rng.normal(0, 400, (height, width, 3)), (4, 4, 0))
    image = rng.uniform(60, 200, 3) + noise
    image[target] += rng.choice([-45, 45], 3)
    truth = target.astype(np.int32)
    if seed % 2:
        ring = ndimage.binary_dilation(target, iterations=4) & ~ndimage.binary_erosion(target)
        truth[ring] = -1
    return np.clip(image, 0, 255).astype(np.uint8), truth
