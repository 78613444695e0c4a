"""Choose a data set, and get its footage: notebook 01."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

import vfi_utils as vfi
from stages import markers, mot17, own_videos, sample_street, seqinfo

BUILT_IN = ("mot17", "sample")


@dataclass(frozen=True)
class SequenceRow:
    """A row of `list_sequences`."""

    split: str
    sequence: str
    frames: int
    promised: int
    width: int
    height: int
    fps: float
    camera: str
    folder: Path


def choose_dataset(dataset: str = "") -> str:
    """Data set to use: `VFI_DATASET` if set, else `dataset`, else "sample".

    Args:
        dataset: "mot17", "sample", a folder of videos or of MOT17-shaped sequences, or "" for the default.

    Raises:
        FileNotFoundError: if it is neither a known name nor a folder.
    """
    dataset = os.environ.get("VFI_DATASET") or dataset or "sample"
    if dataset not in BUILT_IN and not Path(dataset).expanduser().is_dir():
        raise FileNotFoundError(
            f"DATASET = {dataset!r} is neither 'mot17' nor 'sample', and there is no folder "
            f"{Path(dataset).expanduser().resolve()}. Choose one of the two names, or the folder of your videos."
        )
    return dataset


def dataset_name(dataset: str) -> str:
    """Short name under which a data set is kept in `work/`: the name itself, or the folder's, unless that is a name."""
    if dataset in BUILT_IN:
        return dataset
    name = Path(dataset).expanduser().resolve().name
    return f"{name}-folder" if name in ("", *BUILT_IN) else name


def dataset_source(dataset: str) -> str:
    """Full name of a data set, the whole path of a folder: two folders may have one short name."""
    return dataset if dataset in BUILT_IN else str(Path(dataset).expanduser().resolve())


def run_suffix(dataset: str) -> str:
    """Ending of a run's name, so that runs on your footage get names of their own: "", or "-<folder>"."""
    name = dataset_name(choose_dataset(dataset))
    return "" if name in BUILT_IN else f"-{name}"


def get_footage(dataset: str = "", sequences: list[str] | None = None, **mot17_options) -> Path:
    """Folder that holds the data set's footage; what is not there yet is fetched, drawn or imported.

    Args:
        dataset: as in `choose_dataset`.
        sequences: MOT17 sequences to fetch, such as `["MOT17-02", "MOT17-01"]`. None: those chosen the last time, else
            all 14.
        **mot17_options: `local` and `drive_id`, for `mot17.get_mot17`.

    Returns:
        A folder with `<split>/<sequence>/img1/%06d.jpg`; a folder of yours that has this layout is used where it is.
    """
    dataset = choose_dataset(dataset)
    if dataset not in BUILT_IN and next(Path(dataset).expanduser().glob("t*/*/img1"), None):
        return Path(dataset).expanduser().resolve()
    folder = vfi.work("footage", dataset_name(dataset))
    with markers.locked(folder):
        if dataset == "mot17":
            chosen = folder / "chosen.json"
            if sequences is None:
                sequences = chosen_sequences(folder)
            elif set(sequences) <= set(mot17.MOT17):
                vfi.write_atomic(chosen, json.dumps(sequences))  # first: an interrupted choice is still the choice
            mot17.get_mot17(folder, sequences, **mot17_options)
        elif dataset == "sample":
            draw_sample(folder)
        else:
            own_videos.import_videos(Path(dataset).expanduser(), folder)
    return folder


def chosen_sequences(footage: Path) -> list[str] | None:
    """Sequences of MOT17 that were chosen; None for all. ValueError if the file that says so is damaged."""
    chosen = footage / "chosen.json"
    return markers.read_json(chosen, (list, type(None))) if chosen.exists() else None


def draw_sample(folder: Path) -> None:
    """Draw the sample street into `folder`; sequences already drawn are kept."""
    drawn_by = vfi.digest(Path(sample_street.__file__).read_bytes())
    settings = {"frames": 19 if vfi.fast() else 60, "drawn_by": drawn_by}
    for name, (split, camera) in sample_street.SEQUENCES.items():
        if not markers.is_finished(folder / split / name, settings):
            print(f"drawing {name} ({split}, {camera} camera, {settings['frames']} frames)", flush=True)
            sample_street.draw_sequence(folder / split / name, name, settings["frames"])
            markers.mark_finished(folder / split / name, settings)


def list_sequences(footage: Path) -> pd.DataFrame:
    """Table of the sequences of a footage folder, one copy of each (MOT17 holds an image once for each detector).

    Args:
        footage: holds `<split>/<sequence>/img1/`, with or without `seqinfo.ini`.

    Of two copies the one with more images is taken. A `seqinfo.ini` that cannot be read is named, and left aside.

    Returns:
        One row a sequence: split, sequence, frames (images found), promised (what `seqinfo.ini` or MOT17's table says),
        width, height (px), fps, camera ("fixed", "moving" or "" if not known yet), folder.

    Raises:
        FileNotFoundError: if there is not one sequence.
    """
    rows = {}
    for images in sorted(footage.glob("t*/*/img1")):
        folder, split = images.parent, images.parent.parent.name
        name = re.sub(r"^(MOT17-\d\d)-(DPM|FRCNN|SDP)$", r"\1", folder.name)
        count = len(vfi.image_files(folder))
        if split not in ("train", "test") or count <= (rows[split, name].frames if (split, name) in rows else 0):
            continue
        try:
            info = seqinfo.read_seqinfo(folder)
        except ValueError as error:
            print(f"{split}/{name}: {error}; it is used without what that file says")
            info = seqinfo.SequenceInfo()
        known = mot17.MOT17.get(name, mot17.Sequence(split, count, 0, 0, 30, ""))
        rows[split, name] = SequenceRow(
            split=split,
            sequence=name,
            frames=count,
            promised=known.frames if info.frames is None else info.frames,
            width=info.width or known.width,
            height=info.height or known.height,
            fps=info.rate or float(known.rate),
            camera=info.camera or known.camera,
            folder=folder,
        )
    if not rows:
        raise FileNotFoundError(
            f"No footage in {footage}: looked for <train or test>/<sequence>/img1/*.jpg. Run notebook 01, or set "
            "DATASET = 'sample'."
        )
    return pd.DataFrame(sorted(rows.values(), key=lambda row: (row.split == "test", row.sequence)))


def guess_camera(frames: np.ndarray) -> str:
    """Kind of camera, guessed from how much of its picture moves: uint8 `[T, H, W, 3]` -> "fixed" or "moving"."""
    times = np.linspace(1, len(frames) - 2, num=min(24, max(len(frames) - 2, 1)), dtype=int)
    shares = [vfi.moving_pixels(frames[t - 1], frames[t + 1]).mean() for t in times]
    return "moving" if np.median(shares) > 0.2 else "fixed"
