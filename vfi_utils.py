"""The ground floor: what notebooks and `stages/` share. It imports nothing of ours, and is cheap to import.

Pixels follow one convention: uint8 RGB, channels last, on disk and at every public function. A model takes uint8
`[B, H, W, 3 * n]` (n frames in time order, without the middle one) and returns float32 `[B, H, W, 3]` in [0, 1].
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import platform
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # or TensorFlow complains of a missing GPU; read when keras comes

VERSION = "1.2"
REPOSITORY = "OWNER/vfi-dncnn"  # the one place; `make badges REPO=owner/name` copies it into the badges
ROOT = Path(__file__).resolve().parent
ASSETS = ROOT / "assets"

FRAME_SIZE = (160, 90)  # (width, height) in px, the article's
WINDOW, STRIDE = 7, 4  # frames


# Where things are, and whether a stage is finished ------------------------------------------------------------------


def fast() -> bool:
    """Whether `VFI_FAST=1` asks for runs of seconds (the tests do)."""
    return os.environ.get("VFI_FAST") == "1"


def on_colab() -> bool:
    """Whether this runs on Google Colab."""
    with contextlib.suppress(ImportError):
        import google.colab  # noqa: F401

        return True
    return False


def require_version(version: str) -> None:
    """Raise RuntimeError, with what to do, if this module is older than a notebook needs."""
    if tuple(map(int, VERSION.split("."))) < tuple(map(int, version.split("."))):
        cure = "run `git pull` there, or delete it and run the Setup cell again; then restart."
        raise RuntimeError(f"This notebook needs version {version}, and {ROOT} has {VERSION}: {cure}")


def work(*parts: str) -> Path:
    """Path under the folder for everything a run produces: `work/`, or what `VFI_WORK` names."""
    return Path(os.environ.get("VFI_WORK") or ROOT / "work").expanduser().resolve().joinpath(*parts)


def display_path(path: Path) -> str:
    """Path as a reader sees it: relative to the current folder, as Colab's file panel has it, or to the repository."""
    for base in (Path.cwd(), ROOT):
        if path.is_relative_to(base):
            return str(path.relative_to(base))
    return str(Path("work") / path.relative_to(work())) if path.is_relative_to(work()) else str(path)


def digest(content: str | bytes) -> str:
    """Short fingerprint of a text."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()[:12]


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a file under its final name only when it is whole (write beside it, then rename)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_bytes(content.encode() if isinstance(content, str) else content)
    part.replace(path)


def free_disk(folder: Path) -> int:
    """Bytes free on the disk that holds, or would hold, `folder`."""
    return shutil.disk_usage(next(p for p in [folder, *folder.parents] if p.exists())).free


def check_disk(folder: Path, needed: int, what: str, remedy: str = "") -> None:
    """Raise OSError, before anything is written, if the disk that holds `folder` has less than `needed` bytes free."""
    remedy = remedy or "Free some space, choose fewer SEQUENCES, or set VFI_WORK to a folder on another disk."
    if (free := free_disk(folder)) < needed:
        raise OSError(f"{what} needs {needed / 2**30:.1f} GiB, and {folder} has {free / 2**30:.1f} GiB free. {remedy}")


def use_drive(folder: str = "/content/drive/MyDrive/vfi-dncnn") -> None:
    """Keep a copy of what is finished on Google Drive, for the next notebook's machine; RuntimeError if that cannot be.

    Work itself goes on on the local disk, which is fast and does not drop.
    """
    if not on_colab():
        raise RuntimeError("DRIVE = True mounts Google Drive, which only Colab can. Elsewhere, set VFI_WORK instead.")
    from google.colab import drive

    drive.mount("/content/drive")
    if not Path(folder).parent.is_dir():  # made here, it would be a local folder, and no mount would succeed again
        raise RuntimeError(f"Google Drive is not there: no {Path(folder).parent}. Mount it, or set DRIVE = False.")
    Path(folder).mkdir(exist_ok=True)
    os.environ["VFI_DRIVE"] = folder


print_once = functools.cache(functools.partial(print, flush=True))


def drive_copy(path: Path) -> Path | None:
    """Place of a file or folder of `work/` on Drive; None if none is in use or (said once) it is not mounted."""
    drive = os.environ.get("VFI_DRIVE")
    if drive and not os.path.isdir(drive):  # Path.is_dir raises if a mount has died
        return print_once(f"Drive does not answer: no folder {drive}. Nothing is copied until it is mounted again.")
    return Path(drive, path.relative_to(work())) if drive else None


def copy_atomic(source: Path, target: Path) -> None:
    """Copy a file, or the files of a folder and of its folders, each by rename; those that look the same are kept."""
    for file in [source] if source.is_file() else sorted(p for p in source.rglob("*") if p.is_file()):
        copied = target / file.relative_to(source) if source.is_dir() else target
        there = copied.stat() if copied.exists() else None
        same = there and there.st_size == file.stat().st_size and there.st_mtime >= file.stat().st_mtime
        if not same and file.suffix != ".part":  # what an interrupted run left
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copied.with_name(copied.name + ".part"))
            copied.with_name(copied.name + ".part").replace(copied)


def to_drive(path: Path) -> None:
    """Copy a file or folder of `work/` to the Drive that `use_drive` chose; a Drive that drops stops nothing."""
    if copied := drive_copy(path):
        try:
            copy_atomic(path, copied)
        except OSError as error:
            print(f"Drive does not answer ({error}); {display_path(path)} is safe here, and copied at the next chance")


def from_drive(path: Path) -> bool:
    """Whether a file or folder of `work/` came back from Drive: it does if a copy is there and can be read."""
    copied = drive_copy(path)
    try:
        if not copied or not copied.exists():
            return False
        print(f"bringing {display_path(path)} back from Drive")
        copy_atomic(copied, path)
    except OSError as error:
        print(f"Drive does not answer ({error}); going on without its copy of {display_path(path)}")
        return False
    return True


# Frames and windows -------------------------------------------------------------------------------------------------


def image_files(folder: Path) -> list[Path]:
    """Images of a sequence (its `img1`) or of a plain folder, none hidden; in natural order: frame_2, then frame_10."""

    def natural(path: Path) -> tuple:
        parts = re.split(r"(\d+)", path.name.lower())  # text and numbers by turns
        return [int(part) if index % 2 else part for index, part in enumerate(parts)], path.name

    folder = Path(folder)
    folder = folder / "img1" if (folder / "img1").is_dir() else folder
    images = (p for p in folder.glob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    return sorted((p for p in images if not p.name.startswith(".") and p.is_file()), key=natural)


def read_frame(path: Path, size: tuple[int, int] | None = FRAME_SIZE) -> np.ndarray:
    """Image, shrunk by area averaging (None: as it is): uint8 `[H, W, 3]`, RGB, 0-255; 16-bit grey scaled to 8 bits.

    A JPEG decoder can shrink by 2, 4 or 8 while it decodes, at a fraction of the cost. It decodes no less than
    three times the size wanted, and the box filter does the rest: 1920x1080 -> 480x270 -> 160x90.
    """
    with Image.open(path) as image:
        if size:
            image.draft("RGB", (3 * size[0], 3 * size[1]))
        if image.mode.startswith("I"):  # "I;16", or "I" in older Pillow
            image = Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8))
        image = image.convert("RGB")
        return np.asarray(image.resize(size, Image.Resampling.BOX) if size else image)


def load_frames(folder: str | Path, size: tuple[int, int] = FRAME_SIZE) -> np.ndarray:
    """Frames of a sequence (its `img1`) or of a plain folder of images, all: uint8 `[T, H, W, 3]`, RGB, 0-255.

    They come in the order of `image_files`, shrunk to `size`, (width, height) in px. FileNotFoundError if there is
    none; OSError if one cannot be read, which is named.
    """
    files = image_files(folder)
    if not files:
        raise FileNotFoundError(f"No images (.jpg, .png) in {folder} or in its img1. Run notebook 01, or name another.")
    frames = np.empty((len(files), size[1], size[0], 3), np.uint8)

    def read_into(index: int) -> None:
        try:
            frames[index] = read_frame(files[index], size)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # Pillow's
            raise OSError(f"{files[index]} cannot be read ({error}). Delete it and run notebook 01 again.") from error

    with ThreadPoolExecutor(max_workers=4) as pool:
        list(pool.map(read_into, range(len(files))))
    return frames


def window_times(spacing: str = "article", neighbours: int = 6) -> tuple[int, ...]:
    """Times of a window's neighbours, in frames from its middle: (-3, -2, -1, 1, 2, 3); for video (-5, -3, ..., 5)."""
    if spacing not in ("article", "video"):
        raise ValueError(f"spacing = {spacing!r} is neither 'article' nor 'video'.")
    after = range(1, neighbours // 2 + 1) if spacing == "article" else range(1, neighbours, 2)
    return *(-time for time in reversed(after)), *after


def build_windows(
    lengths: dict[str, int], window: int = WINDOW, stride: int = STRIDE, step: int = 1, spacing: str = "article"
) -> pd.DataFrame:
    """Table of windows of frames: indices only, never across two sequences.

    Args:
        lengths: number of frames of each sequence.
        window, stride: frames in a window, odd; frames from the start of one to the start of the next.
        step: all times of a window are multiplied by it; with 2, things move twice as far.
        spacing: "article": consecutive frames, whose inner step is twice the others once the middle is out. "video":
            the steps of a video that is doubled, every second frame, and between the inner two the target.

    Returns:
        A row a window: sequence, start (index of its first frame, from 0), middle (of its target); and step, if not 1,
        and spacing, if not "article". ValueError if there cannot be such windows.
    """
    if window < 3 or window % 2 == 0 or min(stride, step) < 1:
        raise ValueError(f"window = {window} must be odd and above 2, stride = {stride} and step = {step} above 0.")
    if any(length < 0 for length in lengths.values()):
        raise ValueError(f"A sequence cannot have fewer than 0 frames: {lengths}.")
    reach = step * window_times(spacing, window - 1)[-1]
    rows = [
        (sequence, start, start + reach)
        for sequence, length in lengths.items()
        for start in range(0, length - 2 * reach, stride)
    ]
    table = pd.DataFrame(rows, columns=["sequence", "start", "middle"])
    table = table.astype({"sequence": str, "start": int, "middle": int})
    return table.assign(**{"step": step} if step > 1 else {}, **{"spacing": spacing} if spacing == "video" else {})


def moving_pixels(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Mask of the pixels that move, bool `[..., H, W]`: those whose largest channel difference exceeds 8.

    `before` and `after` are uint8 `[..., H, W, 3]`, the frames at t-1 and t+1.
    """
    return np.abs(before.astype(np.int16) - after).max(axis=-1) > 8


def split_middle(windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Neighbours `[B, 2k, ...]` and middle frames `[B, ...]` of windows `[B, 2k + 1, ...]`."""
    middle = windows.shape[1] // 2
    return np.delete(windows, middle, axis=1), windows[:, middle]


def window_of(frames: dict[str, np.ndarray], row) -> np.ndarray:
    """Frames of one row of a table of windows: uint8 `[2k + 1, H, W, 3]`, a view if they are consecutive."""
    reach, step = row.middle - row.start, int(getattr(row, "step", 1))
    window = frames[row.sequence][row.start : row.middle + reach + 1 : step]
    if getattr(row, "spacing", "article") == "video":  # of -5 ... 5 those at odd distances and the middle
        middle = reach // step
        return window[[i for i in range(len(window)) if i == middle or (i - middle) % 2]]
    return window


def take_windows(frames: dict[str, np.ndarray], windows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Neighbours uint8 `[N, n, H, W, 3]`, at `window_times(spacing, n)`, and middle frames uint8 `[N, H, W, 3]`."""
    return split_middle(np.stack([window_of(frames, row) for row in windows.itertuples()]))


def spread(windows: pd.DataFrame, count: int) -> pd.DataFrame:
    """Windows, `count` of them, evenly spread over the table (all of them if there are fewer)."""
    return windows.iloc[np.linspace(0, len(windows) - 1, min(count, len(windows))).round().astype(int)]


# Neighbours, baselines, metrics -------------------------------------------------------------------------------------


def innermost(neighbours: np.ndarray, frames: int) -> np.ndarray:
    """The `frames` innermost neighbours, stacked as channels: uint8 `[B, n, H, W, 3]` -> `[B, H, W, 3 * frames]`."""
    if neighbours.ndim != 5 or neighbours.shape[-1] != 3 or neighbours.dtype != np.uint8:
        raise ValueError(f"neighbours must be uint8 [B, n, H, W, 3], not {neighbours.dtype} {list(neighbours.shape)}.")
    count = neighbours.shape[1]
    if count < frames or (count - frames) % 2:
        raise ValueError(f"The model takes {frames} frames around the middle one, not {count}.")
    inner = neighbours[:, (count - frames) // 2 : (count + frames) // 2]
    return np.concatenate(list(inner.swapaxes(0, 1)), axis=-1)


def average(neighbours: np.ndarray) -> np.ndarray:
    """Baseline: the rounded mean of the frames at t-1 and t+1; uint8 `[B, n, H, W, 3]` -> uint8 `[B, H, W, 3]`."""
    before, after = np.split(innermost(neighbours, 2).astype(np.uint16), 2, axis=-1)
    return ((before + after + 1) // 2).astype(np.uint8)


def nearest(neighbours: np.ndarray) -> np.ndarray:
    """Baseline: the frame at t-1, shown again; uint8 `[B, n, H, W, 3]` -> uint8 `[B, H, W, 3]`."""
    return innermost(neighbours, 2)[..., :3]


BASELINES = {"average": average, "nearest": nearest}


def to_uint8(prediction: np.ndarray) -> np.ndarray:
    """Rounded and clipped prediction of a model: float in [0, 1] -> uint8, 0-255."""
    return np.rint(np.clip(prediction, 0, 1) * 255).astype(np.uint8)


def psnr(prediction: np.ndarray, target: np.ndarray, where: np.ndarray | None = None) -> np.ndarray:
    """Peak signal-to-noise ratio of each frame in dB, float `[B]`: peak 255, over all pixels and the three channels.

    Equal frames give infinity, one of which no pixel counts NaN; other shapes or types are a ValueError.

    Args:
        prediction, target: uint8 `[B, H, W, 3]`.
        where: bool `[B, H, W]`, the pixels that count; None for all.
    """
    if prediction.shape != target.shape or prediction.dtype != np.uint8 or target.dtype != np.uint8:
        kinds = " and ".join(f"{frames.dtype} {list(frames.shape)}" for frames in (prediction, target))
        raise ValueError(f"prediction and target must be uint8 of one shape [B, H, W, 3], not {kinds}.")
    error = np.square(prediction.astype(np.float64) - target).mean(axis=-1)
    where = np.ones(error.shape, bool) if where is None else where
    with np.errstate(divide="ignore", invalid="ignore"):
        error = (error * where).sum(axis=(1, 2)) / where.sum(axis=(1, 2))
        return 10 * np.log10(255.0**2 / error)


def cap_psnr(decibels: np.ndarray) -> np.ndarray:
    """PSNR of which equal frames count as 100 dB, so that one of them cannot make a mean infinite."""
    return np.minimum(decibels, 100)


# What a notebook shows ----------------------------------------------------------------------------------------------


def busiest_crop(change: np.ndarray, size: tuple[int, int], step: tuple[int, int]) -> tuple[slice, slice]:
    """Slices of the rectangle of `size` (height, width) with the largest sum of `change` `[H, W]`, of every `step`."""
    (height, width), (tall, wide) = size, change.shape
    corners = [(y, x) for y in range(0, tall - height + 1, step[0]) for x in range(0, wide - width + 1, step[1])]
    y, x = max(corners, key=lambda corner: change[corner[0] :, corner[1] :][:height, :width].sum())
    return slice(y, y + height), slice(x, x + width)


def report_environment(training: bool = False) -> None:
    """Print versions, the GPU (or, for training, the way to one), memory, disk, and where files go; imports little."""
    from importlib.metadata import PackageNotFoundError, version

    def known(package: str) -> str:
        with contextlib.suppress(PackageNotFoundError):
            return f"{package} {version(package)}"
        return f"{package} missing"

    # Or it warns of every model and size that it compiles. A level would not do: TensorFlow sets its own when imported.
    logging.getLogger("tensorflow").addFilter(lambda record: record.levelno >= logging.ERROR)
    names = ["keras", "tensorflow", "numpy", "pandas", "matplotlib", "imageio", "gdown"]
    print(f"Python {platform.python_version()}; {', '.join(map(known, names))}")
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        print(f"GPU: {subprocess.run(query, capture_output=True, text=True).stdout.strip() or 'not answering'}")
    else:
        way = ". In Colab choose Runtime > Change runtime type > T4 GPU, then Runtime > Run all"
        print("GPU: none" + (way if training else ", and none is needed here"))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else float("nan")
    sizes = f"memory: {memory / 2**30:.0f} GiB; free disk: {free_disk(work()) / 2**30:.0f} GiB"
    print(f"{sizes}; files go to {display_path(work())}")


def show_images(images, titles=(), columns: int = 0, name: str = "", width: float = 11, caption: str = "", **imshow):
    """Figure of images in a grid, saved as `work/figures/<name>.png`, and the last image drawn (for a colour bar).

    Args:
        images: uint8 `[H, W, 3]`, or float `[H, W]` maps; `imshow`, such as `cmap` and `vmax`, is for these.
        titles, caption: one above each image, or fewer; a line under the figure.
        columns, width: images in a row, 0 for all; inches of the figure.
    """
    import matplotlib.pyplot as plt

    columns = columns or len(images)
    rows = -(-len(images) // columns)
    height, across = images[0].shape[:2]
    titled = rows if len(titles) > columns else min(len(titles), 1)
    lines = 1 + max((title.count("\n") for title in titles), default=0)
    inches = rows * width / columns * height / across + (0.09 + 0.17 * lines) * titled + (0.27 if caption else 0.04)
    figure, axes = plt.subplots(rows, columns, figsize=(width, inches), squeeze=False, layout="constrained")
    figure.get_layout_engine().set(h_pad=0.04, w_pad=0.02, hspace=0, wspace=0)
    for axis in axes.flat:
        axis.axis("off")
    for index, (axis, image) in enumerate(zip(axes.flat, images, strict=False)):
        drawn = axis.imshow(image, interpolation="nearest", **(imshow if image.ndim == 2 else {}))
        axis.set_title(titles[index] if index < len(titles) else "", fontsize=9)
    if caption:
        figure.supxlabel(caption, fontsize=9)
    if name:
        save_figure(figure, name)
    return figure, drawn


def save_figure(figure, name: str) -> None:
    """Save a figure as `work/figures/<name>.png` at 100 dots an inch."""
    path = work("figures", f"{name}.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def list_files(*patterns: str, drive: bool = True) -> None:
    """Print files of `work/`, their sizes, and whether they outlive the session; `drive`: is there a setting DRIVE?"""
    files = sorted(file for pattern in patterns for file in work().glob(pattern) if file.is_file())
    for file in files:
        print(f"{file.stat().st_size / 2**20:8.2f} MiB  {display_path(file)}")
    if os.environ.get("VFI_DRIVE"):
        print(f"Runs and packed frames are also on Drive, in {os.environ['VFI_DRIVE']}, and outlive the session.")
    elif on_colab():
        print("They go when the Colab session ends: download them" + (", or set DRIVE = True." if drive else "."))
