"""Measure what you would use instead of a network of this series, and can run today, on the same windows.

python tests/tools/peers.py --called "what the footage is" # of VFI_DATASET: assets/results_peers.csv
python tests/tools/peers.py --video --called "..."         # and ours, clips as they are: assets/results_video.csv
python tests/tools/peers.py --moments --called "..."       # ours, at thirds and quarters: assets/results_moments.csv
python tests/tools/peers.py --pairs FOLDER                 # and ours, two frames alone: assets/results_pairs.csv

FOLDER holds the pairs that everybody measures on, as their archives unpack: `other-data/` and `other-gt-interp/` of
Middlebury (https://vision.middlebury.edu/flow/data/), and `ucf101_interp_ours/` of Liu et al. 2017 (UCF101).

Both peers are functions of the neighbours, uint8 `[B, 6, H, W, 3]` -> uint8 `[B, H, W, 3]`, as `evaluate` takes
them. Their settings were chosen on training clips, never on those measured here.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import cv2
import numpy as np
import pandas as pd

import publish
import vfi_utils as vfi
from ablation import not_sharpened
from stages import motion
from stages.evaluation import evaluate, summarize
from stages.footage import choose_dataset, dataset_name, get_footage, list_sequences
from stages.frames import get_frames
from stages.interpolation import interpolate_shot
from stages.models import PathPredictor, load_model, predict_between

WINDOWS_PER_SEQUENCE = 24  # as in assets/results_street.csv
PAIRS = {  # the true frames of each benchmark, and the frames before and after
    "Middlebury OTHER": ("other-gt-interp/*/frame10i11.png", "other-data/{}/frame10.png", "other-data/{}/frame11.png"),
    "UCF101": tuple(f"ucf101_interp_ours/{file}.png" for file in ("*/frame_01_gt", "{}/frame_00", "{}/frame_02")),
}
YUV = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])  # full range
MINTERPOLATE = "minterpolate=fps=2:mi_mode=mci:mc_mode=aobmc:me_mode=bidir:mb_size=8:search_param=64:scd=none"


def rounded(values: np.ndarray) -> np.ndarray:
    """Round and clip to uint8."""
    return np.rint(np.clip(values, 0, 255)).astype(np.uint8)


def doubled(frames: np.ndarray) -> np.ndarray:
    """Put a cubic's pixels between: uint8 `[T, H, W, 3]` -> uint8 `[T, 2H, 2W, 3]`; `[:, ::2, ::2]` undoes it."""
    for axis in (1, 2):
        there = np.moveaxis(frames.astype(np.float32), axis, 0)
        padded = np.pad(there, [(1, 2), (0, 0), (0, 0), (0, 0)], mode="edge")
        between = (9 * (padded[1:-2] + padded[2:-1]) - padded[:-3] - padded[3:]) / 16
        frames = np.moveaxis(np.stack([there, between], axis=1).reshape(-1, *there.shape[1:]), 0, axis)
    return rounded(frames)


def minterpolate(neighbours: np.ndarray, used: tuple[int, ...] = (0, 2, 3, 5)) -> np.ndarray:
    """Middle frames, interpolated with ffmpeg's motion interpolation, from the frames at t-3, t-1, t+1 and t+3.

    Its motion vectors are whole pixels, so frames go in doubled in size, and every second pixel comes back. It works in
    YUV, and ffmpeg's way there and back loses up to two levels: here it loses one, which is rounding.

    Args:
        neighbours: uint8 `[B, 6, H, W, 3]`.
        used: which four of them stand there; at a video's own spacing it is the inner four.

    Returns:
        uint8 `[B, H, W, 3]`.

    Raises:
        RuntimeError: if ffmpeg does not make exactly one frame for a window.
    """
    import imageio_ffmpeg

    height, width = 2 * neighbours.shape[2], 2 * neighbours.shape[3]
    # At one frame a second the four stand at 0, 1, 2 and 3 s: what lies between t-1 and t+1 belongs at 1.5 s.
    filters, pixels = f"{MINTERPOLATE},select='eq(t,1.5)'", ["-f", "rawvideo", "-pix_fmt", "yuv444p"]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-threads", "1", "-filter_threads", "1"]
    command += [*pixels, "-video_size", f"{width}x{height}", "-framerate", "1", "-i", "-"]
    command += ["-vf", filters, "-fps_mode", "passthrough", *pixels, "-"]
    interpolated = []
    for window in neighbours[:, list(used)]:
        planes = rounded(doubled(window) @ YUV.T + (0, 128, 128)).transpose(0, 3, 1, 2)  # [4, 3, 2H, 2W]
        done = subprocess.run(command, input=planes.tobytes(), capture_output=True)
        if len(done.stdout) != height * width * 3:
            raise RuntimeError(f"ffmpeg made {len(done.stdout)} bytes instead of one frame: {done.stderr.decode()}")
        planes = np.frombuffer(done.stdout, np.uint8).reshape(3, height, width)[:, ::2, ::2]
        interpolated.append(rounded((planes.transpose(1, 2, 0) - (0.0, 128, 128)) @ np.linalg.inv(YUV).T))
    return np.stack(interpolated)


def warp_and_blend(before: np.ndarray, after: np.ndarray, there: np.ndarray, back: np.ndarray) -> np.ndarray:
    """Frame half-way between two, from the flows between them.

    Each flow alone says where a pixel of the middle frame was and will be, so there are two answers of two samples.
    An answer counts the less, the less the way there and back closes and its two samples agree: that is how what is
    hidden in one of the frames looks. A sample from beyond the frame's edge counts less, too.

    Args:
        before, after: uint8 `[H, W, 3]`.
        there, back: float32 `[H, W, 2]` in px, (x, y): the flow from `before` to `after` and from `after` to `before`.

    Returns:
        uint8 `[H, W, 3]`.
    """

    height, width = before.shape[:2]
    grid = motion.pixel_grid(height, width)
    total = weights = 0
    for one, other, flow, reverse in ((before, after, there, back), (after, before, back, there)):
        half = flow / 2
        for _ in range(5):  # what stands at y in the middle came from the x with x + flow(x) / 2 = y
            half = motion.sample(flow, grid - half) / 2
        places = grid - half, grid + half
        samples = [motion.sample(p.astype(np.float32), at, cv2.INTER_LANCZOS4) for p, at in zip((one, other), places)]
        gap = np.linalg.norm(2 * half + motion.sample(reverse, places[1]), axis=-1)  # px
        differ = cv2.blur(np.abs(samples[0] - samples[1]).mean(axis=-1), (5, 5))  # of 255
        trust = np.exp(-gap / 2 - differ / 10) + 1e-6
        for picture, at in zip(samples, places):
            beyond = np.abs(at - np.clip(at, 0, (width - 1, height - 1))).max(axis=-1)  # px
            weight = (trust * np.exp(-beyond))[..., None]
            total, weights = total + weight * picture, weights + weight
    return rounded(total / weights)


def dense_inverse_search(neighbours: np.ndarray) -> np.ndarray:
    """Middle frames, interpolated with OpenCV's dense inverse search flow (Kroeger et al. 2016) between t-1 and t+1.

    Args:
        neighbours: uint8 `[B, n, H, W, 3]`.

    Returns:
        uint8 `[B, H, W, 3]`.
    """
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    search.setFinestScale(0)  # full resolution
    search.setPatchSize(6)
    search.setPatchStride(2)
    interpolated, inner = [], neighbours.shape[1] // 2
    for before, after in neighbours[:, inner - 1 : inner + 1]:
        grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (before, after)]
        flows = search.calc(*grey, None), search.calc(*grey[::-1], None)
        interpolated.append(warp_and_blend(before, after, *flows))
    return np.stack(interpolated)


PEERS = {"ffmpeg minterpolate": minterpolate, "OpenCV dense inverse search": dense_inverse_search}
STRAIGHT = {f"path, {frames} frames": PathPredictor(frames) for frames in (2, 4)}
FINER = {"path, finer grid": PathPredictor(grid=motion.FINE)}
TRUSTING = {"path, all places trusted": PathPredictor(trusted=np.inf)}
CLIPS = PEERS | STRAIGHT | TRUSTING | FINER | {"motion": "motion"}


def measure_videos() -> pd.DataFrame:
    """Scores on the test clips as they are, at both spacings: windows of 11 frames, four a clip, one true frame each.

    At a video's own spacing the neighbours stand 5, 3 and 1 frames from it, at the article's 3, 2 and 1.
    """
    clips = list_sequences(get_footage()).query("split == 'test'")
    parts = []
    for clip in clips.itertuples():
        frames = {clip.sequence: vfi.load_frames(clip.folder, (clip.width, clip.height))}
        windows = vfi.build_windows({clip.sequence: clip.frames}, spacing="video")
        windows = vfi.spread(windows, 4).drop_duplicates().assign(camera=clip.camera)
        evenly = {"ffmpeg minterpolate": functools.partial(minterpolate, used=(1, 2, 3, 4))}
        parts.append(evaluate(CLIPS | evenly, frames, windows, batch=4))
        windows = windows.assign(start=windows.middle - 3, spacing="article")
        parts.append(evaluate(CLIPS, frames, windows, batch=4))
    scores = pd.concat(parts, ignore_index=True)
    vfi.write_atomic(vfi.work("results", "windows_video.csv"), scores.to_csv(index=False))
    return scores


def measure_moments() -> pd.DataFrame:
    """PSNR at other moments than the middle: every third or fourth frame of the test clips is kept, the rest predicted.

    The recursion predicts the middles first, and the middles of what it has then. Its quarters are the other's, too.
    """
    clips, rows = list_sequences(get_footage()).query("split == 'test'"), []
    predictors = {"path": PathPredictor(), **STRAIGHT, "motion": load_model("motion"), "average": vfi.average}
    for clip, factor in itertools.product(clips.itertuples(), (3, 4)):
        frames = vfi.load_frames(clip.folder, (clip.width, clip.height))
        frames = frames[: (len(frames) - 1) // factor * factor + 1]
        known, times = frames[::factor], [*range(0, len(frames), factor)]
        made = {name: interpolate_shot(model, known, times, range(len(frames))) for name, model in predictors.items()}
        if factor == 4:
            halved = range(0, len(frames), 2)
            middles = list(interpolate_shot(PathPredictor(), known, times, halved))
            made["path, the middle of a middle"] = interpolate_shot(
                PathPredictor(), middles, halved, range(len(frames))
            )
        for name, predicted in made.items():
            for moment, (truth, frame) in enumerate(zip(frames, predicted, strict=True)):
                if moment % factor:
                    part = Fraction(min(moment % factor, -moment % factor), factor)
                    row = {"footage": clip.sequence, "factor": factor, "moment": str(part), "model": name}
                    rows.append(row | {"psnr": vfi.psnr(truth[None], frame[None])[0]})
        print(f"measured {clip.sequence}, {factor} times the frames", flush=True)
    table = pd.DataFrame(rows).groupby(["footage", "factor", "moment", "model"], sort=False, as_index=False)
    return table.agg(psnr=("psnr", "mean"), frames=("psnr", "size")).round(3)


def measure_pairs(folder: Path) -> pd.DataFrame:
    """PSNR and error where nothing but the frames before and after is given: a row for each benchmark and model.

    The error is what others call interpolation error: the mean absolute difference, in levels, of rounded frames. A
    pair "repeats" if one of the two is nearer to the true frame than what was predicted, by 3 dB.
    """
    peer = {"OpenCV dense inverse search": dense_inverse_search}
    predictors = {"motion": load_model("motion"), "path": PathPredictor(), **peer, "average": vfi.average}
    rows = []
    for benchmark, (truths, *beside) in PAIRS.items():
        found = sorted(folder.glob(truths))
        if not found:
            raise FileNotFoundError(f"No {truths} in {folder}: unpack the archives of {benchmark} there.")
        for path in found:
            files = [path, *(folder / file.format(path.parent.name) for file in beside)]
            if missing := [str(file) for file in files if not file.exists()]:
                raise FileNotFoundError(f"{', '.join(missing)} is not there: unpack the archives of {benchmark} again.")
            truth, *pair = (cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB) for file in files)
            nearest = vfi.psnr(np.stack(pair), np.stack([truth, truth])).max()
            frames = {name: predict_between(one, np.stack(pair)[None], (-1, 1), 0) for name, one in predictors.items()}
            frames["motion, not sharpened"] = not_sharpened(predictors["motion"], pair, (-1, 1))[None]
            for name, frame in frames.items():
                row = {"benchmark": benchmark, "pair": path.parent.name, "model": name}
                row["psnr"], row["error"] = vfi.psnr(frame, truth[None])[0], np.abs(frame[0].astype(int) - truth).mean()
                rows.append(row | {"repeats": nearest > row["psnr"] + 3})
        print(f"measured {benchmark}: {len(found)} pairs", flush=True)
    table = pd.DataFrame(rows)
    scores = table.pivot(index=["benchmark", "pair"], columns="model", values="psnr")
    grouped = table.groupby(["benchmark", "model"], sort=False)
    means = grouped.agg(
        psnr=("psnr", "mean"), error=("error", "mean"), pairs=("pair", "size"), repeats=("repeats", "sum")
    )
    means = means.round(3).reset_index()
    against = [
        publish.interval((scores[row.model] - scores.path)[row.benchmark].to_numpy()) for row in means.itertuples()
    ]
    return means.assign(against_path=against)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--called", default="", help="what the footage is, in words")
    parser.add_argument("--video", action="store_true", help="measure clips as they are, at both spacings, ours too")
    parser.add_argument("--moments", action="store_true", help="measure ours at thirds and quarters of the way")
    parser.add_argument("--pairs", type=Path, help="folder of Middlebury's and UCF101's pairs, to measure ours on")
    options = parser.parse_args()
    publish.commit()
    cv2.setNumThreads(1)  # ffmpeg has one, too
    if options.pairs:
        publish.write_results("pairs", measure_pairs(options.pairs), options.called or " and ".join(PAIRS))
        return
    if options.moments:
        publish.write_results("moments", measure_moments(), options.called)
        return
    name = "video" if options.video else "peers"
    if options.video:
        scores = measure_videos()
    else:
        frames, windows = get_frames(split="test")
        parts = [vfi.spread(part, WINDOWS_PER_SEQUENCE) for _, part in windows.groupby("sequence", sort=False)]
        windows = pd.concat(parts, ignore_index=True)
        scores = evaluate(PEERS | STRAIGHT, frames, windows, batch=4)
    vfi.write_atomic(vfi.work("results", f"summary_{name}.csv"), summarize(scores).to_csv(index=False))
    publish.publish_results(name, options.called or dataset_name(choose_dataset()))


if __name__ == "__main__":
    main()
