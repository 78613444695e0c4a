"""Shrunken frames and windows on disk, checked against what was written."""

from __future__ import annotations

import io
import re
import zlib
from pathlib import Path

import numpy as np
import pandas as pd

import vfi_utils as vfi
from stages import download, markers

PACKED = re.compile(r"stage\.json|windows\.csv|(train|test)/[^/\\]+\.(npy|json)")  # what a zip of frames holds


def checksum(path: Path) -> dict:
    """Size and CRC-32 of a file, to be kept in its marker."""
    crc = 0
    with path.open("rb") as file:
        while block := file.read(2**22):
            crc = zlib.crc32(block, crc)
    return {"size": path.stat().st_size, "crc32": crc}


def fault_of(target: Path) -> str:
    """What is wrong with the frames of a sequence, `<sequence>.npy`, against their marker; "" if nothing is."""
    try:
        marker = markers.read_json(target.with_suffix(".json"))
        if "file" in marker and marker["file"] != (found := checksum(target)):  # older ones have no such entry
            return f"{vfi.display_path(target)} is damaged: {markers.changes(marker['file'], found)}"
        frames = np.load(target, mmap_mode="r")
        expected = (marker["settings"]["frames"], vfi.FRAME_SIZE[1], vfi.FRAME_SIZE[0], 3)
        if frames.shape != expected or frames.dtype != np.uint8:
            return f"{vfi.display_path(target)} holds {frames.dtype} {frames.shape} instead of uint8 {expected}"
    except (OSError, ValueError, EOFError, SyntaxError, LookupError, TypeError) as error:
        return f"{vfi.display_path(target)} is damaged: {download.describe(error)}"
    return ""


def read_windows(folder: Path) -> pd.DataFrame:
    """Table of windows of both splits, as notebook 02 wrote it.

    Raises:
        ValueError: if it is damaged, or names a file outside `folder`.
    """
    path = folder / "windows.csv"
    found, content = checksum(path), path.read_bytes()
    written = markers.read_json(folder / "stage.json").get("windows", found)  # older markers have no such entry
    if written != found:
        raise ValueError(f"{vfi.display_path(path)} is damaged: {markers.changes(written, found)}")
    windows = pd.read_csv(io.BytesIO(content), dtype={"sequence": str}, keep_default_na=False)  # one may be called NA
    if lacking := {"split", "sequence", "camera", "start", "middle"} - set(windows.columns):
        raise ValueError(f"{vfi.display_path(path)} is damaged: it has no {', '.join(sorted(lacking))}")
    outside = [name for name in windows.sequence.unique() if not PACKED.fullmatch(f"train/{name}.npy")]
    if outside or set(windows.split) - {"train", "test"}:
        raise ValueError(f"{vfi.display_path(path)} names {outside or set(windows.split)}, which is no sequence here")
    return windows.astype({"start": int, "middle": int})


def find_faults(folder: Path, split: str) -> list[str]:
    """What is wrong with the windows and the frames of one split."""
    try:
        windows = read_windows(folder)
    except (OSError, ValueError) as error:
        return [str(error)]
    counted = windows[windows.split == split].groupby("sequence").middle.max() + vfi.WINDOW // 2
    targets = {name: folder / split / f"{name}.npy" for name in counted.index}
    faults = [fault for target in targets.values() if (fault := fault_of(target))]
    long = [] if faults else [n for n, t in targets.items() if len(np.load(t, mmap_mode="r")) <= counted[n]]
    return faults + [f"windows.csv has windows beyond the end of {name}" for name in long]
