"""Archives of footage: on a server, of which only the parts wanted are fetched, on Google Drive, or on disk."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import zipfile
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

from tqdm import tqdm

from stages import download
from stages.download import RemoteFile, Source

SPAN, CONNECTIONS = 16 * 2**20, 4  # bytes fetched by one request, requests at a time


@dataclass(frozen=True)
class Span:
    """Bytes of an archive that are fetched together, and the members in them: pairs of a number and a member."""

    start: int
    stop: int
    members: list


class FolderArchive:
    """A folder on disk, links followed, as `zipfile.ZipFile` shows an archive."""

    def __init__(self, path: Path):
        self.path = path.absolute()

    def infolist(self) -> list:
        found = []
        for folder, folders, names in os.walk(self.path, followlinks=True):
            if os.path.realpath(folder) in {os.path.realpath(above) for above in Path(folder).parents}:
                folders.clear()  # a link to a folder above
                continue
            images = [Path(folder, name) for name in names if name.endswith(".jpg") and not name.startswith(".")]
            found += [SimpleNamespace(filename=p.as_posix(), file_size=p.stat().st_size) for p in images if p.exists()]
        return found

    def read(self, member) -> bytes:
        try:
            return Path(member.filename).read_bytes()
        except OSError as error:
            raise ValueError(download.describe(error)) from error


def plan_spans(archive, members: dict) -> list[Span]:
    """Spans in which `members` of an archive, `{number: member}`, are fetched; on disk each is one of its own."""
    if not isinstance(getattr(archive, "fp", None), RemoteFile):
        return [Span(0, member.file_size, [(number, member)]) for number, member in members.items()]
    marks = sorted({member.header_offset for member in archive.infolist()} | {archive.start_dir})
    ends = dict(itertools.pairwise(marks))
    spans = []
    for number, member in sorted(members.items(), key=lambda pair: pair[1].header_offset):
        start = member.header_offset
        stop = min(ends[start], start + member.compress_size + 2**18)  # 2**18: more than names and extra fields take
        last = spans[-1] if spans else None
        if last and start - last.stop <= SPAN // 256 and stop - last.start <= SPAN:
            spans[-1] = Span(last.start, stop, [*last.members, (number, member)])
        else:
            spans.append(Span(start, stop, [(number, member)]))
    return spans


def arriving(archive, spans: list[Span], bar: tqdm) -> Iterator[tuple]:
    """Pairs of a number and a member, once the member can be read: from a server, over several connections."""
    if not isinstance(getattr(archive, "fp", None), RemoteFile):
        for span in spans:
            yield span.members[0]
            bar.update(span.stop)
        return
    pool, remote = ThreadPoolExecutor(CONNECTIONS), archive.fp
    requests = ((span, pool.submit(download.fetch_span, remote.address, span.start, span.stop, bar)) for span in spans)
    ahead = deque(itertools.islice(requests, CONNECTIONS))
    try:
        while ahead:
            span, content = ahead.popleft()
            remote.hold(span.start, content.result())
            ahead.extend(itertools.islice(requests, 1))
            yield from span.members
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def open_remote(source: Source, path: Path) -> zipfile.ZipFile | None:
    """Archive on a server that answers range requests; from any other it is saved to `path`."""

    def first():
        reply = download.request(source.address, 0, 2**10)
        if reply.status != 206:
            return reply
        with reply:
            download.refuse_web_page(reply.read(2**10))
            total = reply.headers.get("Content-Range", "").rpartition("/")[2]
        return int(total) if total.isdecimal() else None  # "*": it does not say

    answer = download.retry(first)
    if isinstance(answer, int):
        return zipfile.ZipFile(RemoteFile(source.address, answer))
    print("  it answers no range requests: the whole archive is fetched", flush=True)
    download.save_whole(source, path, answer)
    return None


def kept_at(source: Source, folder: Path) -> Path:
    """Place of an archive while it is here; where it stands, if it is a path."""
    remote = source.address.startswith(("http:", "https:", "drive:"))
    return folder / re.sub(r"[^\w.]+", "-", source.address) if remote else Path(source.address)


def forget(source: Source, folder: Path) -> None:
    """Delete what is left of an archive that was being fetched."""
    path = kept_at(source, folder)
    for left in [] if path == Path(source.address) else folder.glob(f"{path.name}*"):
        left.unlink()


@contextlib.contextmanager
def open_archive(source: Source, folder: Path):
    """Archive with `infolist` and `read`, opened at a source; what is not read stays on the server.

    An archive that can only be fetched whole is kept in `folder` until what is wanted of it was taken.
    """
    path = kept_at(source, folder)
    if source.address.startswith("drive:") and not path.exists():
        download.fetch_drive(source.address.removeprefix("drive:"), path)
    elif source.address.startswith(("http:", "https:")) and not path.exists():  # noqa: SIM102
        if archive := open_remote(source, path):
            yield archive
            return
    if path.is_dir():
        yield FolderArchive(path)
        return
    remote = path != Path(source.address)
    try:
        with path.open("rb") as file:
            download.refuse_web_page(file.read(2**10))
        archive = zipfile.ZipFile(path)
    except (ValueError, zipfile.BadZipFile):
        if remote:
            path.unlink()
        raise
    with archive:
        yield archive
    if remote:
        path.unlink()
