"""Ask for the address of every download, without its content: python tests/tools/check_downloads.py

Fails if one has gone or has another size than noted. What is asked is stages/mot17.SOURCES.
"""

from __future__ import annotations

import sys
import urllib.request
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from stages import mot17


def what_is_wrong(address: str, size: int) -> str:
    """What keeps a download from being as it was: "" if it answers and has the size noted (0: not known)."""
    request = urllib.request.Request(address, method="HEAD", headers={"User-Agent": "vfi-dncnn"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            there = int(answer.headers.get("Content-Length") or 0)
    except (OSError, ValueError) as error:  # HTTP errors and timeouts are of the first kind
        return f"{type(error).__name__}: {error}"
    return f"{there:,} bytes, not {size:,}" if size and there != size else ""


def check(sources: Iterable[tuple[str, int, str]]) -> int:
    """Number of addresses that are wrong; a line is printed for each address."""
    wrong = 0
    for address, size, _ in sources:
        fault = what_is_wrong(address, size)
        print(f"{address}: {fault or 'ok'}", flush=True)
        wrong += bool(fault)
    return wrong


if __name__ == "__main__":
    sys.exit(bool(check(mot17.SOURCES)))
