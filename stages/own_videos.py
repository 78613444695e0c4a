"""Your own videos as training and test footage: split in time, and into shots where there are cuts."""

from __future__ import annotations

import contextlib
import itertools
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from PIL import Image

import vfi_utils as vfi
from stages import ffmpeg, markers, seqinfo, shots

GAP = 7  # frames left out between a clip's training and its test frames, so that no frame is near both


@dataclass(frozen=True)
class ClipFacts:
    """Frame rate, size in px and expected number of frames of a clip."""

    fps: float
    width: int
    height: int
    frames: int


def read_pictures(folder: Path) -> Iterator:
    """The `ClipFacts` of a MOT17-shaped sequence, then its frames, which must be of one size: uint8 `[H, W, 3]`."""
    files, rate = vfi.image_files(folder), seqinfo.read_seqinfo(folder).rate
    if not rate:
        raise OSError("its seqinfo.ini tells no frame rate")
    first = vfi.read_frame(files[0], None)
    yield ClipFacts(fps=rate, width=first.shape[1], height=first.shape[0], frames=len(files))
    for file in files:
        frame = vfi.read_frame(file, None)
        if frame.shape != first.shape:
            raise OSError(
                f"{file.name} is {frame.shape[1]}x{frame.shape[0]} px, the first {first.shape[1]}x{len(first)}"
            )
        yield frame


def read_video(path: Path) -> Iterator:
    """The `ClipFacts` of a video, then its frames, each once: uint8 `[H, W, 3]`.

    The whole path is given to ffmpeg, which would open a file `http:x.mp4` as an address.
    """
    with contextlib.closing(imageio_ffmpeg.read_frames(str(path.absolute()))) as stream:
        facts = next(stream)
    frames = ffmpeg.read_frames(path.absolute())
    first = next(frames)
    height, width = first.shape[:2]
    yield ClipFacts(fps=facts["fps"], width=width, height=height, frames=round(facts["fps"] * facts["duration"]))
    yield from itertools.chain([first], frames)


def read_clip(path: Path) -> Iterator:
    """The `ClipFacts` of a video or a MOT17-shaped sequence, then its frames: uint8 `[H, W, 3]`.

    ValueError says why one is unreadable.
    """
    try:
        clip = read_pictures(path) if path.is_dir() else read_video(path)
        facts = next(clip)
        if facts.fps <= 0:
            raise OSError("it has no frame rate")
        yield from itertools.chain([facts], clip)
    except (OSError, RuntimeError, ValueError, SyntaxError, LookupError, AttributeError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(f"{path.name} cannot be read: {reason[-1]}") from error


def import_clip(path: Path, name: str, folder: Path) -> str:
    """Report on a clip, decoded once: of each shot, the part in the first 80% and that in the end become sequences.

    Windows never cross sequences, so none crosses a cut, and no frame is near both a training and a test window.
    """

    def keep(frames: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        for index, frame in enumerate(frames):
            Image.fromarray(frame).reduce(factor).save(decoded / f"{index}.jpg", quality=95, subsampling=0)
            yield frame

    decoded = folder / "clips" / name / "decoded"
    decoded.mkdir(parents=True)
    with contextlib.closing(read_clip(path)) as clip:
        facts = next(clip)
        factor = max(1, facts.width // 480)
        width, height = (-(-side // factor) for side in (facts.width, facts.height))  # rounded up, as `reduce` does
        print(f"reading {path.name}: about {facts.frames} frames", flush=True)
        vfi.check_disk(folder, facts.frames * width * height, f"Importing {path.name}")  # a byte a pixel is plenty
        changed = shots.frame_changes(keep(clip))
    count, cuts, made = len(changed), shots.find_cuts(changed), {}
    train = round(0.8 * max(count - GAP, 0))
    for shot, (first, end) in enumerate(zip([0, *cuts], [*cuts, count], strict=True), start=1):
        sequence = f"{name}-shot{shot}" if cuts else name
        made[f"train/{sequence}"] = range(first, min(end, train))
        made[f"test/{sequence}"] = range(max(first, train + GAP), end)
    made = {sequence: part for sequence, part in made.items() if len(part) >= vfi.WINDOW}  # the others are left out
    for sequence, part in made.items():
        (folder / sequence / "img1").mkdir(parents=True)
        for number, index in enumerate(part, start=1):
            (decoded / f"{index}.jpg").rename(folder / sequence / "img1" / f"{number:06d}.jpg")
        seqinfo.write_seqinfo(folder / sequence, rate=facts.fps, frames=len(part), size=(width, height))
    shutil.rmtree(decoded)
    times = ", ".join(f"{cut / facts.fps:.2f} s" for cut in cuts) or "none"
    report = f"{path.name}: {count} frames, {width}x{height}, {facts.fps:g} fps; cuts: {times}; repeated frames: "
    lengths = "".join(f"{name} {len(part)}, " for name, part in made.items())
    return f"{report}{len(shots.find_duplicates(changed))}; {lengths}left out {count - sum(map(len, made.values()))}"


def find_clips(source: Path) -> dict[str, Path]:
    """Videos and MOT17-shaped sequences that stand in a folder, each under a name of its own."""
    clips = {}
    for path in sorted(source.iterdir()):
        video = path.is_file() and path.suffix.lower() in ffmpeg.VIDEOS and not path.name.startswith(".")
        if video or ((path / "img1").is_dir() and vfi.image_files(path)):
            name = re.sub(r"\W+", "-", path.stem if video else path.name).strip("-") or "clip"
            name = re.sub("(?i)-(?=shot)", "_", name)  # a-shot1 is what import_clip calls the first shot of a
            while name.lower() in map(str.lower, clips):  # a.mov and a.mp4 become a and a-mp4
                name += path.suffix.lower().replace(".", "-") or "-frames"
            clips[name] = path
    if not clips:
        wanted = f"videos ({', '.join(ffmpeg.VIDEOS)}) and folders with img1/*.jpg"
        raise FileNotFoundError(f"Nothing to import from {source.resolve()}: looked for {wanted}. Put some there.")
    return clips


def import_videos(source: Path, folder: Path) -> None:
    """Bring the clips of a folder (see `find_clips`) into MOT17's layout in `folder`; those already there are kept.

    A clip that changed is imported again, one that left `source` leaves `folder` too, and one that cannot be read is
    named and left out. ValueError if what could be read is too short for a training and a test sequence.
    """

    def remove(name: str) -> None:
        shutil.rmtree(folder / "clips" / name, ignore_errors=True)  # with its marker, first
        for sequence in [*folder.glob(f"t*/{name}"), *folder.glob(f"t*/{name}-shot*")]:
            shutil.rmtree(sequence)

    clips = find_clips(source)
    print(f"clips in {source}: {len(clips)}; wide frames are shrunk to 480 to 959 px (the notebooks work at 160x90)")
    for name in sorted({marker.name for marker in folder.glob("clips/*")} - set(clips)):
        print(f"{name} is no longer there: its sequences are removed")
        remove(name)
    for name, path in clips.items():
        stats = [file.stat() for file in ([path] if path.is_file() else vfi.image_files(path))]
        settings = {"bytes": sum(s.st_size for s in stats), "modified": max(s.st_mtime_ns for s in stats)}
        settings |= {"file": path.name, "split": [0.8, GAP, vfi.WINDOW]}
        marker = folder / "clips" / name
        if markers.is_finished(marker, settings):
            print("reusing", markers.read_json(marker / "stage.json")["report"])
            continue
        remove(name)
        try:
            report = import_clip(path, name, folder)
            markers.mark_finished(marker, settings, report=report)
            print(report)
        except ValueError as error:
            remove(name)
            print(f"left out: {error}")
    for split in ("train", "test"):
        if not any(folder.glob(f"{split}/*/img1")):
            needed = "A clip needs 40 frames without a cut: 26 to train, 7 between, 7 to test."
            raise ValueError(f"{source} gave no {split} sequence. {needed}")
