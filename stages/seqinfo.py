"""`seqinfo.ini`: what MOT17 says of a sequence, read and written."""

from __future__ import annotations

import configparser
from pathlib import Path

import vfi_utils as vfi


def read_seqinfo(folder: Path) -> dict[str, str]:
    """Facts in a sequence's `seqinfo.ini`, names in lower case, such as "framerate"; none if it has no such file."""
    info = configparser.ConfigParser()
    info.read(folder / "seqinfo.ini")
    return dict(info["Sequence"]) if info.has_section("Sequence") else {}


def write_seqinfo(folder: Path, *, rate: float, frames: int, size: tuple[int, int], camera: str = "") -> None:
    """Describe a sequence in its `seqinfo.ini`, as MOT17 does; `size` is (width, height) in px."""
    facts = {"name": folder.name, "imDir": "img1", "frameRate": f"{rate:g}", "seqLength": frames}
    facts |= {"imWidth": size[0], "imHeight": size[1], "imExt": ".jpg"} | ({"camera": camera} if camera else {})
    lines = [f"{key}={value}\n" for key, value in facts.items()]
    vfi.write_atomic(folder / "seqinfo.ini", "[Sequence]\n" + "".join(lines))
