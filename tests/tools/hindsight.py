"""How much of what `path` misses is the camera: assets/results_hindsight.csv.

python tests/tools/hindsight.py --called "what the footage is"   # of VFI_DATASET, clips as they are, a video's spacing

What nobody could know is put right afterwards, with the true frame at hand: the predicted frame is moved as a whole, or
moved, turned and stretched as a whole, as far as the picture is off on the whole. What is still wrong then lies in its
parts: flow that was not found, things that hide one another, pixels that were fetched softly.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

import publish
import vfi_utils as vfi
from stages import blending, motion
from stages.models import PathPredictor, predict_between

WINDOWS_PER_CLIP = 4  # as in assets/results_video.csv
WAYS = ("as predicted", "moved", "moved, turned, stretched")


def fit_camera(flow: np.ndarray) -> np.ndarray:
    """The affine map that most of a flow `[h, w, 2]` follows: float `[3, 2]`, for (x, y, 1); in px of the grid.

    Least squares, ten times, with weights that fall where the flow differs: what moves by itself counts little.
    """
    places = motion.pixel_grid(*flow.shape[:2])[4:-4:4, 4:-4:4].reshape(-1, 2).astype(float)
    places, flow = np.column_stack([places, np.ones(len(places))]), flow[4:-4:4, 4:-4:4].reshape(-1, 2).astype(float)
    weights = np.ones((len(flow), 1))
    for _ in range(10):
        camera = np.linalg.lstsq(weights * places, weights * flow, rcond=None)[0]
        weights = (0.02 + ((flow - places @ camera) ** 2).sum(axis=1, keepdims=True)) ** -0.5
    return camera


def put_right(predicted: np.ndarray, truth: np.ndarray) -> list[np.ndarray]:
    """A predicted frame; and the same, moved as a whole to where the truth is; and moved, turned and stretched."""
    flow = motion.find_flow(*(motion.grid_copy(frame) for frame in (truth, predicted)))
    places = np.dstack([motion.pixel_grid(*flow.shape[:2]), np.ones(flow.shape[:2], np.float32)])
    shifts = np.broadcast_to(np.median(flow, axis=(0, 1)), flow.shape), places @ fit_camera(flow)
    return [predicted, *(motion.fetch(predicted, np.ascontiguousarray(shift, np.float32)) for shift in shifts)]


def predict_straight(neighbours: np.ndarray, times, t: float) -> np.ndarray:
    """Frames by `path` along straight lines through the inner two frames, with the rules that look at all six.

    uint8 `[B, 6, H, W, 3]` -> `[B, H, W, 3]`. What six frames bring as places is what `path` has more than this.
    """
    made = []
    for frames in neighbours:
        flows = motion.find_flows(frames)
        curve, line = (motion.follow(flows, times, t, count) for count in (6, 2))
        made.append(blending.predict_along(frames, dataclasses.replace(curve, shifts=line.shifts, across=line.across)))
    return np.stack(made)


CLASSICS = {f"path, {count} frames": functools.partial(predict_between, PathPredictor(count)) for count in (2, 4, 6)}
CLASSICS["straight, the rules of 6"] = predict_straight


def measure_clip(clip) -> list[dict]:
    """PSNR of `CLASSICS` on windows of one clip, as predicted and put right.

    A frame is put right only where that makes it better: else it counts as it is.
    """
    frames = {clip.sequence: vfi.load_frames(clip.folder, (clip.width, clip.height))}
    windows = vfi.build_windows({clip.sequence: clip.frames}, spacing="video")
    neighbours, truths = vfi.take_windows(frames, vfi.spread(windows, WINDOWS_PER_CLIP).drop_duplicates())
    rows = []
    for name, predict in CLASSICS.items():
        made = predict(neighbours, vfi.window_times("video"), 0)
        for frame, truth in zip(made, truths, strict=True):
            scores = [vfi.psnr(way[None], truth[None])[0] for way in put_right(frame, truth)]
            better = dict(zip(WAYS, np.maximum(scores, scores[0]), strict=True))
            rows.append({"footage": clip.sequence, "model": name, **better})
    return rows


def main() -> None:
    publish.measure_clips("hindsight", __doc__, measure_clip, ["footage", "model"], windows=WINDOWS_PER_CLIP)


if __name__ == "__main__":
    main()
