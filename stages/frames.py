"""Shrink footage to small frames, list their windows, and pack both to share them: notebook 02."""

from __future__ import annotations

import os
import shutil
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pandas as pd

import vfi_utils as vfi
from stages import download, markers, shots, stored
from stages.footage import (
    choose_dataset,
    chosen_sequences,
    dataset_name,
    dataset_source,
    get_footage,
    guess_camera,
    list_sequences,
)

LEFT_OUT = ("MOT17-14",)  # with it the test windows would not be the article's 1285


def find_breaks(row, files: list[Path], frames: np.ndarray, look: bool) -> list[int]:
    """Indices of frames that do not follow on the one before: a number is missing, or the scene is cut.

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
        changed = shots.frame_changes(frames)
        if cuts := shots.find_cuts(changed):
            print(f"{name}: cuts at frames {cuts}; no window crosses one")
        if repeated := shots.find_duplicates(changed):
            print(f"{name}: {len(repeated)} frames repeat the one before: {repeated[:10]}")
        breaks = breaks + cuts
    return breaks


def shrink_sequence(row, target: Path) -> str:
    """Kind of camera of a sequence, a row of `list_sequences`, whose frames are shrunk to `target` unless they are."""
    files, marker = vfi.image_files(row.folder), target.with_suffix(".json")
    settings = {"size": vfi.FRAME_SIZE, "frames": len(files), "bytes": sum(f.stat().st_size for f in files)}
    if target.exists() and markers.is_finished(marker, settings):
        if not (fault := stored.fault_of(target)):
            return markers.read_json(marker)["camera"]
        print(f"{fault}; it is built again")
    started = time.perf_counter()
    frames = vfi.load_frames(row.folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target.with_suffix(".part"), "wb") as part:
        np.save(part, frames)
    target.with_suffix(".part").replace(target)
    camera = row.camera or guess_camera(frames)
    markers.mark_finished(marker, settings, camera=camera, file=stored.checksum(target))
    rate = len(files) / (time.perf_counter() - started)
    print(f"{row.split}/{row.sequence}: {len(files)} frames, {rate:.0f} a second", flush=True)
    return camera


def list_windows(table: pd.DataFrame, breaks: dict, leave_out: tuple) -> pd.DataFrame:
    """Table of the windows of sequences (`list_sequences`), but those left out; none crosses one of the `breaks`."""
    windows = []
    for split, part in table.groupby("split", sort=False):
        part = part[~part.sequence.isin(leave_out)].set_index("sequence")
        rows = vfi.build_windows(part.frames.to_dict())
        broken = [
            any(row.start < at < row.start + vfi.WINDOW for at in breaks.get((split, row.sequence), []))
            for row in rows.itertuples()
        ]
        windows.append(rows[~np.array(broken, bool)].assign(split=split, camera=rows.sequence.map(part.camera)))
    return pd.concat(windows)[["split", "sequence", "camera", "start", "middle"]]


def build_frames(dataset: str = "", footage: Path | None = None, leave_out: tuple = LEFT_OUT) -> pd.DataFrame:
    """Table of a data set's sequences; their frames are shrunk to 160x90 once, their windows listed (notebook 02).

    Writes `frames/<dataset>/<split>/<sequence>.npy` (uint8 `[T, 90, 160, 3]`) and `windows.csv` under `work/`. A
    sequence that is done, and whole, is kept; one that is shorter than a window is reported and yields none.

    Args:
        dataset: as in `choose_dataset`.
        footage: where its footage is; None asks `get_footage`.
        leave_out: sequences that get no windows.

    Returns:
        The table of `list_sequences` with the number of windows, without the column `folder`.

    Raises:
        OSError: before anything is written, if the disk is too small; or if an image cannot be read.
    """
    dataset = choose_dataset(dataset)
    footage = footage or get_footage(dataset)
    table = list_sequences(footage)
    if chosen := chosen_sequences(footage):
        table = table[table.sequence.isin(chosen)].reset_index(drop=True)
    folder = vfi.work("frames", dataset_name(dataset))
    with markers.locked(folder):
        targets = [folder / row.split / f"{row.sequence}.npy" for row in table.itertuples()]
        new = sum(frames for frames, target in zip(table.frames, targets, strict=True) if not target.exists())
        vfi.check_disk(folder, int(new) * 3 * vfi.FRAME_SIZE[0] * vfi.FRAME_SIZE[1], f"Shrinking {new} frames")
        table["camera"] = [shrink_sequence(*pair) for pair in zip(table.itertuples(), targets, strict=True)]
        breaks = {}
        for row, target in zip(table.itertuples(), targets, strict=True):
            if row.frames != row.promised:
                print(f"{row.split}/{row.sequence}: {row.frames} of {row.promised} frames are there; they are used")
            if row.frames < vfi.WINDOW:
                print(
                    f"{row.split}/{row.sequence}: shorter than a window of {vfi.WINDOW} frames, so it yields no window"
                )
            elif dataset != "sample":
                files, frames = vfi.image_files(row.folder), np.load(target, mmap_mode="r")
                breaks[row.split, row.sequence] = find_breaks(row, files, frames, look=dataset != "mot17")
        windows = list_windows(table, breaks, leave_out)
        vfi.write_atomic(folder / "windows.csv", windows.to_csv(index=False))
        facts = {"windows": stored.checksum(folder / "windows.csv"), "left_out": leave_out}
        markers.mark_finished(folder, {"footage": dataset_source(dataset)}, **facts)
    counts = windows.groupby(["split", "sequence"]).size()
    table["windows"] = [int(counts.get((row.split, row.sequence), 0)) for row in table.itertuples()]
    return table.drop(columns="folder")


def video_windows(windows: pd.DataFrame) -> pd.DataFrame:
    """Windows at a video's own spacing, of a table of the article's windows; no footage is needed.

    Eleven frames from `start` are two of the article's windows, at `start` and 4 frames on: where both are listed,
    no sequence ends and nothing breaks the motion between.
    """
    listed = set(zip(windows.sequence, windows.start))
    whole = [(row.sequence, row.start + vfi.STRIDE) in listed for row in windows.itertuples()]
    middle = windows.start + vfi.window_times("video")[-1]
    return windows.assign(middle=middle, spacing="video")[whole].reset_index(drop=True)


def prepare_frames(dataset: str, split: str) -> None:
    """Make sure that a data set's frames and windows are there and whole: kept, brought from Drive, or built."""
    folder = vfi.work("frames", dataset_name(dataset))
    with markers.locked(folder):
        left_out = LEFT_OUT
        if (folder / "windows.csv").exists() and markers.is_finished(folder, {"footage": dataset_source(dataset)}):
            if not (faults := stored.find_faults(folder, split)):
                return print(f"using the frames in {vfi.display_path(folder)}")
            print(*faults, "what is damaged is built again", sep="\n")
            left_out = tuple(markers.read_json(folder / "stage.json").get("left_out", LEFT_OUT))
            (folder / "windows.csv").unlink()  # or what is on Drive would not be taken
        else:
            print("no frames here yet: doing what notebooks 01 and 02 do")
        try:
            if fetch_frames(dataset) and not stored.find_faults(folder, split):
                return None
        except ValueError as error:
            print(error)
        build_frames(dataset, leave_out=left_out)
        if os.environ.get("VFI_DRIVE"):
            pack_frames(dataset)
    return None


def get_frames(
    dataset: str = "", split: str = "train", spacing: str = "article"
) -> tuple[dict[str, np.ndarray], pd.DataFrame]:
    """Shrunken frames and windows of one split; they are built if notebook 02 has not.

    Args:
        dataset: as in `choose_dataset`.
        split: "train" or "test".
        spacing: of the windows, "article" or "video", as in `vfi_utils.build_windows`.

    Returns:
        frames: sequence -> uint8 `[T, 90, 160, 3]`, RGB, memory-mapped and read-only.
        windows: a row a window: split, sequence, camera, start, middle; and spacing, if it is "video".

    Raises:
        FileNotFoundError: if the split has no window.
    """
    vfi.window_times(spacing)  # refuses an unknown one before anything is built
    dataset = choose_dataset(dataset)
    folder = vfi.work("frames", dataset_name(dataset))
    prepare_frames(dataset, split)
    windows = stored.read_windows(folder).query("split == @split")
    if windows.empty:
        raise FileNotFoundError(
            f"No {split} window in {folder / 'windows.csv'}: no sequence under {split}/ has {vfi.WINDOW} frames. Add "
            "footage and run notebooks 01 and 02 again."
        )
    windows = video_windows(windows.reset_index(drop=True)) if spacing == "video" else windows
    names = windows.sequence.unique()
    frames = {name: np.load(folder / split / f"{name}.npy", mmap_mode="r") for name in names}
    return frames, windows.reset_index(drop=True)


def pack_frames(dataset: str = "") -> Path:
    """Path of one zip of a data set's shrunken frames and windows, to share or to keep on Drive."""
    folder = vfi.work("frames", dataset_name(choose_dataset(dataset)))
    with markers.locked(folder):
        packed = folder.with_name(f"{folder.name}.zip")
        Path(shutil.make_archive(f"{folder}.part", "zip", folder)).replace(packed)
        vfi.to_drive(packed)
    return packed


def unpack_frames(packed: Path, dataset: str = "") -> None:
    """Unpack what `pack_frames` packed; the data set counts as there only when all of it is.

    Raises:
        ValueError: if the file is not such a zip, or is damaged.
        OSError: if the disk is too small for what it holds.
    """
    folder = vfi.work("frames", dataset_name(choose_dataset(dataset)))
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        with zipfile.ZipFile(packed) as archive:
            members = [member for member in archive.infolist() if stored.PACKED.fullmatch(member.filename)]
            if "windows.csv" not in [member.filename for member in members]:
                raise ValueError("it holds no windows.csv: it was not made by notebook 02")
            vfi.check_disk(folder, sum(member.file_size for member in members), f"Unpacking {packed.name}")
            for member in members:
                (part / member.filename).parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as source, (part / member.filename).open("wb") as target:
                    shutil.copyfileobj(source, target, 2**20)
        shutil.rmtree(folder, ignore_errors=True)
        part.replace(folder)
    except (ValueError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
        message = f"{packed} is not a zip of frames ({error}). Delete it, and pack the frames again."
        raise ValueError(message) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def fetch_frames(dataset: str = "", drive_id: str = "") -> bool:
    """Whether packed frames came from Google Drive, or else must be built.

    Args:
        dataset: as in `choose_dataset`.
        drive_id: the id of a shared file, or the link to it; "" for the folder that `use_drive` chose.

    Raises:
        OSError: if Drive does not give out the file with that id.
        ValueError: if `drive_id` is neither, or what came is no zip of frames.
    """
    folder = vfi.work("frames", dataset_name(choose_dataset(dataset)))
    name = download.drive_id(drive_id) if drive_id else ""
    packed = folder.with_name(f"{folder.name}{name and '-'}{name}.zip")
    with markers.locked(folder):
        if (folder / "windows.csv").exists():
            return bool(drive_id)
        if name and not packed.exists():
            try:
                download.fetch_drive(name, packed)
            except OSError as error:
                raise OSError(
                    f"{error}. Ask its owner to share it with anyone who has the link, put it at {packed} by hand, or "
                    "clear FRAMES_DRIVE_ID to build the frames."
                ) from error
        elif not name and not vfi.from_drive(packed):
            return False
        try:
            unpack_frames(packed, dataset)
        finally:
            packed.unlink()
    return True
