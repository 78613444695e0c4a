"""`seqinfo.ini`: what MOT17 says of a sequence, read and written."""

from __future__ import annotations

import configparser
import math
from dataclasses import dataclass
from pathlib import Path

import vfi_utils as vfi


@dataclass(frozen=True)
class SequenceInfo:
    """What a sequence's own file says; None or "" where it says nothing. Sizes in px, `rate` in frames a second."""

    frames: int | None = None
    width: int | None = None
    height: int | None = None
    rate: float | None = None
    camera: str = ""


def read_seqinfo(folder: Path) -> SequenceInfo:
    """Facts in a sequence's `seqinfo.ini`, as people write it too: a byte order mark, 29,97; none without that file.

    Raises:
        ValueError: if it is no such file or a number in it is none; the file and the line, or the name, are in it.
    """
    path, parser = folder / "seqinfo.ini", configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read(path, encoding="utf-8-sig")
    except (configparser.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{vfi.display_path(path)} is no seqinfo.ini: {' '.join(str(error).split())}") from error
    facts = dict(parser["Sequence"]) if parser.has_section("Sequence") else {}

    def number(name: str) -> float | None:
        text = facts.get(name.lower())
        if text is None:
            return None
        try:
            value = float(text.replace(",", "."))
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise ValueError(f"{vfi.display_path(path)}: {name}={text} is not a number")
        return value

    frames, width, height = (
        None if (value := number(name)) is None else int(value) for name in ("seqLength", "imWidth", "imHeight")
    )
    camera = facts.get("camera", "")
    return SequenceInfo(frames=frames, width=width, height=height, rate=number("frameRate"), camera=camera)


def write_seqinfo(folder: Path, *, rate: float, frames: int, size: tuple[int, int], camera: str = "") -> None:
    """Describe a sequence in its `seqinfo.ini`, as MOT17 does; `size` is (width, height) in px."""
    facts = {"name": folder.name, "imDir": "img1", "frameRate": f"{rate:g}", "seqLength": frames}
    facts |= {"imWidth": size[0], "imHeight": size[1], "imExt": ".jpg"} | ({"camera": camera} if camera else {})
    lines = [f"{key}={value}\n" for key, value in facts.items()]
    vfi.write_atomic(folder / "seqinfo.ini", "[Sequence]\n" + "".join(lines))
