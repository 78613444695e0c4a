"""Find, follow, turn round, fetch: where the classic finds pixels (notebook 07), in numpy and OpenCV.

A flow `[h, w, 2]` says for each pixel (x, y) of one frame where it is in another: at (x + flow[0], y + flow[1]).
Flows are found on a copy, the grid, and paths are followed there: of about 320x180 px, or 480x270, which is as good
as full size at 640x360 and takes twice the time; of two frames alone, 960x540. Pixels are fetched at full size.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import itertools
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np

GRID = 320 * 180  # px: the area of the copies on which motion is found; distances are told in px of such a grid
FINE = 480 * 270  # px: that of finer ones, of frames that have as many px
PAIR = 960 * 540  # px: that of the copies of two frames alone, such as photos, where nothing hurries
SLOTS = 6  # frames a path is laid through at most, three before the wanted moment and three after
CORES = os.cpu_count() or 2
WORKERS = min(4, CORES)  # threads that follow and fetch for several moments at once
TRUSTED = 2.0  # px of `GRID`: where flows there and back miss each other by this, a place is trusted by 1 / e


@dataclass(frozen=True)
class Paths:
    """Where what is seen at the wanted moment is found in the other frames; everything in px of the grid.

    Attributes:
        shifts: float32 `[2, h, w, 2]`: for the inner frame before and the one after, what to add to a pixel's place to
            be where it is fetched.
        across: float32 `[2, h, w, 2]`: from there to where the same thing is in the other inner frame.
        bends: float32 `[2, 6, h', w', 2]`, for every second or third pixel: how far its place in each of the six slots
            is from the straight line through these two; 0 in slots that no path goes through.
        trust: float32 `[2, 6, h', w']`: how far its place in an outer slot is trusted, 0 to 1; elsewhere 0.
        flows: float32 `[2, h, w, 2]`: where what stands at a pixel of one inner frame is in the other.
        slots: index of the frame in each slot, -1 where there is none. Slots 2 and 3 are the inner frames.
        moments: when the frames in the slots are: 0 is the inner frame before, 1 the one after; 0 where there is none.
        position: where the wanted moment lies between the inner frames, 0 to 1.
    """

    shifts: np.ndarray
    across: np.ndarray
    bends: np.ndarray
    trust: np.ndarray
    flows: np.ndarray
    slots: tuple[int, ...]
    moments: tuple[float, ...]
    position: float

    @property
    def unit(self) -> float:
        """Px of the grid in one of a grid of `GRID` px."""
        return unit_of(*self.shifts.shape[1:3])

    def shift_to(self, side: int, slot: int) -> np.ndarray:
        """What to add to a pixel's place to be where it is in a slot, as found from a side: float32 `[h, w, 2]`."""
        line = self.shifts[side] + np.float32(steps(self.moments[slot], side)) * self.across[side]
        return line + cv2.resize(self.bends[side, slot], line.shape[1::-1]) if slot not in (2, 3) else line


@functools.cache
def keep_memory() -> None:
    """Have glibc keep what arrays free. It gives large ones back, and new ones come page by page, filled with 0."""
    with contextlib.suppress(AttributeError, OSError):  # other systems have other ways
        for option, size in ((-1, 2**30), (-3, 2**25)):  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD in malloc.h, bytes
            ctypes.CDLL(None).mallopt(option, size)


@contextlib.contextmanager
def workers() -> Iterator[ThreadPoolExecutor]:
    """A pool of `WORKERS` threads, among which OpenCV's own are shared out: or they would wait for one another."""
    keep_memory()
    pool, before = ThreadPoolExecutor(WORKERS), cv2.getNumThreads()
    cv2.setNumThreads(CORES // WORKERS)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        cv2.setNumThreads(before)


def grid_size(height: int, width: int, grid: int = GRID) -> tuple[int, int]:
    """Height and width of the copy of a frame on which motion is found, in the frame's shape.

    Its area is about `grid` px, but not above the frame's, unless that is below `GRID`.
    """
    scale = (min(grid, max(GRID, height * width)) / (height * width)) ** 0.5
    return max(16, round(height * scale)), max(16, round(width * scale))


def grid_for(frames: int, grid: int = GRID) -> int:
    """Px of the copies on which motion is found in so many frames: in two alone `PAIR`, or more if `grid` says so."""
    return max(grid, PAIR) if frames == 2 else grid


def unit_of(height: int, width: int) -> float:
    """Px of a grid in one of a grid of `GRID` px."""
    return (height * width / GRID) ** 0.5


def grid_copy(frame: np.ndarray, grid: int = GRID) -> np.ndarray:
    """Grey copy of a frame at the size of the grid: uint8 `[H, W, 3]` (a fourth channel is not seen) -> `[h, w]`."""
    height, width = grid_size(*frame.shape[:2], grid)
    kernel = cv2.INTER_AREA if width < frame.shape[1] else cv2.INTER_CUBIC
    return cv2.resize(cv2.cvtColor(frame[..., :3], cv2.COLOR_RGB2GRAY), (width, height), interpolation=kernel)


def find_flow(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Flow `[h, w, 2]` from one grey copy to another, uint8 `[h, w]`, by dense inverse search (Kroeger et al. 2016)."""
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    search.setFinestScale(0)
    search.setVariationalRefinementIterations(3)  # of 5: as exact on 54 clips, and quicker
    return search.calc(first, second, None)


def find_flows(frames, grid: int = GRID) -> list[tuple[np.ndarray, np.ndarray]]:
    """Flows `[h, w, 2]` between consecutive frames, uint8 `[H, W, 3]`, on the grid of `grid_for`: there and back."""
    copies = [grid_copy(frame, grid_for(len(frames), grid)) for frame in frames]
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


def steps(moment: float, side: int) -> float:
    """How far it is straight on from a side's inner frame to a moment; the way across to the other inner frame is 1."""
    return 1 - moment if side else moment


def follow(flows: list, times, t: float, frames: int = SLOTS, trusted: float = TRUSTED) -> Paths:
    """Paths of what is seen at the moment `t`: polynomials through its places in the frames around.

    A path is known where it starts, in an inner frame, and needed where it arrives, at the wanted moment. A fixed point
    turns it round: u <- -M(y + u), where M is the displacement until `t`. How it bends is found at every second pixel,
    and on a finer grid at fewer.

    Args:
        flows: pairs (there, back) of consecutive frames, float32 `[h, w, 2]`; n - 1 for n frames.
        times: of the n frames, increasing, in any unit; they need not be evenly spaced.
        t: the wanted moment, between two of them.
        frames: through how many of them paths are laid at most: 2, 4 or 6.
        trusted: px of a grid of `GRID` px; see `trace`. Infinite: every place is trusted.
    """
    slots, here = fill_slots(times, t), pixel_grid(*flows[0][0].shape[:2])
    unit = unit_of(*here.shape[:2])
    size, few = here.shape[1::-1], [int(side / (1 + max(1, unit))) for side in here.shape[1::-1]]
    trusted = trusted * unit
    when = [(moment - times[slots[2]]) / (times[slots[3]] - times[slots[2]]) for moment in (*times, t)]
    *moments, position = (float(when[slot]) if slot >= 0 else 0.0 for slot in (*slots, len(times)))
    found = []
    for side, flow in enumerate(flows[slots[2]]):
        share = np.float32(steps(position, side))
        start = cv2.resize(here - share * flow, few)
        guess = lay_path(*trace(flows, slots, 2 + side, start, min(frames, 4), trusted), moments, position)
        moved, trust = trace(flows, slots, 2 + side, cv2.resize(here, few) - guess, frames, trusted)
        bends = lay_path(moved, trust, moments, position) - share * moved[3 - side]
        across = sample(flow, here - cv2.resize(guess, size))
        straight = np.array([steps(moment, side) for moment in moments], np.float32)[:, None, None, None]
        known = trust.any(axis=(1, 2))[:, None, None, None]
        shift = -share * across - cv2.resize(bends, size)
        found.append((shift, across, known * (moved - straight * moved[3 - side]), trust))
    return Paths(*map(np.stack, zip(*found)), np.stack(flows[slots[2]]), slots, tuple(moments), position)


def trace(flows: list, slots, origin: int, points: np.ndarray, frames: int, trusted: float) -> tuple:
    """Displacements of points of an inner frame in the other slots, one flow after the other, and trust in them.

    An outer frame's place is trusted the less, the further its last step's flows, there and back, miss one another:
    forward-backward consistency (Sundaram et al. 2010).

    Args:
        flows: pairs (there, back) of consecutive frames.
        slots: index of the frame in each slot, or -1.
        origin: the slot in which the points lie, 2 or 3.
        points: float32 `[h, w, 2]`.
        frames: of slots to go to, 2, 4 or 6; others, and those that are empty, stay where the one before them is.
        trusted: px between there and back at which a place is trusted by 1 / e.

    Returns:
        float32 `[6, h, w, 2]`, and `[6, h, w]`, 0 to 1; 0 in the inner two.
    """
    moved, trust = np.zeros((SLOTS, *points.shape), np.float32), np.zeros((SLOTS, *points.shape[:2]), np.float32)
    for way, ahead in ((1, range(origin + 1, 3 + frames // 2)), (-1, range(origin - 1, 2 - frames // 2, -1))):
        for slot in ahead:
            moved[slot] = moved[slot - way]
            if slots[slot] >= 0:
                there, back = flows[min(slots[slot], slots[slot - way])][::way]
                step = sample(there, points + moved[slot])
                moved[slot] += step
                if slot not in (2, 3):
                    missed = step + sample(back, points + moved[slot])
                    trust[slot] = np.exp(np.hypot(missed[..., 0], missed[..., 1]) / -trusted)
    return moved, trust


def lay_path(moved: np.ndarray, trust: np.ndarray, moments, position: float) -> np.ndarray:
    """Displacements until the wanted moment, on polynomials through the places that are trusted: `[h, w, 2]`.

    On either side of it, a path goes through the inner frame alone, or the next one, too, or all three. Trust is taken
    for how likely that is, and each of the nine polynomials counts as much as it is likely.

    Args:
        moved, trust: of `trace`.
        moments: of the six slots.
        position: of the wanted moment.
    """
    before, after = ([1 - near, near * (1 - far), near * far] for far, near in (trust[:2], trust[:3:-1]))
    weights = np.zeros(moved.shape[:3], np.float32)
    for (i, earlier), (j, later) in itertools.product(enumerate(before), enumerate(after)):
        if (likely := earlier * later).any():
            used = list(range(2 - i, 4 + j))
            for slot, weight in zip(used, lagrange_weights([moments[slot] for slot in used], position)):
                weights[slot] += np.float32(weight) * likely
    return sum(cv2.merge([weight, weight]) * part for weight, part in zip(weights, moved))


def fetch(frame: np.ndarray, shift: np.ndarray, kernel: int = cv2.INTER_CUBIC) -> np.ndarray:
    """Pixels, uint8 `[H, W, 3]`, fetched from where `shift` says: float32 `[h, w, 2]`, px of the grid."""
    (height, width), (tall, wide) = frame.shape[:2], shift.shape[:2]
    scales = np.tile(np.array([width / wide, height / tall], np.float32), wide)  # a row of them: numpy likes long ones
    at = cv2.resize((shift.reshape(tall, -1) * scales).reshape(shift.shape), (width, height))
    return sample(frame, cv2.add(at, pixel_grid(height, width)), kernel)
