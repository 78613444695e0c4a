"""Crops of what paths fetch, and batches of them, for the network that weighs it: notebook 07.

Find, follow and fetch do not change while the network learns to weigh. So they are done once, before.
"""

from __future__ import annotations

import time
import zipfile
from pathlib import Path

import cv2
import keras
import numpy as np

import vfi_utils as vfi
from stages import blending, evidence, markers, models, motion

SPACINGS = {  # times of six neighbours around the frame at 0, and how often they are drawn
    (-5, -3, -1, 1, 3, 5): 0.5,  # a video's own
    (-3, -2, -1, 1, 2, 3): 0.25,  # the article's
    (-7, -4, -1, 2, 5, 8): 0.1,  # a third of the way
    (-9, -5, -1, 3, 7, 11): 0.05,  # a quarter
    (-10, -6, -2, 2, 6, 10): 0.05,  # even, and faster
    (-4, -3, -1, 2, 3, 4): 0.05,
}
LARGEST = 640 * 360  # px: the area of the frames that crops are cut from; what is learned on these serves larger ones
CROPS_PER_WINDOW = 2
SHAKEN = 0.5  # share of the windows that a hand shakes
CAPTIONED = 0.06  # share of the windows on which a caption stands still


def random_window(
    frames: np.ndarray, random: np.random.Generator, largest: int = LARGEST
) -> tuple[list[np.ndarray], list[float], np.ndarray]:
    """Neighbours, their times around 0, and the frame at 0, of uint8 `[T, H, W, 3]`.

    The spacing is one of `SPACINGS`, forwards or backwards; a third each has six, four or two neighbours, and fewer at
    the ends of a clip. Half are shaken. Half are shrunk by 2 or 4, if at least 80 px are left, and all to `largest` px.
    Sides are cut to what `evidence.copy_scale` divides.
    """
    while True:
        times = np.array(list(SPACINGS)[random.choice(len(SPACINGS), p=list(SPACINGS.values()))])
        times = times if random.random() < 0.5 else -times[::-1]
        times = times[3 - (reach := random.integers(1, 4)) : 3 + reach]
        middle = random.integers(1, len(frames) - 1)
        there = (times + middle >= 0) & (times + middle < len(frames))
        if there[reach - 1] and there[reach] and (there.all() or random.random() < 0.2):
            break
    chosen = [np.array(frames[middle + time]) for time in (*times[there], 0)]
    if random.random() < SHAKEN:
        chosen = shake(chosen, [*times[there], 0], random)
    height, width = chosen[0].shape[:2]
    shrink = random.choice([1, 2, 4], p=[0.5, 0.25, 0.25])
    shrink = max(shrink if shrink <= min(height, width) / 80 else 1, (height * width / largest) ** 0.5)
    if shrink > 1:
        size = int(width / shrink), int(height / shrink)
        chosen = [cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in chosen]
    scale = evidence.copy_scale(*chosen[0].shape[:2])
    height, width = (side // scale * scale for side in chosen[0].shape[:2])
    chosen = [np.ascontiguousarray(frame[:height, :width]) for frame in chosen]
    if random.random() < CAPTIONED:
        write_captions(chosen, random)
    return chosen[:-1], times[there].astype(float).tolist(), chosen[-1]


def shake(frames: list[np.ndarray], times, random: np.random.Generator) -> list[np.ndarray]:
    """Frames as a hand that swings would have filmed them, without their margins; the last one stays within half a px.

    Public clips are steady for the most part. From these alone a network learns to distrust what is bent. Were the last
    one, the truth, left as it is, it would be sharper than the others, which lie between pixels now.
    """
    height, width = frames[0].shape[:2]
    swing, period = random.uniform(0, 0.025 * width, 2), random.uniform(12, 60, 2)
    phase = random.uniform(0, 2 * np.pi, 2)
    shifts = swing * np.sin(2 * np.pi * np.array(times)[:, None] / period + phase)  # px, (x, y)
    shifts += random.uniform(-0.5, 0.5, 2) - shifts[-1]
    margin = np.ceil(np.abs(shifts).max(axis=0)).astype(int) + 2
    if 4 * margin[1] >= height:  # too flat to swing
        return frames
    moved = []
    for frame, (x, y) in zip(frames, shifts):
        frame = cv2.warpAffine(frame, np.float32([[1, 0, x], [0, 1, y]]), (width, height), flags=cv2.INTER_CUBIC)
        moved.append(np.ascontiguousarray(frame[margin[1] : height - margin[1], margin[0] : width - margin[0]]))
    return moved


def write_captions(frames: list[np.ndarray], random: np.random.Generator) -> None:
    """Write the same random words on all frames, at the same places."""
    height, width = frames[0].shape[:2]
    for _ in range(random.integers(1, 4)):
        words = "".join(chr(letter) for letter in random.integers(65, 123, size=random.integers(3, 14)))
        place = int(random.integers(0, width * 2 // 3)), int(random.integers(8, height))
        colour = random.integers(0, 256, 3).tolist() if random.random() < 0.5 else [255, 255, 255]
        size, edged = random.uniform(0.3, 1.4), random.random() < 0.5
        thick = max(1, int(size * random.uniform(1, 2.6)))
        for frame in frames:
            for inks, strokes in (((0, 0, 0), thick + 2), (colour, thick))[not edged :]:
                cv2.putText(frame, words, place, cv2.FONT_HERSHEY_DUPLEX, size, inks, strokes, cv2.LINE_AA)


def cut_crops(neighbours, times, truth: np.ndarray, crop: int, random: np.random.Generator) -> list[dict]:
    """Two crops of one window, from anywhere: pictures and their weights at full size, and the ground truth.

    Args:
        neighbours, times, truth: of `random_window`.
        crop: px of the copy that a network sees, the side of the square; a multiple of 16. What the copy lacks is
            repeated below and on the right, as in `evidence.look`.
        random: draws the places.

    Returns:
        Dicts of "pictures" uint8 `[k c, k c, 39]`, as `evidence.look` gives them where it makes no copy; "rule" float16
        `[k c, k c, 11]`, or half of that where k is even; "description" float16 `[c / 2, c / 2, 39]`; and "truth" uint8
        `[k c, k c, 3]`. k is `evidence.copy_scale`, and c is `crop`.
    """
    flows = motion.find_flows(neighbours, motion.FINE)
    paths = motion.follow(flows, times, 0)
    pictures, weights = evidence.gather(neighbours, paths)
    description = evidence.look(neighbours, paths, pictures, weights)[-1].astype(np.float16)
    pictures = cv2.merge([*pictures, *(neighbours[slot] for slot in paths.slots[2:4])])
    scale, (height, width) = evidence.copy_scale(*truth.shape[:2]), truth.shape[:2]
    part = 2 - scale % 2  # weights are found on copies of half the size
    rule = cv2.merge([cv2.resize(weight, (width // part, height // part)) for weight in weights]).astype(np.float16)
    sides = [side // scale // 2 * 2 for side in (height, width)]
    crops = []
    for _ in range(CROPS_PER_WINDOW):
        y, x = 2 * random.integers(0, [max(0, side - crop) // 2 + 1 for side in sides])
        crops.append({})
        for name, array, size in (
            ("pictures", pictures, scale),
            ("rule", rule, scale / part),
            ("description", description, 1 / 2),
            ("truth", truth, scale),
        ):
            top, left, side = (int(place * size) for place in (y, x, crop))
            cut = array[top : top + side, left : left + side]
            crops[-1][name] = np.pad(cut, [(0, side - len(cut)), (0, side - len(cut[0])), (0, 0)], mode="edge")
    return crops


def get_crops(
    frames: dict[str, np.ndarray], name: str, windows: int, crop: int, seed: int = 0, largest: int = LARGEST
) -> list[Path]:
    """Files of crops, two for each of as many random windows; those that exist are kept.

    They lie under `work/paths/`, in a folder of their own for each set of frames, crop and seed, and each version of
    the code that finds, follows, fetches, weighs and cuts.

    Args:
        frames: uint8 `[T, H, W, 3]` of each sequence, as `get_frames` returns them.
        name: of the data set; the folder's name begins with it.
        windows: how many, from the sequences in turn, whatever their length.
        crop: px of the copy that a network sees; see `cut_crops`.
        seed: of what is drawn; file k depends on it and on k alone.
        largest: px: the area to which larger frames are shrunk before.

    Raises:
        ValueError: if the crop is none, or no sequence has the three frames of the smallest window.
    """
    usable = [sequence for sequence in sorted(frames) if len(frames[sequence]) >= 3]
    if not usable or crop < 16 or crop % 16:
        raise ValueError(
            f"crop = {crop} px must be a multiple of 16, and one of {len(frames)} sequences must have three frames."
        )
    chosen = [(sequence, frames[sequence].shape, vfi.digest(frames[sequence][0].tobytes())) for sequence in usable]
    code = (motion.__file__, blending.__file__, evidence.__file__, __file__)
    rules = [Path(part).read_text(encoding="utf-8") for part in code]
    settings = vfi.digest(str((chosen, crop, seed, largest, SPACINGS, SHAKEN, CAPTIONED, rules)))
    folder, begun, made = vfi.work("paths", f"{name}-{settings}"), time.monotonic(), 0
    files = [[folder / f"{number:05}-{k}.npz" for k in range(CROPS_PER_WINDOW)] for number in range(windows)]
    with markers.locked(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for number, paths in enumerate(files):
            if paths[-1].exists():
                continue
            random, sequence = np.random.default_rng([seed, number]), usable[number % len(usable)]
            for path, part in zip(paths, cut_crops(*random_window(frames[sequence], random, largest), crop, random)):
                unfinished = path.with_suffix(".part.npz")
                np.savez(unfinished, **part)
                unfinished.replace(path)
            made += 1
            if made in (10, 50) or made % 250 == 0:
                left = (time.monotonic() - begun) / made * (windows - number - 1)
                print(f"{number + 1} of {windows} windows followed; {left:.0f} s to go", flush=True)
    return [path for paths in files for path in paths]


class PathBatches(keras.utils.PyDataset):
    """Training batches, without end: crops of `get_crops`, flipped at random. `batches[k]` depends on seed and k alone.

    Crops of one size fill a batch. Every second batch is of the largest size.

    Args:
        files: of `get_crops`.
        batch_size: crops in a batch.
        seed: of the order and the flips.

    Returns, for each k:
        inputs: a dict of "pictures", "rule" and "description", of `cut_crops`.
        targets: float32 `[B, k c, k c, 3]` in [0, 1].
    """

    num_batches = None  # keras' word for "without end"

    def __init__(self, files: list[Path], batch_size: int, seed: int = 0):
        super().__init__(workers=1, max_queue_size=4)
        self.groups: dict[int, list[Path]] = {}
        for path in files:
            self.groups.setdefault(len(read_crop(path)["truth"]), []).append(path)
        self.batch_size, self.seed = batch_size, seed

    def __getitem__(self, k: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        random, largest = np.random.default_rng([self.seed, k]), max(self.groups)
        smaller = [size for size in self.groups if size < largest]
        # Keras looks at two batches in a row to know whether sizes differ, so every second one is of another size.
        counts = np.array([len(self.groups[size]) for size in smaller], float)
        size = random.choice(smaller, p=counts / counts.sum()) if k % 2 and smaller else largest
        batch = [flip(path, random) for path in random.choice(self.groups[size], self.batch_size)]
        inputs = {name: np.stack([part[name] for part in batch]) for name in ("pictures", "rule", "description")}
        inputs |= {name: inputs[name].astype(np.float32) for name in ("rule", "description")}
        return inputs, np.stack([part["truth"] for part in batch]).astype(np.float32) / 255


def test_on(frames: dict[str, np.ndarray], windows, count: int = 32):
    """Validation for `training.train`, and the average's PSNR in it, in dB: windows evenly spread, whole frames.

    Args:
        frames, windows: as `get_frames(dataset, "test")` returns them; the frames of any size.
        count: of windows.

    Returns:
        A function of a model that returns {"test_loss": mean squared error, "test_psnr": dB}, and a float.
    """
    rows = list(vfi.spread(windows, count).itertuples())
    parts = [vfi.split_middle(vfi.window_of(frames, row)[None]) for row in rows]
    times = [vfi.window_times(getattr(row, "spacing", "article"), part[0].shape[1]) for row, part in zip(rows, parts)]

    def measure(model) -> dict[str, float]:
        predicted = [models.predict_between(model, part[0], moments, 0) for part, moments in zip(parts, times)]
        psnr = np.concatenate([vfi.psnr(part[1], picture) for part, picture in zip(parts, predicted)])
        return {"test_loss": float((10 ** (-psnr / 10)).mean()), "test_psnr": float(psnr.mean())}

    return measure, measure(vfi.average)["test_psnr"]


def read_crop(path: Path) -> dict[str, np.ndarray]:
    """Arrays of one file of `get_crops`; ValueError, with what to delete, if it is damaged."""
    try:
        with np.load(path) as stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        where = vfi.display_path(path)
        raise ValueError(f"{where} is damaged ({error}). Delete it, and run this again.") from error


def flip(path: Path, random: np.random.Generator) -> dict[str, np.ndarray]:
    """A crop, turned over at random across and down; what points there turns round."""
    part = read_crop(path)
    for axis, first in ((1, 0), (0, 1)):
        if random.random() < 0.5:
            part = {name: np.flip(values, axis) for name, values in part.items()}
            sign = np.ones(part["description"].shape[-1], part["description"].dtype)
            sign[[channel + first for channel in evidence.ACROSS]] = -1
            part["description"] = part["description"] * sign
    return part
