"""What a file holds beside its frames: the facts that ffmpeg's text tells, and the tracks that a new file keeps."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from stages import ffmpeg

DAMAGE = re.compile(
    r"partial file|[Cc]orrupt|[Ee]rror while decoding|concealing \d+|Invalid NAL|Truncat|error reading|Prematurely|"
    r"Error submitting packet|Invalid data found when processing input|exceeds containing|missing picture|Read error"
)
OTHER_MATRIX = "zscale=m=bt709"  # ffmpeg's filter for matrices that its scaler does not know
MATRICES = {  # of YUV, by the names that ffmpeg gives tags: those that its scaler can write
    **dict.fromkeys(("bt709", "fcc", "smpte240m"), None),
    **dict.fromkeys(("smpte170m", "bt470bg", "unknown"), "bt601"),
    "bt2020nc": "bt2020",
}


@dataclass(frozen=True, kw_only=True)
class Track:
    """A stream of a file: its index there, kind ("audio", "subtitle", "video", "data", "attachment") and codec."""

    index: int
    kind: str
    codec: str

    def __str__(self) -> str:
        return f"{self.kind} track {self.index} ({self.codec})"


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of a video or of pictures once they have been read: times in seconds, sizes in px."""

    path: Path
    size: tuple[int, int]  # (width, height), upright
    times: tuple[Fraction, ...]  # when each frame is shown, from 0
    rate: Fraction | None  # frames per second; None if it varies
    seconds: Fraction  # until the last frame ends
    base: float = 0.0  # the container's first time stamp, if it is above 0
    start: float = 0.0  # from there to the first frame
    tracks: tuple[Track, ...] = ()  # all but the video itself
    comment: str = ""
    bits: int = 8
    hdr: bool = False
    interlaced: bool = False
    transparent: bool = False
    reading: str = "null"  # ffmpeg's filters that frames pass when they are read
    writing: str = "null"  # those that turn RGB into the video's own kind of YUV, and shape of pixel
    notes: tuple[str, ...] = ()  # sentences about what is not as usual
    damage: str = ""  # what was lost, if the file is not whole
    files: tuple[Path, ...] = ()  # the pictures, if it is no video

    @property
    def frames(self) -> int:
        return len(self.times)

    @property
    def sound(self) -> bool:
        return any(track.kind == "audio" for track in self.tracks)


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


def parse_tracks(log: str) -> list[Track]:
    """Streams of the first input that ffmpeg's log lists; a cover picture is an attachment."""
    inputs, found = log.partition("Output #0")[0], []
    for index, kind, codec, rest in re.findall(r"(?m)^ *Stream #0:(\d+)\S*: (\w+): (\w+)(.*)$", inputs):
        kind = "attachment" if "(attached pic)" in rest else kind.lower()
        codec = next(iter(re.findall(r"^ \((\w+) / 0x", rest)), codec) if codec == "none" else codec
        found.append(Track(index=int(index), kind=kind, codec=codec))
    return found


def writing_filters(log: str) -> tuple[str, tuple[str, ...]]:
    """Filters that turn RGB into the kind of YUV, and the shape of pixel, that `showinfo` logged; and what they change.

    A matrix that the scaler cannot write becomes BT.709, and is tagged so.
    """
    aspect = re.search(r" sar:(\d+/\d+)", log)[1]
    colours = list(re.search(r"color_space:(\S+) color_primaries:(\S+) color_trc:(\S+)", log).groups())
    colours = [name.replace("reserved", "unknown") for name in colours]
    colours, notes = ["bt709"] * 3 if colours[0] in ("gbr", "rgb") else colours, ()
    if colours[0] not in MATRICES:
        notes = (f"its colours (matrix {colours[0]}) are converted to BT.709",)
        colours[0] = "bt709"
    matrix = MATRICES[colours[0]] or colours[0]
    kinds = zip(("range", "colorspace", "color_primaries", "color_trc"), ("tv", *colours))
    kinds = ":".join(f"{kind}={name}" for kind, name in kinds)
    shape = "" if aspect.startswith("0") else f",setsar=r={aspect}:max=65535"
    return f"scale=out_color_matrix={matrix}:out_range=tv,setparams={kinds}{shape}", notes


def parse_facts(path: Path, log: str, rows: int) -> Facts:
    """Facts about a video of which `rows` frames were read, from what ffmpeg logged with `showinfo`."""
    tick, claimed = (Fraction(found) for found in re.search(r"time_base: (\S+), frame_rate: (\S+)", log).groups())
    shown = re.findall(r"\] n: *\d+ pts: *(\S+) .* fmt:(\S+) .* s:(\d+)x(\d+) i:(.)", log)[:rows]
    ticks = np.array([int(pts) if pts != "NOPTS" else -1 for pts, *_ in shown], np.int64)
    (writing, notes), start = writing_filters(log), re.search(r"Duration: \S+ start: (-?[\d.]+)", log)
    steps = np.diff(ticks)
    if (steps <= 0).any():
        usual = int(np.median(steps[steps > 0])) if (steps > 0).any() else max(1, round(1 / (claimed * tick)))
        notes += (f"{(steps <= 0).sum()} time stamps that do not increase are put right",)
        ticks = ticks[0] + np.cumsum([0, *np.where(steps > 0, steps, usual)])
    rate = constant_rate(ticks, tick, claimed)
    times = [index / rate if rate else int(late) * tick for index, late in enumerate(ticks - ticks[0])]
    sizes = list(dict.fromkeys((int(width), int(height)) for _, _, width, height, _ in shown))
    if len(sizes) > 1:
        notes += (f"its frames change their size; all become {sizes[0][0]}x{sizes[0][1]} px",)
    kinds = shown[0][1]
    depth = re.search(r"p(9|1[0-6])(?:le|be)?$|^p0(1\d)|(48|64)(?:le|be)$|(f32)", kinds)
    if re.search(r"(?mi)^ +alpha_mode +: 1", log):  # of WebM, which ffmpeg's own decoders of VP8 and VP9 do not see
        notes += ("its transparency is left out",)
    interlaced = sum(kind in "TB" for *_, kind in shown) > rows / 2
    if interlaced:
        notes += ("it is interlaced: made progressive first (bwdif)",)
    spoken = [line for line in log.splitlines() if not line.startswith((" ", "Input #"))]  # not the file's own words
    damage, converted = next(filter(DAMAGE.search, spoken), "").strip(), "converted to BT.709" in "".join(notes)
    tracks, base = parse_tracks(log), max(0.0, float(start[1]) if start else 0.0)
    own = next(track for track in tracks if track.kind == "video")
    comment = re.search(r"(?mi)^ +comment *: (.*(?:\n +: .*)*)$", log.partition("Output #0")[0])
    return Facts(
        path=path,
        size=sizes[0],
        times=tuple(times),
        rate=rate,
        seconds=times[-1] + (1 / rate if rate else times[-1] - times[-2]),
        base=base,
        start=float(ticks[0] * tick) - base,
        tracks=tuple(track for track in tracks if track is not own),
        comment=re.sub(r"\n +: ", "\n", comment[1]).strip() if comment else "",
        bits=8 if not depth else int(depth[1] or depth[2] or 16),
        hdr=bool(re.search(r"color_trc:(smpte2084|arib-std-b67)", log)),
        interlaced=interlaced,
        transparent=bool(re.match("yuva|gbra|rgba|bgra|argb|abgr|ya[0-9]", kinds)),
        reading=("bwdif=mode=send_frame:deint=all" if interlaced else "null") + (f",{OTHER_MATRIX}" * converted),
        writing=writing,
        notes=notes,
        damage=damage,
    )


def read_facts(path: Path, look: Callable[[Iterator[np.ndarray]], np.ndarray]) -> tuple[Facts, np.ndarray]:
    """Facts about a video, which is read once, shrunken; and what `look` makes of its frames, a row a frame.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a video, or has fewer than two frames.
        OSError: if there is no ffmpeg that can read it.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is {'a folder, and no video' if path.is_dir() else 'not there'}.")
    ffmpeg.program()  # what is wrong with the program is not the video's fault
    lines, shrink = [], "max(1,floor(iw/480))"
    filters = f"showinfo=checksum=0,scale='iw/{shrink}':'ih/{shrink}':flags=area"
    try:
        try:
            rows = look(ffmpeg.read_frames(path, filters=filters, log=lines))
        except OSError:  # the scaler does not know the matrix, perhaps
            lines.clear()
            rows = look(ffmpeg.read_frames(path, filters=filters.replace(",", f",{OTHER_MATRIX},", 1), log=lines))
    except OSError as error:
        reason = "it has no picture" if "matches no streams" in str(error) else error
        raise ValueError(f"{path.name} is not a video that ffmpeg can read: {reason}.") from error
    if len(rows) < 2:
        raise ValueError(f"{path.name} has {len(rows) or 'no'} frame{'' if len(rows) else 's'}, of two needed.")
    return parse_facts(path, "".join(lines), len(rows)), rows


def picture_facts(files: Sequence[Path], rate: Fraction, look: Callable) -> tuple[Facts, np.ndarray]:
    """Facts about pictures that are shown one after the other, `rate` a second; and what `look` makes of them.

    Raises:
        ValueError: if they are fewer than two, one cannot be read, or has another size than the first.
    """
    size = ()

    def same_size():
        nonlocal size
        for file, frame in zip(files, ffmpeg.read_frames(files[0], files=files)):
            size = size or frame.shape[1::-1]
            if frame.shape[1::-1] != size:
                was, first = "x".join(map(str, frame.shape[1::-1])), "x".join(map(str, size))
                raise ValueError(f"{file.name} has {was} px and {files[0].name} {first}: one size is needed.")
            yield frame

    if len(files) < 2:
        raise ValueError(f"{files[0].name} is one picture, of two needed.")
    rows = look(same_size())
    with Image.open(files[0]) as image:
        transparent = "A" in image.getbands()
    tags = "range=tv:colorspace=bt709:color_primaries=bt709:color_trc=iec61966-2-1"
    facts = Facts(
        path=files[0].parent,
        size=size,
        times=tuple(index / rate for index in range(len(rows))),
        rate=rate,
        seconds=len(rows) / rate,
        writing=f"scale=out_color_matrix=bt709:out_range=tv,setparams={tags}",
        transparent=transparent,
        files=tuple(files),
    )
    return facts, rows


@dataclass(frozen=True, kw_only=True)
class Output:
    """How the parts of a video become one file."""

    target: Path  # its ending chooses the container
    key: str  # is kept in the file, at the end of its comment
    source: Path | None = None  # the video whose tracks and descriptions are kept
    tracks: tuple[tuple[Track, str], ...] = ()  # the tracks that are kept, each with "copy" or the codec it gets
    base: float = 0.0  # the source's first time stamp
    start: float = 0.0  # seconds from there to the first frame
    comment: str = ""  # the source's own
    timescale: int = 0  # ticks per second of frames that are not evenly spaced


SOUND = {".webm": ("copy", "libopus"), ".mov": ("copy", "aac"), ".mkv": ("copy", "aac"), ".mp4": ("copy", "aac")}
SUBTITLES = {".webm": ("copy", "webvtt"), ".mov": ("mov_text",), ".mkv": ("copy", "srt"), ".mp4": ("mov_text",)}


def choose_codec(source: Path, track: Track, suffix: str, folder: Path) -> str:
    """What a track becomes in a file of this ending: "copy", a codec's name, or "" if it cannot be kept.

    A second of it is written to find out. In .mp4, sound without compression is converted: few players read it there.
    """
    choices = {"audio": SOUND, "subtitle": SUBTITLES}.get(track.kind, {}).get(suffix, ())
    for codec in choices:
        if codec == "copy" and suffix == ".mp4" and track.codec.startswith("pcm_"):
            continue
        options = ["-i", f"file:{source}", "-map", f"0:{track.index}", "-c", codec, "-t", 1]
        with contextlib.suppress(OSError):
            with ffmpeg.run(*options, f"file:{folder / f'track{suffix}'}"):
                pass
            return codec
    return ""


def join_parts(parts: Path, lengths: list[float | Fraction], output: Output, seconds: float = 0) -> None:
    """Join the parts of a video as they are, and add the tracks; the file appears when whole.

    Args:
        parts: folder of the parts, `00000.mp4` and so on.
        lengths: seconds that each part lasts.
        output: what to write.
        seconds: to write and then to delete, as a trial; 0 for all.
    """
    ends = [round(end * 10**6) for end in itertools.accumulate([0, *lengths])]  # in microseconds
    names = sorted(path.name for path in parts.glob("[0-9]*.m*") if ".part." not in path.name)
    entries = [f"file {name}\nduration {(ends[k + 1] - ends[k]) / 1e6:.6f}" for k, name in enumerate(names)]
    (parts / "list.txt").write_text("\n".join(["ffconcat version 1.0", *entries, ""]))
    suffix = output.target.suffix.lower()
    whole, listed = parts / f"whole{suffix}", ["-f", "concat", "-i", f"file:{parts / 'list.txt'}"]
    if suffix == ".gif":
        with ffmpeg.run(*listed, "-vf", "palettegen", f"file:{(palette := parts / 'palette.png')}"):
            pass
        dither = ["-lavfi", "paletteuse=dither=bayer:bayer_scale=4:diff_mode=rectangle"]
        comment = ["-metadata", f"comment={output.key}"]
        arguments = [*listed, "-i", f"file:{palette}", *dither, *comment]
    else:
        limit = ["-t", seconds] if seconds else []
        arguments = ["-copyts", *limit, "-itsoffset", output.start, *listed]
        if output.source:
            arguments += [*limit, "-itsoffset", -output.base, "-i", f"file:{output.source}"]
        arguments += ["-map", "0:v", "-c:v", "copy"]
        for place, (track, codec) in enumerate(output.tracks, start=1):
            arguments += ["-map", f"1:{track.index}", f"-c:{place}", codec]
        if output.source:
            arguments += ["-map_metadata", 1, "-map_chapters", 1]
        own = output.comment.partition("interpolated by vfi-dncnn")[0].strip("; ")
        arguments += ["-metadata", f"comment={own}{'; ' if own else ''}{output.key}"]
        arguments += ["-video_track_timescale", output.timescale] if output.timescale else []
    with ffmpeg.run(*arguments, f"file:{whole}"):
        pass
    if seconds:
        whole.unlink()
    else:
        whole.replace(output.target)


def file_digest(path: Path) -> str:
    """Short fingerprint of a file, however large; "" if it is not there."""
    if not path.is_file():
        return ""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def comment_of(path: Path) -> str:
    """Comment that a video file holds, or ""."""
    command = ["-i", f"file:{path}", "-f", "ffmetadata", "-"]
    with contextlib.suppress(OSError), ffmpeg.run(*command, stdout=subprocess.PIPE) as process:
        text = process.stdout.read().decode(errors="replace")
        found = re.search(r"^comment=((?:.*\\\n)*.*)$", text, re.I | re.M)
        return re.sub(r"\\(.|\n)", r"\1", found[1]) if found else ""
    return ""


def write_comparison(source: Path, made: Path, path: Path, size: tuple[int, int], stretch: int, rate) -> None:
    """Write a video with the source's frames, each held, on the left and the new ones on the right, `rate` a second."""
    width, height = (2 * (side // 2) for side in size)
    left = f"[0:v:0]setpts={stretch}*(PTS-STARTPTS),fps={rate}:round=down,scale={width}:{height},setsar=1[left]"
    right = f"[1:v:0]setpts=PTS-STARTPTS,fps={rate}:round=down,scale={width}:{height},setsar=1[right]"
    both = f"{left};{right};[left][right]hstack,format=yuv420p"
    options = [*ffmpeg.encoder_options("h264"), "-f", "mp4"]
    part = path.with_name(path.name + ".part")
    try:
        with ffmpeg.run("-i", f"file:{source}", "-i", f"file:{made}", "-lavfi", both, *options, f"file:{part}"):
            pass
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
