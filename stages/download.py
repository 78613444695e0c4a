"""Bytes from servers: what arrived is kept and the rest asked for again; the one way to try anything twice."""

from __future__ import annotations

import contextlib
import email.utils
import hashlib
import http.client
import re
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import gdown
from tqdm import tqdm

import vfi_utils as vfi

LARGEST = 64 * 2**20  # bytes of a member of an archive, and of the list of its members
ATTEMPTS = 3  # in a row that bring nothing
TIMEOUT, LEAST_SPEED = 30, 2 * 2**10  # seconds without a byte; bytes a second over so many seconds
MAY_PASS = (urllib.error.URLError, ConnectionError, TimeoutError, ssl.SSLError, http.client.HTTPException)


class Source(NamedTuple):
    """Where an archive is: an address, a path or "drive:<id>"; its bytes and SHA-256, 0 and "" where not known."""

    address: str
    size: int = 0
    sha256: str = ""


def describe(error: BaseException) -> str:
    """What went wrong, in one line that is never empty."""
    return f"{type(error).__name__}: {' '.join(str(error).split()) or 'nothing more is said'}"


def progress(total: float) -> tqdm:
    """Bar of bytes in plain text, a line every 30 s."""
    lines = "  {percentage:3.0f}%: {n_fmt} of {total_fmt}, {rate_fmt}, {remaining} left"
    units = {"unit": "B", "unit_scale": True, "unit_divisor": 1024, "bar_format": lines}
    return tqdm(total=total or None, file=sys.stdout, ascii=True, mininterval=30, maxinterval=30, **units)


def pause(error: Exception, failures: int) -> float:
    """Seconds to wait before the next attempt, at most 60: what the server asks for in Retry-After, or 1, 2, 4."""
    after = str(getattr(error, "headers", None) and error.headers.get("Retry-After") or "").strip()
    seconds = 0.0
    if after.isdecimal():
        seconds = float(after)
    elif after:
        with contextlib.suppress(ValueError, TypeError):
            seconds = email.utils.parsedate_to_datetime(after).timestamp() - time.time()
    return min(max(seconds, 2 ** (failures - 1)), 60)


def retry(action: Callable, arrived: Callable[[], int] = lambda: 0):
    """Result of `action`, called again after a failure that may pass: the one way in which anything is tried again.

    It is given up after three failures in a row that brought nothing, by `arrived`, the number of bytes here.
    """
    failures = 0
    while True:
        before = arrived()
        try:
            return action()
        except MAY_PASS as error:
            brought = not isinstance(error, TimeoutError) and arrived() - before >= 2**10
            failures = 1 if brought else failures + 1
            code = getattr(error, "code", 500)
            if failures >= ATTEMPTS or (code < 500 and code not in (408, 425, 429)):
                raise
            seconds = pause(error, failures)
            tqdm.write(f"  {describe(error)}; trying again in {seconds:.0f} s")
            time.sleep(seconds)


def request(address: str, start: int = 0, stop: int | None = None):
    """Reply of a server, asked for a range of bytes; a status of 200 means that it sends the whole file instead."""
    span = f"bytes={start}-{'' if stop is None else stop - 1}"
    headers = {"Range": span, "User-Agent": f"vfi-dncnn/{vfi.VERSION}"}
    return urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=TIMEOUT)


def receive(reply) -> Iterator[bytes]:
    """Blocks of a reply as they arrive; TimeoutError if they arrive more slowly than `LEAST_SPEED`."""
    since, count = time.monotonic(), 0
    while block := reply.read1(2**16):
        yield block
        count += len(block)
        if (now := time.monotonic()) - since > TIMEOUT:
            if count < LEAST_SPEED * TIMEOUT:
                raise TimeoutError(f"{count:,} bytes in {now - since:.0f} s are too few")
            since, count = now, 0


def starts_at(reply, start: int) -> bool:
    """Whether a reply holds the bytes from `start` on."""
    return reply.status == 206 and reply.headers.get("Content-Range", "").startswith(f"bytes {start}-")


def fetch_span(address: str, start: int, stop: int, bar: tqdm | None = None) -> bytes:
    """Bytes from `start` to before `stop` of a file on a server; after a break only what has not come yet is asked."""
    content = bytearray()

    def ask() -> None:
        with request(address, start + len(content), stop) as reply:
            if not starts_at(reply, start + len(content)):
                raise ConnectionError("the server answers with other bytes than those asked for")
            for block in receive(reply):
                content.extend(block[: stop - start - len(content)])
                if bar is not None:
                    with bar.get_lock():
                        bar.update(len(block))
        if len(content) < stop - start:
            raise ConnectionError(f"the connection ended after {len(content):,} of {stop - start:,} bytes")

    if start < stop:
        retry(ask, lambda: len(content))
    return bytes(content)


class RemoteFile:
    """A file on a server that answers range requests, as `zipfile` reads one; one span of it is held in memory."""

    def __init__(self, address: str, size: int):
        self.address, self.size, self.place = address, size, 0
        self.start, self.held = 0, b""

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.place

    def seek(self, offset: int, whence: int = 0) -> int:
        self.place = max(0, offset + (0, self.place, self.size)[whence])
        return self.place

    def hold(self, start: int, content: bytes) -> None:
        self.start, self.held = start, content

    def read(self, count: int = -1) -> bytes:
        stop = self.size if count < 0 else min(self.place + count, self.size)
        if not self.start <= self.place <= stop <= self.start + len(self.held):
            if stop - self.place > LARGEST:
                raise ValueError(f"{(stop - self.place) / 2**20:,.0f} MiB at once, of at most {LARGEST / 2**20:.0f}")
            self.hold(self.place, fetch_span(self.address, self.place, stop))
        content = self.held[self.place - self.start : stop - self.start]
        self.place = max(stop, self.place)
        return content


def refuse_web_page(start: bytes) -> None:
    """Raise ValueError, by the first bytes of a file, if it is HTML: a login or an error page sent as the archive."""
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        raise ValueError("a web page (HTML: a login, an error?) came instead of a zip")


def save_whole(source: Source, path: Path, reply=None) -> None:
    """Save an archive that can only be fetched whole; after a break it goes on where the server lets it.

    Args:
        source: where it is.
        path: where it goes; `<path>.part` until all of it is there.
        reply: of the server, if it has begun to send it.
    """
    part = path.with_name(path.name + ".part")
    replies = [reply] if reply and not part.exists() else []  # of an interrupted run the rest is asked for

    def arrived() -> int:
        return part.stat().st_size if part.exists() else 0

    def ask() -> None:
        with replies.pop() if replies else request(source.address, arrived()) as answer:
            have = arrived() if arrived() and starts_at(answer, arrived()) else 0
            total = have + int(answer.headers.get("Content-Length") or max(source.size - have, 0))
            vfi.check_disk(path.parent, total - have, "The archive")
            with part.open("ab" if have else "wb") as file, progress(total) as bar:
                bar.update(have)
                for block in receive(answer):
                    if not file.tell():
                        refuse_web_page(block)
                    file.write(block)
                    bar.update(len(block))
        if total and arrived() != total:
            raise ConnectionError(f"the connection ended after {arrived():,} of {total:,} bytes")

    try:
        retry(ask, arrived)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # all of it was there, or more
            part.unlink(missing_ok=True)
        raise
    with part.open("rb") as file:
        if source.sha256 and hashlib.file_digest(file, "sha256").hexdigest() != source.sha256:
            part.unlink()
            raise ValueError(f"its SHA-256 is not {source.sha256}")
    part.replace(path)


def drive_id(text: str) -> str:
    """Id of a file on Google Drive, of its id or of a link to it.

    Raises:
        ValueError: if it is neither.
    """
    found = re.search(r"(?:/d/|[?&]id=)([-\w]+)", text)
    name = found[1] if found else text.strip()
    if not re.fullmatch(r"[-\w]+", name):
        raise ValueError(f"{text!r} is neither the id of a file on Google Drive nor a link to one.")
    return name


def fetch_drive(name: str, path: Path) -> None:
    """Save the file with an id on Google Drive to `path`; OSError if Drive does not give it out."""
    try:
        gdown.download(id=name, output=str(path), resume=True)
    except Exception as error:  # gdown raises its own, requests' and OSError
        raise OSError(f"Google Drive does not give out the file {name} ({describe(error)})") from error
    if not path.exists():
        raise FileNotFoundError(f"Google Drive gave nothing for the file {name}")
