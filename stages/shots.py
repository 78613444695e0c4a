"""Where a video is cut, which of its frames repeat the one before, and which moments of which shot are wanted."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from PIL import Image, ImageChops


def frame_changes(frames: Iterable[np.ndarray]) -> np.ndarray:
    """Differences of each frame from the one before, in levels of 255: float32 `[T, 2]`, the first row 0.

    Column 0 is the mean over a 64x36 thumbnail, which jumps at a cut. Column 1 is the mean over the 8x8 block that
    changed most (wide frames are shrunk to 480 to 959 px first), which is small only where nothing moves at all.
    `frames` (uint8 `[H, W, 3]` each) may come one by one: two are held at a time.
    """
    rows, before = [], None
    for frame in frames:
        picture = Image.fromarray(frame).reduce(max(1, frame.shape[1] // 480))
        thumbnail = np.asarray(picture.resize((64, 36), Image.Resampling.BOX), np.int16)
        picture_before, thumbnail_before = before or (picture, thumbnail)
        blocks = np.asarray(ImageChops.difference(picture, picture_before).reduce(8))
        rows.append((np.abs(thumbnail - thumbnail_before).mean(), blocks.mean(-1).max()))
        before = picture, thumbnail
    return np.array(rows, np.float32).reshape(-1, 2)


def find_duplicates(frames: Iterable[np.ndarray]) -> list[int]:
    """Indices of frames that repeat the one before, as every fifth does in a film of 24 fps shown at 30.

    A frame repeats if nothing changed (less than 2 levels of 255), or no more than compression does (16 levels) and 2.5
    times less than near by, on both sides. `frames`: uint8 `[T, H, W, 3]`, also one by one, or their `frame_changes`.
    """
    block = (frames if getattr(frames, "ndim", 0) == 2 else frame_changes(frames))[1:, 1]
    near = np.pad(block, 2, constant_values=np.inf)  # beyond an end, the other side decides
    near = np.minimum(np.maximum(near[:-4], near[1:-3]), np.maximum(near[3:-1], near[4:]))
    near[np.isinf(near)] = 0
    return (np.flatnonzero(block < np.clip(near / 2.5, 2, 16)) + 1).tolist()


def find_cuts(frames: Iterable[np.ndarray], threshold: float = 10) -> list[int]:
    """Indices of the first frames of new shots; frame 0 is not one.

    A cut changes the picture by `threshold` levels of 255, and by half, more than the steps before and after it do. In
    a fast pan all steps are large, and a flash is two large steps together: neither is a cut. Dissolves are not found.
    `frames`: as in `find_duplicates`; those it finds are no steps.
    """
    changed = frames if getattr(frames, "ndim", 0) == 2 else frame_changes(frames)
    steps = np.setdiff1d(np.arange(1, len(changed)), find_duplicates(changed))
    near = np.pad(changed[steps, 0], 1)
    near = np.maximum(near[:-2], near[2:])
    return steps[changed[steps, 0] > np.maximum(near + threshold, near * 1.5)].tolist()


@dataclass(frozen=True, kw_only=True)
class Shot:
    """Frames of a video between which moments are predicted, and the moments that are wanted.

    Before a cut, and while nothing moves for long, the last frame is held: a shot's last moments may be one time,
    several times.
    """

    first: int  # index of its first frame among those that are used
    times: tuple[float, ...]  # s, of its frames
    moments: tuple[float, ...]  # s, in order, within the times


def list_moments(times: Sequence[Fraction], end: Fraction, factor: int, rate: Fraction | None = None) -> list[Fraction]:
    """Moments of the frames of a new video.

    Args:
        times: when the source's frames are shown, in s, from 0.
        end: when its last one ends.
        factor: parts into which each gap, and the time of the last frame, are divided.
        rate: frames per second; in place of `factor`, an even grid from 0 to the end.
    """
    if rate:
        return [k / rate for k in range(-(-end * rate // 1))]
    steps = zip(times, [*times[1:], end])
    return [at + (to - at) * k / factor for at, to in steps for k in range(factor)]


def within_stills(times: Sequence[Fraction], repeated: Iterable[int]) -> list[int]:
    """Indices of frames inside of long stills: frames that repeat the one before, all but the last of each still."""
    gaps, inside = np.diff(np.array(times, float)), []
    for _, run in itertools.groupby(enumerate(sorted(repeated)), lambda item: item[1] - item[0]):
        run = [index for _, index in run]
        if times[run[-1]] - times[run[0] - 1] > max(4 * np.median(gaps), 0.25):
            inside += run[:-1]
    return inside


def find_stills(times: Sequence[Fraction]) -> list[int]:
    """Indices of frames that come after a long still: over 4 times the usual gap, and over a quarter of a second."""
    gaps = np.diff(np.array(times, float))
    return (np.flatnonzero(gaps > max(4 * np.median(gaps), 0.25)) + 1).tolist() if len(gaps) else []


def list_shots(
    times: Sequence[Fraction], moments: Sequence[Fraction], starts: Iterable[int], near: float = 0
) -> list[Shot]:
    """Shots of a video, each with its share of the moments.

    Args:
        times: when the frames that are used are shown, in s.
        moments: when frames are wanted, in s, in order.
        starts: indices of frames with which shots begin.
        near: s; a moment no further from a frame's time is that time.
    """
    firsts = sorted({0, *starts})
    ends, times = [*firsts[1:], len(times)], [float(time) for time in times]
    begins = [times[first] for first in firsts]
    shares = [[] for _ in firsts]
    for moment in map(float, moments):
        share = max(0, bisect.bisect_right(begins, moment + near) - 1)
        first, last = firsts[share], ends[share] - 1
        at = bisect.bisect_left(times, moment, first, last + 1)
        beside = [times[k] for k in (at - 1, at) if first <= k <= last and abs(times[k] - moment) <= near]
        shares[share].append(beside[0] if beside else min(max(moment, times[first]), times[last]))
    return [
        Shot(first=first, times=tuple(times[first:end]), moments=tuple(share))
        for first, end, share in zip(firsts, ends, shares)
    ]


def shots_from(shots: Sequence[Shot], moment: int, context: int) -> list[Shot]:
    """Shots without the moments before number `moment`, and without frames more than `context` before its gap."""
    rest = []
    for shot in shots:
        passed, moment = min(moment, len(shot.moments)), max(0, moment - len(shot.moments))
        if passed < len(shot.moments):
            here = bisect.bisect_right(shot.times, shot.moments[passed]) - 1 if passed else 0
            skip = max(0, here - context)
            rest.append(Shot(first=shot.first + skip, times=shot.times[skip:], moments=shot.moments[passed:]))
    return rest


def interpolate_shots(frames: Iterable[np.ndarray], shots: Sequence[Shot], predict, first: int = 0):
    """Frames of the moments of all shots, in order; few are in memory.

    Args:
        frames: uint8 `[H, W, 3]`, those that are used, from number `first` on.
        shots: each is interpolated by itself.
        predict: frames, times, wanted moments -> a frame for each, as `interpolate_shot` does for a model.
        first: as said.
    """
    frames = iter(frames)
    for shot in shots:
        own = itertools.islice(frames, shot.first - first, shot.first - first + len(shot.times))
        first = shot.first + len(shot.times)
        wanted = [(moment, len(list(same))) for moment, same in itertools.groupby(shot.moments)]
        if len(shot.times) == 1:
            for frame in own:
                yield from itertools.repeat(frame, len(shot.moments))
            continue
        for (_, count), frame in zip(wanted, predict(own, list(shot.times), [at for at, _ in wanted])):
            yield from itertools.repeat(frame, count)
        for _ in own:
            pass
