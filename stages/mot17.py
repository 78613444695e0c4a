"""MOT17 from its archives: one copy of the sequences wanted, checked image by image, and nothing else."""

from __future__ import annotations

import contextlib
import errno
import io
import re
import struct
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from tqdm import tqdm

import vfi_utils as vfi
from stages import archives, download, markers, seqinfo
from stages.download import Source


class Sequence(NamedTuple):
    """What is known of a sequence: sizes in px, `rate` in frames a second, `camera` "fixed" or "moving"."""

    split: str
    frames: int
    width: int
    height: int
    rate: int
    camera: str


# What MOT17 holds, from https://motchallenge.net/data/MOT17.
MOT17 = {
    "MOT17-02": Sequence("train", 600, 1920, 1080, 30, "fixed"),
    "MOT17-04": Sequence("train", 1050, 1920, 1080, 30, "fixed"),
    "MOT17-05": Sequence("train", 837, 640, 480, 14, "moving"),
    "MOT17-09": Sequence("train", 525, 1920, 1080, 30, "fixed"),
    "MOT17-10": Sequence("train", 654, 1920, 1080, 30, "moving"),
    "MOT17-11": Sequence("train", 900, 1920, 1080, 30, "moving"),
    "MOT17-13": Sequence("train", 750, 1920, 1080, 25, "moving"),
    "MOT17-01": Sequence("test", 450, 1920, 1080, 30, "fixed"),
    "MOT17-03": Sequence("test", 1500, 1920, 1080, 30, "fixed"),
    "MOT17-06": Sequence("test", 1194, 640, 480, 14, "moving"),
    "MOT17-07": Sequence("test", 500, 1920, 1080, 30, "moving"),
    "MOT17-08": Sequence("test", 625, 1920, 1080, 30, "fixed"),
    "MOT17-12": Sequence("test", 900, 1920, 1080, 30, "moving"),
    "MOT17-14": Sequence("test", 750, 1920, 1080, 25, "moving"),
}

# Where MOT17 is fetched from, in the order tried. What is noted of each is what its users report. Nothing is taken on
# trust: what arrives is checked, frame by frame.
SOURCES = [
    # The authors' server: about 1.9 GB, each image once, in train/MOT17-02/img1/; answers range requests.
    Source("https://motchallenge.net/data/MOT17Det.zip"),
    # PaddleDetection's mirror: one detector's copy, in MOT17/images/train/MOT17-02-SDP/img1/.
    Source(
        "https://bj.bcebos.com/v1/paddledet/data/mot/MOT17.zip",
        2_388_186_946,
        "4253cf596550847a74f58859fee6a1263a03c5bd946ec9545c0119e8e5e5e800",
    ),
    # The authors' server: 5.5 GB, each image three times, in MOT17/train/MOT17-02-{DPM,FRCNN,SDP}/img1/.
    Source("https://motchallenge.net/data/MOT17.zip"),
]
FRAME = re.compile(r"(?:.*/)?(train|test)/(MOT17-\d\d)(?:-\w+)?/img1/(\d{6})\.jpg")
SPOILT = (ValueError, EOFError, RuntimeError, struct.error, zlib.error, zipfile.BadZipFile)  # encrypted: RuntimeError
OTHERWISE = "or set DATASET = 'sample' and Run all."


def numbers_of(sequence: str) -> set[int]:
    """Numbers of a sequence's frames, from 1."""
    return set(range(1, MOT17[sequence].frames + 1))


def find_copies(archive) -> dict[str, dict[int, object]]:
    """One copy of each sequence, the most complete: `{sequence: {frame number: member}}`."""
    folders = {}
    for member in archive.infolist():
        found = FRAME.fullmatch(member.filename)
        if found and found[2] in MOT17 and MOT17[found[2]].split == found[1]:
            folders.setdefault((found[2], member.filename.rpartition("/")[0]), {})[int(found[3])] = member
    copies = {}
    for (sequence, _), frames in sorted(folders.items(), key=lambda folder: folder[0]):
        held, best = (len(numbers_of(sequence) & set(copy)) for copy in (frames, copies.get(sequence, {})))
        if sequence not in copies or held > best:
            copies[sequence] = frames
    return copies


def describe_copy(sequence: str, frames: dict) -> str:
    """What a copy of a sequence lacks, for a message."""
    wanted = numbers_of(sequence)
    there = f"{sequence}: {len(wanted & set(frames))} of {len(wanted)} frames there"
    if not frames:
        return there
    numbered = f"{there}, numbered {min(frames):06d} to {max(frames):06d}"
    return f"{numbered}, without {min(wanted - set(frames)):06d}"


def check_frame(content: bytes, sequence: str) -> None:
    """Raise ValueError unless these bytes are a whole JPEG of the size that the sequence has in MOT17."""
    try:
        with Image.open(io.BytesIO(content), formats=["JPEG"]) as image:
            size = image.size
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError("not a JPEG") from error
    if size != (known := MOT17[sequence])[2:4]:
        raise ValueError(f"{size[0]}x{size[1]} px instead of {known.width}x{known.height}")
    if b"\xff\xd9" not in content[-1024:]:  # the end-of-image marker
        raise ValueError("a JPEG that is cut short")


def write_frames(archive, spans: list[archives.Span], place: Path, sequence: str, bar: tqdm) -> list[str]:
    """Faults of frames that are not whole; all others are written as they arrive."""
    faults, in_a_row = [], 0
    for number, member in archives.arriving(archive, spans, bar):
        try:
            content = archive.read(member)
            check_frame(content, sequence)
        except SPOILT as error:
            faults.append(f"{sequence} frame {number:06d}: {error or type(error).__name__}")
            in_a_row += 1
            if in_a_row == 10:  # not a few bad bytes, but other footage
                break
            continue
        in_a_row = 0
        vfi.write_atomic(place / "img1" / f"{number:06d}.jpg", content)
    return faults


def finish_sequence(place: Path, sequence: str) -> list[int]:
    """Numbers of the frames that are not whole in a sequence's folder; if none, it is marked as finished."""
    missing, known = [], MOT17[sequence]
    for number in sorted(numbers_of(sequence)):
        try:
            check_frame((place / "img1" / f"{number:06d}.jpg").read_bytes(), sequence)
        except (FileNotFoundError, ValueError):
            missing.append(number)
    if not missing:
        size = (known.width, known.height)
        seqinfo.write_seqinfo(place, rate=known.rate, frames=known.frames, size=size, camera=known.camera)
        markers.mark_finished(place, {"sequence": sequence, "mot17": known})
        tqdm.write(f"  {sequence}: {known.frames} frames, whole")
    return missing


def take_sequence(archive, copy: dict, place: Path, sequence: str, missing: dict, bar: tqdm) -> list[str]:
    """Faults that are left after the frames `missing[sequence]`, kept up to date, were taken from a whole copy.

    What is wrong is read a second time: bytes may have been spoilt on the way.
    """
    faults = []
    for again in (False, True):
        wanted = {number: copy[number] for number in missing[sequence]}
        sizes = {n: max(member.file_size, getattr(member, "compress_size", 0)) for n, member in wanted.items()}
        large = [number for number, size in sizes.items() if size > download.LARGEST]
        faults = [f"{sequence} frame {n:06d}: it says that it has {sizes[n] / 2**20:,.0f} MiB" for n in large]
        spans = archives.plan_spans(archive, {n: member for n, member in wanted.items() if n not in large})
        if again:
            bar.total += sum(span.stop - span.start for span in spans)
        try:
            faults += write_frames(archive, spans, place, sequence, bar)
        finally:
            missing[sequence] = finish_sequence(place, sequence)
        if not missing[sequence]:
            return []
        tqdm.write(f"  {'; '.join(faults[:3])}; attempt {1 + again} of 2")
    return [*faults[:3], *([f"and {len(faults) - 3} more of {sequence}"] if len(faults) > 3 else [])]


def fetch_from(source: Source, folder: Path, missing: dict[str, list[int]]) -> list[str]:
    """Reasons why some is still `missing`, which is kept up to date, after fetching from one source.

    Raises:
        OSError: if the disk is too small. All that is wrong with the source itself is returned instead.
    """
    with contextlib.ExitStack() as opened:
        try:
            archive = opened.enter_context(archives.open_archive(source, folder))
            copies = find_copies(archive)
            if not copies:
                raise ValueError("no member such as train/MOT17-02/img1/000001.jpg")
        except Exception as error:  # each library has its own, and the next source may do
            return [download.describe(error)]
        whole = [sequence for sequence in missing if numbers_of(sequence) <= set(copies.get(sequence, ()))]
        reasons = [describe_copy(sequence, copies.get(sequence, {})) for sequence in missing if sequence not in whole]
        wanted = {s: {number: copies[s][number] for number in missing[s]} for s in whole}
        sizes = [member.file_size for frames in wanted.values() for member in frames.values()]
        need = sum(size for size in sizes if size <= download.LARGEST)
        remedy = f"Free some space, choose fewer SEQUENCES, set VFI_WORK to a folder on another disk, {OTHERWISE}"
        vfi.check_disk(folder, need, f"MOT17 ({len(whole)} sequences)", remedy)
        spans = [span for frames in wanted.values() for span in archives.plan_spans(archive, frames)]
        with download.progress(sum(span.stop - span.start for span in spans)) as bar:
            for sequence in whole:
                place = folder / MOT17[sequence].split / sequence
                try:
                    reasons += take_sequence(archive, copies[sequence], place, sequence, missing, bar)
                except Exception as error:
                    if getattr(error, "errno", None) == errno.ENOSPC:
                        raise
                    return [*reasons, f"{sequence}: {download.describe(error)}"]
    return reasons


def list_sources(sources, local: str, drive_id: str) -> list[Source]:
    """Sources in the order tried: what is on disk, servers, Google Drive; FileNotFoundError if `local` is not there."""
    path = Path(local).expanduser()
    if local and not path.exists():
        raise FileNotFoundError(f"There is nothing at {path.resolve()}: give a zip or a folder, {OTHERWISE}")
    here = [path] if local else []
    here += [path for path in (vfi.work("MOT17.zip"), vfi.work("MOT17Det.zip")) if path.exists()]
    queue = [Source(str(path)) for path in here]
    queue += [Source(*source) for source in (SOURCES if sources is None else sources)]
    return queue + ([Source(f"drive:{download.drive_id(drive_id)}")] if drive_id else [])


def get_mot17(folder: Path, sequences=None, sources=None, local: str = "", drive_id: str = "") -> Path:
    """Folder of sequences of MOT17, one copy of each: `<split>/<sequence>/img1/%06d.jpg` and `seqinfo.ini`.

    Looks on disk first (`local`, then MOT17.zip or MOT17Det.zip in `work()`), then at `sources`, then on Google Drive.
    From a server that answers range requests only the bytes of these sequences are fetched. What is whole is kept:
    interrupted, or with a source that fails half-way, it goes on with the frames that are missing.

    Args:
        folder: where the sequences go.
        sequences: names such as "MOT17-02"; None for all 14.
        sources: as `SOURCES`, which is the default.
        local: a zip of MOT17 on disk, or a folder into which one was unpacked.
        drive_id: the id, or the link, of a zip of MOT17 on Google Drive.

    Raises:
        ValueError: if MOT17 has no sequence of such a name, or `drive_id` is neither.
        FileNotFoundError: if there is nothing at `local`.
        OSError: if the disk is too small, or no source gives a sequence whole; it names each source and why.
    """
    wanted = list(MOT17) if sequences is None else list(sequences)
    if unknown := [name for name in wanted if name not in MOT17]:
        raise ValueError(f"MOT17 has no sequence {', '.join(unknown)}. Choose of {', '.join(MOT17)}, {OTHERWISE}")
    queue = list_sources(sources, local, drive_id)
    places = {name: folder / MOT17[name].split / name for name in wanted}
    unfinished = [n for n in wanted if not markers.is_finished(places[n], {"sequence": n, "mot17": MOT17[n]})]
    missing = {name: finish_sequence(places[name], name) for name in unfinished}
    tried = []
    folder.mkdir(parents=True, exist_ok=True)
    for source in queue:
        missing = {name: numbers for name, numbers in missing.items() if numbers}
        if not missing:
            break
        print(f"MOT17 from {source.address}", flush=True)
        if reasons := fetch_from(source, folder, missing):
            reason = " ".join("; ".join(reasons).split())[:500]
            tried.append(f"{source.address}: {reason}")
            print(f"  not all came: {reason}", flush=True)
    if incomplete := [name for name, numbers in missing.items() if numbers]:
        raise OSError(
            "\n- ".join([f"No source gave all of {', '.join(incomplete)}:", *tried])
            + "\nDownload MOT17.zip in a browser (https://motchallenge.net/data/MOT17.zip), put it at "
            + f"{vfi.work('MOT17.zip')}, and run this cell again: it is found there, and what has come so far is kept; "
            + OTHERWISE
        )
    for source in queue:  # of sources that broke off
        archives.forget(source, folder)
    print(f"MOT17: {len(wanted)} sequences, {len(wanted) - len(unfinished)} of them from before, in {folder}")
    return folder
