"""MOT17 from its archives: small archives of MOT17's shape, on servers of their own that misbehave as real ones do."""

from __future__ import annotations

import configparser
import errno
import hashlib
import io
import json
import re
import shutil
import threading
import time
import zipfile
from collections import namedtuple
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import vfi_utils as vfi
from stages import archives, download, mot17
from stages.footage import get_footage
from stages.frames import LEFT_OUT, build_frames, get_frames

SEQUENCES = {
    "MOT17-02": mot17.Sequence("train", 20, 96, 64, 30, "fixed"),
    "MOT17-05": mot17.Sequence("train", 24, 64, 96, 14, "moving"),
    "MOT17-01": mot17.Sequence("test", 16, 96, 64, 30, "fixed"),
}
DETECTORS = ("DPM", "FRCNN", "SDP")


def jpeg(sequence: str, number: int, size: tuple[int, int] | None = None) -> bytes:
    """Return a JPEG of noise, about 8 kB, the same for the same frame."""
    width, height = size or SEQUENCES[sequence][2:4]
    noise = np.random.default_rng([int(sequence[-2:]), number]).integers(0, 256, (height, width, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "JPEG", quality=95)
    return file.getvalue()


@pytest.fixture(scope="session")
def footage() -> dict[str, bytes]:
    """Return {"train/MOT17-02/img1/000001.jpg": JPEG, ...}."""
    return {
        f"{split}/{name}/img1/{number:06d}.jpg": jpeg(name, number)
        for name, (split, length, *_) in SEQUENCES.items()
        for number in range(1, length + 1)
    }


def zipped(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("MOT17/readme.txt", "not a frame")
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return file.getvalue()


def with_detectors(footage: dict[str, bytes], detectors=DETECTORS, prefix="MOT17/") -> dict[str, bytes]:
    """Return the footage as the detection challenge ships it: every image once for each detector, folder by folder."""
    parts = [(name.split("/"), content) for name, content in footage.items()]
    copies = [(f"{prefix}{s}/{q}-{d}/img1/{n}", content) for (s, q, _, n), content in parts for d in detectors]
    return dict(sorted(copies))


def without(footage: dict[str, bytes], *names: str) -> dict[str, bytes]:
    return {name: content for name, content in footage.items() if not any(part in name for part in names)}


class Server(ThreadingHTTPServer):
    """One archive on a server of its own; `sent` holds (first byte requested, bytes sent) of every reply."""

    daemon_threads = True

    def __init__(self, content: bytes, ranges=True, content_type="application/zip", drop=0, spoil=0, **faults):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.ranges, self.content_type = content, ranges, content_type
        self.drop, self.spoil = drop, spoil  # large replies to cut half-way, or to spoil
        self.limit = faults.get("limit", 0)  # bytes after which every reply is cut
        self.refuse = faults.get("refuse", [])  # statuses of the first replies
        self.trickle = faults.get("trickle", 0)  # seconds between two bytes of a large reply
        self.total = faults.get("total", "")  # what Content-Range says of the size
        self.ranges_from = faults.get("ranges_from", 0)  # replies before ranges are answered
        self.sent, self.lock = [], threading.Lock()
        self.source = (f"http://127.0.0.1:{self.server_port}/MOT17.zip", 0, "")
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def bytes_sent(self) -> int:
        return sum(count for _, count in self.sent)

    def handle_error(self, request, client_address):
        """Say nothing of clients that leave early: they may."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        server, total = self.server, len(self.server.content)
        if server.refuse:
            self.send_response(server.refuse.pop(0))
            self.send_header("Retry-After", "7")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        ranges = server.ranges and len(server.sent) >= server.ranges_from
        requested = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")) if ranges else None
        start, stop = (int(requested[1]), min(int(requested[2] or total), total - 1) + 1) if requested else (0, total)
        content = server.content[start:stop]
        self.send_response(206 if requested else 200)
        if requested:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{server.total or total}")
        self.send_header("Content-Type", server.content_type)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "HEAD":
            return
        with server.lock:
            large = len(content) > 20_000
            drop, server.drop = (large and server.drop > 0), server.drop - (large and server.drop > 0)
            spoil, server.spoil = (large and server.spoil > 0), server.spoil - (large and server.spoil > 0)
            drop = drop or 0 < server.limit < len(content)
            sent = min(server.limit, len(content)) if server.limit else len(content) // 2 if drop else len(content)
            server.sent.append((start, sent))
        if spoil:
            middle = len(content) // 2
            content = content[:middle] + bytes(200) + content[middle + 200 :]
        for byte in content if server.trickle and large else b"":
            self.wfile.write(bytes([byte]))
            time.sleep(server.trickle)
        self.wfile.write(content[:sent])
        self.close_connection = bool(drop)


@pytest.fixture(autouse=True)
def waited(monkeypatch, tmp_path):
    """Return the list of seconds that were waited, without waiting, in a small MOT17."""
    monkeypatch.setattr(mot17, "MOT17", SEQUENCES)
    monkeypatch.setattr(archives, "SPAN", 64 * 2**10)
    waited = []
    monkeypatch.setattr(
        download, "time", SimpleNamespace(sleep=waited.append, time=time.time, monotonic=time.monotonic)
    )
    monkeypatch.setenv("VFI_WORK", str(tmp_path / "work"))
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    return waited


@pytest.fixture
def serve():
    """Return a function that starts a `Server`; all of them stop with the test."""
    servers = []

    def start(*arguments, **settings) -> Server:
        servers.append(Server(*arguments, **settings))
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "work" / "footage" / "mot17"


def check_whole(folder, footage, sequences=tuple(SEQUENCES)):
    """Check that these sequences, and no others, are there to the last byte, with their own seqinfo.ini and marker."""
    expected = {name: content for name, content in footage.items() if name.split("/")[1] in sequences}
    assert {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.jpg")} == expected
    assert not [p for p in folder.rglob("*") if p.name.endswith((".part", ".zip"))]
    for name in sequences:
        split, length, width, height, rate, camera = SEQUENCES[name]
        info = configparser.ConfigParser()
        info.read(folder / split / name / "seqinfo.ini")
        assert info["Sequence"]["name"] == name and info["Sequence"]["imDir"] == "img1"
        assert info["Sequence"]["imExt"] == ".jpg" and info["Sequence"]["camera"] == camera
        numbers = [int(info["Sequence"][key]) for key in ("seqLength", "imWidth", "imHeight", "frameRate")]
        assert numbers == [length, width, height, rate]
        assert (folder / split / name / "stage.json").exists()


# Ranges


@pytest.mark.parametrize("layout", ["once", "mirror", "three copies"])
def test_takes_one_copy_of_each_layout(layout, footage, serve, folder):
    images = "MOT17/images/"
    members = {
        "once": footage,
        "mirror": with_detectors(footage, ("SDP",), images),
        "three copies": with_detectors(footage),
    }[layout]
    server = serve(zipped(members))
    assert mot17.get_mot17(folder, sources=[server.source]) == folder
    check_whole(folder, footage)
    share = server.bytes_sent / len(server.content)
    print(f"{layout}: {share:.1%} of the bytes in {len(server.sent)} requests for {len(footage)} frames")
    assert share <= (0.36 if layout == "three copies" else 1.03)
    assert len(server.sent) < len(footage) / 2


def test_copies_that_alternate_cost_no_more(footage, serve, folder):
    members = with_detectors(footage)
    by_frame = sorted(members, key=lambda name: (name.split("/")[2][:8], name.split("/")[-1], name))
    server = serve(zipped({name: members[name] for name in by_frame}))
    mot17.get_mot17(folder, None, [server.source])
    check_whole(folder, footage)
    assert server.bytes_sent <= 0.36 * len(server.content)


def test_a_choice_costs_its_own_bytes(footage, serve, folder, capsys):
    server = serve(zipped(footage))
    chosen = ["MOT17-01", "MOT17-05"]
    mot17.get_mot17(folder, chosen, [server.source])
    check_whole(folder, footage, chosen)
    wanted = sum(len(content) for name, content in footage.items() if name.split("/")[1] in chosen)
    assert wanted < server.bytes_sent < wanted + 0.04 * len(server.content)
    assert re.search(r"100%: \d+k of \d+k, [\d.]+[kM]B/s, 00:00 left", capsys.readouterr().out)


def test_memory_holds_a_few_spans(footage, serve, folder, monkeypatch):
    fetch, check, requested, spans_by_then = download.fetch_span, mot17.check_frame, [], []

    def count(*span):
        requested.extend([span] if len(span) == 4 else [])  # not what zipfile reads by itself
        return fetch(*span)

    monkeypatch.setattr(download, "fetch_span", count)
    monkeypatch.setattr(mot17, "check_frame", lambda *frame: spans_by_then.append(len(requested)) or check(*frame))
    monkeypatch.setattr(archives, "SPAN", 8_000)  # less than two frames
    mot17.get_mot17(folder, ["MOT17-05"], [serve(zipped(footage)).source])
    assert len(requested) == 24
    for read, count in enumerate(spans_by_then[:24]):  # when so many frames have been read
        assert count <= read + 1 + archives.CONNECTIONS


def test_finished_sequences_are_kept(footage, serve, folder):
    server = serve(zipped(footage))
    mot17.get_mot17(folder, ["MOT17-02"], [server.source])
    server.sent.clear()
    mot17.get_mot17(folder, ["MOT17-02"], [server.source])
    assert not server.sent
    mot17.get_mot17(folder, None, [server.source])
    check_whole(folder, footage)
    assert server.bytes_sent < sum(map(len, without(footage, "MOT17-02").values())) + 0.04 * len(server.content)


def test_interrupted_it_goes_on(footage, serve, folder, monkeypatch):
    server = serve(zipped(footage))
    write, written = vfi.write_atomic, []

    def interrupt(path, content):
        if len(written) == 30:  # twenty of the first sequence with its two files, eight of the next
            raise KeyboardInterrupt
        written.append(path)
        write(path, content)

    monkeypatch.setattr(vfi, "write_atomic", interrupt)
    with pytest.raises(KeyboardInterrupt):
        mot17.get_mot17(folder, None, [server.source])
    frames = [path for path in written if path.suffix == ".jpg"]
    assert len(frames) == 28 and (folder / "train/MOT17-02/stage.json").exists()
    assert not (folder / "train/MOT17-05/stage.json").exists()
    monkeypatch.setattr(vfi, "write_atomic", write)
    times = {path: path.stat().st_mtime_ns for path in frames}
    frames[-1].write_bytes(frames[-1].read_bytes()[:-2000])  # as a machine that lost power leaves it
    for thread in threading.enumerate():  # spans that were on their way when it was interrupted
        if thread.name.startswith("ThreadPoolExecutor"):
            thread.join()
    server.sent.clear()
    mot17.get_mot17(folder, None, [server.source])
    check_whole(folder, footage)
    assert all(path.stat().st_mtime_ns == time for path, time in times.items() if path != frames[-1])
    left = sum(len(content) for name, content in footage.items() if folder / name not in frames[:-1])
    assert server.bytes_sent < left + 0.04 * len(server.content)


# What breaks on the way


def test_a_dropped_connection_is_tried_again(footage, serve, folder, capsys):
    server = serve(zipped(footage), drop=3)
    mot17.get_mot17(folder, None, [server.source])
    check_whole(folder, footage)
    assert "trying again" in capsys.readouterr().out


def test_a_connection_that_keeps_dropping_leaves_whole_frames(footage, serve, folder, monkeypatch):
    monkeypatch.setattr(archives, "CONNECTIONS", 1)
    server, fetch, spans = serve(zipped(footage)), download.fetch_span, []

    def break_after_two(address, start, stop, bar=None):
        spans.extend([start] if bar is not None else [])
        if len(spans) > 2:
            server.shutdown()
            server.server_close()
        return fetch(address, start, stop, bar)

    monkeypatch.setattr(download, "fetch_span", break_after_two)
    with pytest.raises(OSError, match="MOT17-02, MOT17-05, MOT17-01"):
        mot17.get_mot17(folder, None, [server.source])
    here = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.jpg")}
    assert 10 < len(here) < 20 and here.items() <= footage.items()
    monkeypatch.setattr(download, "fetch_span", fetch)
    second = serve(zipped(footage))
    mot17.get_mot17(folder, None, [second.source])
    check_whole(folder, footage)
    assert second.bytes_sent < sum(len(footage[n]) for n in footage if n not in here) + 0.04 * len(second.content)


def test_a_server_that_cuts_every_reply_gives_all_of_it(footage, serve, folder):
    """What arrived is kept and the rest asked for: no byte comes twice."""
    server = serve(zipped(footage), limit=3_000)
    mot17.get_mot17(folder, None, [server.source])
    check_whole(folder, footage)
    assert len(server.sent) > 100 and server.bytes_sent <= 1.03 * len(server.content)


@pytest.mark.parametrize("status", [503, 429])
def test_the_first_request_is_tried_again_when_the_server_says(status, footage, serve, folder, waited, capsys):
    server = serve(zipped(footage), refuse=[status, status])
    mot17.get_mot17(folder, None, [server.source])
    check_whole(folder, footage)
    assert waited == [7, 7] and f"HTTP Error {status}" in capsys.readouterr().out


def test_a_refusal_that_stays_is_not_tried_again(footage, serve, folder, waited):
    with pytest.raises(OSError, match="HTTP Error 404"):
        mot17.get_mot17(folder, None, [serve(zipped(footage), refuse=[404] * 9).source])
    assert not waited
    with pytest.raises(OSError, match="HTTP Error 500"):
        mot17.get_mot17(folder, None, [serve(zipped(footage), refuse=[500] * 9).source])
    assert waited == [7, 7]


def test_retry_after_may_be_a_date_and_is_not_obeyed_for_ever():
    error = OSError()
    for asked, seconds in [("3600", 60), ("Wed, 21 Oct 2015 07:28:00 GMT", 4), ("soon", 4), ("", 4)]:
        error.headers = {"Retry-After": asked}
        assert download.pause(error, 3) == seconds
    assert download.pause(OSError(), 1) == 1
    assert download.describe(TimeoutError()) == "TimeoutError: nothing more is said"


def test_a_server_that_trickles_is_left(footage, serve, folder, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 0.2)
    slow, good = serve(zipped(footage), trickle=0.01), serve(zipped(footage))
    mot17.get_mot17(folder, ["MOT17-01"], [slow.source, good.source])
    check_whole(folder, footage, ["MOT17-01"])
    with pytest.raises(OSError, match=r"TimeoutError: \d+ bytes in \d+ s are too few"):
        mot17.get_mot17(folder, ["MOT17-02"], [slow.source])


def test_bytes_spoilt_on_the_way_are_read_again(footage, serve, folder, capsys):
    server = serve(zipped(footage), spoil=1)
    mot17.get_mot17(folder, None, [server.source])
    check_whole(folder, footage)
    assert re.search(r"MOT17-\d\d frame \d{6}: .*; attempt 1 of 2", capsys.readouterr().out)


def spoilt_archive(footage, name) -> bytes:
    """Return the archive with some bytes of one member changed, and its CRC not."""
    content = zipped(footage)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        member = archive.getinfo(name)
    middle = member.header_offset + member.compress_size // 2
    return content[:middle] + b"\0" * 50 + content[middle + 50 :]


FRAME = "train/MOT17-05/img1/000007.jpg"


@pytest.mark.parametrize("fault", ["crc", "cut short", "not a JPEG"])
def test_a_bad_frame_is_named_and_comes_from_the_next_source(fault, footage, serve, folder, capsys):
    changed = {
        "crc": spoilt_archive(footage, FRAME),
        "cut short": zipped({**footage, FRAME: footage[FRAME][:-1500]}),
        "not a JPEG": zipped({**footage, FRAME: b"\x89PNG" * 500}),
    }[fault]
    first, second = serve(changed), serve(zipped(footage))
    mot17.get_mot17(folder, None, [first.source, second.source])
    check_whole(folder, footage)
    assert "MOT17-05 frame 000007" in capsys.readouterr().out
    assert second.bytes_sent < 2 * len(footage[FRAME]) + 0.04 * len(second.content)


def edit_members(content: bytes, name: str, central: int, local: int, value: bytes) -> bytes:
    """Return an archive with a field of one member changed, at these offsets of its two headers."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        member, start = archive.getinfo(name), archive.start_dir
    header = content.rindex(name.encode(), start) - 46
    edited = bytearray(content)
    for place in (header + central, member.header_offset + local):
        edited[place : place + len(value)] = value
    return bytes(edited)


@pytest.mark.parametrize("fault", ["encrypted", "unknown method", "large"])
def test_one_odd_member_does_not_stop_a_source(fault, footage, serve, folder, capsys):
    content = zipped(footage)
    changed = {
        "encrypted": edit_members(content, FRAME, 8, 6, b"\x01\x00"),
        "unknown method": edit_members(content, FRAME, 10, 8, b"\x63\x00"),
        "large": edit_members(content, FRAME, 24, 22, (2**31 - 1).to_bytes(4, "little")),
    }[fault]
    first, second = serve(changed), serve(content)
    mot17.get_mot17(folder, None, [first.source, second.source])
    check_whole(folder, footage)
    said = {"encrypted": "encrypted", "unknown method": "not supported", "large": "it says that it has 2,048 MiB"}
    assert re.search(f"MOT17-05 frame 000007: .*{said[fault]}", capsys.readouterr().out)
    assert second.bytes_sent < 2 * len(footage[FRAME]) + 0.04 * len(content), "all the others came from the first"


def test_a_list_of_members_has_a_limit():
    with pytest.raises(ValueError, match="128 MiB at once, of at most 64"):
        download.RemoteFile("http://127.0.0.1:9/", 2**30).read(2**27)


def test_frames_with_other_numbers_are_said(footage, serve, folder):
    shifted = {re.sub(r"\d{6}", lambda n: f"{int(n[0]) - 1:06d}", name): content for name, content in footage.items()}
    with pytest.raises(OSError, match=r"MOT17-02: 19 of 20 frames there, numbered 000000 to 000019, without 000020"):
        mot17.get_mot17(folder, ["MOT17-02"], [serve(zipped(shifted)).source])


def test_other_footage_is_given_up_early_and_named(footage, serve, folder, monkeypatch, capsys):
    monkeypatch.setattr(archives, "SPAN", 8_000)
    monkeypatch.setattr(archives, "CONNECTIONS", 1)
    foreign = {n: jpeg("MOT17-02", int(n[-7:-4]), (60, 40)) for n in footage if "MOT17-02" in n}
    first, second = serve(zipped({**footage, **foreign})), serve(zipped(footage))
    mot17.get_mot17(folder, None, [first.source, second.source])
    check_whole(folder, footage)
    assert "MOT17-02 frame 000001: 60x40 px instead of 96x64" in capsys.readouterr().out
    wasted = first.bytes_sent - sum(map(len, without(footage, "MOT17-02").values()))
    assert wasted < 1.5 * sum(map(len, foreign.values()))  # half of it, twice, and not all of it twice


@pytest.mark.parametrize("lacking", ["MOT17-05", "MOT17-05/img1/000024.jpg", "MOT17-05/img1/000001.jpg"])
def test_a_source_without_a_whole_sequence_is_followed_by_the_next(lacking, footage, serve, folder, capsys):
    first, second = serve(zipped(without(footage, lacking))), serve(zipped(footage))
    mot17.get_mot17(folder, None, [first.source, second.source])
    check_whole(folder, footage)
    assert re.search(r"MOT17-05: \d+ of 24 frames", capsys.readouterr().out)
    own = sum(len(content) for name, content in footage.items() if "MOT17-05" in name)
    assert own < second.bytes_sent < own + 0.04 * len(second.content)  # and nothing that the first gave


def test_a_detector_with_a_whole_copy_is_preferred(footage, serve, folder):
    members = with_detectors(footage)
    members = without(members, "MOT17-02-DPM/img1/000003", "MOT17-02-SDP/img1/000020")
    mot17.get_mot17(folder, None, [serve(zipped(members)).source])
    check_whole(folder, footage)


def test_the_most_complete_copy_is_taken(footage):
    members = without(with_detectors(footage), *(f"MOT17-02-DPM/img1/{number:06d}" for number in range(6, 21)))
    members = without(members, "MOT17-02-FRCNN/img1/000003", "MOT17-02-SDP/img1/000003", "MOT17-02-SDP/img1/000004")
    with zipfile.ZipFile(io.BytesIO(zipped(members))) as archive:
        copy = mot17.find_copies(archive)["MOT17-02"]
    assert len(copy) == 19 and "FRCNN" in copy[1].filename


# Servers without ranges, and Google Drive


def test_a_size_that_a_server_does_not_tell(footage, serve, folder):
    server = serve(zipped(footage), total="*")
    mot17.get_mot17(folder, None, [server.source])
    check_whole(folder, footage)


def test_without_ranges_at_first_it_goes_on_where_it_can(footage, serve, folder):
    """A cache that fills answers with the whole file, and with ranges once it holds it."""
    server = serve(zipped(footage), drop=2, ranges_from=1)
    mot17.get_mot17(folder, None, [server.source])
    check_whole(folder, footage)
    assert server.bytes_sent <= 1.03 * len(server.content)


def test_what_an_interrupted_run_left_is_continued(footage, serve, folder):
    server = serve(zipped(footage), total="*")
    left = archives.kept_at(download.Source(*server.source), folder)
    vfi.write_atomic(left.with_name(left.name + ".part"), server.content[:300_000])
    mot17.get_mot17(folder, None, [server.source])
    check_whole(folder, footage)
    assert server.bytes_sent <= len(server.content) - 300_000 + 2_000


def test_without_ranges_the_whole_archive_is_fetched_once_and_deleted(footage, serve, folder, capsys):
    server = serve(zipped(with_detectors(footage)), ranges=False)
    digest = hashlib.sha256(server.content).hexdigest()
    mot17.get_mot17(folder, None, [(server.source[0], len(server.content), digest)])
    check_whole(folder, footage)
    assert server.bytes_sent == len(server.content)
    assert "no range requests" in capsys.readouterr().out


def test_without_ranges_an_archive_that_is_here_is_not_fetched_again(footage, serve, folder, monkeypatch):
    server = serve(zipped(footage), ranges=False)
    with monkeypatch.context() as patch:
        patch.setattr(mot17, "write_frames", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            mot17.get_mot17(folder, None, [server.source])
    mot17.get_mot17(folder, None, [server.source])
    check_whole(folder, footage)
    assert len(server.sent) == 1


def test_a_whole_archive_is_checked(footage, serve, folder):
    cut, changed = serve(zipped(footage), ranges=False, drop=3), serve(zipped(footage), ranges=False)
    with pytest.raises(OSError) as error:
        mot17.get_mot17(folder, None, [cut.source, (changed.source[0], 0, "0" * 64)])
    assert re.search(r"ended after [\d,]+ of [\d,]+ bytes", str(error.value))
    assert "SHA-256" in str(error.value)
    mot17.get_mot17(folder, None, [cut.source])
    check_whole(folder, footage)


@pytest.mark.parametrize("drive_id", ["1aB_c-9", "https://drive.google.com/file/d/1aB_c-9/view?usp=sharing"])
def test_google_drive_comes_last(drive_id, footage, serve, folder, monkeypatch):
    calls = []

    def download(id, output, resume):
        calls.append((id, resume))
        with open(output, "wb") as file:
            file.write(zipped(with_detectors(footage)))

    monkeypatch.setattr(pytest.importorskip("gdown"), "download", download)
    server = serve(zipped(without(footage, "MOT17-01")))
    mot17.get_mot17(folder, None, [server.source], drive_id=drive_id)
    check_whole(folder, footage)
    assert calls == [("1aB_c-9", True)] and server.sent


def test_google_drive_that_gives_nothing_or_a_page(folder, monkeypatch):
    gdown = pytest.importorskip("gdown")
    monkeypatch.setattr(gdown, "download", lambda **_: None)
    with pytest.raises(OSError, match="drive:abc: FileNotFoundError"):
        mot17.get_mot17(folder, None, [], drive_id="abc")
    monkeypatch.setattr(gdown, "download", lambda output, **_: Path(output).write_text("<html>quota</html>"))
    with pytest.raises(OSError, match="drive:abc: ValueError: a web page"):
        mot17.get_mot17(folder, None, [], drive_id="abc")
    assert not list(folder.rglob("*"))


# What is on disk already


def test_archive_placed_by_hand_is_found_before_the_network(footage, serve, folder, tmp_path):
    server = serve(zipped(footage))
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "MOT17.zip").write_bytes(zipped(with_detectors(footage)))
    mot17.get_mot17(folder, None, [server.source])
    check_whole(folder, footage)
    assert not server.sent and (tmp_path / "work" / "MOT17.zip").exists()


@pytest.mark.parametrize("detectors", [DETECTORS, None])
@pytest.mark.parametrize("inside", ["", "MOT17", "MOT17/train"])
def test_folder_on_disk(detectors, inside, footage, folder, tmp_path):
    members = with_detectors(footage, detectors) if detectors else {f"MOT17/{n}": c for n, c in footage.items()}
    for name, content in members.items():
        vfi.write_atomic(tmp_path / "unpacked" / name, content)
    chosen = ["MOT17-02", "MOT17-05"]
    mot17.get_mot17(folder, chosen, [], local=str(tmp_path / "unpacked" / inside))
    check_whole(folder, footage, chosen)
    assert len(list((tmp_path / "unpacked").rglob("*.jpg"))) == len(members)


@pytest.mark.parametrize("linked", ["MOT17-02", "MOT17-02/img1", ""])
def test_links_in_a_folder_on_disk_are_followed(linked, footage, folder, tmp_path):
    names = {name: content for name, content in footage.items() if "MOT17-02" in name}
    for name, content in names.items():
        vfi.write_atomic(tmp_path / "MOT17" / name, content)
    (tmp_path / "MOT17" / "train" / linked).rename(tmp_path / "elsewhere")
    (tmp_path / "MOT17" / "train" / linked).symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "loop").symlink_to(tmp_path / "MOT17")
    (tmp_path / "elsewhere" / "gone.jpg").symlink_to(tmp_path / "nowhere")
    mot17.get_mot17(folder, ["MOT17-02"], [], local=str(tmp_path / "MOT17"))
    check_whole(folder, footage, ["MOT17-02"])


def test_a_broken_local_archive_is_reported_left_alone_and_followed_by_the_network(footage, serve, folder, tmp_path):
    path = tmp_path / "half.zip"
    path.write_bytes(zipped(footage)[:-5000])
    mot17.get_mot17(folder, None, [serve(zipped(footage)).source], local=str(path))
    check_whole(folder, footage)
    assert path.exists()


# Messages


def test_all_sources_fail_then_the_manual_route_works(footage, serve, folder, tmp_path, capsys):
    page = serve(b"\n<!DOCTYPE html><title>Log in</title>", content_type="text/html", ranges=False)
    ranged_page = serve(b"<html>error</html>" * 100)
    empty, cut = serve(zipped({})), serve(zipped(footage)[:-3000])
    dead = serve(b"")
    dead.shutdown()
    dead.server_close()
    servers = [page, ranged_page, empty, cut, dead]
    with pytest.raises(OSError) as error:
        mot17.get_mot17(folder, ["MOT17-02"], [server.source for server in servers])
    message, printed = str(error.value), capsys.readouterr().out
    for server in servers:
        assert server.source[0] in message and server.source[0] in printed
    assert message.count("web page (HTML") == 2 and "no member such as" in message and "refused" in message
    assert "MOT17-02" in message and "browser" in message and str(tmp_path / "work" / "MOT17.zip") in message
    (tmp_path / "work" / "MOT17.zip").write_bytes(zipped(footage))
    mot17.get_mot17(folder, ["MOT17-02"], [server.source for server in servers])
    check_whole(folder, footage, ["MOT17-02"])


def test_names_are_checked_first(folder, tmp_path):
    with pytest.raises(ValueError, match="MOT17-99.*MOT17-02, MOT17-05, MOT17-01"):
        mot17.get_mot17(folder, ["MOT17-02", "MOT17-99"], [])
    with pytest.raises(FileNotFoundError, match="nowhere"):
        mot17.get_mot17(folder, None, [], local=str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="neither the id of a file on Google Drive nor a link"):
        mot17.get_mot17(folder, None, [], drive_id="https://drive.google.com/drive/")
    assert not folder.exists()


def test_an_error_about_mot17_ends_with_the_other_way(folder, tmp_path, serve, footage, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: namedtuple("usage", "total used free")(1, 1, 1))
    calls = [(["MOT17-99"], [], ""), (None, [], str(tmp_path / "nowhere")), (None, [], "")]
    for sequences, sources, local in [*calls, (None, [serve(zipped(footage)).source], "")]:
        with pytest.raises((OSError, ValueError)) as error:
            mot17.get_mot17(folder, sequences, sources, local=local)
        assert str(error.value).endswith("or set DATASET = 'sample' and Run all.")


def test_disk_too_small_is_said_before_anything_is_fetched(footage, serve, folder, monkeypatch):
    first, second = serve(zipped(footage)), serve(zipped(footage))
    usage = namedtuple("usage", "total used free")(10**9, 10**9, 10_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match="needs .* free"):
        mot17.get_mot17(folder, None, [first.source, second.source])
    assert not list(folder.rglob("*.jpg")) and not second.sent
    assert first.bytes_sent < 0.05 * len(first.content)


def test_disk_that_fills_on_the_way_stops_the_run(footage, serve, folder, monkeypatch):
    def fill(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    first, second = serve(zipped(footage)), serve(zipped(footage))
    monkeypatch.setattr(vfi, "write_atomic", fill)
    with pytest.raises(OSError, match="No space left"):
        mot17.get_mot17(folder, None, [first.source, second.source])
    assert not second.sent


def test_disk_too_small_for_a_whole_archive_is_said_before_it_is_fetched(footage, serve, folder, monkeypatch):
    server = serve(zipped(with_detectors(footage)), ranges=False)
    usage = namedtuple("usage", "total used free")(10**9, 10**9, len(server.content) - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match="The archive needs"):
        mot17.get_mot17(folder, None, [server.source])
    assert not list(folder.rglob("*"))


def test_members_that_climb_out_stay_inside(footage, serve, tmp_path):
    folder = tmp_path / "a" / "b" / "work" / "mot17"
    members = {f"../../train/{name.split('/', 1)[1]}": content for name, content in footage.items() if "train" in name}
    members |= {f"{tmp_path}/test/{name.split('/', 1)[1]}": c for name, c in footage.items() if "test" in name}
    members |= {"../../../evil.jpg": b"evil", "train/MOT17-02/img1/../../../../evil.jpg": b"evil"}
    mot17.get_mot17(folder, None, [serve(zipped(members)).source])
    check_whole(folder, footage)
    outside = [p for p in tmp_path.rglob("*") if p.is_file() and folder not in p.parents]
    assert not outside


def test_real_table_and_sources(monkeypatch):
    monkeypatch.undo()
    windows = {split: 0 for split in ("train", "test")}
    for name, (split, length, *_) in mot17.MOT17.items():
        if name not in LEFT_OUT:
            windows[split] += (length - vfi.WINDOW) // vfi.STRIDE + 1
    assert windows == {"train": 1320, "test": 1285}
    assert [source[0].rsplit("/", 1)[1] for source in mot17.SOURCES] == ["MOT17Det.zip", "MOT17.zip", "MOT17.zip"]
    assert json.dumps(mot17.SOURCES)


def test_every_notebook_gets_mot17_by_itself(footage, serve, tmp_path, monkeypatch, capsys):
    """Notebook 04 on a fresh Colab machine: from nothing to windows; only the sequences chosen before, if any were."""
    server = serve(zipped(footage))
    monkeypatch.setattr(mot17, "SOURCES", [server.source])
    monkeypatch.setenv("VFI_WORK", str(tmp_path / "fresh"))
    frames, windows = get_frames("mot17", "train")
    assert set(frames) == {name for name, known in mot17.MOT17.items() if known[0] == "train"}
    expected = vfi.build_windows({name: mot17.MOT17[name][1] for name in frames})
    assert windows[["sequence", "start", "middle"]].equals(expected)
    assert set(windows.camera) <= {"fixed", "moving"}

    monkeypatch.setenv("VFI_WORK", str(tmp_path / "chosen"))
    get_footage("mot17", ["MOT17-02"])
    assert build_frames("mot17").sequence.tolist() == ["MOT17-02"]
    with pytest.raises(FileNotFoundError, match="No test window"):
        get_frames("mot17", "test")
