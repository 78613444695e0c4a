"""MOT17 from its archives: one copy of the sequences wanted, checked image by image, and nothing else."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import itertools
import math
import re
import time
import urllib.request
import zipfile
import zlib
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import aiohttp
import fsspec
import gdown
from fsspec.caching import KnownPartsOfAFile
from PIL import Image

import vfi_utils as vfi
from stages import seqinfo

# What MOT17 holds: (split, frames, width, height, frames per second, camera), from https://motchallenge.net/data/MOT17.
MOT17 = {
    "MOT17-02": ("train", 600, 1920, 1080, 30, "fixed"),
    "MOT17-04": ("train", 1050, 1920, 1080, 30, "fixed"),
    "MOT17-05": ("train", 837, 640, 480, 14, "moving"),
    "MOT17-09": ("train", 525, 1920, 1080, 30, "fixed"),
    "MOT17-10": ("train", 654, 1920, 1080, 30, "moving"),
    "MOT17-11": ("train", 900, 1920, 1080, 30, "moving"),
    "MOT17-13": ("train", 750, 1920, 1080, 25, "moving"),
    "MOT17-01": ("test", 450, 1920, 1080, 30, "fixed"),
    "MOT17-03": ("test", 1500, 1920, 1080, 30, "fixed"),
    "MOT17-06": ("test", 1194, 640, 480, 14, "moving"),
    "MOT17-07": ("test", 500, 1920, 1080, 30, "moving"),
    "MOT17-08": ("test", 625, 1920, 1080, 30, "fixed"),
    "MOT17-12": ("test", 900, 1920, 1080, 30, "moving"),
    "MOT17-14": ("test", 750, 1920, 1080, 25, "moving"),
}

# Where MOT17 is fetched from, in the order tried: (address, bytes, SHA-256), 0 and "" where not known. What is noted
# of each is what its users report. Nothing is taken on trust: what arrives is checked, frame by frame.
SOURCES = [
    # The authors' server: about 1.9 GB, each image once, in train/MOT17-02/img1/; answers range requests.
    ("https://motchallenge.net/data/MOT17Det.zip", 0, ""),
    # PaddleDetection's mirror: one detector's copy, in MOT17/images/train/MOT17-02-SDP/img1/.
    (
        "https://bj.bcebos.com/v1/paddledet/data/mot/MOT17.zip",
        2_388_186_946,
        "4253cf596550847a74f58859fee6a1263a03c5bd946ec9545c0119e8e5e5e800",
    ),
    # The authors' server: 5.5 GB, each image three times, in MOT17/train/MOT17-02-{DPM,FRCNN,SDP}/img1/.
    ("https://motchallenge.net/data/MOT17.zip", 0, ""),
]
FRAME = re.compile(r"(?:.*/)?(train|test)/(MOT17-\d\d)(?:-\w+)?/img1/(\d{6})\.jpg")
SPAN, CONNECTIONS = 16 * 2**20, 4  # bytes fetched by one request, requests at a time


class Progress:
    """Plain lines of bytes, speed and minutes left, one every 5 % or 30 s."""

    def __init__(self, total: float):
        self.total, self.done, self.printed = total or math.inf, 0, 0
        self.started = self.last = time.monotonic()

    def add(self, count: int) -> None:
        self.done += count
        now = time.monotonic()
        if self.done - self.printed >= self.total / 20 or now - self.last >= 30:
            self.printed, self.last = self.done, now
            speed = self.done / max(now - self.started, 1e-3)
            size = f"{self.done / 2**20:,.0f} of {self.total / 2**20:,.0f} MiB, {speed / 2**20:.1f} MiB/s"
            print(f"  {size}, {(self.total - self.done) / speed / 60:.1f} min left", flush=True)


class FolderArchive:
    """A folder on disk, as `zipfile.ZipFile` shows an archive."""

    def __init__(self, path: Path):
        self.path = path.resolve()

    def infolist(self) -> list:
        return [SimpleNamespace(filename=p.as_posix(), file_size=p.stat().st_size) for p in self.path.rglob("*.jpg")]

    def read(self, member) -> bytes:
        return Path(member.filename).read_bytes()


def retry(action, *arguments):
    """Result of `action`; a connection that breaks is tried three times."""
    for attempt in range(2):
        try:
            return action(*arguments)
        except Exception as error:  # aiohttp, fsspec and zipfile each have their own
            print(f"  {type(error).__name__}: {error}; trying again", flush=True)
            time.sleep(1 + attempt)
    return action(*arguments)


def fetch_span(remote, start: int, stop: int) -> bytes:
    """Bytes of a remote file, over a connection of their own."""
    with remote.fs.open(remote.path, size=remote.size, cache_type="none") as span:
        span.seek(start)
        content = span.read(stop - start)
    if len(content) != stop - start:
        raise OSError(f"{len(content)} bytes came instead of {stop - start}")
    return content


def arriving(archive, frames: dict):
    """Pairs (frame number, member), once they can be read: from a server, in large spans over several connections."""
    remote = getattr(archive, "fp", None)
    if not hasattr(remote, "cache"):  # it is on disk
        yield from frames.items()
        return
    marks = sorted({member.header_offset for member in archive.infolist()} | {archive.start_dir})
    ends = dict(zip(marks, marks[1:]))
    spans = []  # [start, stop, frames]
    for number, member in sorted(frames.items(), key=lambda frame: frame[1].header_offset):
        start, stop = member.header_offset, ends[member.header_offset]
        if not spans or start - spans[-1][1] > SPAN // 256 or stop - spans[-1][0] > SPAN:
            spans.append([start, stop, []])
        spans[-1][1] = stop
        spans[-1][2].append((number, member))
    pool = ThreadPoolExecutor(CONNECTIONS)
    requests = ((span, pool.submit(retry, fetch_span, remote, *span[:2])) for span in spans)
    ahead = deque(itertools.islice(requests, CONNECTIONS))
    try:
        while ahead:
            (start, stop, here), content = ahead.popleft()
            remote.cache = KnownPartsOfAFile(SPAN, None, remote.size, {(start, stop): content.result()})
            ahead.extend(itertools.islice(requests, 1))
            yield from here
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def refuse_web_page(start: bytes) -> None:
    """Raise ValueError, by the first bytes of a file, if it is HTML: a login or an error page sent as the archive."""
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        raise ValueError("a web page (HTML: a login, an error?) came instead of a zip")


def request_archive(source: tuple, path: Path) -> int:
    """Size of an archive on a server that answers range requests; from any other it is saved to `path`."""
    address, size, sha256 = source
    headers = {"Range": "bytes=0-1023", "User-Agent": f"vfi-dncnn/{vfi.VERSION}"}
    with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=30) as reply:
        content = reply.read(1024)
        refuse_web_page(content)
        if reply.status == 206:
            return int(reply.headers["Content-Range"].rpartition("/")[2])
        size = int(reply.headers.get("Content-Length") or size)
        print(f"  it answers no range requests: all {size / 2**20:,.0f} MiB are fetched", flush=True)
        vfi.check_disk(path.parent, size, "The archive")
        progress, part = Progress(size), path.with_name(path.name + ".part")
        try:
            with part.open("w+b") as file:
                while content:
                    file.write(content)
                    progress.add(len(content))
                    content = reply.read(2**20)
                if size and progress.done != size:
                    raise OSError(f"the connection ended after {progress.done:,} of {size:,} bytes")
                file.seek(0)
                if sha256 and hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                    raise ValueError(f"its SHA-256 is not {sha256}")
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)  # without ranges there is no going on with a part
    return size


@contextlib.contextmanager
def open_archive(source: tuple, folder: Path):
    """Archive with `infolist` and `read`, opened at a source of MOT17; what is not read stays on the server.

    An archive that can only be fetched whole is kept in `folder` until what is wanted of it was taken.
    """
    address, size, _ = source
    remote = address.startswith(("http:", "https:", "drive:"))
    path = folder / re.sub(r"[^\w.]+", "-", address) if remote else Path(address)
    if address.startswith("drive:") and not path.exists():
        gdown.download(id=address.removeprefix("drive:"), output=str(path), resume=True)
    elif remote and not path.exists():
        size = request_archive(source, path)
        if not path.exists():
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)
            files = fsspec.filesystem("http", client_kwargs={"timeout": timeout, "trust_env": True})
            yield retry(zipfile.ZipFile, files.open(address, size=size, cache_type="none"))
            return
    if path.is_dir():
        yield FolderArchive(path)
        return
    try:
        with path.open("rb") as file:
            refuse_web_page(file.read(1024))
        archive = zipfile.ZipFile(path)
    except (ValueError, zipfile.BadZipFile):
        if remote:
            path.unlink()
        raise
    with archive:
        yield archive
    if remote:
        path.unlink()


def find_copies(archive) -> dict[str, dict[int, object]]:
    """One copy of each sequence, `{sequence: {frame number: member}}`: a whole one if there is any."""
    folders = {}
    for member in archive.infolist():
        found = FRAME.fullmatch(member.filename)
        if found and found[2] in MOT17 and MOT17[found[2]][0] == found[1]:
            folders.setdefault((found[2], member.filename.rpartition("/")[0]), {})[int(found[3])] = member
    copies = {}
    for (sequence, _), frames in sorted(folders.items(), key=lambda folder: folder[0]):
        if sequence not in copies or set(frames) == set(range(1, MOT17[sequence][1] + 1)):
            copies[sequence] = frames
    return copies


def check_frame(content: bytes, sequence: str) -> None:
    """Raise ValueError unless these bytes are a whole JPEG of the size that the sequence has in MOT17."""
    try:
        with Image.open(io.BytesIO(content), formats=["JPEG"]) as image:
            size = image.size
    except (OSError, SyntaxError) as error:
        raise ValueError("not a JPEG") from error
    if size != MOT17[sequence][2:4]:
        raise ValueError("{}x{} px instead of {}x{}".format(*size, *MOT17[sequence][2:4]))
    if b"\xff\xd9" not in content[-1024:]:  # the end-of-image marker
        raise ValueError("a JPEG that is cut short")


def write_frames(archive, frames: dict, place: Path, sequence: str, progress: Progress) -> str:
    """Fault of the first frame that is not whole, or "", of frames that are written as they arrive."""
    wrong = []
    for number, member in arriving(archive, frames):
        try:
            content = archive.read(member)
            check_frame(content, sequence)
        except (ValueError, EOFError, zlib.error, zipfile.BadZipFile) as error:
            wrong.append(f"{sequence} frame {number:06d}: {error}")
            if len(wrong) == 10:  # not a few bad bytes, but other footage
                break
            continue
        vfi.write_atomic(place / "img1" / f"{number:06d}.jpg", content)
        progress.add(len(content))
    return wrong[0] if wrong else ""


def finish_sequence(place: Path, sequence: str) -> list[int]:
    """Numbers of the frames that are not whole in a sequence's folder; if none, it is marked as finished."""
    _, length, width, height, rate, camera = MOT17[sequence]
    missing = []
    for number in range(1, length + 1):
        try:
            check_frame((place / "img1" / f"{number:06d}.jpg").read_bytes(), sequence)
        except (FileNotFoundError, ValueError):
            missing.append(number)
    if not missing:
        seqinfo.write_seqinfo(place, rate=rate, frames=length, size=(width, height), camera=camera)
        vfi.mark_finished(place, {"sequence": sequence, "mot17": MOT17[sequence]})
        print(f"  {sequence}: {length} frames, whole", flush=True)
    return missing


def fetch_mot17(source: tuple, folder: Path, missing: dict[str, list[int]]) -> str:
    """Reasons why some is still `missing`, which is kept up to date, after fetching from one source.

    Raises:
        OSError: if the disk is too small. All that is wrong with the source itself is returned instead.
    """
    with contextlib.ExitStack() as opened:
        try:
            archive = opened.enter_context(open_archive(source, folder))
            copies = find_copies(archive)
            if not copies:
                raise ValueError("no member such as train/MOT17-02/img1/000001.jpg")
        except Exception as error:  # each library has its own, and the next source may do
            return f"{type(error).__name__}: {error}"
        whole = [s for s in missing if set(copies.get(s, ())) == set(range(1, MOT17[s][1] + 1))]
        reasons = [f"{s}: {len(copies.get(s, ()))} of {MOT17[s][1]} frames there" for s in missing if s not in whole]
        size = sum(copies[s][number].file_size for s in whole for number in missing[s])
        vfi.check_disk(folder, size, f"MOT17 ({len(whole)} sequences)")
        progress = Progress(size)
        for sequence in whole:
            place = folder / MOT17[sequence][0] / sequence
            for attempt in range(2):
                try:
                    frames = {number: copies[sequence][number] for number in missing[sequence]}
                    wrong = write_frames(archive, frames, place, sequence, progress)
                except Exception as error:
                    if getattr(error, "errno", None) == errno.ENOSPC:
                        raise
                    return f"{sequence}: {type(error).__name__}: {error}"
                finally:
                    missing[sequence] = finish_sequence(place, sequence)
                if not missing[sequence]:
                    break
                print(f"  {wrong}; attempt {attempt + 1} of 2", flush=True)
            else:
                reasons.append(wrong)
    return "; ".join(reasons)


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
        ValueError: if MOT17 has no sequence of such a name.
        FileNotFoundError: if there is nothing at `local`.
        OSError: if the disk is too small, or no source gives a sequence whole; it names each source and why.
    """
    wanted = list(MOT17) if sequences is None else list(sequences)
    if unknown := [name for name in wanted if name not in MOT17]:
        raise ValueError(f"MOT17 has no sequence {', '.join(unknown)}. It has {', '.join(MOT17)}.")
    if local and not Path(local).expanduser().exists():
        raise FileNotFoundError(f"There is nothing at {Path(local).expanduser().resolve()}: give a zip or a folder.")
    here = [Path(local).expanduser()] if local else []
    here += [path for path in (vfi.work("MOT17.zip"), vfi.work("MOT17Det.zip")) if path.exists()]
    queue = [(str(path), 0, "") for path in here] + list(SOURCES if sources is None else sources)
    if drive_id:
        queue.append(("drive:" + re.sub(r".*(?:/d/|id=)([-\w]+).*", r"\1", drive_id), 0, ""))
    places = {name: folder / MOT17[name][0] / name for name in wanted}
    unfinished = [n for n in wanted if not vfi.is_finished(places[n], {"sequence": n, "mot17": MOT17[n]})]
    missing = {name: finish_sequence(places[name], name) for name in unfinished}
    tried = []
    folder.mkdir(parents=True, exist_ok=True)
    for source in queue:
        if not any(missing.values()):
            break
        print(f"MOT17 from {source[0]}", flush=True)
        missing = {name: numbers for name, numbers in missing.items() if numbers}
        if reason := " ".join(fetch_mot17(source, folder, missing).split()):
            tried.append(f"{source[0]}: {reason[:500]}")
            print(f"  not all came: {reason[:500]}", flush=True)
    if incomplete := [name for name, numbers in missing.items() if numbers]:
        raise OSError(
            "\n- ".join([f"No source gave all of {', '.join(incomplete)}:", *tried])
            + "\nDownload MOT17.zip in a browser (https://motchallenge.net/data/MOT17.zip), put it at "
            + f"{vfi.work('MOT17.zip')}, and run this cell again: it is found there, and what has come so far is kept."
        )
    print(f"MOT17: {len(wanted)} sequences, {len(wanted) - len(unfinished)} of them from before, in {folder}")
    return folder
