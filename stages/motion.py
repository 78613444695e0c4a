"""Find, follow, turn round, fetch, weigh: the classic that moves pixels (notebook 07), in numpy and OpenCV.

A flow `[h, w, 2]` says for each pixel (x, y) of one frame where it is in another: at (x + flow[0], y + flow[1]).
Flows are found on a copy of about 320x180 px, the grid, and paths are followed there: at 640x360 px a dense inverse
search that stops at half the size gives the same, and larger frames gain nothing from a finer one. Pixels are fetched
at full size.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

GRID = 320 * 180  # px: the area of the copies on which motion is found
SLOTS = 6  # frames a path is laid through at most, three before the wanted moment and three after
KINDS = ("2 frames", "4 frames", "6 frames", "one side")  # of paths


@dataclass(frozen=True)
class Paths:
    """Where what is seen at the wanted moment is found in the other frames; everything in px of the grid.

    Attributes:
        start: float32 `[h, w, 2]`, the pixels (x, y) of the wanted moment that are followed.
        shifts: float32 `[2, 4, h, w, 2]`: for the inner frame before and the one after, and for each of `KINDS`, what
            to add to `start` to be where the pixel is fetched.
        places: float32 `[2, 6, h, w, 2]`: where that pixel is in each of the six slots; as found from either side.
        mismatch: float32 `[2, h, w]`: how far going to the other inner frame and back ends from where it began.
        slots: index of the frame in each slot, -1 where there is none. Slots 2 and 3 are the inner frames.
        position: where the wanted moment lies between the inner frames, 0 to 1.
    """

    start: np.ndarray
    shifts: np.ndarray
    places: np.ndarray
    mismatch: np.ndarray
    slots: tuple[int, ...]
    position: float


def grid_size(height: int, width: int) -> tuple[int, int]:
    """Height and width of the copy on which motion is found: about the area of 320x180 px, in the frame's shape."""
    scale = (GRID / (height * width)) ** 0.5
    return max(16, round(height * scale)), max(16, round(width * scale))


def grid_copy(frame: np.ndarray) -> np.ndarray:
    """Grey copy of a frame at the size of the grid: uint8 `[H, W, 3]` -> uint8 `[h, w]`."""
    height, width = grid_size(*frame.shape[:2])
    kernel = cv2.INTER_AREA if width < frame.shape[1] else cv2.INTER_CUBIC
    return cv2.resize(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), (width, height), interpolation=kernel)


def find_flow(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Flow `[h, w, 2]` from one grey copy to another, uint8 `[h, w]`, by dense inverse search (Kroeger et al. 2016)."""
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    search.setFinestScale(0)
    return search.calc(first, second, None)


def find_flows(copies) -> list[tuple[np.ndarray, np.ndarray]]:
    """Flows `[h, w, 2]` between consecutive grey copies, uint8 `[h, w]`, as pairs: there and back."""
    return [(find_flow(a, b), find_flow(b, a)) for a, b in zip(copies[:-1], copies[1:])]


def pixel_grid(height: int, width: int, top: int = 0, left: int = 0) -> np.ndarray:
    """Coordinates (x, y) of each pixel of a rectangle: float32 `[height, width, 2]`."""
    x = np.arange(left, left + width, dtype=np.float32)
    y = np.arange(top, top + height, dtype=np.float32)
    return np.stack(np.meshgrid(x, y), axis=-1)


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


def path_weights(times, t: float, slots: tuple[int, ...]) -> np.ndarray:
    """Weights of the positions in the six slots for each kind of path and either side: float32 `[2, 4, 6]`.

    The first three kinds are polynomials through what there is of the inner two, four and six frames. The fourth goes
    straight on from the two frames of one side, and never looks at the other: right for what is hidden there.
    """
    weights = np.zeros((2, len(KINDS), SLOTS), np.float32)
    sides = [(2, 1), (3, 4)]
    for kind in range(len(KINDS)):
        for side in range(2):
            used = range(2 - kind, 4 + kind) if kind < 3 else sides[side] if slots[sides[side][1]] >= 0 else (2, 3)
            used = [slot for slot in used if slots[slot] >= 0]
            weights[side, kind, used] = lagrange_weights([times[slots[slot]] for slot in used], t)
    return weights


def follow(flows: list, times, t: float, start: np.ndarray | None = None) -> Paths:
    """Paths of what is seen at the moment `t`: polynomials through its positions in the frames around.

    A path is known where it starts, in an inner frame, and needed where it arrives, at the wanted moment. A fixed point
    turns it round: u <- -M(y + u), where M is the displacement until `t`.

    Args:
        flows: pairs (there, back) of consecutive frames, float32 `[h, w, 2]`; n - 1 for n frames.
        times: of the n frames, increasing, in any unit; they need not be evenly spaced.
        t: the wanted moment, between two of them.
        start: float32 `[h, w, 2]`, the pixels to follow; None for all of the grid.
    """
    slots = fill_slots(times, t)
    weights = path_weights(times, t, slots)
    start = pixel_grid(*flows[0][0].shape[:2]) if start is None else start
    position = float((t - times[slots[2]]) / (times[slots[3]] - times[slots[2]]))
    there, back = flows[slots[2]]
    shifts, places, mismatch = [], [], []
    for side, (go, come, share) in enumerate(((there, back, position), (back, there, 1 - position))):
        reached = start - share * sample(go, start)
        reached = start - displacements(flows, slots, 2 + side, reached, range(1, 5), weights[side, 1:2])[1][0]
        moved, paths = displacements(flows, slots, 2 + side, reached, range(SLOTS), weights[side])
        shifts.append(-paths)
        places.append(reached + moved)
        over = reached + moved[3 - side]
        mismatch.append(np.linalg.norm(moved[3 - side] + sample(come, over), axis=-1))
    return Paths(start, np.stack(shifts), np.stack(places), np.stack(mismatch), slots, position)


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
    return moved, np.tensordot(weights, moved, axes=1)


def enlarge(field: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A field of shifts brought from the grid to a frame of `size` (height, width), in that frame's px."""
    height, width = size
    scale = np.array([width / field.shape[1], height / field.shape[0]], np.float32)
    return cv2.resize(field, (width, height), interpolation=cv2.INTER_LINEAR) * scale


def fetch(frame: np.ndarray, shift: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels fetched from where `shift` says, by a cubic, and whether that place is inside of the frame.

    Args:
        frame: uint8 `[H, W, 3]`.
        shift: float32 `[h, w, 2]`, px of the grid.

    Returns:
        uint8 `[H, W, 3]`, and float32 `[H, W]`, 1 inside and 0.0001 outside.
    """
    height, width = frame.shape[:2]
    at = pixel_grid(height, width) + enlarge(shift, (height, width))
    x, y = at[..., 0], at[..., 1]
    inside = (x > -0.5) & (x < width - 0.5) & (y > -0.5) & (y < height - 0.5)
    return sample(frame, at, cv2.INTER_CUBIC), np.where(inside, np.float32(1), np.float32(1e-4))


def weigh(fetched: list, inside: list, standing: list, position: float) -> np.ndarray:
    """The two fetched pictures, averaged; the two inner frames as they stand where those explain the pair better.

    Which explains it better is seen from how far the two differ, over 3x3 px. What stands still before something that
    moves, such as a caption, has flows that are pulled along; it differs when fetched, and agrees where it stands.

    Args:
        fetched: of the frame before and the one after, uint8 `[H, W, 3]`.
        inside: float32 `[H, W]`, as from `fetch`.
        standing: the two inner frames, uint8 `[H, W, 3]`.
        position: of the wanted moment between them, 0 to 1.

    Returns:
        uint8 `[H, W, 3]`.
    """
    moved, still = (
        cv2.blur(cv2.absdiff(*pair).max(axis=-1).astype(np.float32), (3, 3)) for pair in (fetched, standing)
    )
    stand = np.exp(-still / 16) / (1 + np.exp(np.clip((still - moved + 4) / 3, -50, 50)))
    moving = cv2.blendLinear(*fetched, inside[0] * (1 - position), inside[1] * position)
    return cv2.blendLinear(
        moving, cv2.addWeighted(standing[0], 1 - position, standing[1], position, 0), 1 - stand, stand
    )


def predict_along(frames, paths: Paths, kind: int = 2) -> np.ndarray:
    """The frame at the wanted moment, by the classic: fetched along paths of one of `KINDS`; uint8 `[H, W, 3]`.

    Args:
        frames: n of uint8 `[H, W, 3]`; the inner two of the paths are read.
        paths: of all pixels of the grid.
        kind: 0 to 2, for paths through two, four and six frames.
    """
    standing = [frames[slot] for slot in paths.slots[2:4]]
    fetched, inside = zip(*(fetch(frame, shifts[kind]) for frame, shifts in zip(standing, paths.shifts)))
    return weigh(fetched, inside, standing, paths.position)


def describe(copies, paths: Paths, times, overall: Paths) -> np.ndarray:
    """What a network sees of the paths: float32 `[h, w, 44]`, of magnitude 1.

    For either side: the six slots' grey values along the path of four frames (its own, and what the others differ by),
    how the other kinds of path differ from it, the motion between the inner frames, the mismatch, and whether the
    place is inside of the frame. Then what stands at the pixel itself, and numbers that hold for the whole frame.

    Args:
        copies: n grey copies, uint8 `[h, w]`; those of the slots are read.
        paths: of the pixels to describe.
        times: of the n frames.
        overall: paths of a few pixels all over the frame.
    """
    height, width = copies[paths.slots[2]].shape
    parts, grey = [], [copies[k].astype(np.float32) / 255 if k >= 0 else None for k in paths.slots]
    for side in range(2):
        own = sample(grey[2 + side], paths.start + paths.shifts[side, 1])
        parts.append(own)
        for slot in range(SLOTS):
            if slot != 2 + side:
                there = grey[slot] is not None
                parts.append(4 * (sample(grey[slot], paths.places[side, slot]) - own) if there else np.zeros_like(own))
        for kind in (0, 2, 3):
            parts.extend(np.moveaxis(paths.shifts[side, kind] - paths.shifts[side, 1], -1, 0))
        parts.extend(np.moveaxis(paths.places[side, 3] - paths.places[side, 2], -1, 0) / 16)
        parts.append(np.log1p(paths.mismatch[side]))
        x, y = np.moveaxis(paths.start + paths.shifts[side, 1], -1, 0)
        parts.append(((x > -0.5) & (x < width - 0.5) & (y > -0.5) & (y < height - 0.5)).astype(np.float32))
        parts.append(4 * (sample(grey[2 + side], paths.start) - own))
    step = times[paths.slots[3]] - times[paths.slots[2]]
    outer = [
        (times[paths.slots[a]] - times[paths.slots[a - 1]]) / step if paths.slots[b] >= 0 else 0
        for a, b in ((2, 1), (4, 4))
    ]
    numbers = [paths.position, *outer, paths.slots[0] >= 0, paths.slots[5] >= 0]
    for values in (overall.shifts[:, 0] - overall.shifts[:, 1], overall.shifts[:, 2] - overall.shifts[:, 1]):
        numbers.append(np.log1p(np.abs(values).mean()))
    numbers.append(np.log1p(np.abs(overall.places[0, 3] - overall.places[0, 2]).mean()))
    numbers.append(np.log1p(overall.mismatch.mean()))
    parts.extend(np.full(paths.start.shape[:2], number, np.float32) for number in numbers)
    return np.stack(parts, axis=-1)
