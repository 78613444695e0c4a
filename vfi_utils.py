"""What two or more notebooks of the series share, in the order in which the data flows.

Pixels follow one convention: uint8 RGB, channels last, on disk and at every public function. A model takes uint8
`[B, H, W, 3 * n]` (n frames in time order, without the middle one) and returns float32 `[B, H, W, 3]` in [0, 1].

Importing this module is cheap: keras, matplotlib, imageio, fsspec and gdown are imported by the functions that use them.
"""

from __future__ import annotations

import configparser
import hashlib
import importlib.util
import json
import os
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

VERSION = "1.0"
REPOSITORY = "OWNER/vfi-dncnn"  # the one place; `make badges REPO=owner/name` copies it into the badges
ROOT = Path(__file__).resolve().parent
ASSETS = ROOT / "assets"

FRAME_SIZE = (160, 90)  # (width, height) in px, the article's
WINDOW, STRIDE = 7, 4  # frames

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
LEFT_OUT = ("MOT17-14",)  # with it the test windows would not be the article's 1285


# ---------------------------------------------------------------------------------------------------------------------
# Where things are, and whether a stage is finished
# ---------------------------------------------------------------------------------------------------------------------


def fast() -> bool:
    """Say whether `VFI_FAST=1` asks for runs of seconds (the tests do)."""
    return os.environ.get("VFI_FAST") == "1"


def on_colab() -> bool:
    """Say whether this runs on Google Colab."""
    return importlib.util.find_spec("google") is not None and importlib.util.find_spec("google.colab") is not None


def work(*parts: str) -> Path:
    """Return a path under the folder for everything a run produces: `work/`, or what `VFI_WORK` names."""
    return Path(os.environ.get("VFI_WORK") or ROOT / "work").expanduser().resolve().joinpath(*parts)


def choose_dataset(dataset: str = "") -> str:
    """Return the data set to use: `VFI_DATASET` if set, else `dataset`, else "mot17" on Colab and "sample" elsewhere.

    Args:
        dataset: "mot17", "sample", a folder of videos or of MOT17-shaped sequences, or "" for the default.

    Raises:
        FileNotFoundError: if it is neither a known name nor a folder.
    """
    dataset = os.environ.get("VFI_DATASET") or dataset or ("mot17" if on_colab() else "sample")
    if dataset not in ("mot17", "sample") and not Path(dataset).expanduser().is_dir():
        raise FileNotFoundError(
            f"DATASET = {dataset!r} is neither 'mot17' nor 'sample', and there is no folder "
            f"{Path(dataset).expanduser().resolve()}. Choose one of the two names, or the folder of your videos."
        )
    return dataset


def dataset_name(dataset: str) -> str:
    """Return the short name under which a data set is kept in `work/`: the name itself, or the folder's."""
    return dataset if dataset in ("mot17", "sample") else Path(dataset).expanduser().resolve().name


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file under its final name only when it is whole (write beside it, then rename)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_bytes(content.encode() if isinstance(content, str) else content)
    part.replace(path)


def is_finished(folder: Path, settings: dict) -> bool:
    """Say whether the stage that fills `folder` has finished with these settings, and print which way it was decided.

    A stage is finished when its marker `stage.json` is there: it is written last, by `mark_finished`. Settings that
    differ are named, so that a rebuild never comes as a surprise.
    """
    try:
        marker = json.loads((folder / "stage.json").read_text())
    except (FileNotFoundError, ValueError):
        return False
    settings = json.loads(json.dumps(settings))  # tuples become lists, as in the file
    if marker["settings"] == settings:
        return True
    names = sorted(set(marker["settings"]) | set(settings))
    changed = [n for n in names if marker["settings"].get(n) != settings.get(n)]
    told = "; ".join(f"{n}: {marker['settings'].get(n)!r} -> {settings.get(n)!r}" for n in changed)
    print(f"rebuilding {folder}: {told}")
    return False


def mark_finished(folder: Path, settings: dict, **facts) -> None:
    """Mark the stage that fills `folder` as finished with these settings; `facts` are kept beside them."""
    write_whole(folder / "stage.json", json.dumps({"settings": settings, **facts}, indent=1))


def check_disk(folder: Path, needed: int, what: str) -> None:
    """Raise OSError, before anything is written, if the disk that holds `folder` has less than `needed` bytes free."""
    place = next(p for p in [folder, *folder.parents] if p.exists())
    free = shutil.disk_usage(place).free
    if free < needed:
        raise OSError(
            f"{what} needs {needed / 2**30:.1f} GiB, and {folder} has {free / 2**30:.1f} GiB free. "
            "Free some space, choose fewer SEQUENCES, or set VFI_WORK to a folder on another disk."
        )


# ---------------------------------------------------------------------------------------------------------------------
# Footage: MOT17 from its archives
# ---------------------------------------------------------------------------------------------------------------------


# ---------------------------------------------------------------------------------------------------------------------
# Footage: your own videos
# ---------------------------------------------------------------------------------------------------------------------


# ---------------------------------------------------------------------------------------------------------------------
# Footage: one door for all
# ---------------------------------------------------------------------------------------------------------------------
