"""Read, interpolate and write videos, with the ffmpeg that imageio-ffmpeg brings; `main` is the command line."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import itertools
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

import vfi_utils as vfi

H264 = ["-c:v", "libx264", "-crf", "14"]
ENCODERS = {  # by the ending of a video's name; a GIF is made from parts without loss
    **dict.fromkeys((".mp4", ".mov", ".mkv"), H264),
    ".webm": ["-c:v", "libvpx-vp9", "-crf", "24", "-b:v", "0", "-cpu-used", "4", "-row-mt", "1"],
    ".gif": ["-c:v", "libx264rgb", "-qp", "0", "-preset", "veryfast"],
}
PART = 24  # source frames in a part; an interrupted video goes on after the last whole part
CONTEXT = 4  # source frames before a part on which its drawn frames depend: 2 with factor 2, 3 with 4, 3.5 with 8
EXACTLY = "flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"  # or ffmpeg's RGB is up to 5 levels off
REASONS = re.compile("No space left|matches no streams")  # what ffmpeg says before its last words, and is to the point


@contextlib.contextmanager
def ffmpeg(*arguments, **pipes):
    """Run the ffmpeg that imageio-ffmpeg brings; yield the process. Its attribute `log` is a file of what it says.

    Raises:
        OSError: with the reason it gave, if it fails.
    """
    import imageio_ffmpeg

    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-nostats", "-y", *map(str, arguments)]
    pipes = {"stdin": subprocess.DEVNULL, **pipes}
    with tempfile.TemporaryFile() as log:
        with subprocess.Popen(command, stderr=log, start_new_session=True, **pipes) as process:  # Ctrl-C is ours
            process.log = log
            try:
                yield process
            except BrokenPipeError:
                pass  # it reads no more, and its log says why
            except BaseException:
                process.kill()
                raise
            finally:
                with contextlib.suppress(BrokenPipeError):
                    if process.stdin:
                        process.stdin.close()
        if process.returncode:
            log.seek(0)
            said = log.read().decode(errors="replace").strip().splitlines() or [f"code {process.returncode}"]
            raise OSError(next((line for line in said if REASONS.search(line)), said[-1]).strip())


def read_frames(path: Path, first: int = 0, size: tuple = (), filters: str = "null", log=None) -> Iterator[np.ndarray]:
    """Yield a video's frames, upright, each once, in the order in which they are shown: uint8 `[H, W, 3]`, RGB.

    Args:
        path: a video that ffmpeg can read.
        first: index of the first frame to yield.
        size: `(width, height)` in px to shrink to, if any.
        filters: of ffmpeg, which the frames pass first.
        log: a list that gets the lines that ffmpeg logs.

    Raises:
        OSError: if ffmpeg cannot read it.
    """
    filters += f",select='gte(n,{first})',scale=" + (f"{size[0]}:{size[1]}:" if size else "") + EXACTLY
    output = ["-fps_mode", "passthrough", "-pix_fmt", "rgb24", "-f", "image2pipe", "-c:v", "ppm", "-"]
    given = ["-i", f"file:{path}", "-map", "0:V:0", "-vf", filters]
    with ffmpeg(*given, *output, stdout=subprocess.PIPE) as process:
        while process.stdout.readline():  # a PPM is P6, width and height, 255, and the pixels
            width, height = map(int, process.stdout.readline().split())
            process.stdout.readline()
            yield np.frombuffer(process.stdout.read(3 * width * height), np.uint8).reshape(height, width, 3)
        if log is not None:
            process.log.seek(0)
            log.extend(line.decode(errors="replace") for line in process.log)


def constant_rate(ticks: np.ndarray, tick: Fraction, claimed: Fraction) -> Fraction | None:
    """Return the frame rate with which all time stamps agree to within a quarter of a frame; None if there is none.

    Args:
        ticks: int `[T]`, when each frame is shown.
        tick: seconds in a tick.
        claimed: frames per second by the container, which may have rounded them, or be wrong.
    """
    late = ticks - ticks[0]
    average = Fraction(len(late) - 1, max(1, int(late[-1]))) / tick
    for rate in (claimed, average.limit_denominator(10**5)):
        usual = Fraction(max(1, round(rate))), Fraction(max(1, round(rate * 1001 / 1000)) * 1000, 1001)
        for exact in [*(near for near in usual if abs(rate - near) < near / 10**4), rate]:
            if exact and np.ptp(late * float(tick * exact) - np.arange(len(late))) <= 0.5:
                return exact
    return None


def writing_filters(told: str) -> str:
    """Return ffmpeg's filters that turn RGB into the kind of YUV, and the shape of pixel, that `showinfo` told of."""
    aspect = re.search(r" sar:(\d+/\d+)", told)[1]
    colours = re.search(r"color_space:(\S+) color_primaries:(\S+) color_trc:(\S+)", told).groups()
    colours = ["bt709"] * 3 if colours[0] in ("gbr", "rgb") else colours
    kinds = zip(("range", "colorspace", "color_primaries", "color_trc"), ("tv", *colours))
    kinds = ":".join(f"{kind}={name.replace('reserved', 'unknown')}" for kind, name in kinds)
    matrix = {"bt709": "bt709", "bt2020nc": "bt2020"}.get(colours[0], "bt601")
    shape = "" if aspect.startswith("0") else f",setsar={aspect}"
    return f"scale=out_color_matrix={matrix}:out_range=tv,setparams={kinds}{shape}"


def read_facts(path: Path, scene_threshold: float = 10) -> dict:
    """Read a video once, shrunken, and return what has to be known before a frame is drawn.

    Returns:
        path; frames; size (width, height; px, upright); rate (`Fraction`, frames per second); seconds; start (seconds
        until the first frame is shown); sound (bool); cuts (indices of first frames of new shots); repeated (indices of
        frames that repeat the one before); filters (ffmpeg's, which turn RGB into the video's own kind of YUV).

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a video, has fewer than two frames, or has a variable frame rate.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is {'a folder, and no video' if path.is_dir() else 'not there'}.")
    videos, log, shrink = vfi.load_module("footage/own_videos"), [], "max(1,floor(iw/480))"
    filters = f"showinfo=checksum=0,scale='iw/{shrink}':'ih/{shrink}':flags=area"
    try:
        changed = videos.frame_changes(read_frames(path, filters=filters, log=log))
    except OSError as error:
        reason = "it has no picture" if "matches no streams" in str(error) else error
        raise ValueError(f"{path.name} is not a video that ffmpeg can read: {reason}.") from error
    if len(changed) < 2:
        raise ValueError(f"{path.name} has {len(changed) or 'no'} frame{'' if len(changed) else 's'}, of two needed.")
    told = "".join(log)
    tick, claimed = (Fraction(found) for found in re.search(r"time_base: (\S+), frame_rate: (\S+)", told).groups())
    ticks = np.array([int(found) for found in re.findall(r"\] n: *\d+ pts: *(-?\d+) ", told)] or [0])
    if len(ticks) != len(changed) or not (rate := constant_rate(ticks, tick, claimed)):
        steps = np.diff(ticks, prepend=ticks[0])[1:] * float(1000 * tick)
        raise ValueError(
            f"{path.name} has a variable frame rate ({min(steps):.0f} to {max(steps):.0f} ms a frame) and would "
            f"be stretched: make it constant first: ffmpeg -i {path.name} -vf fps={1000 / steps.mean():.0f} other.mp4"
        )
    return {
        "path": path,
        "frames": len(changed),
        "size": tuple(map(int, re.search(r" s:(\d+)x(\d+)", told).groups())),
        "rate": rate,
        "seconds": float(len(changed) / rate),
        "start": float(ticks[0] * tick),
        "sound": bool(re.search(r"Stream #0:\d+.*: Audio:", told)),
        "cuts": videos.find_cuts(changed, scene_threshold),
        "repeated": videos.find_duplicates(changed),
        "filters": writing_filters(told),
    }


def take_neighbours(stream: Iterable[tuple[np.ndarray, str]]) -> Iterator[tuple]:
    """Yield each frame of a stream with the six around the gap after it; three are held before and after.

    Args:
        stream: frames `[H, W, 3]`, each with its kind: "first" (of a shot), "next", "drawn", or "held" (shown again
            because nothing is drawn there: before a cut and at the end).

    Yields:
        frame, kind, neighbours `[6, H, W, 3]`. Missing neighbours, at the ends and beside a cut, are the nearest frame
        on the same side. They are None if nothing is to be drawn in the gap.
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
        after = [later for later, _ in itertools.takewhile(lambda item: item[1] in ("next", "drawn"), ahead)]
        missing = 3 - len(before), 3 - len(after)
        neighbours = [before[0]] * missing[0] + [*before, *after] + after[-1:] * missing[1]
        yield frame, kind, np.stack(neighbours) if after else None


def double_frames(stream: Iterable[tuple[np.ndarray, str]], draw) -> Iterator[tuple[np.ndarray, str]]:
    """Yield each frame of a stream and then the one that `draw` makes of the six around the gap, or itself, held."""
    for frame, kind, neighbours in take_neighbours(stream):
        yield frame, kind
        yield (frame, "held") if neighbours is None else (draw(neighbours), "drawn")


def interpolate_frames(frames: Iterable[np.ndarray], factor: int, draw, cuts=()) -> Iterator[tuple[np.ndarray, str]]:
    """Yield `factor` frames for each one: `(n - 1) * factor + 1`, and then the last one, held. Few are in memory.

    The middle of a middle has neighbours that are drawn themselves: taken from the doubled stream, they are spaced
    evenly in time, as they were when the model was trained.

    Args:
        frames: uint8 `[H, W, 3]`, one by one.
        factor: 2, 4 or 8.
        draw: uint8 `[6, H, W, 3]` -> uint8 `[H, W, 3]`.
        cuts: indices of the first frames of new shots; the frame before one is held.

    Yields:
        frame, kind (as in `take_neighbours`).
    """
    stream = ((frame, "first" if index in cuts else "next") for index, frame in enumerate(frames))
    for _ in range(int(math.log2(factor))):
        stream = double_frames(stream, draw)
    return stream


def middle_drawer(model, tile: int = vfi.TILE):
    """Return the function that draws one middle frame with a model or a baseline: uint8 `[n, H, W, 3]` -> `[H, W, 3]`.

    When memory is full it halves the tile, says so, and stays with the smaller one.
    """
    if not hasattr(model, "predict_on_batch"):
        return lambda neighbours: model(neighbours[None])[0]

    def draw(neighbours: np.ndarray) -> np.ndarray:
        nonlocal tile
        try:
            return vfi.to_uint8(vfi.draw_middle(model, neighbours[None], tile))[0]
        except Exception as error:  # TensorFlow's, JAX's and Python's ways to say that memory is full
            full = isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError"
            full |= type(error).__name__ in ("XlaRuntimeError", "JaxRuntimeError") and "RESOURCE_EXH" in str(error)
            smaller = min(tile, max(neighbours.shape[1:3])) // 2
            overlap = 32 if vfi.load_module("motion").moves_pixels(model) else vfi.receptive_radius(model)
            if not full or overlap is None or smaller <= 2 * overlap:
                raise
        tile = smaller
        print(f"memory is full: drawing tiles of {tile} px from here on", flush=True)
        return draw(neighbours)

    return draw


def write_frames(path: Path, frames: Iterable[np.ndarray], rate: Fraction, encoder=H264, filters: str = "null") -> int:
    """Write frames (uint8 `[H, W, 3]`, RGB, all of one size) as a video that is there when whole; return how many.

    Raises:
        OSError: if it cannot be written.
    """
    frames, part = iter(frames), path.with_name(f"{path.stem}.part{path.suffix}")
    count, first = 1, next(frames)
    height, width = first.shape[:2]
    odd = height % 2 or width % 2  # colours at half the size need an even one
    pixels = "rgb24" if "libx264rgb" in encoder else "yuv444p" if odd else "yuv420p"
    given = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", rate, "-i", "-"]
    made = ["-vf", "null" if pixels == "rgb24" else filters, "-pix_fmt", pixels, *encoder, part]
    try:
        with ffmpeg(*given, *made, stdin=subprocess.PIPE) as process:
            process.stdin.write(np.ascontiguousarray(first))
            for frame in frames:
                process.stdin.write(np.ascontiguousarray(frame))
                count += 1
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return count


def file_digest(path: Path) -> str:
    """Return a short fingerprint of a file, however large."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def finished_parts(folder: Path, settings: dict) -> int:
    """Return how many parts in a row are there, whole, and made with these settings; delete the others."""
    done = 0
    while vfi.is_finished(marker := folder / f"{done:05d}.json", settings):
        part = marker.with_suffix(".mp4")
        if not part.exists() or file_digest(part) != json.loads(marker.read_text())["digest"]:
            print(f"{vfi.shown(part)} is broken: it is drawn again")
            break
        done += 1
    for path in folder.glob("[0-9]*.*"):
        if int(path.name[:5]) >= done:
            path.unlink()
    return done


def tell_progress(frames: Iterable, total: int) -> Iterator:
    """Pass frames on; print how many, how fast and how long still after 5 seconds, and then ever less often."""
    started, due = time.perf_counter(), 5.0
    for count, frame in enumerate(frames, start=1):
        yield frame
        passed = time.perf_counter() - started
        if passed >= due and count < total:
            left = passed / count * (total - count)
            left = f"{left:.0f} s" if left < 120 else f"{left / 60:.0f} min"
            print(f"  {count} of {total} frames, {count / passed:.2f} frames/s, {left} left", flush=True)
            due = passed + min(passed, 60)


def join_parts(
    parts: Path, lengths: list[int], rate: Fraction, target: Path, sound: Path | None, start: float, key: str
):
    """Join the parts of a video as they are, and add the sound; the file appears when whole.

    Args:
        parts: folder of 00000.mp4, 00001.mp4 and so on.
        lengths: frames in each part.
        rate: frames per second.
        target: the file; its ending chooses the container.
        sound: a video whose sound is copied, or None.
        start: seconds until the picture starts there.
        key: is kept in the file, as a comment.
    """
    ends = [round(frames / rate * 10**6) for frames in itertools.accumulate([0, *lengths])]  # in microseconds
    entries = [f"file {k:05d}.mp4\nduration {(ends[k + 1] - ends[k]) / 1e6:.6f}" for k in range(len(lengths))]
    vfi.write_whole(parts / "list.txt", "\n".join(["ffconcat version 1.0", *entries, ""]))
    whole, given = parts / f"whole{target.suffix}", ["-f", "concat", "-i", parts / "list.txt"]
    other = "libopus" if target.suffix.lower() == ".webm" else "aac"
    plain = ["-c:v", "copy", "-metadata", f"comment={key}", whole]
    if target.suffix.lower() == ".gif":
        with ffmpeg(*given, "-vf", "palettegen", palette := parts / "palette.png"):
            pass
        dither = "paletteuse=dither=bayer:bayer_scale=4:diff_mode=rectangle"
        plain = ["-i", palette, "-lavfi", dither, whole]
    for codec in ("copy", other) if sound else ("none",):
        heard = ["-i", f"file:{sound}", "-map", "0:v", "-map", "1:a", "-c:a", codec] if sound else []
        try:
            with ffmpeg(*(["-itsoffset", start] if sound else []), *given, *heard, *plain):
                break
        except OSError as error:
            if codec != "copy" or "No space left" in str(error):
                raise
            print(f"{target.suffix} cannot hold the sound as it is: converting it to {other.removeprefix('lib')}")
    whole.replace(target)


def comment_of(path: Path) -> str:
    """Return the comment that a video file holds, or ""."""
    with (
        contextlib.suppress(OSError),
        ffmpeg("-i", f"file:{path}", "-f", "ffmetadata", "-", stdout=subprocess.PIPE) as process,
    ):
        found = re.search(r"^comment=(.*)$", process.stdout.read().decode(errors="replace"), re.I | re.M)
        return found[1] if found else ""
    return ""


def plan_video(source: Path, target: Path, factor: int, mode: str, max_side: int, scene_threshold: float) -> tuple:
    """Check what is asked of `interpolate_video`, and print what is there and what it will make of it.

    Returns:
        The source's facts, and those of the video to make: frames, size, rate, seconds, sound.
    """
    if factor not in (2, 4, 8) or mode not in ("smooth", "slow") or min(max_side, scene_threshold) < 0:
        raise ValueError(
            f"FACTOR = {factor} must be 2, 4 or 8, MODE = {mode!r} 'smooth' or 'slow', MAX_SIDE = {max_side} and "
            f"SCENE_THRESHOLD = {scene_threshold} at least 0."
        )
    suffix = target.suffix.lower()
    if suffix not in ENCODERS or target.is_dir() or target == source:
        raise ValueError(f"{target} must be another file than the input, and end in {', '.join(ENCODERS)}.")
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
    """Draw and write the parts of a video that are not there yet; return how many frames each part has."""
    done, frames = finished_parts(parts, settings), video["frames"]
    lengths = [min(PART, frames - at) * factor for at in range(0, frames, PART)]
    if done:
        print(f"going on after the {sum(lengths[:done])} frames that are in {vfi.shown(parts)}")
    if done == len(lengths):
        return lengths
    draw, first = middle_drawer(vfi.BASELINES.get(model) or vfi.load_model(model)), max(0, done * PART - CONTEXT)
    cuts, again = {cut - first for cut in video["cuts"]}, (done * PART - first) * factor
    with contextlib.closing(read_frames(source, first, made["size"])) as read:
        stream = itertools.islice(interpolate_frames(read, factor, draw, cuts), again, None)
        stream = tell_progress((frame for frame, _ in stream), sum(lengths[done:]))
        for number in range(done, len(lengths)):
            path, part = parts / f"{number:05d}.mp4", itertools.islice(stream, lengths[number])
            if write_frames(path, part, made["rate"], ENCODERS[settings["format"]], video["filters"]) < lengths[number]:
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
    """Draw the frames between a video's frames; an interrupted call, made again, goes on after the last whole part.

    Parts are kept in `<target>.parts/` until the video is whole. Then it appears under its name.

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
    weights = model if model in vfi.BASELINES else file_digest(vfi.model_file(model))
    video, made = plan_video(source, target, factor, mode, max_side, scene_threshold)
    suffix, parts, stat = target.suffix.lower(), target.with_name(target.name + ".parts"), source.stat()
    settings = {"source": [source.name, stat.st_size, stat.st_mtime_ns], "model": weights, "cuts": video["cuts"]}
    settings |= {"made": [made["frames"], made["size"], str(made["rate"]), made["sound"], PART], "format": suffix}
    key = f"drawn by vfi-dncnn, {vfi.digest(json.dumps(settings))}"
    if target.exists() and comment_of(target) == key:
        print(f"reusing {vfi.shown(target)}")
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
        join_parts(parts, lengths, made["rate"], target, sound, video["start"], key)
        shutil.rmtree(parts)
    finally:
        with contextlib.suppress(OSError):
            parts.rmdir()  # if nothing is in it
    print(f"{vfi.shown(target)}: {target.stat().st_size / 2**20:.2f} MiB")
    return made | {"path": target, "source": video}


def main(arguments: list[str] | None = None) -> int:
    """Interpolate a video from the command line, as `python -m vfi_utils --help` says; return the exit code."""
    parser = argparse.ArgumentParser("python -m vfi_utils", description="Draw the frames between a video's frames.")
    parser.add_argument("input", help="a video with a constant frame rate")
    parser.add_argument("output", help=f"the video to write: {', '.join(ENCODERS)}")
    parser.add_argument("--factor", type=int, default=2, help="2, 4 or 8 frames for each one (default: 2)")
    parser.add_argument("--mode", default="smooth", help="smooth: more frames a second (default); slow: more seconds")
    parser.add_argument("--model", default="motion", help="a name, a .keras file, average or nearest (default: motion)")
    parser.add_argument(
        "--max-side", type=int, default=0, help="shrink a larger video to so many px (default: 0, never)"
    )
    parser.add_argument("--scene-threshold", type=float, default=10, help="levels of 255 that make a cut (default: 10)")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # or TensorFlow lists its libraries
    try:
        interpolate_video(*vars(parser.parse_args(arguments)).values())
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: the same command goes on after the last whole part", file=sys.stderr)
        return 130
    return 0
