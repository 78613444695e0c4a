"""Where a video is cut, and which of its frames repeat the one before."""

from __future__ import annotations

from collections.abc import Iterable

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
