"""What two or more notebooks of the series share, in the order in which the data flows.

Pixels follow one convention: uint8 RGB, channels last, on disk and at every public function. A model takes uint8
`[B, H, W, 3 * n]` (n frames in time order, without the middle one) and returns float32 `[B, H, W, 3]` in [0, 1].

Importing this module is cheap: keras, matplotlib, imageio, fsspec and gdown are imported inside functions.
"""

from __future__ import annotations

import configparser
import hashlib
import importlib.util
import itertools
import json
import logging
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

VERSION = "1.1"
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


def dataset_source(dataset: str) -> str:
    """Return what tells two data sets apart that have one short name: the whole path of a folder."""
    return dataset if dataset in ("mot17", "sample") else str(Path(dataset).expanduser().resolve())


def run_suffix(dataset: str) -> str:
    """Return what a run's name ends in, so that runs on your footage get names of their own: "", or "-<folder>"."""
    name = dataset_name(choose_dataset(dataset))
    return "" if name in ("mot17", "sample") else f"-{name}"


def shown(path: Path) -> str:
    """Return a path as it is shown to a reader: relative to the repository or to the current folder if inside one."""
    for base in (ROOT, Path.cwd()):
        if path.is_relative_to(base):
            return str(path.relative_to(base))
    return str(Path("work") / path.relative_to(work())) if path.is_relative_to(work()) else str(path)


def digest(content: str | bytes) -> str:
    """Return a short fingerprint of a text."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()[:12]


def changes(old: dict, new: dict) -> str:
    """Name the settings that differ: "seed: 0 -> 1; crop: 64 -> 48"."""
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return "; ".join(f"{name}: {old.get(name)!r} -> {new.get(name)!r}" for name in names)


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file under its final name only when it is whole (write beside it, then rename)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_bytes(content.encode() if isinstance(content, str) else content)
    part.replace(path)


def is_finished(folder: Path, settings: dict) -> bool:
    """Say whether the stage that fills `folder` has finished with these settings; print which differ if it has not.

    A stage is finished when its marker is there (`stage.json`, or `<name>.json` beside a single file): `mark_finished`
    writes it last.
    """
    marker = folder if folder.suffix == ".json" else folder / "stage.json"
    try:
        made_with = json.loads(marker.read_text())["settings"]
    except (FileNotFoundError, ValueError, KeyError):
        return False
    settings = json.loads(json.dumps(settings))  # tuples become lists, as in the file
    if made_with != settings:
        print(f"rebuilding {shown(folder)}: {changes(made_with, settings)}")
    return made_with == settings


def mark_finished(folder: Path, settings: dict, **facts) -> None:
    """Mark the stage that fills `folder` as finished with these settings; `facts` are kept beside them."""
    marker = folder if folder.suffix == ".json" else folder / "stage.json"
    write_whole(marker, json.dumps({"settings": settings, **facts}, indent=1))


def check_disk(folder: Path, needed: int, what: str, remedy: str = "") -> None:
    """Raise OSError, before anything is written, if the disk that holds `folder` has less than `needed` bytes free."""
    remedy = remedy or "Free some space, choose fewer SEQUENCES, or set VFI_WORK to a folder on another disk."
    place = next(p for p in [folder, *folder.parents] if p.exists())
    free = shutil.disk_usage(place).free
    if free < needed:
        raise OSError(f"{what} needs {needed / 2**30:.1f} GiB, and {folder} has {free / 2**30:.1f} GiB free. {remedy}")


def use_drive(folder: str = "/content/drive/MyDrive/vfi-dncnn") -> None:
    """Keep a copy of runs and shrunken frames on Google Drive, where the next notebook's machine finds them.

    Work goes on on the local disk, which is fast and does not drop; what is finished is copied to Drive.

    Raises:
        RuntimeError: if this is not Colab.
    """
    if not on_colab():
        raise RuntimeError("DRIVE = True mounts Google Drive, which only Colab can. Elsewhere, set VFI_WORK instead.")
    from google.colab import drive

    drive.mount("/content/drive")
    os.environ["VFI_DRIVE"] = folder
    Path(folder).mkdir(parents=True, exist_ok=True)


def copy_whole(source: Path, target: Path) -> None:
    """Copy a file, or the files of a folder and of its folders, each by rename; those that look the same are kept."""
    for file in [source] if source.is_file() else sorted(p for p in source.rglob("*") if p.is_file()):
        copied = target / file.relative_to(source) if source.is_dir() else target
        there = copied.stat() if copied.exists() else None
        if there is None or there.st_size != file.stat().st_size or there.st_mtime < file.stat().st_mtime:
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copied.with_name(copied.name + ".part"))
            copied.with_name(copied.name + ".part").replace(copied)


def to_drive(path: Path) -> None:
    """Copy a file or folder of `work/` to the Drive that `use_drive` chose; a Drive that drops stops nothing."""
    if os.environ.get("VFI_DRIVE"):
        try:
            copy_whole(path, Path(os.environ["VFI_DRIVE"], path.relative_to(work())))
        except OSError as error:
            print(f"Drive does not answer ({error}); {shown(path)} is safe here and is copied at the next chance")


def from_drive(path: Path) -> bool:
    """Bring a file or folder of `work/` back from Drive, if a copy is there; say whether it was."""
    if not os.environ.get("VFI_DRIVE"):
        return False
    kept = Path(os.environ["VFI_DRIVE"], path.relative_to(work()))
    if not kept.exists():
        return False
    print(f"bringing {shown(path)} back from Drive")
    copy_whole(kept, path)
    return True


# ---------------------------------------------------------------------------------------------------------------------
# Footage
# ---------------------------------------------------------------------------------------------------------------------


def get_footage(dataset: str = "", sequences: list[str] | None = None, **mot17_options) -> Path:
    """Return the folder that holds the data set's footage, fetching, drawing or importing what is not there yet.

    Args:
        dataset: as in `choose_dataset`.
        sequences: MOT17 sequences to fetch, such as `["MOT17-02", "MOT17-01"]`. None: those chosen the last time, else
            all 14.
        **mot17_options: `local` and `drive_id`, for `get_mot17` in `assets/footage/mot17.py`.

    Returns:
        A folder with `<split>/<sequence>/img1/%06d.jpg`; a folder of yours that has this layout is used where it is.
    """
    dataset = choose_dataset(dataset)
    folder = work("footage", dataset_name(dataset))
    if dataset == "mot17":
        chosen = folder / "chosen.json"
        if sequences is None and chosen.exists():
            sequences = json.loads(chosen.read_text())
        elif sequences is None or set(sequences) <= set(MOT17):
            write_whole(chosen, json.dumps(sequences))  # first: an interrupted choice is still the choice
        load_module("footage/mot17").get_mot17(folder, sequences, **mot17_options)
    elif dataset == "sample":
        draw_sample(folder)
    elif next(Path(dataset).expanduser().glob("t*/*/img1"), None):
        return Path(dataset).expanduser().resolve()
    else:
        load_module("footage/own_videos").import_videos(Path(dataset).expanduser(), folder)
    return folder


def load_module(name: str):
    """Load `assets/<name>.py`, once: "motion", "video", or the kinds of footage. Not every notebook needs each."""
    full_name = "vfi_" + name.replace("/", "_")
    if full_name not in sys.modules:
        specification = importlib.util.spec_from_file_location(full_name, ASSETS / f"{name}.py")
        module = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(module)
        sys.modules[full_name] = module
    return sys.modules[full_name]


def draw_sample(folder: Path) -> None:
    """Draw the sample street into `folder`; sequences already drawn are kept."""
    street = load_module("footage/sample_street")
    settings = {"frames": 19 if fast() else 60, "drawn_by": digest(Path(street.__file__).read_bytes())}
    for name, (split, camera) in street.SEQUENCES.items():
        if not is_finished(folder / split / name, settings):
            print(f"drawing {name} ({split}, {camera} camera, {settings['frames']} frames)", flush=True)
            street.draw_sequence(folder / split / name, name, settings["frames"])
            mark_finished(folder / split / name, settings)


def list_sequences(footage: Path) -> pd.DataFrame:
    """List the sequences of a footage folder, one copy of each (MOT17 holds every image once for each detector).

    Args:
        footage: holds `<split>/<sequence>/img1/`, with or without `seqinfo.ini`.

    Returns:
        One row a sequence: split, sequence, frames (images found), promised (what `seqinfo.ini` or MOT17's table says),
        width, height (px), fps, camera ("fixed", "moving" or "" if not known yet), folder.

    Raises:
        FileNotFoundError: if there is not one sequence.
    """
    rows = {}
    for images in sorted(footage.glob("t*/*/img1")):
        folder, split = images.parent, images.parent.parent.name
        info = configparser.ConfigParser()
        info.read(folder / "seqinfo.ini")
        info = dict(info["Sequence"]) if info.has_section("Sequence") else {}
        name = re.sub(r"^(MOT17-\d\d)-(DPM|FRCNN|SDP)$", r"\1", folder.name)
        files = image_files(folder)
        if split not in ("train", "test") or (split, name) in rows or not files:
            continue
        known = MOT17.get(name, (split, len(files), 0, 0, 30, ""))
        rows[split, name] = {
            "split": split,
            "sequence": name,
            "frames": len(files),
            "promised": int(info.get("seqlength", known[1])),
            "width": int(info.get("imwidth", known[2])),
            "height": int(info.get("imheight", known[3])),
            "fps": float(info.get("framerate", known[4])),
            "camera": info.get("camera", known[5]),
            "folder": folder,
        }
    if not rows:
        raise FileNotFoundError(
            f"No footage in {footage}: looked for <train or test>/<sequence>/img1/*.jpg. Run notebook 01, or set "
            "DATASET = 'sample'."
        )
    return pd.DataFrame(sorted(rows.values(), key=lambda row: (row["split"] == "test", row["sequence"])))


# ---------------------------------------------------------------------------------------------------------------------
# Frames and windows
# ---------------------------------------------------------------------------------------------------------------------


def image_files(folder: Path) -> list[Path]:
    """Return the images of a sequence (its `img1`) or of a plain folder, in the order of their names."""
    folder = Path(folder)
    folder = folder / "img1" if (folder / "img1").is_dir() else folder
    return sorted(p for p in folder.glob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))


def read_frame(path: Path, size: tuple[int, int] = FRAME_SIZE) -> np.ndarray:
    """Read an image, shrunk by area averaging; uint8 `[H, W, 3]`, RGB, 0-255.

    A JPEG decoder can shrink by 2, 4 or 8 while it decodes, at a fraction of the cost. It is asked for no less than
    three times the size wanted, and the box filter does the rest: 1920x1080 -> 480x270 -> 160x90.
    """
    from PIL import Image

    with Image.open(path) as image:
        image.draft("RGB", (3 * size[0], 3 * size[1]))
        return np.asarray(image.convert("RGB").resize(size, Image.Resampling.BOX))


def load_frames(folder: str | Path, size: tuple[int, int] = FRAME_SIZE) -> np.ndarray:
    """Load all frames of a MOT17-shaped sequence, or of a plain folder of images.

    Args:
        folder: holds `img1/*.jpg`, or the images themselves; they are taken in the order of their names.
        size: `(width, height)` in px to shrink to.

    Returns:
        uint8 `[T, H, W, 3]`, RGB, 0-255.

    Raises:
        FileNotFoundError: if there is no image.
        OSError: if one cannot be read; it is named.
    """
    files = image_files(folder)
    if not files:
        raise FileNotFoundError(f"No images (.jpg, .png) in {folder} or in its img1. Run notebook 01, or name another.")
    frames = np.empty((len(files), size[1], size[0], 3), np.uint8)

    def read_into(index: int) -> None:
        try:
            frames[index] = read_frame(files[index], size)
        except OSError as error:
            raise OSError(f"{files[index]} cannot be read ({error}). Delete it and run notebook 01 again.") from error

    with ThreadPoolExecutor(max_workers=4) as pool:
        list(pool.map(read_into, range(len(files))))
    return frames


def build_windows(lengths: dict[str, int], window: int = WINDOW, stride: int = STRIDE, step: int = 1) -> pd.DataFrame:
    """List the windows of consecutive frames: indices only, never across two sequences.

    Args:
        lengths: number of frames of each sequence.
        window: frames in a window, odd; the middle one is the target.
        stride: frames from the start of one window to the start of the next.
        step: frames from one frame of a window to the next; with 2, things move twice as far.

    Returns:
        A row a window: sequence, start (index of its first frame, from 0), middle (of its target); and step, if not 1.

    Raises:
        ValueError: if `window` is not an odd number of at least 3, `stride` is below 1, or a length is negative.
    """
    if window < 3 or window % 2 == 0 or min(stride, step) < 1:
        raise ValueError(
            f"window = {window} must be odd and at least 3, stride = {stride} and step = {step} at least 1."
        )
    if any(length < 0 for length in lengths.values()):
        raise ValueError(f"A sequence cannot have fewer than 0 frames: {lengths}.")
    rows = [
        (sequence, start, start + window // 2 * step)
        for sequence, length in lengths.items()
        for start in range(0, length - (window - 1) * step, stride)
    ]
    table = pd.DataFrame(rows, columns=["sequence", "start", "middle"])
    table = table.astype({"sequence": str, "start": int, "middle": int})
    return table if step == 1 else table.assign(step=step)


def moving_pixels(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Say which pixels move: those whose largest channel difference exceeds 8.

    Args:
        before, after: uint8 `[..., H, W, 3]`, the frames at t-1 and t+1.

    Returns:
        bool `[..., H, W]`.
    """
    return np.abs(before.astype(np.int16) - after).max(axis=-1) > 8


def guess_camera(frames: np.ndarray) -> str:
    """Guess whether a camera moves from how much of its picture does: uint8 `[T, H, W, 3]` -> "fixed" or "moving"."""
    times = np.linspace(1, len(frames) - 2, num=min(24, max(len(frames) - 2, 1)), dtype=int)
    shares = [moving_pixels(frames[t - 1], frames[t + 1]).mean() for t in times]
    return "moving" if np.median(shares) > 0.2 else "fixed"


def find_breaks(row, files: list[Path], frames: np.ndarray, look: bool) -> list[int]:
    """Return the indices of frames that do not follow on the one before: a number is missing, or the scene is cut.

    Args:
        row: of `list_sequences`, to name the sequence in what is printed.
        files: the sequence's images.
        frames: the same, shrunk, uint8 `[T, H, W, 3]`.
        look: whether to look for cuts and repeated frames in the pictures, too; what is found is printed.
    """
    name, breaks = f"{row.split}/{row.sequence}", []
    if all(file.stem.isdecimal() for file in files):
        breaks = [i for i in range(1, len(files)) if int(files[i].stem) != int(files[i - 1].stem) + 1]
    if breaks:
        missing = ", ".join(files[i].name for i in breaks[:5])
        print(f"{name}: frames are missing before {missing}; no window crosses there")
    if look:
        videos = load_module("footage/own_videos")
        changed = videos.frame_changes(frames)
        if cuts := videos.find_cuts(changed):
            print(f"{name}: cuts at frames {cuts}; no window crosses one")
        if repeated := videos.find_duplicates(changed):
            print(f"{name}: {len(repeated)} frames repeat the one before: {repeated[:10]}")
        breaks = breaks + cuts
    return breaks


def build_frames(dataset: str = "", footage: Path | None = None, leave_out: tuple = LEFT_OUT) -> pd.DataFrame:
    """Shrink a data set's footage to 160x90 once and list its windows (the whole of notebook 02).

    Writes `frames/<dataset>/<split>/<sequence>.npy` (uint8 `[T, 90, 160, 3]`) and `windows.csv` under `work/`. A
    sequence that is done is kept; one that is shorter than a window is reported and yields none.

    Args:
        dataset: as in `choose_dataset`.
        footage: where its footage is; None asks `get_footage`.
        leave_out: sequences that get no windows.

    Returns:
        The table of `list_sequences` with the number of windows, without the column `folder`.
    """
    dataset = choose_dataset(dataset)
    footage = footage or get_footage(dataset)
    table = list_sequences(footage)
    if (footage / "chosen.json").exists() and (chosen := json.loads((footage / "chosen.json").read_text())):
        table = table[table.sequence.isin(chosen)].reset_index(drop=True)
    folder = work("frames", dataset_name(dataset))
    breaks = {}
    for index, row in table.iterrows():
        target = folder / row.split / f"{row.sequence}.npy"
        files = image_files(row.folder)
        settings = {"size": FRAME_SIZE, "frames": len(files), "bytes": sum(f.stat().st_size for f in files)}
        if not (target.exists() and is_finished(target.with_suffix(".json"), settings)):
            started = time.perf_counter()
            frames = load_frames(row.folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(target.with_suffix(".part"), "wb") as part:
                np.save(part, frames)
            target.with_suffix(".part").replace(target)
            mark_finished(target.with_suffix(".json"), settings, camera=row.camera or guess_camera(frames))
            seconds = time.perf_counter() - started
            print(f"{row.split}/{row.sequence}: {len(files)} frames, {len(files) / seconds:.0f} a second", flush=True)
        table.loc[index, "camera"] = json.loads(target.with_suffix(".json").read_text())["camera"]
        if row.frames != row.promised:
            print(f"{row.split}/{row.sequence}: {row.frames} of {row.promised} frames are there; they are used")
        if row.frames < WINDOW:
            print(f"{row.split}/{row.sequence}: shorter than a window of {WINDOW} frames, so it yields no window")
        elif dataset != "sample":
            frames = np.load(target, mmap_mode="r")
            breaks[row.split, row.sequence] = find_breaks(row, files, frames, look=dataset != "mot17")
    windows = []
    for split, part in table.groupby("split", sort=False):
        part = part[~part.sequence.isin(leave_out)].set_index("sequence")
        rows = build_windows(part.frames.to_dict())
        broken = [
            any(row.start < at < row.start + WINDOW for at in breaks.get((split, row.sequence), []))
            for row in rows.itertuples()
        ]
        windows.append(rows[~np.array(broken, bool)].assign(split=split, camera=rows.sequence.map(part.camera)))
    windows = pd.concat(windows)[["split", "sequence", "camera", "start", "middle"]]
    write_whole(folder / "windows.csv", windows.to_csv(index=False))
    mark_finished(folder, {"footage": dataset_source(dataset)})
    counts = windows.groupby(["split", "sequence"]).size()
    table["windows"] = [int(counts.get((row.split, row.sequence), 0)) for row in table.itertuples()]
    return table.drop(columns="folder")


def get_frames(dataset: str = "", split: str = "train") -> tuple[dict[str, np.ndarray], pd.DataFrame]:
    """Return the shrunken frames and the windows of one split, building them if notebook 02 has not.

    Args:
        dataset: as in `choose_dataset`.
        split: "train" or "test".

    Returns:
        frames: sequence -> uint8 `[T, 90, 160, 3]`, RGB, memory-mapped and read-only.
        windows: a row a window: split, sequence, camera, start, middle.

    Raises:
        FileNotFoundError: if the split has no window.
    """
    dataset = choose_dataset(dataset)
    folder = work("frames", dataset_name(dataset))
    if (folder / "windows.csv").exists() and is_finished(folder, {"footage": dataset_source(dataset)}):
        print(f"using the frames in {shown(folder)}")
    else:
        print("no frames here yet: doing what notebooks 01 and 02 do")
        if not fetch_frames(dataset):
            build_frames(dataset)
            if os.environ.get("VFI_DRIVE"):
                pack_frames(dataset)
    windows = pd.read_csv(folder / "windows.csv", dtype={"sequence": str}).query("split == @split")
    if windows.empty:
        raise FileNotFoundError(
            f"No {split} window in {folder / 'windows.csv'}: no sequence under {split}/ has {WINDOW} frames. Add "
            "footage and run notebooks 01 and 02 again."
        )
    names = windows.sequence.unique()
    frames = {name: np.load(folder / split / f"{name}.npy", mmap_mode="r") for name in names}
    return frames, windows.reset_index(drop=True)


def pack_frames(dataset: str = "") -> Path:
    """Pack a data set's shrunken frames and windows into one zip, to share or to keep on Drive; return its path."""
    folder = work("frames", dataset_name(choose_dataset(dataset)))
    part = shutil.make_archive(str(folder) + ".part", "zip", folder)
    packed = Path(part).replace(folder.with_suffix(".zip"))
    to_drive(packed)
    return packed


def unpack_frames(packed: Path, dataset: str = "") -> None:
    """Unpack what `pack_frames` packed; the data set counts as there only when all of it is.

    Raises:
        ValueError: if the file is not such a zip.
    """
    folder = work("frames", dataset_name(choose_dataset(dataset)))
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        shutil.unpack_archive(packed, part, "zip")
    except shutil.ReadError as error:
        raise ValueError(f"{packed} is not a zip of frames ({error}). Delete it, and pack the frames again.") from error
    if not (part / "windows.csv").exists():
        raise ValueError(f"{packed} holds no windows.csv: it was not made by notebook 02. Delete it.")
    shutil.rmtree(folder, ignore_errors=True)
    part.replace(folder)


def fetch_frames(dataset: str = "", drive_id: str = "") -> bool:
    """Bring packed frames from Google Drive, by the id of a shared file or from `use_drive`'s folder, if there.

    Returns:
        Whether the frames are here now; if not, `build_frames` builds them.

    Raises:
        OSError: if Drive does not give out the file with that id.
    """
    folder = work("frames", dataset_name(choose_dataset(dataset)))
    packed = folder.with_name(f"{folder.name}{drive_id and '-'}{drive_id}.zip")
    if (folder / "windows.csv").exists():
        return bool(drive_id)
    if drive_id and not packed.exists():
        import gdown

        packed.parent.mkdir(parents=True, exist_ok=True)
        try:
            gdown.download(id=drive_id, output=str(packed), resume=True)
        except Exception as error:  # gdown raises its own, requests' and OSError
            raise OSError(
                f"Google Drive does not give out the file {drive_id} ({error}). Ask its owner to share it with anyone "
                f"who has the link, put it at {packed} by hand, or clear FRAMES_DRIVE_ID to build the frames."
            ) from error
    elif not drive_id and not from_drive(packed):
        return False
    try:
        unpack_frames(packed, dataset)
    finally:
        packed.unlink()
    return True


def split_middle(windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Take the middle frame out of each window: `[B, 2k + 1, ...]` -> neighbours `[B, 2k, ...]`, middles `[B, ...]`."""
    middle = windows.shape[1] // 2
    return np.delete(windows, middle, axis=1), windows[:, middle]


def window_of(frames: dict[str, np.ndarray], row) -> np.ndarray:
    """Return the frames of one row of a table of windows: uint8 `[2k + 1, H, W, 3]`, a view."""
    return frames[row.sequence][row.start : 2 * row.middle - row.start + 1 : getattr(row, "step", 1)]


def take_windows(frames: dict[str, np.ndarray], windows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Copy windows out of the frames.

    Returns:
        neighbours: uint8 `[N, n, H, W, 3]`, in time order, the middle frame not among them.
        targets: uint8 `[N, H, W, 3]`, the middle frames.
    """
    return split_middle(np.stack([window_of(frames, row) for row in windows.itertuples()]))


def spread(windows: pd.DataFrame, count: int) -> pd.DataFrame:
    """Return `count` windows evenly spread over the table (all of them if there are fewer)."""
    return windows.iloc[np.linspace(0, len(windows) - 1, min(count, len(windows))).round().astype(int)]


# ---------------------------------------------------------------------------------------------------------------------
# Models
# ---------------------------------------------------------------------------------------------------------------------


def model_file(name_or_path: str | Path, untrained: bool = False) -> Path:
    """Find a model: a path; yours in `work/` if that stage has run; else the one shipped in `assets/models/`.

    Raises:
        FileNotFoundError: naming where it looked and the notebook to run.
    """
    name = str(name_or_path)
    if name.endswith(".keras"):
        places = [Path(name).expanduser().resolve()]
    else:
        yours = work("models", f"{name}.keras") if untrained else work("runs", name, "model.keras")
        places = [yours, ASSETS / "models" / f"{name}.keras"]
        if not yours.exists():
            from_drive(yours.parent)
    for place in places:
        if place.exists():
            return place
    looked = " and ".join(shown(place) for place in places)
    raise FileNotFoundError(
        f"No model {name!r}: looked for {looked}. Run notebook {'03' if untrained else '04'}, or name another model."
    )


def load_model(name_or_path: str | Path):
    """Load a trained model and say which: `load_model("dncnn")` takes your run's, else the shipped one.

    Returns:
        A `keras.Model`: uint8 `[B, H, W, 3 * n]` in, float32 `[B, H, W, 3]` in [0, 1] out.
    """
    import keras

    load_module("motion")  # registers its layers
    path = model_file(name_or_path)
    print(f"model {name_or_path}: {shown(path)}")
    return keras.models.load_model(path, compile=False)


def load_untrained(name: str):
    """Load the untrained model that notebook 03 wrote; else take a shipped model's architecture, with fresh weights.

    The initialisers' seeds are part of the architecture, so fresh weights are the same weights every time.
    """
    import keras

    load_module("motion")  # registers its layers
    path = model_file(name, untrained=True)
    model = keras.models.load_model(path, compile=False)
    if path.is_relative_to(ASSETS):
        print(f"untrained {name}: the architecture of {shown(path)} with fresh weights")
        return type(model).from_config(model.get_config())
    print(f"untrained {name}: {shown(path)}")
    return model


def frames_of(model) -> int:
    """Return how many frames a model takes."""
    return model.input_shape[-1] // 3


def innermost(neighbours: np.ndarray, frames: int) -> np.ndarray:
    """Stack the `frames` innermost neighbours as channels: `[B, n, H, W, 3]` -> `[B, H, W, 3 * frames]`.

    Raises:
        ValueError: if `neighbours` has another shape or type, or fewer frames than that.
    """
    if neighbours.ndim != 5 or neighbours.shape[-1] != 3 or neighbours.dtype != np.uint8:
        raise ValueError(f"neighbours must be uint8 [B, n, H, W, 3], not {neighbours.dtype} {list(neighbours.shape)}.")
    count = neighbours.shape[1]
    if count < frames or (count - frames) % 2:
        raise ValueError(f"The model takes {frames} frames around the middle one, and {count} neighbours were given.")
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


TILE = 512  # px: larger frames are drawn in tiles
POINTWISE = "Activation Add Average BatchNormalization Concatenate InputLayer ReLU Rescaling Split Subtract"


def receptive_radius(model) -> int | None:
    """Return how far in px an output pixel sees; None for a model of more than convolutions that keep the size."""
    radius = 0
    for layer in getattr(model, "operations", model.layers):
        if type(layer).__name__ == "Conv2D" and set(layer.strides) == {1} and layer.padding == "same":
            radius += max(size // 2 * step for size, step in zip(layer.kernel_size, layer.dilation_rate))
        elif type(layer).__name__ not in POINTWISE.split() or getattr(layer, "axis", -1) not in (-1, 3):
            return None
    return radius


def tile_starts(length: int, tile: int, overlap: int) -> tuple[list[int], int]:
    """Return where the tiles along a side of `length` px start, and the size, at most `tile`, that all of them have."""
    if length <= tile:
        return [0], length
    count = -(-(length - 2 * overlap) // (tile - 2 * overlap))
    size = -(-(length - 2 * overlap) // count) + 2 * overlap
    return np.linspace(0, length - size, count).round().astype(int).tolist(), size


def split_tiles(images: np.ndarray, tile: int, overlap: int) -> list[np.ndarray]:
    """Cut `[..., H, W, C]` into views of at most `tile` px a side, which `join_tiles` undoes.

    Each pixel lies at least `overlap` px inside one of them, or at that distance from the edge of the picture.
    """
    (rows, height), (columns, width) = (tile_starts(side, tile, overlap) for side in images.shape[-3:-1])
    return [images[..., y : y + height, x : x + width, :] for y in rows for x in columns]


def join_tiles(tiles: Iterable[np.ndarray], size: tuple[int, int], tile: int, overlap: int) -> np.ndarray:
    """Put tiles `[..., h, w, C]` without their margins together to `[..., H, W, C]`; `size` is (H, W)."""
    corners, joined = itertools.product(*(tile_starts(side, tile, overlap)[0] for side in size)), None
    for (y, x), part in zip(corners, tiles):
        if joined is None:
            joined = np.empty((*part.shape[:-3], *size, part.shape[-1]), part.dtype)
        top, left = overlap if y else 0, overlap if x else 0  # the margins below and right are overwritten
        joined[..., y + top : y + part.shape[-3], x + left : x + part.shape[-2], :] = part[..., top:, left:, :]
    return joined


def draw_middle(model, neighbours: np.ndarray, tile: int = TILE) -> np.ndarray:
    """Draw middle frames of any size: uint8 `[B, n, H, W, 3]` -> float32 `[B, H, W, 3]` in [0, 1].

    A model of convolutions sees no further than its receptive radius: it draws tiles that overlap by that, with the
    memory of one tile, and they are what the whole frame would have been. A model that moves pixels says on a shrunken
    copy where they come from (`assets/motion.py`). Another model gets the whole frame.
    """
    stacked, overlap = innermost(neighbours, frames_of(model)), receptive_radius(model)
    motion = load_module("motion")
    if motion.moves_pixels(model) and max(stacked.shape[1:3]) > motion.SMALL:
        return motion.move_pixels(model, neighbours, tile)
    if overlap is None:
        return model.predict_on_batch(stacked)
    parts = (model.predict_on_batch(part) for part in split_tiles(stacked, tile, overlap))
    return join_tiles(parts, stacked.shape[1:3], tile, overlap)


def predict_middle(model, neighbours: np.ndarray, batch_size: int = 8) -> np.ndarray:
    """Draw the middle frames.

    Args:
        model: a keras model, or a function of `neighbours` such as `average`.
        neighbours: uint8 `[B, n, H, W, 3]`, RGB, n frames in time order, the middle one not among them. A model of
            fewer frames takes its own innermost ones.
        batch_size: windows that go through the model at once.

    Returns:
        uint8 `[B, H, W, 3]`, rounded and clipped.

    Raises:
        ValueError: if the neighbours have another shape or type, or are fewer than the model takes.
    """
    if not hasattr(model, "predict_on_batch"):
        return model(neighbours)
    innermost(neighbours[:1], frames_of(model))  # refuses what does not fit
    parts = [draw_middle(model, neighbours[i : i + batch_size]) for i in range(0, len(neighbours), batch_size)]
    return to_uint8(np.concatenate(parts))


def to_uint8(drawn: np.ndarray) -> np.ndarray:
    """Round and clip what a model returns: float in [0, 1] -> uint8, 0-255."""
    return np.rint(np.clip(drawn, 0, 1) * 255).astype(np.uint8)


# ---------------------------------------------------------------------------------------------------------------------
# Metrics
# ---------------------------------------------------------------------------------------------------------------------


def psnr(prediction: np.ndarray, target: np.ndarray, where: np.ndarray | None = None) -> np.ndarray:
    """Peak signal-to-noise ratio of each frame in dB: peak 255, over all pixels and the three channels.

    Args:
        prediction, target: uint8 `[B, H, W, 3]`.
        where: bool `[B, H, W]`, the pixels that count; None for all.

    Returns:
        float `[B]`; infinite for equal frames, NaN where no pixel counts.

    Raises:
        ValueError: if shapes differ or the frames are not uint8.
    """
    if prediction.shape != target.shape or prediction.dtype != np.uint8 or target.dtype != np.uint8:
        raise ValueError(
            f"prediction and target must be uint8 of one shape [B, H, W, 3], not {prediction.dtype} "
            f"{list(prediction.shape)} and {target.dtype} {list(target.shape)}."
        )
    error = np.square(prediction.astype(np.float64) - target).mean(axis=-1)
    where = np.ones(error.shape, bool) if where is None else where
    with np.errstate(divide="ignore", invalid="ignore"):
        error = (error * where).sum(axis=(1, 2)) / where.sum(axis=(1, 2))
        return 10 * np.log10(255.0**2 / error)


def ssim(prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Structural similarity of each frame (Wang et al. 2004, as `tf.image.ssim` takes it): uint8 -> float `[B]`."""
    import tensorflow as tf

    return tf.image.ssim(tf.constant(prediction), tf.constant(target), max_val=255).numpy()


def evaluate(models: dict, frames: dict[str, np.ndarray], windows: pd.DataFrame, batch: int = 16) -> pd.DataFrame:
    """Measure models, and the baselines beside them, on every window.

    Args:
        models: name -> keras model, name or path for `load_model`, or function of the neighbours.
        frames: sequence -> uint8 `[T, H, W, 3]`.
        windows: sequence, start, middle (and camera, if known) of each window.
        batch: windows held in memory at once.

    Returns:
        A row for each model and window: model, sequence, camera, middle, motion (share of pixels that move between t-1
        and t+1), mse (of values in 0-1), psnr (dB), ssim, psnr_moving (dB, over the pixels that move; NaN without any),
        tint (how far the frame's mean red, green and blue are off, of 255, on average), beats_average (bool). Equal
        frames count as 100 dB, so that one of them cannot make a mean infinite.

    Raises:
        ValueError: if there is no window, or a sequence of the windows has no frames.
    """
    missing = set(windows.sequence) - set(frames)
    if windows.empty or missing:
        raise ValueError(f"evaluate needs windows, and frames for each sequence; {len(windows)} windows, no {missing}.")
    models = {name: load_model(m) if isinstance(m, (str, Path)) else m for name, m in {**BASELINES, **models}.items()}
    rows = []
    for sequence, part in windows.groupby("sequence", sort=False):
        for first in range(0, len(part), batch):
            chunk = part.iloc[first : first + batch]
            neighbours, targets = take_windows(frames, chunk)
            inner = neighbours.shape[1] // 2
            moving = moving_pixels(neighbours[:, inner - 1], neighbours[:, inner])
            to_beat = psnr(average(neighbours), targets)
            for name, model in models.items():
                drawn = predict_middle(model, neighbours)
                score = psnr(drawn, targets)
                rows.append(
                    pd.DataFrame(
                        {
                            "model": name,
                            "sequence": sequence,
                            "camera": chunk.camera.to_numpy() if "camera" in chunk else "",
                            "middle": chunk.middle.to_numpy(),
                            "motion": moving.mean(axis=(1, 2)),
                            "mse": 10 ** (-score / 10),
                            "psnr": np.minimum(score, 100),
                            "ssim": ssim(drawn, targets),
                            "psnr_moving": np.minimum(psnr(drawn, targets, moving), 100),
                            "tint": np.abs(drawn.mean(axis=(1, 2)) - targets.mean(axis=(1, 2))).mean(axis=-1),
                            "beats_average": score > to_beat,
                        }
                    )
                )
        print(f"measured {sequence}: {len(part)} windows, {len(models)} models", flush=True)
    return pd.concat(rows, ignore_index=True)


def summarize(scores: pd.DataFrame) -> pd.DataFrame:
    """Average the rows of `evaluate`: per sequence, per kind of camera, and over all windows.

    Returns:
        Columns footage, model, windows, mse, psnr, ssim, psnr_moving (dB), tint, beats_average (share of windows).
    """
    groups = {name: part for name, part in scores.groupby("sequence", sort=False)}
    groups |= {f"{name} cameras": part for name, part in scores.groupby("camera") if name}
    groups["all windows"] = scores
    measures = {
        "windows": ("psnr", "size"),
        **{name: (name, "mean") for name in ("mse", "psnr", "ssim", "psnr_moving", "tint", "beats_average")},
    }
    tables = [part.groupby("model", sort=False).agg(**measures).assign(footage=name) for name, part in groups.items()]
    table = pd.concat(tables).reset_index()
    return table[["footage", "model", *measures]]


# ---------------------------------------------------------------------------------------------------------------------
# What a notebook shows
# ---------------------------------------------------------------------------------------------------------------------


def gpu_name() -> str:
    """Return the name of the GPU that keras will use, or "" if there is none."""
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        devices = tf.config.list_physical_devices("GPU")
        return tf.config.experimental.get_device_details(devices[0]).get("device_name", "GPU") if devices else ""
    if keras.backend.backend() == "jax":
        import jax

        return next((device.device_kind for device in jax.devices() if device.platform == "gpu"), "")
    return ""


def report_environment(training: bool = False) -> None:
    """Print versions, the GPU (or, for training, the way to one), memory, disk, and where files go; imports little."""
    from importlib.metadata import PackageNotFoundError, version

    def known(package: str) -> str:
        try:
            return f"{package} {version(package)}"
        except PackageNotFoundError:
            return f"{package} missing"

    # Or it warns of every model and size that it compiles. A level would not do: TensorFlow sets its own when imported.
    logging.getLogger("tensorflow").addFilter(lambda record: record.levelno >= logging.ERROR)
    names = ("keras", "tensorflow", "numpy", "pandas", "matplotlib", "imageio", "gdown")
    print(f"Python {platform.python_version()}; " + ", ".join(known(name) for name in names))
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        print(f"GPU: {subprocess.run(query, capture_output=True, text=True).stdout.strip() or 'not answering'}")
    elif not training:
        print("GPU: none, and none is needed here")
    else:
        print("GPU: none. In Colab choose Runtime > Change runtime type > T4 GPU, then Runtime > Run all")
    place = next(p for p in [work(), *work().parents] if p.exists())
    memory = (
        os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30 if hasattr(os, "sysconf") else float("nan")
    )
    free = shutil.disk_usage(place).free / 2**30
    print(f"memory: {memory:.0f} GiB; free disk: {free:.0f} GiB; files go to {shown(work())}")


def show_images(images, titles=(), columns: int = 0, name: str = "", width: float = 11, caption: str = "", **imshow):
    """Show images side by side in a grid and save the figure as `work/figures/<name>.png` if it is named.

    Args:
        images: uint8 `[H, W, 3]`, or float `[H, W]` maps drawn with the colour map in `imshow`.
        titles: one for each image, or fewer.
        columns: images in a row; 0 means all.
        name: under which the figure is saved.
        width: of the figure in inches.
        caption: a line under the figure.
        **imshow: passed on to `Axes.imshow`; `cmap`, `vmin` and `vmax` put maps on one scale.

    Returns:
        The matplotlib figure and the last image drawn (for a colour bar).
    """
    import matplotlib.pyplot as plt

    columns = columns or len(images)
    rows = -(-len(images) // columns)
    height, across = images[0].shape[:2]
    titled = rows if len(titles) > columns else min(len(titles), 1)
    inches = rows * width / columns * height / across + 0.22 * titled + (0.25 if caption else 0)
    figure, axes = plt.subplots(rows, columns, figsize=(width, inches), squeeze=False, layout="constrained")
    figure.get_layout_engine().set(h_pad=0.02, w_pad=0.02, hspace=0, wspace=0)
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


def list_files(*patterns: str) -> None:
    """Print the files of `work/` that match the patterns, their sizes, and whether they outlive the session."""
    files = sorted(file for pattern in patterns for file in work().glob(pattern) if file.is_file())
    for file in files:
        print(f"{file.stat().st_size / 2**20:8.2f} MiB  {shown(file)}")
    if os.environ.get("VFI_DRIVE"):
        print(f"Runs and packed frames are also on Drive, in {os.environ['VFI_DRIVE']}, and outlive the session.")
    elif on_colab():
        print("They are on this machine's disk and go when the Colab session ends: download them, or set DRIVE = True.")


if __name__ == "__main__":  # the module itself, not a second one called __main__
    sys.exit(importlib.import_module("vfi_utils").load_module("video").main())
