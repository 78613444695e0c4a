"""What is asked of a video, and what it will become: checked and planned before a frame is predicted."""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from stages import ffmpeg, shots, streams

SUFFIXES = {  # endings of videos, each with the codecs that it may hold, the usual one first
    ".mp4": ("h264", "h265", "av1", "vp9"),
    ".mov": ("h264", "h265", "prores"),
    ".mkv": ("h264", "h265", "av1", "vp9", "prores"),
    ".webm": ("vp9", "av1"),
    ".gif": ("gif",),
    "": ("png",),  # a folder of pictures
}
TRANSPARENT = {"png": "rgba", "prores": "yuva444p10le"}  # codecs that keep it, and ffmpeg's formats of pixels
TO_STANDARD_RANGE = (  # ffmpeg's filters for high dynamic range
    "zscale=t=linear:npl=203,format=gbrpf32le,zscale=p=bt709,tonemap=mobius:desat=0,"
    "zscale=t=bt709:m=bt709:r=tv,format=yuv444p"
)


def shown(path: Path) -> str:
    """Name of a file as it is printed: on one line."""
    return re.sub(r"[\x00-\x1f\x7f]", "?", path.name)


def parse_rate(text: str | float | Fraction) -> Fraction:
    """Frame rate from "60", "60000/1001" or "59.94", which means 60000/1001; ValueError if it is none."""
    rate = Fraction(str(text))
    exact = Fraction(round(rate * 1001 / 1000) * 1000, 1001)
    return exact if rate.denominator > 1 and abs(rate - exact) < Fraction(1, 200) else rate


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is asked of a video; the command line has the same names."""

    factor: int | None = None  # frames for each one; 2 if there is no fps either
    fps: str | float | Fraction | None = None  # of the new video; of the source, if that is pictures
    mode: str = "smooth"  # more frames a second, or "slow": more seconds
    model: str = "path"
    max_side: int = 0  # px; a larger video is shrunk to it. 0 keeps the size
    scene_threshold: float = 10  # how many levels of 255 a cut changes a thumbnail more than the steps around it do
    dedupe: bool = False  # frames that repeat the one before are taken out, and their times interpolated
    sound: bool = True
    codec: str = ""
    quality: float | None = None  # the encoder's own number; lower is better
    pixels: str = ""
    bits: int = 0  # 8 allows that a video of more is written with 8
    compare: bool = False
    overwrite: bool = False

    def problems(self, pictures: bool = False) -> list[str]:
        """Sentences about settings that cannot be, in the words of the command line."""
        rate = None
        with contextlib.suppress(ValueError, ZeroDivisionError):
            rate = parse_rate(self.fps or 1)
        factor_fits = self.factor is None or (isinstance(self.factor, int) and self.factor >= 2)
        both = self.factor and self.fps and self.mode == "smooth" and not pictures
        rules = [
            (factor_fits, f"--factor {self.factor}: must be a whole number of at least 2"),
            (rate and rate > 0, f"--fps {self.fps}: must be a rate such as 60 or 60000/1001"),
            (not both, f"--factor {self.factor} and --fps {self.fps}: choose one of them"),
            (self.mode in ("smooth", "slow"), f"--mode {self.mode}: must be smooth or slow"),
            (self.max_side >= 0, f"--max-side {self.max_side}: must be at least 0 px"),
            (self.scene_threshold >= 0, f"--scene-threshold {self.scene_threshold}: must be at least 0"),
            (self.codec in ("", *ffmpeg.ENCODERS), f"--codec {self.codec}: must be {', '.join(ffmpeg.ENCODERS)}"),
            (self.pixels in ("", "yuv420p", "yuv444p"), f"--pixels {self.pixels}: must be yuv420p or yuv444p"),
            (self.quality is None or 0 <= self.quality <= 63, f"--quality {self.quality}: must be 0 (best) to 63"),
            (self.bits in (0, 8), f"--bits {self.bits}: must be 8, or not be there"),
        ]
        return [sentence for fits, sentence in rules if not fits]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a video will become."""

    path: Path
    source: streams.Facts
    cuts: tuple[int, ...]  # indices of the first frames of new shots
    repeated: tuple[int, ...]  # indices of frames that repeat the one before
    used: tuple[int, ...]  # indices of the frames that are used
    shots: tuple[shots.Shot, ...]
    times: tuple[Fraction, ...]  # s; when each new frame is shown
    rate: Fraction | None  # frames per second; None if it varies
    seconds: Fraction
    size: tuple[int, int]  # (width, height) in px
    codec: str
    pixels: str
    sound: str  # "copied", "converted", "left out" or "none"
    stretch: int  # seconds for each one

    @property
    def frames(self) -> int:
        return len(self.times)

    @property
    def transparent(self) -> bool:
        return self.pixels in TRANSPARENT.values()

    @property
    def timescale(self) -> int:
        """Ticks per second in which the times of frames that are not evenly spaced are whole, or nearly; 0 if even."""
        exact = math.lcm(*(moment.denominator for moment in self.times)) if not self.rate else 0
        return exact if exact <= 200_000 else 90_000


def read_facts(source: Path | Sequence[Path], scene_threshold: float = 10, fps: Fraction | None = None) -> tuple:
    """Facts about a video or pictures (`streams.Facts`), indices of cuts, and of frames that repeat the one before.

    Raises:
        FileNotFoundError, ValueError, OSError: as `streams.read_facts`.
    """
    if isinstance(source, Path):
        facts, changed = streams.read_facts(source, shots.frame_changes)
    else:
        facts, changed = streams.picture_facts(
            source, fps or Fraction(25 if len(source) > 9 else 1), shots.frame_changes
        )
    cuts = [] if len(changed) == 2 and facts.files else shots.find_cuts(changed, scene_threshold)
    return facts, tuple(cuts), tuple(shots.find_duplicates(changed))


def check_target(source: Path | Sequence[Path], target: Path, settings: Settings) -> str:
    """Name of the codec for a target. ValueError says what is wrong with it, or with the settings."""
    problems = settings.problems(pictures=not isinstance(source, Path))
    suffix = target.suffix.lower()
    codecs = SUFFIXES.get(suffix, ())
    if not codecs or (suffix and target.is_dir()) or target in ([source] if isinstance(source, Path) else source):
        endings = ", ".join(filter(None, SUFFIXES))
        problems.append(f"{target}: must be another file than the input, and end in {endings}, or be a folder")
    elif settings.codec and settings.codec not in codecs:
        problems.append(f"--codec {settings.codec}: {suffix or 'a folder'} may hold {', '.join(codecs)}")
    if problems:
        raise ValueError(". ".join(problems) + ".")
    return settings.codec or codecs[0]


def plan_video(source: Path | Sequence[Path], target: Path, settings: Settings) -> Plan:
    """Plan of `interpolate_video`: the source has been read once, and all settings are checked.

    Raises:
        FileNotFoundError, ValueError, OSError: with one sentence that says why it cannot be done.
    """
    codec, pictures = check_target(source, target, settings), not isinstance(source, Path)
    requested = parse_rate(settings.fps) if settings.fps else None
    facts, cuts, repeated = read_facts(source, settings.scene_threshold, requested if pictures else None)
    requested, name = None if pictures else requested, shown(facts.path)
    stretch, factor = (settings.factor or 2) if settings.mode == "slow" else 1, settings.factor or 2
    average = (facts.frames - 1) / facts.times[-1]
    if requested and requested * stretch <= average * Fraction(1001, 1000):
        raise ValueError(f"--fps {settings.fps}: must be above the {float(average):.2f} frames a second of {name}.")
    if facts.bits > 8 and settings.bits != 8:
        kind = f"{facts.bits} bits a colour{' and high dynamic range' if facts.hdr else ''}"
        raise ValueError(f"{name} has {kind}, which predicted frames have not: --bits 8 writes it with 8.")
    if facts.hdr:
        facts = dataclasses.replace(
            facts,
            reading=f"{facts.reading},{TO_STANDARD_RANGE}",
            writing=re.sub("bt2020c?n?c?|arib-std-b67|smpte2084|bt2020", "bt709", facts.writing),
            notes=(*facts.notes, "its high dynamic range is brought to the standard one"),
        )
    moments = shots.list_moments(facts.times, facts.seconds, factor, requested and requested * stretch)
    if pictures:
        moments = moments[: 1 - factor]  # the last one has no duration that would have to be filled
    unused = repeated if settings.dedupe else shots.within_stills(facts.times, repeated)
    used = sorted(set(range(facts.frames)) - set(unused))
    times = [facts.times[index] for index in used]
    place = {index: at for at, index in enumerate(used)}
    starts = [place[cut] for cut in cuts] + shots.find_stills(times)
    rate = requested or facts.rate and facts.rate * factor / stretch
    near = 0 if facts.rate else 1e-3  # s
    shrink = max(1, max(facts.size) / (settings.max_side or math.inf))
    size = tuple(max(2, 2 * int(side / shrink / 2)) if shrink > 1 else side for side in facts.size)
    opaque = {"gif": "", "png": "", "prores": "yuv422p10le"}.get(codec, settings.pixels or "yuv420p")
    pixels = TRANSPARENT.get(codec, opaque) if facts.transparent else opaque
    if codec not in ("gif", "png", "vp9", "av1") and "444p" not in pixels:
        size = tuple(side + side % 2 for side in size)
    out = [moment * stretch for moment in moments]
    if codec == "gif" and min(after - before for before, after in itertools.pairwise(out)) < Fraction(1, 50):
        fps = f"{float(rate):g}" if rate else "more"
        raise ValueError(f"A GIF shows at most 50 frames a second, not {fps}: choose .mp4, or --mode slow.")
    keeps = settings.sound and stretch == 1 and codec not in ("gif", "png")
    return Plan(
        path=target,
        source=facts,
        cuts=cuts,
        repeated=repeated,
        used=tuple(used),
        shots=tuple(shots.list_shots(times, moments, starts, near)),
        times=tuple(out),
        rate=rate,
        seconds=len(moments) / rate if rate else facts.seconds * stretch,
        size=size,
        codec=codec,
        pixels=pixels,
        sound=("copied" if keeps else "left out") if facts.sound else "none",
        stretch=stretch,
    )


def describe(plan: Plan, settings: Settings, codecs: dict) -> None:
    """Print what a video holds and what it will become, a line for each thing to know."""
    source, count = plan.source, len(plan.shots)
    for name, facts in ((shown(source.path), source), (shown(plan.path), plan)):
        rate = f"{facts.rate} = {float(facts.rate):.2f} fps" if facts.rate else "variable frame rate"
        size = "{}x{} px".format(*facts.size)
        print(f"{name}: {facts.frames} frames, {size}, {rate}, {float(facts.seconds):.2f} s")
    kept = sum(len(set(shot.moments) & set(shot.times)) for shot in plan.shots)
    print(f"  {kept} of the {source.frames} frames as they are; {plan.frames} in {count} shot{'s' * (count > 1)}")
    at = [f"{float(source.times[cut]):.2f} s" for cut in plan.cuts]
    print(f"cuts: {', '.join(at) or 'none'}" + (" (the frame before a cut is held)" if at else ""))
    done = " (taken out, their times interpolated)" if settings.dedupe else " (--dedupe interpolates their times)"
    print(f"frames that repeat the one before: {len(plan.repeated)}{done if plan.repeated else ''}")
    print(f"sound: {plan.sound}")
    for note in source.notes:
        print(f"note: {note}")
    if source.transparent and not plan.transparent:
        print("note: its transparency is left out (--codec prores in a .mov, or a folder of pictures, keeps it)")
    if any(made - side == 1 for made, side in zip(plan.size, source.size)):
        print("note: its size is odd: an edge pixel is repeated, which all players show (--pixels yuv444p does not)")
    for track, codec in codecs.items():
        if codec != "copy":
            print(f"{'converting to ' + codec.removeprefix('lib') if codec else 'left out'}: {track}")
    if source.damage:
        print(f"DAMAGED: what can be read is {source.frames} frames, {float(source.seconds):.2f} s ({source.damage})")


def find_source(source: str | Path | Sequence[Path]) -> Path | list[Path]:
    """A video's path, or the pictures of a folder, in the order of their names: 2 before 10.

    Raises:
        ValueError: if it is an address on the network.
    """
    if not isinstance(source, str | Path):
        return [Path(path).expanduser().resolve() for path in source]
    if re.match(r"\w{2,}://", str(source)):
        raise ValueError(f"{source} is an address: download it first, and name the file.")
    path = Path(source).expanduser().resolve()
    if not path.is_dir():
        return [path] if path.suffix.lower() in ffmpeg.PICTURES else path
    pictures = [file for file in path.iterdir() if file.suffix.lower() in ffmpeg.PICTURES]
    natural = lambda file: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", file.name.lower())]  # noqa: E731
    return sorted(pictures, key=natural) or path


def find_sources(names: Sequence[str | Path]) -> list[Path | list[Path]]:
    """Videos and lists of pictures that paths, folders and patterns name; a path that is there is no pattern.

    Raises:
        FileNotFoundError: if one of the names matches nothing.
        ValueError: if it is an address on the network.
    """
    found, pictures = [], []
    for name in names:
        source = find_source(name)
        paths = [source]
        if not Path(name).expanduser().exists():
            matches = sorted(glob.glob(str(Path(name).expanduser()), recursive=True))
            if not matches:
                raise FileNotFoundError(f"{Path(name).expanduser().resolve()} is not there.")
            paths = [find_source(match) for match in matches]
        elif isinstance(source, Path) and source.is_dir():
            paths = [path for path in sorted(source.iterdir()) if path.suffix.lower() in ffmpeg.VIDEOS]
            if not paths:
                raise FileNotFoundError(f"{source} is a folder without videos or pictures.")
        for path in paths:
            single = isinstance(path, list) and len(path) == 1
            (pictures if single else found).append(path[0] if single else path)
    return [*found, pictures] if pictures else found


def name_targets(sources: Sequence[Path | list[Path]], folder: Path, ending: str = ".mp4") -> list[Path]:
    """Paths in a folder for the results, a name of its own for each source."""
    names = []
    for source in sources:
        path = source if isinstance(source, Path) else source[0].parent
        name, tries = path.stem, itertools.count(2)
        if name.lower() in map(str.lower, names):
            name += path.suffix.replace(".", "-")
        while name.lower() in map(str.lower, names):
            name = f"{path.stem}-{next(tries)}"
        names.append(name)
    return [folder / f"{name}{ending}" for name in names]
