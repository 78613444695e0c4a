"""What the parts of `motion` are worth, and what more detail costs it: assets/results_ablation.csv.

python tests/tools/ablation.py --called "what the footage is"   # of VFI_DATASET, clips as they are, and half as large

The shipped model, changed where it answers: nothing is trained anew.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

import publish
import vfi_utils as vfi
from stages import blending, evidence, motion
from stages.evaluation import detail, ssim
from stages.models import ask, load_model, predict_weighed, refine

WINDOWS_PER_CLIP = 4  # as in assets/results_video.csv
OUTER = slice(4, 8)  # of the pictures of `evidence.gather`, those of the outer four frames
HALF = "video, half the size"
SHARPENING = slice(evidence.PICTURES, None)  # of an answer's numbers
NONE = -20.0  # a number that leaves a picture no weight


def gather(model, frames, times) -> tuple:
    """What `motion` has to answer to for time 0, and its answer: the arguments of `models.refine` behind the frames."""
    paths = motion.follow(motion.find_flows(frames, model.grid), times, 0)
    pictures, weights = evidence.gather(frames, paths)
    return paths, pictures, weights, ask(model, frames, paths, pictures, weights)


def changed(numbers: np.ndarray, where, value: float, more: float = 0.0) -> np.ndarray:
    """A copy of an answer, with some of its numbers multiplied, and more added."""
    numbers = numbers.copy()
    numbers[..., where] = more + numbers[..., where] * value
    return numbers


def not_sharpened(model, frames, times) -> np.ndarray:
    """Frame at time 0 by `motion`, but for its sharpening: n of uint8 `[H, W, 3]` -> `[H, W, 3]`."""
    *gathered, answer = gather(model, frames, times)
    return refine(model, frames, *gathered, changed(answer, SHARPENING, 0))


def change_answers(model, frames, times) -> dict[str, np.ndarray]:
    """Frames at time 0 by `motion`, changed in one way each: n of uint8 `[H, W, 3]` -> {what changed: `[H, W, 3]`}."""
    paths, pictures, weights, answer = gather(model, frames, times)
    rules, finest = 0 * answer, evidence.PICTURES
    answers = {
        "motion": answer,
        "sharpened by 0.1 less": changed(answer, finest, 1, -0.1),
        "sharpened by 0.1 more": changed(answer, finest, 1, 0.1),
        "not sharpened": changed(answer, SHARPENING, 0),
    }
    made = {name: refine(model, frames, paths, pictures, weights, numbers) for name, numbers in answers.items()}
    not_refined = {
        "not refined": answer,
        "no outer frames, not refined": changed(answer, OUTER, 0, NONE),
        "the rules alone": rules,
        "the rules alone, no outer frames": changed(rules, OUTER, 0, NONE),
    }
    made |= {name: evidence.compose(pictures, weights, numbers) for name, numbers in not_refined.items()}
    made["the rules alone, rounded"] = blending.blend(pictures, [weight + evidence.LEAST for weight in weights])
    with mock.patch.object(evidence, "SEEN", 4 * evidence.SEEN):
        closer = ask(model, frames, paths, pictures, weights)
        made["looks at four times the area"] = refine(model, frames, paths, pictures, weights, closer)
    made["finds motion on the grid of path"] = predict_weighed(
        model, frames, motion.follow(motion.find_flows(frames), times, 0)
    )
    return made


def measure_clip(clip, model) -> list[dict]:
    """PSNR, SSIM and detail of `change_answers` on windows of one clip: at both spacings, and at half its sides."""
    windows = vfi.build_windows({clip.sequence: clip.frames}, spacing="video")
    windows, rows = vfi.spread(windows, WINDOWS_PER_CLIP).drop_duplicates(), []
    for spacing, part in (("video", 1), ("article", 1), ("video", 2)):
        frames = {clip.sequence: vfi.load_frames(clip.folder, (clip.width // part, clip.height // part))}
        chosen = windows.assign(start=windows.middle - 3) if spacing == "article" else windows
        neighbours, truths = vfi.take_windows(frames, chosen.assign(spacing=spacing))
        for window, truth in zip(neighbours, truths, strict=True):
            for name, frame in change_answers(model, window, vfi.window_times(spacing)).items():
                pair = frame[None], truth[None]
                scores = {"psnr": vfi.psnr(*pair)[0], "ssim": ssim(*pair)[0], "detail": detail(*pair)[0]}
                where = spacing if part == 1 else HALF
                rows.append({"footage": clip.sequence, "spacing": where, "model": name, **scores})
    return rows


def main() -> None:
    measure = functools.partial(measure_clip, model=load_model("motion"))
    publish.measure_clips("ablation", __doc__, measure, ["footage", "spacing", "model"], windows=WINDOWS_PER_CLIP)


if __name__ == "__main__":
    main()
