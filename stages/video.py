"""Interpolate videos: notebook 08, and the command `python -m stages.video input.mp4 output.mp4 --factor 2`."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import itertools
import json
import math
import shutil
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

import vfi_utils as vfi
from stages import ffmpeg, models, shots

PART = 24  # source frames in a part; an interrupted video goes on after the last whole part
CONTEXT = 4  # source frames before a part on which its predicted frames depend: 2 with factor 2, 3 with 4, 3.5 with 8


def read_facts(path: Path, scene_threshold: float = 10) -> dict:
    """Facts about a video that have to be known before a frame is predicted.

    Returns:
        As `ffmpeg.read_facts`; and cuts (indices of first frames of new shots), repeated (indices of frames that repeat
        the one before).

    Raises:
        FileNotFoundError, ValueError: as `ffmpeg.read_facts`.
    """
    facts, changed = ffmpeg.read_facts(path, shots.frame_changes)
    return facts | {"cuts": shots.find_cuts(changed, scene_threshold), "repeated": shots.find_duplicates(changed)}


def take_neighbours(stream: Iterable[tuple[np.ndarray, str]]) -> Iterator[tuple]:
    """Frames of a stream, each with the six around the gap after it; three are held before and after.

    Args:
        stream: frames `[H, W, 3]`, each with its kind: "first" (of a shot), "next", "predicted", or "held" (shown
            again because nothing is predicted there: before a cut and at the end).

    Yields:
        frame, kind, neighbours `[6, H, W, 3]`. Missing neighbours, at the ends and beside a cut, are the nearest frame
        on the same side. They are None if nothing is to be predicted in the gap.
    """
    stream, before, ahead = iter(stream), deque(maxlen=3), deque()
    while True:
        ahead.extend(itertools.islice(stream, 4 - len(ahead)))
        if not ahead:
            return
        frame, kind = ahead.popleft()
        if kind == "first":
            before.clear()
        before.append(frame)
        after = [later for later, _ in itertools.takewhile(lambda item: item[1] in ("next", "predicted"), ahead)]
        missing = 3 - len(before), 3 - len(after)
        neighbours = [before[0]] * missing[0] + [*before, *after] + after[-1:] * missing[1]
        yield frame, kind, np.stack(neighbours) if after else None


def double_frames(stream: Iterable[tuple[np.ndarray, str]], predict) -> Iterator[tuple[np.ndarray, str]]:
    """Frames of a stream, each followed by the one that `predict` makes of the six around the gap, or itself, held."""
    for frame, kind, neighbours in take_neighbours(stream):
        yield frame, kind
        yield (frame, "held") if neighbours is None else (predict(neighbours), "predicted")


def interpolate_frames(frames: Iterable[np.ndarray], factor: int, predict, cuts=()) -> Iterator[tuple[np.ndarray, str]]:
    """Frames, `factor` for each one: `(n - 1) * factor + 1`, and then the last one, held. Few are in memory.

    The middle of a middle has neighbours that are predicted themselves: taken from the doubled stream, they are spaced
    evenly in time, as they were when the model was trained.

    Args:
        frames: uint8 `[H, W, 3]`, one by one.
        factor: 2, 4 or 8.
        predict: uint8 `[6, H, W, 3]` -> uint8 `[H, W, 3]`.
        cuts: indices of the first frames of new shots; the frame before one is held.

    Yields:
        frame, kind (as in `take_neighbours`).
    """
    stream = ((frame, "first" if index in cuts else "next") for index, frame in enumerate(frames))
    for _ in range(int(math.log2(factor))):
        stream = double_frames(stream, predict)
    return stream


def file_digest(path: Path) -> str:
    """Short fingerprint of a file, however large."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def finished_parts(folder: Path, settings: dict) -> int:
    """Number of parts in a row that are there, whole, and made with these settings; the others are deleted."""
    done = 0
    while vfi.is_finished(marker := folder / f"{done:05d}.json", settings):
        part = marker.with_suffix(".mp4")
        if not part.exists() or file_digest(part) != json.loads(marker.read_text())["digest"]:
            print(f"{vfi.display_path(part)} is broken: it is made again")
            break
        done += 1
    for path in folder.glob("[0-9]*.*"):
        if int(path.name[:5]) >= done:
            path.unlink()
    return done


def report_progress(frames: Iterable, total: int) -> Iterator:
    """Frames, passed on; how many, how fast and how long still is printed after 5 s, and then ever less often."""
    started, due = time.perf_counter(), 5.0
    for count, frame in enumerate(frames, start=1):
        yield frame
        passed = time.perf_counter() - started
        if passed >= due and count < total:
            left = passed / count * (total - count)
            left = f"{left:.0f} s" if left < 120 else f"{left / 60:.0f} min"
            print(f"  {count} of {total} frames, {count / passed:.2f} frames/s, {left} left", flush=True)
            due = passed + min(passed, 60)


def plan_video(source: Path, target: Path, factor: int, mode: str, max_side: int, scene_threshold: float) -> tuple:
    """Plan of `interpolate_video`: its settings are checked, what is there and what it will become is printed.

    Returns:
        The source's facts, and those of the video to make: frames, size, rate, seconds, sound.
    """
    if factor not in (2, 4, 8) or mode not in ("smooth", "slow") or min(max_side, scene_threshold) < 0:
        raise ValueError(
            f"FACTOR = {factor} must be 2, 4 or 8, MODE = {mode!r} 'smooth' or 'slow', MAX_SIDE = {max_side} and "
            f"SCENE_THRESHOLD = {scene_threshold} at least 0."
        )
    suffix = target.suffix.lower()
    if suffix not in ffmpeg.ENCODERS or target.is_dir() or target == source:
        raise ValueError(f"{target} must be another file than the input, and end in {', '.join(ffmpeg.ENCODERS)}.")
    video = read_facts(source, scene_threshold)
    shrink = max(1, max(video["size"]) / (max_side or math.inf))
    made = {
        "frames": video["frames"] * factor,
        "size": tuple(max(2, 2 * int(side / shrink / 2)) if shrink > 1 else side for side in video["size"]),
        "rate": video["rate"] * (factor if mode == "smooth" else 1),
        "seconds": video["seconds"] * (1 if mode == "smooth" else factor),
        "sound": ("copied" if mode == "smooth" and suffix != ".gif" else "left out") if video["sound"] else "none",
    }
    if suffix == ".gif" and made["rate"] > 50:
        raise ValueError(
            f"A GIF shows at most 50 frames a second, not {float(made['rate']):g}: choose .mp4, or 'slow'."
        )
    for path, facts in ((source, video), (target, made)):
        size, fps = "{}x{} px".format(*facts["size"]), f"{facts['rate']} = {float(facts['rate']):.2f} fps"
        print(f"{path.name}: {facts['frames']} frames, {size}, {fps}, {facts['seconds']:.2f} s")
    print(f"  = {factor} x ({video['frames']} - 1) + 1 frames, and the last one shown {factor - 1} more times")
    at = [f"{float(cut / video['rate']):.2f} s" for cut in video["cuts"]]
    print(f"cuts: {', '.join(at) or 'none'}" + (" (the frame before a cut is held)" if at else ""))
    print(f"frames that repeat the one before: {len(video['repeated'])}")
    print(f"sound: {made['sound']}")
    return video, made


def write_parts(
    parts: Path, settings: dict, source: Path, video: dict, made: dict, factor: int, model: str
) -> list[int]:
    """Numbers of frames in the parts of a video; the parts that are not there yet are predicted and written."""
    done, frames = finished_parts(parts, settings), video["frames"]
    lengths = [min(PART, frames - at) * factor for at in range(0, frames, PART)]
    if done:
        print(f"going on after the {sum(lengths[:done])} frames that are in {vfi.display_path(parts)}")
    if done == len(lengths):
        return lengths
    predict = models.frame_predictor(vfi.BASELINES.get(model) or models.load_model(model))
    first = max(0, done * PART - CONTEXT)
    cuts, again = {cut - first for cut in video["cuts"]}, (done * PART - first) * factor
    with contextlib.closing(ffmpeg.read_frames(source, first, made["size"])) as read:
        stream = itertools.islice(interpolate_frames(read, factor, predict, cuts), again, None)
        stream = report_progress((frame for frame, _ in stream), sum(lengths[done:]))
        for number in range(done, len(lengths)):
            path, part = parts / f"{number:05d}.mp4", itertools.islice(stream, lengths[number])
            encoder = ffmpeg.ENCODERS[settings["format"]]
            if ffmpeg.write_frames(path, part, made["rate"], encoder, video["filters"]) < lengths[number]:
                raise OSError(f"{source} had more frames when it was read first: run again.")
            vfi.mark_finished(path.with_suffix(".json"), settings, digest=file_digest(path))
    return lengths


def interpolate_video(
    source: str | Path,
    target: str | Path,
    factor: int = 2,
    mode: str = "smooth",
    model: str = "motion",
    max_side: int = 0,
    scene_threshold: float = 10,
) -> dict:
    """Facts about a video with frames predicted between its own; an interrupted call, made again, goes on.

    Parts are kept in `<target>.parts/` until the video is whole, and it goes on after the last whole one. Then the
    video appears under its name.

    Args:
        source: a video with a constant frame rate.
        target: .mp4, .mov, .mkv, .webm or .gif.
        factor: 2, 4 or 8 frames for each one.
        mode: "smooth" (so many times the frames per second, and the sound) or "slow" (so many times the seconds).
        model: name or path for `load_model`, or "average" or "nearest".
        max_side: px; a larger video is shrunk to it. 0 keeps the size.
        scene_threshold: how many levels of 255 a cut changes a thumbnail more than the steps around it do.

    Returns:
        What was made: path, frames, size (width, height), rate (`Fraction`), seconds, sound ("copied", "left out" or
        "none"); and source, what `read_facts` returned.

    Raises:
        FileNotFoundError, ValueError, OSError: with one sentence that says why it cannot be done.
    """
    source, target = (Path(path).expanduser().resolve() for path in (source, target))
    weights = model if model in vfi.BASELINES else file_digest(models.model_file(model))
    video, made = plan_video(source, target, factor, mode, max_side, scene_threshold)
    suffix, parts, stat = target.suffix.lower(), target.with_name(target.name + ".parts"), source.stat()
    settings = {"source": [source.name, stat.st_size, stat.st_mtime_ns], "model": weights, "cuts": video["cuts"]}
    settings |= {"made": [made["frames"], made["size"], str(made["rate"]), made["sound"], PART], "format": suffix}
    key = f"interpolated by vfi-dncnn, {vfi.digest(json.dumps(settings))}"
    if target.exists() and ffmpeg.comment_of(target) == key:
        print(f"reusing {vfi.display_path(target)}")
        return made | {"path": target, "source": video}
    try:
        parts.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"{target.parent} cannot be written to ({error.strerror}): choose another folder.") from error
    try:
        needed = made["frames"] * math.prod(made["size"]) // (1 if suffix == ".gif" else 10)  # bytes, roughly
        vfi.check_disk(parts, needed, target.name, "Free some space, or set MAX_SIDE.")
        lengths = write_parts(parts, settings, source, video, made, factor, model)
        sound = source if made["sound"] == "copied" else None
        ffmpeg.join_parts(parts, lengths, made["rate"], target, sound, video["start"], key)
        shutil.rmtree(parts)
    finally:
        with contextlib.suppress(OSError):
            parts.rmdir()  # if nothing is in it
    print(f"{vfi.display_path(target)}: {target.stat().st_size / 2**20:.2f} MiB")
    return made | {"path": target, "source": video}


def main(arguments: list[str] | None = None) -> int:
    """Exit code of the command line; `python -m stages.video --help` describes it."""
    parser = argparse.ArgumentParser(
        "python -m stages.video", description="Predict the frames between a video's frames."
    )
    parser.add_argument("input", help="a video with a constant frame rate")
    parser.add_argument("output", help=f"the video to write: {', '.join(ffmpeg.ENCODERS)}")
    parser.add_argument("--factor", type=int, default=2, help="2, 4 or 8 frames for each one (default: 2)")
    parser.add_argument("--mode", default="smooth", help="smooth: more frames a second (default); slow: more seconds")
    parser.add_argument("--model", default="motion", help="a name, a .keras file, average or nearest (default: motion)")
    parser.add_argument(
        "--max-side", type=int, default=0, help="shrink a larger video to so many px (default: 0, never)"
    )
    parser.add_argument("--scene-threshold", type=float, default=10, help="levels of 255 that make a cut (default: 10)")
    options = vars(parser.parse_args(arguments))
    options["source"], options["target"] = options.pop("input"), options.pop("output")
    try:
        interpolate_video(**options)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: the same command goes on after the last whole part", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
