"""Cut, kill and double what notebooks 01 and 02 do, many times, and count what came out wrong.

    python tests/tools/faults.py [--cuts 100] [--kills 20] [--pairs 16]

Prints a line for each kind; the exit code is 1 if anything differs from an undisturbed run.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import test_download as small  # noqa: E402

from stages import archives, mot17  # noqa: E402

BUILD = "import sys; from stages.frames import build_frames; build_frames(sys.argv[1])"


class CuttingServer(small.Server):
    """A server of a small MOT17 that cuts its first replies at random places."""

    def __init__(self, content: bytes, cuts: int):
        super().__init__(content)
        self.cuts = cuts

    @property
    def limit(self) -> int:
        return random.Random(len(self.sent)).randint(1_100, 30_000) if len(self.sent) < self.cuts else 0

    @limit.setter
    def limit(self, value: int) -> None:
        pass


def cut(cuts: int, folder: Path) -> str:
    """Report on a download whose connection is cut `cuts` times."""
    mot17.MOT17, archives.SPAN = small.SEQUENCES, 2**16
    names = [(name, number) for name, known in small.SEQUENCES.items() for number in range(1, known.frames + 1)]
    footage = {f"{small.SEQUENCES[n].split}/{n}/img1/{k:06d}.jpg": small.jpeg(n, k) for n, k in names}
    calls = 0
    server = CuttingServer(small.zipped(footage), cuts)
    while calls < 5 and len(list(folder.rglob("*.jpg"))) < len(footage):
        calls += 1
        try:
            mot17.get_mot17(folder, None, [server.source])
        except OSError as error:
            print(error)
    here = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.jpg")}
    wrong = sum(footage[name] != content for name, content in here.items())
    share = server.bytes_sent / len(server.content)
    server.shutdown()
    assert not wrong and len(here) == len(footage), f"{wrong} wrong, {len(footage) - len(here)} missing"
    return (
        f"{cuts} cuts: {len(here)} of {len(footage)} frames, {wrong} wrong, {calls} call(s), {share:.1%} of the bytes"
    )


def start(footage: Path, work: Path) -> subprocess.Popen:
    environment = {**os.environ, "VFI_WORK": str(work)}
    command = [sys.executable, "-c", BUILD, str(footage)]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=-3, stderr=subprocess.PIPE, text=True)


def contents(work: Path) -> dict[str, str]:
    files = [path for path in work.rglob("*") if path.suffix in (".npy", ".csv", ".json")]
    return {str(path.relative_to(work)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, count in (("cuts", 100), ("kills", 20), ("pairs", 16)):
        parser.add_argument(f"--{name}", type=int, default=count)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        lines = [cut(options.cuts, place / "mot17")]
        for sequence in range(8):
            images = place / "footage" / "test" / f"s{sequence}" / "img1"
            images.mkdir(parents=True)
            noise = np.random.default_rng(sequence).integers(0, 256, (360, 640, 3), np.uint8)
            for number in range(60):
                Image.fromarray(np.roll(noise, number, axis=1)).save(images / f"{number:06d}.jpg")
        began = time.monotonic()
        assert start(place / "footage", place / "whole").wait() == 0
        seconds, whole = time.monotonic() - began, contents(place / "whole")
        different, after = 0, []
        for kill in range(options.kills):
            process = start(place / "footage", place / f"kill{kill}")
            time.sleep(random.Random(kill).uniform(0.3, 1) * seconds)
            process.kill()
            process.wait()
            after.append(len(list((place / f"kill{kill}").rglob("*.npy"))))
            failed = start(place / "footage", place / f"kill{kill}").wait() != 0
            different += failed or contents(place / f"kill{kill}") != whole
        lines.append(
            f"{options.kills} kills of 02 (with {min(after)} to {max(after)} of 8 sequences): {different} differ"
        )
        different = failed = 0
        for pair in range(options.pairs):
            both = [start(place / "footage", place / f"pair{pair}") for _ in range(2)]
            failed += sum(process.wait() != 0 for process in both)
            different += contents(place / f"pair{pair}") != whole
        lines.append(f"{options.pairs} times two of 02 at once: {failed} failed, {different} differ")
    print(*lines, sep="\n")
    sys.exit(bool(different or failed))


if __name__ == "__main__":
    main()
