"""Lay one small gray image over another, and say how well they then agree.

Of two copies of a photo one is a little cropped, framed, tilted or marked; two photos that merely look alike agree
in their broad shapes, but not in where their edges lie once they are laid over each other.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

SIDE = 32
PIXELS = SIDE * SIDE
BLOCKS = 8  # a side is cut into so many blocks
TRIMMED = 0.16  # the share of the blocks, those that agree least, that may hold a mark and do not count
SMALL_ERROR = 0.05  # of the image's variance: a block that errs no more counts in any case
STEP = 0.25  # the most a warp changes in a round, where a side is 2 long


@dataclass(frozen=True)
class Alignment:
    """How n pairs of images lie over each other; each field is an array with n rows."""

    warp: np.ndarray
    """Where the points (1, x, y) of the right image lie in the left, both in [-1, 1]: (n, 2, 3)."""
    score: np.ndarray
    """Correlation of the edges where the images agree best, -1 to 1."""
    overlap: np.ndarray
    """The share of the right image that lies inside the left."""
    counted: np.ndarray
    """The share of the edges that counted, in that image of the two where it is larger."""
    edges: np.ndarray
    """How strong the edges are that counted, in the fainter image: gray levels from pixel to pixel."""
    extent: np.ndarray
    """Over how many pixels the edges that counted are spread, in that image of the two where it is fewer."""
    difference: np.ndarray
    """Mean difference in gray levels, brightness and contrast left as they are."""

    def take(self, rows: np.ndarray) -> Alignment:
        return Alignment(*(getattr(self, field.name)[rows] for field in fields(self)))


def align(left: np.ndarray, right: np.ndarray, warp: np.ndarray, rounds: int) -> Alignment:
    """Refine where the right images lie in the left ones, and compare them.

    Affine image alignment by the inverse compositional method (Lucas and Kanade 1981; Baker and Matthews 2004),
    with brightness and contrast solved for beside it (as in Evangelidis and Psarakis 2008) and the blocks that agree
    least left out.

    Args:
        left, right: uint8 (n, 32, 32).
        warp: where to begin (n, 2, 3).
    """
    source, template = smooth(left), smooth(right)
    down, across = (g.reshape(len(right), PIXELS) for g in gradients(template))
    wanted = template.reshape(len(right), PIXELS)
    warp = warp.astype(np.float32)
    if rounds and len(left):
        _, x, y = points()
        # How the template changes with each of the six numbers, with its contrast and with its brightness.
        steep = np.stack([across, across * x, across * y, down, down * x, down * y, wanted,
                          np.ones_like(wanted)], axis=1)  # fmt: skip
        for _ in range(rounds):
            warp = refine(source, wanted, steep, warp)
    return compare(source, wanted, down, across, warp)


def refine(source: np.ndarray, wanted: np.ndarray, steep: np.ndarray, warp: np.ndarray) -> np.ndarray:
    """One round: the warps (n, 2, 3) after a step towards less difference."""
    seen, inside = sample(source, warp)
    weight = agreeing(seen, wanted, inside)
    seen = fitted(seen, wanted, weight)
    weighted = steep * weight[:, None]
    normal = weighted @ steep.transpose(0, 2, 1)
    error = weighted @ (seen - wanted)[..., None]
    damping = np.diag([1e-3] * 6 + [1e-6] * 2).astype(np.float32)
    scale = np.maximum(np.trace(normal, axis1=1, axis2=2), 1)[:, None, None] / 8
    change = np.linalg.solve(normal + damping * scale, error)[:, :6, 0].reshape(-1, 2, 3)
    size = np.abs(change).sum(axis=(1, 2), keepdims=True)
    return compose(warp, inverse(identity(len(warp)) + change * np.minimum(1, STEP / np.maximum(size, 1e-9))))


def compare(
    source: np.ndarray, wanted: np.ndarray, down: np.ndarray, across: np.ndarray, warp: np.ndarray
) -> Alignment:
    """Measure how the images agree under a warp; see `Alignment`."""
    seen, inside = sample(source, warp)
    keep = agreeing(seen, wanted, inside)
    seen_down, seen_across = (g.reshape(seen.shape) for g in gradients(seen.reshape(-1, SIDE, SIDE)))
    strength, seen_strength = down**2 + across**2, seen_down**2 + seen_across**2
    both = (keep * (down * seen_down + across * seen_across)).sum(axis=1)
    ours, theirs = (keep * strength).sum(axis=1), (keep * seen_strength).sum(axis=1)
    share = np.maximum(ours / total(inside * strength), theirs / total(inside * seen_strength))
    pixels = total(keep)
    edges = np.sqrt(np.minimum(ours, theirs) / pixels) * np.float32(2 / SIDE)
    extent = np.minimum(ours**2 / total((keep * strength) ** 2), theirs**2 / total((keep * seen_strength) ** 2))
    difference = (keep * np.abs(seen - wanted)).sum(axis=1) / pixels
    score = both / np.sqrt(np.maximum(ours * theirs, 1e-6))
    return Alignment(warp, score, inside.sum(axis=1) / counting().sum(), share, edges, extent, difference)


def points() -> np.ndarray:
    """Pixel centres in [-1, 1] as (1, x, y): float32 (3, 1024)."""
    line = ((2 * np.arange(SIDE) + 1) / SIDE - 1).astype(np.float32)
    return np.stack([np.ones(PIXELS, np.float32), np.tile(line, SIDE), np.repeat(line, SIDE)])


def counting() -> np.ndarray:
    """The pixels that count: not the outermost, which a frame blurs into. bool (1024,)."""
    return (np.abs(points()[1:]) < 1 - 3.5 / SIDE).all(axis=0)


def smooth(images: np.ndarray) -> np.ndarray:
    """Blur a little, so that what lies between two pixels can be told: uint8 (n, 32, 32) to float32."""
    wide = np.pad(images, ((0, 0), (1, 1), (1, 1)), "edge").astype(np.float32)
    rows = wide[:, :-2] + 2 * wide[:, 1:-1] + wide[:, 2:]
    return (rows[:, :, :-2] + 2 * rows[:, :, 1:-1] + rows[:, :, 2:]) / np.float32(16)


def gradients(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Change down and across, per unit of the [-1, 1] grid: float32 (n, 32, 32) each."""
    down, across = np.gradient(images, axis=(1, 2)) if len(images) else (images, images)
    return down * np.float32(SIDE / 2), across * np.float32(SIDE / 2)


def sample(source: np.ndarray, warp: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values of the source where the warp takes each pixel (n, 1024), and 1 where that counts: well inside both."""
    place = warp @ points()
    inside = (np.abs(place) <= 1 - 2.5 / SIDE).all(axis=1) & counting()
    place = ((place + 1) * np.float32(SIDE / 2) - np.float32(0.5)).clip(0, SIDE - 1)
    corner = np.minimum(place.astype(np.int32), SIDE - 2)
    part = place - corner
    base = corner[:, 1] * SIDE + corner[:, 0] + (np.arange(len(source), dtype=np.int32) * PIXELS)[:, None]
    flat, across, down = source.ravel(), part[:, 0], part[:, 1]
    upper, lower = flat.take(base), flat.take(base + SIDE)
    upper += (flat.take(base + 1) - upper) * across
    lower += (flat.take(base + SIDE + 1) - lower) * across
    return upper + (lower - upper) * down, inside.astype(np.float32)


def fitted(seen: np.ndarray, wanted: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Bring values to the mean and spread of others (n, 1024)."""
    pixels = total(weight)[:, None]
    mean_seen, mean = ((weight * v).sum(axis=1, keepdims=True) / pixels for v in (seen, wanted))
    spread_seen, spread = ((weight * (v - m) ** 2).sum(axis=1, keepdims=True) for v, m in
                           ((seen, mean_seen), (wanted, mean)))  # fmt: skip
    return (seen - mean_seen) * np.sqrt(spread / np.maximum(spread_seen, 1e-3)) + mean


def agreeing(seen: np.ndarray, wanted: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """1 for the pixels inside, but 0 in the worst blocks where they really disagree (n, 1024)."""
    size, worst = SIDE // BLOCKS, round(BLOCKS**2 * (1 - TRIMMED))
    spread = inside * (wanted - (inside * wanted).sum(axis=1, keepdims=True) / total(inside)[:, None]) ** 2
    error = inside * (fitted(seen, wanted, inside) - wanted) ** 2
    blocks = error.reshape(-1, BLOCKS, size, BLOCKS, size).sum(axis=(2, 4)).reshape(-1, BLOCKS**2)
    bound = np.maximum(np.partition(blocks, worst, axis=1)[:, worst], SMALL_ERROR * spread.mean(axis=1) * size**2)
    good = (blocks <= bound[:, None]).astype(np.float32).reshape(-1, BLOCKS, BLOCKS)
    return inside * good.repeat(size, axis=1).repeat(size, axis=2).reshape(inside.shape)


def total(weight: np.ndarray) -> np.ndarray:
    """Sums of weights (n, 1024) to divide by: (n,), never 0."""
    return np.maximum(weight.sum(axis=1), 1e-6)


def identity(count: int) -> np.ndarray:
    """Warps that leave all in place (n, 2, 3)."""
    return np.tile(np.eye(2, 3, 1, dtype=np.float32), (count, 1, 1))


def compose(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """The warps that do the inner and then the outer ones (n, 2, 3)."""
    moved = outer[:, :, 1:] @ inner
    moved[:, :, 0] += outer[:, :, 0]
    return moved


def inverse(warp: np.ndarray) -> np.ndarray:
    """The warps that undo others (n, 2, 3)."""
    a, b, c, d = warp[:, 0, 1], warp[:, 0, 2], warp[:, 1, 1], warp[:, 1, 2]
    size = a * d - b * c
    size = np.where(np.abs(size) < 1e-3, np.float32(1e-3), size)
    back = np.stack([np.stack([d, -b], axis=1), np.stack([-c, a], axis=1)], axis=1) / size[:, None, None]
    return np.concatenate([-back @ warp[:, :, :1], back], axis=2)
