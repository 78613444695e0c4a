"""Read and write videos with the ffmpeg that imageio-ffmpeg brings."""

from __future__ import annotations

import contextlib
import itertools
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import imageio_ffmpeg
import numpy as np

H264 = ["-c:v", "libx264", "-crf", "14"]
ENCODERS = {  # by the ending of a video's name; a GIF is made from parts without loss
    **dict.fromkeys((".mp4", ".mov", ".mkv"), H264),
    ".webm": ["-c:v", "libvpx-vp9", "-crf", "24", "-b:v", "0", "-cpu-used", "4", "-row-mt", "1"],
    ".gif": ["-c:v", "libx264rgb", "-qp", "0", "-preset", "veryfast"],
}
EXACTLY = "flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"  # or ffmpeg's RGB is up to 5 levels off
REASONS = re.compile("No space left|matches no streams")  # the line of its log that names the cause


@contextlib.contextmanager
def run(*arguments, **pipes):
    """Process of ffmpeg, running; its attribute `log` is a file of what ffmpeg writes about its work.

    Raises:
        OSError: with the reason it gave, if it fails.
    """
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
            lines = log.read().decode(errors="replace").strip().splitlines() or [f"code {process.returncode}"]
            raise OSError(next((line for line in lines if REASONS.search(line)), lines[-1]).strip())


def read_frames(path: Path, first: int = 0, size: tuple = (), filters: str = "null", log=None) -> Iterator[np.ndarray]:
    """Frames of a video, upright, each once, in the order in which they are shown: uint8 `[H, W, 3]`, RGB.

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
    source = ["-i", f"file:{path}", "-map", "0:V:0", "-vf", filters]
    with run(*source, *output, stdout=subprocess.PIPE) as process:
        while process.stdout.readline():  # a PPM is P6, width and height, 255, and the pixels
            width, height = map(int, process.stdout.readline().split())
            process.stdout.readline()
            yield np.frombuffer(process.stdout.read(3 * width * height), np.uint8).reshape(height, width, 3)
        if log is not None:
            process.log.seek(0)
            log.extend(line.decode(errors="replace") for line in process.log)


def constant_rate(ticks: np.ndarray, tick: Fraction, claimed: Fraction) -> Fraction | None:
    """Frame rate with which all time stamps agree to within a quarter of a frame; None if there is none.

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


def writing_filters(log: str) -> str:
    """Filters of ffmpeg that turn RGB into the kind of YUV, and the shape of pixel, that `showinfo` logged."""
    aspect = re.search(r" sar:(\d+/\d+)", log)[1]
    colours = re.search(r"color_space:(\S+) color_primaries:(\S+) color_trc:(\S+)", log).groups()
    colours = ["bt709"] * 3 if colours[0] in ("gbr", "rgb") else colours
    kinds = zip(("range", "colorspace", "color_primaries", "color_trc"), ("tv", *colours))
    kinds = ":".join(f"{kind}={name.replace('reserved', 'unknown')}" for kind, name in kinds)
    matrix = {"bt709": "bt709", "bt2020nc": "bt2020"}.get(colours[0], "bt601")
    shape = "" if aspect.startswith("0") else f",setsar={aspect}"
    return f"scale=out_color_matrix={matrix}:out_range=tv,setparams={kinds}{shape}"


def read_facts(path: Path, look: Callable[[Iterator[np.ndarray]], np.ndarray]) -> tuple[dict, np.ndarray]:
    """Facts about a video, which is read once, shrunken; and what `look` makes of its frames, a row a frame.

    Returns:
        Facts: path; frames; size (width, height; px, upright); rate (`Fraction`, frames per second); seconds; start
        (seconds until the first frame is shown); sound (bool); filters (ffmpeg's, which turn RGB into the video's own
        kind of YUV).
        Rows: what `look` returned.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a video, has fewer than two frames, or has a variable frame rate.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is {'a folder, and no video' if path.is_dir() else 'not there'}.")
    lines, shrink = [], "max(1,floor(iw/480))"
    filters = f"showinfo=checksum=0,scale='iw/{shrink}':'ih/{shrink}':flags=area"
    try:
        rows = look(read_frames(path, filters=filters, log=lines))
    except OSError as error:
        reason = "it has no picture" if "matches no streams" in str(error) else error
        raise ValueError(f"{path.name} is not a video that ffmpeg can read: {reason}.") from error
    if len(rows) < 2:
        raise ValueError(f"{path.name} has {len(rows) or 'no'} frame{'' if len(rows) else 's'}, of two needed.")
    log = "".join(lines)
    tick, claimed = (Fraction(found) for found in re.search(r"time_base: (\S+), frame_rate: (\S+)", log).groups())
    ticks = np.array([int(found) for found in re.findall(r"\] n: *\d+ pts: *(-?\d+) ", log)] or [0])
    if len(ticks) != len(rows) or not (rate := constant_rate(ticks, tick, claimed)):
        steps = np.diff(ticks, prepend=ticks[0])[1:] * float(1000 * tick)
        raise ValueError(
            f"{path.name} has a variable frame rate ({min(steps):.0f} to {max(steps):.0f} ms a frame) and would "
            f"be stretched: make it constant first: ffmpeg -i {path.name} -vf fps={1000 / steps.mean():.0f} other.mp4"
        )
    facts = {
        "path": path,
        "frames": len(rows),
        "size": tuple(map(int, re.search(r" s:(\d+)x(\d+)", log).groups())),
        "rate": rate,
        "seconds": float(len(rows) / rate),
        "start": float(ticks[0] * tick),
        "sound": bool(re.search(r"Stream #0:\d+.*: Audio:", log)),
        "filters": writing_filters(log),
    }
    return facts, rows


def write_frames(path: Path, frames: Iterable[np.ndarray], rate: Fraction, encoder=H264, filters: str = "null") -> int:
    """Number of frames (uint8 `[H, W, 3]`, RGB, all of one size) written as a video, which is there when whole.

    Raises:
        OSError: if it cannot be written.
    """
    frames, part = iter(frames), path.with_name(f"{path.stem}.part{path.suffix}")
    count, first = 1, next(frames)
    height, width = first.shape[:2]
    odd = height % 2 or width % 2  # colours at half the size need an even one
    pixels = "rgb24" if "libx264rgb" in encoder else "yuv444p" if odd else "yuv420p"
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", rate, "-i", "-"]
    made = ["-vf", "null" if pixels == "rgb24" else filters, "-pix_fmt", pixels, *encoder, part]
    try:
        with run(*source, *made, stdin=subprocess.PIPE) as process:
            process.stdin.write(np.ascontiguousarray(first))
            for frame in frames:
                process.stdin.write(np.ascontiguousarray(frame))
                count += 1
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return count


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
    (parts / "list.txt").write_text("\n".join(["ffconcat version 1.0", *entries, ""]))
    whole, listed = parts / f"whole{target.suffix}", ["-f", "concat", "-i", parts / "list.txt"]
    other = "libopus" if target.suffix.lower() == ".webm" else "aac"
    plain = ["-c:v", "copy", "-metadata", f"comment={key}", whole]
    if target.suffix.lower() == ".gif":
        with run(*listed, "-vf", "palettegen", palette := parts / "palette.png"):
            pass
        dither = "paletteuse=dither=bayer:bayer_scale=4:diff_mode=rectangle"
        plain = ["-i", palette, "-lavfi", dither, whole]
    for codec in ("copy", other) if sound else ("none",):
        track = ["-i", f"file:{sound}", "-map", "0:v", "-map", "1:a", "-c:a", codec] if sound else []
        try:
            with run(*(["-itsoffset", start] if sound else []), *listed, *track, *plain):
                break
        except OSError as error:
            if codec != "copy" or "No space left" in str(error):
                raise
            print(f"{target.suffix} cannot hold the sound as it is: converting it to {other.removeprefix('lib')}")
    whole.replace(target)


def comment_of(path: Path) -> str:
    """Comment that a video file holds, or ""."""
    with (
        contextlib.suppress(OSError),
        run("-i", f"file:{path}", "-f", "ffmetadata", "-", stdout=subprocess.PIPE) as process,
    ):
        found = re.search(r"^comment=(.*)$", process.stdout.read().decode(errors="replace"), re.I | re.M)
        return found[1] if found else ""
    return ""
