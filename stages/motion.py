"""Find, follow, turn round, fetch, weigh: the classic that moves pixels (notebook 07), in numpy and OpenCV.

A flow `[h, w, 2]` says for each pixel (x, y) of one frame where it is in another: at (x + flow[0], y + flow[1]).
Flows are found on a copy of about 320x180 px, the grid, and paths are followed there: at 640x360 px a dense inverse
search that stops at half the size gives the same, and larger frames gain nothing from a finer one. Pixels are fetched
at full size.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np

GRID = 320 * 180  # px: the area of the copies on which motion is found
SLOTS = 6  # frames a path is laid through at most, three before the wanted moment and three after
CORES = os.cpu_count() or 2
WORKERS = min(4, CORES)  # threads that follow and fetch for several moments at once
ORDERS = (2, 4, 6)  # frames that a path may be laid through, the inner two always among them


@dataclass(frozen=True)
class Paths:
    """Where what is seen at the wanted moment is found in the other frames; everything in px of the grid.

    Attributes:
        shifts: float32 `[2, k, h, w, 2]`: for the inner frame before and the one after, and for each path laid, what
            to add to a pixel's place to be where it is fetched.
        places: float32 `[2, 6, h, w, 2]`: where that pixel is in each of the six slots, as found from either side; in
            slots that no path goes through, where it is in the one before.
        flows: float32 `[2, h, w, 2]`: where what stands at a pixel of one inner frame is in the other.
        slots: index of the frame in each slot, -1 where there is none. Slots 2 and 3 are the inner frames.
        moments: when the frames in the slots are: 0 is the inner frame before, 1 the one after; 0 where there is none.
        position: where the wanted moment lies between the inner frames, 0 to 1.
    """

    shifts: np.ndarray
    places: np.ndarray
    flows: np.ndarray
    slots: tuple[int, ...]
    moments: tuple[float, ...]
    position: float


@contextlib.contextmanager
def workers() -> Iterator[ThreadPoolExecutor]:
    """A pool of `WORKERS` threads, among which OpenCV's own are shared out: or they would wait for one another."""
    pool, before = ThreadPoolExecutor(WORKERS), cv2.getNumThreads()
    cv2.setNumThreads(CORES // WORKERS)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        cv2.setNumThreads(before)


def grid_size(height: int, width: int) -> tuple[int, int]:
    """Height and width of the copy on which motion is found: about the area of 320x180 px, in the frame's shape."""
    scale = (GRID / (height * width)) ** 0.5
    return max(16, round(height * scale)), max(16, round(width * scale))


def grid_copy(frame: np.ndarray) -> np.ndarray:
    """Grey copy of a frame at the size of the grid: uint8 `[H, W, 3]` (a fourth channel is not seen) -> `[h, w]`."""
    height, width = grid_size(*frame.shape[:2])
    kernel = cv2.INTER_AREA if width < frame.shape[1] else cv2.INTER_CUBIC
    return cv2.resize(cv2.cvtColor(frame[..., :3], cv2.COLOR_RGB2GRAY), (width, height), interpolation=kernel)


def find_flow(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Flow `[h, w, 2]` from one grey copy to another, uint8 `[h, w]`, by dense inverse search (Kroeger et al. 2016)."""
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    search.setFinestScale(0)
    search.setVariationalRefinementIterations(3)  # of 5: as exact on 54 clips, and quicker
    return search.calc(first, second, None)


def find_flows(copies) -> list[tuple[np.ndarray, np.ndarray]]:
    """Flows `[h, w, 2]` between consecutive grey copies, uint8 `[h, w]`, as pairs: there and back."""
    return [(find_flow(a, b), find_flow(b, a)) for a, b in zip(copies[:-1], copies[1:])]


@functools.lru_cache(maxsize=4)
def pixel_grid(height: int, width: int) -> np.ndarray:
    """Coordinates (x, y) of each pixel: float32 `[height, width, 2]`, read-only."""
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)
    places = np.stack(np.meshgrid(x, y), axis=-1)
    places.setflags(write=False)
    return places


def sample(image: np.ndarray, at: np.ndarray, kernel: int = cv2.INTER_LINEAR) -> np.ndarray:
    """Values of an image `[H, W, C]` at places `[h, w, 2]` between its pixels; beyond its edges those of the edge."""
    return cv2.remap(image, at, None, kernel, borderMode=cv2.BORDER_REPLICATE)


def lagrange_weights(times, t: float) -> np.ndarray:
    """Weights of positions at `times` that give the position at `t` on the polynomial through them; their sum is 1."""
    times = np.asarray(times, np.float64)
    ratios = (t - times) / (times[:, None] - times + np.eye(len(times)))
    np.fill_diagonal(ratios, 1)
    return ratios.prod(axis=1)


def fill_slots(times, t: float) -> tuple[int, ...]:
    """Index of the frame in each of the six slots around the moment `t`, -1 where there is none.

    Raises:
        ValueError: if the times do not increase, or `t` does not lie between two of them.
    """
    times = np.asarray(times, np.float64)
    if times.ndim != 1 or len(times) < 2 or not (np.diff(times) > 0).all():
        raise ValueError(f"times must be two or more increasing numbers, one for each frame, not {times.tolist()}.")
    after = int(np.searchsorted(times, t))
    if not times[0] < t < times[-1] or times[after] == t:
        raise ValueError(f"t = {t} must lie between two of the frames' times {times.tolist()}, and on none of them.")
    return tuple(k if 0 <= k < len(times) else -1 for k in range(after - SLOTS // 2, after + SLOTS // 2))


def path_weights(times, t: float, slots: tuple[int, ...], orders: tuple[int, ...]) -> np.ndarray:
    """Weights of the positions in the six slots: polynomials through what there is of the inner `orders` frames.

    Returns:
        float32 `[k, 6]`, a row for each of the orders.
    """
    weights = np.zeros((len(orders), SLOTS), np.float32)
    for row, order in zip(weights, orders):
        used = [slot for slot in range(3 - order // 2, 3 + order // 2) if slots[slot] >= 0]
        row[used] = lagrange_weights([times[slots[slot]] for slot in used], t)
    return weights


def follow(flows: list, times, t: float, orders: tuple[int, ...] = ORDERS) -> Paths:
    """Paths of what is seen at the moment `t`: polynomials through its positions in the frames around.

    A path is known where it starts, in an inner frame, and needed where it arrives, at the wanted moment. A fixed point
    turns it round: u <- -M(y + u), where M is the displacement until `t`.

    Args:
        flows: pairs (there, back) of consecutive frames, float32 `[h, w, 2]`; n - 1 for n frames.
        times: of the n frames, increasing, in any unit; they need not be evenly spaced.
        t: the wanted moment, between two of them.
        orders: of `ORDERS`, through how many frames paths are laid.
    """
    slots = fill_slots(times, t)
    weights, here = path_weights(times, t, slots, orders), pixel_grid(*flows[0][0].shape[:2])
    guess, reach = path_weights(times, t, slots, (4,)), max(orders) // 2
    when = [(moment - times[slots[2]]) / (times[slots[3]] - times[slots[2]]) for moment in (*times, t)]
    *moments, position = (float(when[slot]) if slot >= 0 else 0.0 for slot in (*slots, len(times)))
    shifts, places = [], []
    for side, (flow, share) in enumerate(zip(flows[slots[2]], (position, 1 - position))):
        start = here - share * flow
        start = here - displacements(flows, slots, 2 + side, start, range(1, 5), guess)[1][0]
        moved, paths = displacements(flows, slots, 2 + side, start, range(3 - reach, 3 + reach), weights)
        shifts.append(-paths)
        places.append(start + moved)
    return Paths(np.stack(shifts), np.stack(places), np.stack(flows[slots[2]]), slots, tuple(moments), position)


def displacements(flows: list, slots, origin: int, points: np.ndarray, used: range, weights) -> tuple:
    """Displacements of points of one slot in the others, one flow after the other, and weighted sums of them.

    Args:
        flows: pairs (there, back) of consecutive frames.
        slots: index of the frame in each slot, or -1.
        origin: the slot in which the points lie.
        points: float32 `[h, w, 2]`.
        used: slots to go to; those that are empty stay where the slot before them is.
        weights: float32 `[k, 6]`, of the displacements.

    Returns:
        float32 `[6, h, w, 2]`, and the sums `[k, h, w, 2]`.
    """
    moved = np.zeros((SLOTS, *points.shape), np.float32)
    for direction, ahead in ((1, range(origin + 1, used.stop)), (-1, range(origin - 1, used.start - 1, -1))):
        for slot in ahead:
            moved[slot] = moved[slot - direction]
            if slots[slot] >= 0:
                flow = flows[min(slots[slot], slots[slot - direction])][direction < 0]
                moved[slot] += sample(flow, points + moved[slot])
    return moved, np.stack([sum(share * part for share, part in zip(row, moved) if share) for row in weights])


def fetch(frame: np.ndarray, shift: np.ndarray, kernel: int = cv2.INTER_CUBIC) -> np.ndarray:
    """Pixels fetched from where `shift` says: uint8 `[H, W, 3]`.

    Args:
        frame: uint8 `[H, W, 3]`.
        shift: float32 `[h, w, 2]`, px of the grid.
        kernel: OpenCV's, between pixels.
    """
    height, width = frame.shape[:2]
    scale = np.array([width / shift.shape[1], height / shift.shape[0]], np.float32)
    at = cv2.resize(shift * scale, (width, height), interpolation=cv2.INTER_LINEAR)
    return sample(frame, cv2.add(at, pixel_grid(height, width)), kernel)


def inside(shift: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Trust in what is fetched from near or beyond the edges of a frame of `size` (height, width): float32 `[H, W]`.

    It is 1 inside, and e to the power of minus the distance in px outside. `shift` is as in `fetch`.
    """
    height, width = shift.shape[:2]
    at, beyond = pixel_grid(height, width) + shift, 0.0
    for k, (side, whole) in enumerate(((width, size[1]), (height, size[0]))):
        beyond = np.maximum(beyond, np.abs(at[..., k] - np.clip(at[..., k], 0, side - 1)) * np.float32(whole / side))
    return cv2.resize(np.exp(-beyond), size[::-1])


def difference(first: np.ndarray, second: np.ndarray, size: int = 1) -> np.ndarray:
    """Largest channel difference of two pictures, uint8 `[H, W, 3]`, averaged over `size` px: float32 `[H, W]`."""
    red, green, blue = cv2.split(cv2.absdiff(first, second))
    return cv2.blur(cv2.max(cv2.max(red, green), blue).astype(np.float32), (size, size))


def above(values: np.ndarray, threshold: float, softness: float) -> np.ndarray:
    """Soft step: 0 far below the threshold, 1 far above it."""
    return 1 / (1 + np.exp(np.clip((threshold - values) / softness, -50, 50)))


def stand_still(fetched: list, along: list, standing: list) -> np.ndarray:
    """Weight of the inner frames as they stand, against what was fetched: float32 `[H, W]`, 0 to 1.

    A caption stands still before something that moves, and its flow is pulled along or not found at all. Two signs:
    what was fetched differs, and what stands there agrees; or the two frames agree at a pixel, and by the pixel's own
    flow they should not, so that flow is wrong. (Before a background that stands, flow is 0, and nothing is triggered.)

    Args:
        fetched: each side's own pixel, uint8 `[H, W, 3]`.
        along: for each inner frame the other one, fetched by the flow at the pixel itself, uint8 `[H, W, 3]`.
        standing: the two inner frames.
    """
    still, at_pixel = difference(*standing, 3), difference(*standing)
    differs = np.exp(-still / 16) * above(difference(*fetched, 3) - still, 4, 3)
    by_flow = np.minimum(*(difference(frame, other, 5) for frame, other in zip(standing, along)))
    wrong = np.exp(-at_pixel / 8) * above(by_flow - at_pixel, 7, 2)
    return (1 - (1 - differs) * (1 - wrong)).astype(np.float32)


def weigh(pairs: list, stand: np.ndarray, position: float) -> list[np.ndarray]:
    """Weights of five pictures by the classic's rule: those of both pairs, and the average of the frames as they stand.

    A pair is what one side says: the pixel in the frame before and the same one in the frame after. It counts the less
    the less its two pixels agree, and the less both sides agree on the way: that is how what is hidden in one of the
    frames looks. Pixels from beyond a frame count less, too.

    Args:
        pairs: for each side the two fetched pictures, uint8 `[H, W, 3]`; `inside` of both; and how much the two sides
            agree on the way, float32 `[H, W]`, 0 to 1.
        stand: weight of the average, float32 `[H, W]`.
        position: of the wanted moment between the inner frames, 0 to 1.

    Returns:
        Five of float32 `[H, W]`, whose sum is 1.
    """
    weights = []
    for pictures, within, agree in pairs:
        red, green, blue = cv2.split(cv2.absdiff(*pictures))
        differ = cv2.blur(cv2.add(cv2.add(red, green, dtype=cv2.CV_32F), blue, dtype=cv2.CV_32F), (5, 5))
        agree = agree * np.exp(differ / -90) + 1e-6
        weights += [agree * (share * trust + 1e-6) for share, trust in zip((1 - position, position), within)]
    scale = (1 - stand) / sum(weights)
    return [*(weight * scale for weight in weights), stand]


def blend(pictures: list, weights: list) -> np.ndarray:
    """Weighted mean of pictures, uint8 `[H, W, 3]`, with weights float32 `[H, W]`, whatever their sum."""
    while len(pictures) > 1:  # in pairs, because cv2 blends two
        rest = len(pictures) // 2 * 2
        pairs = list(zip(pictures[:rest:2], pictures[1:rest:2], weights[:rest:2], weights[1:rest:2]))
        pictures = [cv2.blendLinear(*pair) for pair in pairs] + pictures[rest:]
        weights = [before + after for *_, before, after in pairs] + weights[rest:]
    return pictures[0]


def between_sides(paths: Paths, side: int, choice: int = -1) -> tuple[np.ndarray, np.ndarray]:
    """The way from a side's inner frame to the other one, and how far the other side's shift is from its end.

    Args:
        paths: from `follow`.
        side: 0 for what is found from the frame before, 1 from the one after.
        choice: which of the paths that were laid.

    Returns:
        float32 `[h, w, 2]` and `[h, w]`, px of the grid.
    """
    across = paths.places[side, 3 - side] - paths.places[side, 2 + side]
    apart = paths.shifts[side, choice] + across - paths.shifts[1 - side, choice]
    return across, np.linalg.norm(apart, axis=-1)  # cv2.magnitude differs in the last digit from call to call


def fetch_pictures(frames, paths: Paths, choice: int = -1) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """What there is to blend, and how much of each by the classic's rule.

    Args:
        frames: n of uint8 `[H, W, 3]`; the inner two of the paths are read.
        paths: from `follow`.
        choice: which of the paths that were laid.

    Returns:
        Five of uint8 `[H, W, 3]`: what is found by the paths from the frame before, in it and in the one after; the
        same by the paths from the frame after; the average of the two as they stand. And `weigh` of these.
    """
    standing, pairs = [frames[slot] for slot in paths.slots[2:4]], []
    shifts, size = paths.shifts[:, choice], standing[0].shape[:2]
    for side in range(2):
        across, apart = between_sides(paths, side, choice)
        both = [shifts[side], shifts[side] + across][:: 1 - 2 * side]  # before, after
        fetched, within = zip(*((fetch(frame, shift), inside(shift, size)) for frame, shift in zip(standing, both)))
        pairs.append((fetched, within, cv2.resize(np.exp(apart / -6), size[::-1])))
    along = [fetch(frame, flow, cv2.INTER_LINEAR) for frame, flow in zip(standing[::-1], paths.flows)]
    stand = stand_still([pairs[0][0][0], pairs[1][0][1]], along, standing)
    average = cv2.addWeighted(standing[0], 1 - paths.position, standing[1], paths.position, 0)
    return [*pairs[0][0], *pairs[1][0], average], weigh(pairs, stand, paths.position)


def predict_along(frames, paths: Paths, choice: int = -1) -> np.ndarray:
    """Frame at the wanted moment, by the classic: pixels fetched along one of the paths; uint8 `[H, W, 3]`.

    Args:
        frames, paths, choice: see `fetch_pictures`.
    """
    return blend(*fetch_pictures(frames, paths, choice))
