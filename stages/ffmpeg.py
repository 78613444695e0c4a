"""The one reader and the one writer of videos and pictures, with the ffmpeg that imageio-ffmpeg brings."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from PIL import Image, ImageOps

NEEDED = (5, 1)  # the first ffmpeg with -fps_mode
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
VIDEOS = tuple(
    [".mp4", ".mov", ".mkv", ".webm", ".gif", ".avi", ".m4v", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".wmv", ".3gp"]
)  # endings of their names
ENCODERS = {  # ffmpeg's encoder, its quality's option and usual value, and the rest
    "h264": ("libx264", "-crf", 14, []),
    "h265": ("libx265", "-crf", 18, ["-tag:v", "hvc1", "-x265-params", "log-level=error"]),
    "vp9": ("libvpx-vp9", "-crf", 24, ["-b:v", "0", "-cpu-used", "4", "-row-mt", "1"]),
    "av1": ("libaom-av1", "-crf", 24, ["-b:v", "0", "-cpu-used", "6", "-row-mt", "1"]),
    "prores": ("prores_ks", "-qscale:v", 9, ["-vendor", "apl0"]),
    "gif": ("libx264rgb", "-qp", 0, ["-preset", "veryfast"]),  # the parts of a GIF, without loss
}
H264 = ["-c:v", "libx264", "-crf", "14"]
EXACTLY = "flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"  # or ffmpeg's RGB is up to 5 levels off
REASONS = re.compile("No space left|matches no streams|Unknown encoder")  # the line of its log that names the cause


@functools.cache
def check_version(path: str) -> str:
    """Path of an ffmpeg, which has been asked for its version. OSError says which one it is, and what is needed."""
    wanted = f"at least {NEEDED[0]}.{NEEDED[1]} is needed: unset IMAGEIO_FFMPEG_EXE, or let it name a newer one"
    try:
        answer = subprocess.run([path, "-version"], capture_output=True, text=True, errors="replace").stdout
    except OSError as error:
        raise OSError(f"The program ffmpeg cannot be started ({path}: {error.strerror}); {wanted}.") from error
    version = re.match(r"ffmpeg version (n?(\d+)\.(\d+)\S*|\S+)", answer)
    if not version or (version[2] and (int(version[2]), int(version[3])) < NEEDED):
        found = f"is version {version[1]}" if version else "does not say its version"
        raise OSError(f"The program {path} {found}; {wanted}.")
    return path


def program() -> str:
    """Path of the ffmpeg at hand. OSError says so if there is none, or if it is too old."""
    try:
        return check_version(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError as error:
        raise OSError(f"There is no ffmpeg here: pip install imageio-ffmpeg brings one ({error}).") from error


@contextlib.contextmanager
def run(*arguments, **pipes):
    """Process of ffmpeg, running; its attribute `log` is a file of what ffmpeg writes about its work.

    Raises:
        OSError: with the reason it gave, if it fails.
    """
    command = [program(), "-hide_banner", "-nostats", "-y", *map(str, arguments)]
    # A static ffmpeg may crash in the machine's character tables, which MPEG-TS asks for: it gets none.
    pipes = {"stdin": subprocess.DEVNULL, "env": os.environ | {"GCONV_PATH": os.devnull}, **pipes}
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
            lines = [line for line in lines if line != "Conversion failed!"] or lines
            raise OSError(next((line for line in lines if REASONS.search(line)), lines[-1]).strip())


def read_picture(path: Path, mode: str = "RGB") -> np.ndarray:
    """A picture, upright: uint8 `[H, W, 3]`, RGB, or `[H, W, 4]`, "RGBA".

    ValueError names one that cannot be read, or has 16 bits.
    """
    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):
                raise ValueError(f"{path.name} has more than 8 bits a colour: convert it first.")
            return np.asarray(ImageOps.exif_transpose(image).convert(mode))
    except OSError as error:
        raise ValueError(f"{path.name} is not a picture that can be read: {error}.") from error


def read_frames(
    path: Path, size: tuple = (), filters: str = "null", log=None, files=(), transparent: bool = False
) -> Iterator[np.ndarray]:
    """Frames of a video or pictures, upright, each once, in the order shown: uint8 `[H, W, 3]`, RGB.

    Args:
        path: a video that ffmpeg can read.
        size: `(width, height)` in px to shrink to, if any.
        filters: of ffmpeg, which the frames pass first.
        log: a list that gets the lines that ffmpeg logs.
        files: pictures, which are read in place of `path`.
        transparent: read `[H, W, 4]`, RGBA; 255 is opaque.

    Raises:
        OSError, ValueError: if it cannot be read.
    """
    for file in files:
        picture = read_picture(file, "RGBA" if transparent else "RGB")
        small = size and tuple(size) != picture.shape[1::-1]
        yield np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC)) if small else picture
    if files:
        return
    filters += ",scale=" + (f"{size[0]}:{size[1]}:" if size else "") + EXACTLY
    pixels = "rgba" if transparent else "rgb24"
    output = ["-fps_mode", "passthrough", "-pix_fmt", pixels, "-f", "image2pipe", "-c:v", "pam", "-"]
    source = ["-copyts", "-i", f"file:{path}", "-map", "0:V:0", "-vf", filters]
    with run(*source, *output, stdout=subprocess.PIPE) as process:
        while (lines := [process.stdout.readline() for _ in range(7)])[0]:  # of a PAM, before its pixels
            width, height, channels = (int(line.split()[1]) for line in lines[1:4])
            pixels = np.frombuffer(process.stdout.read(width * height * channels), np.uint8)
            yield pixels.reshape(height, width, channels)
        if log is not None:
            process.log.seek(0)
            log.extend(line.decode(errors="replace") for line in process.log)


def encoder_options(codec: str, quality: float | None = None) -> list[str]:
    """Options of ffmpeg for a codec of `ENCODERS`; a lower `quality` number is better (None: the usual one)."""
    name, option, usual, more = ENCODERS[codec]
    return ["-c:v", name, option, f"{usual if quality is None else quality:g}", *more]


def write_frames(
    path: Path,
    frames: Iterable[np.ndarray],
    rate: Fraction,
    encoder: Sequence[str] = H264,
    filters: str = "null",
    times: Sequence[int] | None = None,
    pixels: str = "",
) -> int:
    """Number of frames (uint8 `[H, W, 3]`, RGB, or `[H, W, 4]`, RGBA) written as a video, which is there when whole.

    Args:
        path: the file.
        frames: one by one, all of one size.
        rate: frames per second, or, with `times`, ticks per second.
        encoder: options of ffmpeg.
        filters: of ffmpeg, which the frames pass.
        times: ticks at which the frames are shown, if not evenly spaced, and the end; for parts of up to 100 frames.
        pixels: ffmpeg's format; by default yuv420p for even sizes, and yuv444p for odd ones.

    Raises:
        OSError: if it cannot be written.
    """
    frames, part = iter(frames), path.with_name(f"{path.stem}.part{path.suffix}")
    count, first = 1, next(frames, None)
    if first is None:
        return 0
    height, width = first.shape[:2]
    rgb, odd = "libx264rgb" in encoder, (height % 2, width % 2)  # colours at half the size need an even one
    pixels = "rgb24" if rgb else pixels or ("yuv444p" if any(odd) else "yuv420p")
    grow = any(odd) and pixels.startswith("yuv42") and "libvpx-vp9" not in encoder and "libaom-av1" not in encoder
    edge = ((0, odd[0]), (0, odd[1]), (0, 0)) if grow else ((0, 0),) * 3
    filters = "null" if rgb else filters
    made = ["-pix_fmt", pixels, *encoder]
    if times is not None:
        stamps = "+".join(f"eq(N,{number})*{ticks}" for number, ticks in enumerate(times[:-1]) if ticks) or "0"
        filters += f",settb=1/{rate},setpts='{stamps}'"
        made += ["-fps_mode", "passthrough", "-enc_time_base", f"1:{rate}", "-bf", "0"]
        made += ["-video_track_timescale", rate, "-bsf:v", f"setts=duration={times[-1] - times[-2]}"]  # of the last one
    kind, size = "rgba" if first.shape[-1] == 4 else "rgb24", f"{width + edge[1][1]}x{height + edge[0][1]}"
    source = ["-f", "rawvideo", "-pix_fmt", kind, "-s", size, "-r", 25 if times is not None else rate, "-i", "-"]
    try:
        with run(*source, "-vf", filters, *made, f"file:{part}", stdin=subprocess.PIPE) as process:
            process.stdin.write(np.pad(first, edge, "edge"))
            for frame in frames:
                process.stdin.write(np.pad(frame, edge, "edge") if grow else np.ascontiguousarray(frame))
                count += 1
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return count
