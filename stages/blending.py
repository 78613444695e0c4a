"""Weigh and blend what paths fetch: the classic's rules (notebook 07), in numpy and OpenCV.

Rules look at copies of half the height and width, where noise counts less. Only what stands still, such as the thin
letters of a caption, is looked for at full size, up to `FINE`.
"""

from __future__ import annotations

import functools

import cv2
import numpy as np

from stages.motion import Paths, fetch, pixel_grid

OUTER = (1, 4)  # slots of the frames next to the inner two
FINE = 960 * 540  # px: in larger frames letters are not so thin, and what stands still is looked for at half the size


def halve(image: np.ndarray) -> np.ndarray:
    """Copy of half the height and width, each pixel the mean of four."""
    return cv2.resize(image, [max(1, side // 2) for side in image.shape[1::-1]], interpolation=cv2.INTER_AREA)


def inside(shift: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Trust in what `fetch` finds, float32 `[H, W]`, for frames of `size` (height, width).

    It is 1 inside the frame, and e to the power of minus the distance in px outside. `shift` is as in `fetch`.
    """
    height, width = shift.shape[:2]
    at, beyond = pixel_grid(height, width) + shift, 0.0
    for k, (side, whole) in enumerate(((width, size[1]), (height, size[0]))):
        beyond = np.maximum(beyond, np.abs(at[..., k] - np.clip(at[..., k], 0, side - 1)) * np.float32(whole / side))
    return cv2.resize(np.exp(-beyond), size[::-1])


def difference(first: np.ndarray, second: np.ndarray, size: int = 1) -> np.ndarray:
    """Largest channel difference of two pictures, uint8 `[H, W, 3]`, averaged over `size` px: uint8 `[H, W]`."""
    red, green, blue = cv2.split(cv2.absdiff(first, second))
    return cv2.blur(cv2.max(cv2.max(red, green), blue), (size, size))


def above(levels: np.ndarray, threshold: float, softness: float) -> np.ndarray:
    """Soft step of levels, uint8: 0 at level 0, one half about the threshold, 1 far above it; float32."""
    steps = 1 / (1 + np.exp((threshold - np.arange(256)) / softness))
    return cv2.LUT(levels, ((steps - steps[0]) / (1 - steps[0])).astype(np.float32))


def small(levels: np.ndarray, scale: float) -> np.ndarray:
    """How small levels are, uint8: e to the power of minus the level / scale; float32."""
    return cv2.LUT(levels, np.exp(np.arange(256) / -scale).astype(np.float32))


def stand_still(fetched: list, along: list, standing: list, around: list) -> np.ndarray:
    """Weight of the inner frames as they stand, against what was fetched: float32 `[H, W]`, 0 to 1.

    A caption stands still before something that moves, and its flow is pulled along or not found at all. Two signs:
    what was fetched differs, and what stands there agrees; or the frames agree at a pixel, and by the pixel's own flow
    they should not, so that flow is wrong. (Before a background that stands, flow is 0, and nothing is triggered.) That
    two frames agree is often chance; that the next one on either side does, too, seldom is.

    Args:
        fetched: each side's own pixel, uint8 `[H, W, 3]`.
        along: for each inner frame the other one, fetched by the flow at the pixel itself, uint8 `[H, W, 3]`.
        standing: the two inner frames.
        around: pairs of an inner frame and the outer one next to it, for as many sides as have one.
    """
    at_pixel = difference(*standing)
    if around:
        at_pixel = cv2.max(at_pixel, functools.reduce(cv2.min, [difference(*pair) for pair in around]))
    still = cv2.blur(at_pixel, (9, 9))
    differs = small(still, 16) * above(cv2.subtract(difference(*fetched, 9), still), 4, 3)
    by_flow = cv2.min(*(difference(frame, other, 7) for frame, other in zip(standing, along)))
    wrong = small(at_pixel, 8) * above(cv2.subtract(by_flow, at_pixel), 7, 2)
    return 1 - (1 - differs) * (1 - wrong)


def weigh(pairs: list, shares) -> list[np.ndarray]:
    """Weights of four pictures by the classic's rule, those of both pairs.

    A pair is what one side says: the pixel in the frame before and the same one in the frame after. It counts the less
    the less its two pixels agree, and the less both sides agree on the way: that is how what is hidden in one of the
    frames looks. Pixels from beyond a frame count less, too.

    Args:
        pairs: for each side the two fetched pictures, uint8 `[h, w, 3]`; `inside` of both; and how much the two sides
            agree on the way, float32 `[h, w]`, 0 to 1.
        shares: how much the frames before and after count: float32 `[h, w]`, or one number.

    Returns:
        Four of float32 `[h, w]`, whose sum is 1.
    """
    weights = []
    for pictures, within, agree in pairs:
        agree = agree * small(difference(*pictures, 3), 34) + 1e-6
        weights += [agree * (share * trust + 1e-6) for share, trust in zip(shares, within)]
    whole = sum(weights)
    return [weight / whole for weight in weights]


def blend(pictures: list, weights: list) -> np.ndarray:
    """Weighted mean of pictures, uint8 `[H, W, 3]`, with weights float32 of any size, whatever their sum."""
    height, width = pictures[0].shape[:2]
    weights = [cv2.resize(weight, (width, height)) for weight in weights]
    while len(pictures) > 1:  # in pairs, because cv2 blends two
        rest = len(pictures) // 2 * 2
        pairs = list(zip(pictures[:rest:2], pictures[1:rest:2], weights[:rest:2], weights[1:rest:2]))
        pictures = [cv2.blendLinear(*pair) for pair in pairs] + pictures[rest:]
        weights = [before + after for *_, before, after in pairs] + weights[rest:]
    return pictures[0]


def mix(pictures: list, weights: list) -> np.ndarray:
    """As `blend`, of many pictures, and without rounding on the way: float32 `[H, W, 3]`."""
    mixed, picture = np.zeros((2, *pictures[0].shape), np.float32)  # made once: memory is dearer than arithmetic
    whole = np.zeros(mixed.shape[:2], np.float32)
    for levels, weight in zip(pictures, weights):
        np.copyto(picture, levels)
        weight = cv2.resize(weight, whole.shape[::-1])
        cv2.blendLinear(mixed, picture, whole, weight, dst=mixed)
        whole += weight
    return mixed


def between_sides(paths: Paths, side: int) -> np.ndarray:
    """How far a side ends from where the other side fetches: float32 `[h, w]`, px of a grid of `motion.GRID` px."""
    apart = paths.shifts[side] + paths.across[side] - paths.shifts[1 - side]
    apart *= apart
    return np.sqrt(apart[..., 0] + apart[..., 1]) / np.float32(paths.unit)  # numpy's norm takes ten times as long


def fetch_pictures(frames, paths: Paths) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """What there is to blend, and how much of each by the classic's rules.

    Args:
        frames: n of uint8 `[H, W, 3]`; the inner two are fetched, and those next to them tell what is hidden and what
            stands still, if the paths go there.
        paths: from `follow`.

    Returns:
        Five of uint8 `[H, W, 3]`: what is found by the paths from the frame before, in it and in the one after; the
        same by the paths from the frame after; the average of the two as they stand. And their weights: four of
        float32 `[H / 2, W / 2]`, 0 to 1, and one of 0 to 1000, `[H, W]` up to `FINE`.
    """
    standing, pictures, pairs, around = [frames[slot] for slot in paths.slots[2:4]], [], [], []
    kernel = cv2.INTER_LANCZOS4 if len(frames) == 2 else cv2.INTER_CUBIC  # sharper, and slower
    size, shares = halve(standing[0]).shape[:2], [1 - paths.position, paths.position]
    for side in range(2):
        both = [paths.shift_to(side, slot) for slot in (2, 3)]
        pictures += [fetch(frame, shift, kernel) for frame, shift in zip(standing, both)]
        within = [inside(shift, size) for shift in both]
        agree = cv2.resize(np.exp(between_sides(paths, side) / -6), size[::-1])
        pairs.append(([halve(picture) for picture in pictures[-2:]], within, agree))
    for side, slot in enumerate(OUTER):
        if paths.trust[side, slot].any():
            around.append((standing[side], frames[paths.slots[slot]]))
    if len(around) == 2:  # what the frame next to it shows, too, is not hidden on this side
        for side, slot in enumerate(OUTER):
            there = fetch(halve(around[side][1]), paths.shift_to(side, slot), cv2.INTER_LINEAR)
            shares[side] = shares[side] * (0.3 + small(difference(pairs[side][0][side], there, 3), 12))
    average = cv2.addWeighted(standing[0], 1 - paths.position, standing[1], paths.position, 0)
    look = halve if average.shape[0] * average.shape[1] > FINE else np.asarray
    inner, beside = [look(frame) for frame in standing], [(look(frame), look(outer)) for frame, outer in around]
    along = [fetch(frame, flow, cv2.INTER_LINEAR) for frame, flow in zip(inner[::-1], paths.flows)]
    stand = stand_still([look(pictures[0]), look(pictures[3])], along, inner, beside)
    return [*pictures, average], [*weigh(pairs, shares), stand / (1.001 - stand)]


def predict_along(frames, paths: Paths) -> np.ndarray:
    """Frame at the wanted moment, by the classic: `fetch_pictures`, blended; uint8 `[H, W, 3]`."""
    return blend(*fetch_pictures(frames, paths))
