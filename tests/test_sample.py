"""The drawn sample footage: MOT17's layout, the same pixels each time, and as hard as real footage is."""

import configparser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages import sample_street as street

DECIBELS = {"moving": (25, 35), "fixed": (38, 48)}  # dB, of the average of the two neighbours
ONE_OF_EACH = {camera: name for name, (_, camera) in street.SEQUENCES.items()}


def load(folder: Path, shrink: int = 1) -> np.ndarray:
    """Return the frames in `folder/img1`, uint8 `[T, H, W, 3]`, shrunk by a whole factor."""
    return np.stack([np.asarray(Image.open(path).reduce(shrink)) for path in sorted((folder / "img1").glob("*.jpg"))])


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Return the PSNR in dB of two uint8 pictures."""
    return 10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2))


def average_psnr(frames: np.ndarray) -> np.ndarray:
    """Return the PSNR of the rounded average of t-1 and t+1 against t, in the middle of windows of 7 every 4 frames."""
    middles = range(3, len(frames) - 3, 4)
    return np.array([psnr(np.rint((frames[t - 1] + frames[t + 1].astype(float)) / 2), frames[t]) for t in middles])


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> dict[str, Path]:
    """Draw every sequence whole, once for this module; return the folder of each."""
    folders = {name: tmp_path_factory.mktemp("street") / name for name in street.SEQUENCES}
    for name, folder in folders.items():
        street.draw_sequence(folder, name)
    return folders


def test_splits_hold_fixed_and_moving_cameras():
    splits = [split for split, _ in street.SEQUENCES.values()]
    assert (splits.count("train"), splits.count("test")) == (4, 2)
    assert {(split, camera) for split, camera in street.SEQUENCES.values()} == {
        (split, camera) for split in ("train", "test") for camera in ("fixed", "moving")
    }


@pytest.mark.parametrize("name", street.SEQUENCES)
def test_layout_is_that_of_mot17(drawn, name):
    folder = drawn[name]
    assert sorted(path.name for path in folder.iterdir()) == ["img1", "seqinfo.ini"]
    assert sorted(path.name for path in (folder / "img1").iterdir()) == [f"{k:06d}.jpg" for k in range(1, 61)]
    parser = configparser.ConfigParser()
    parser.optionxform = str
    parser.read(folder / "seqinfo.ini")
    assert dict(parser["Sequence"]) == {
        "name": name,
        "imDir": "img1",
        "frameRate": "30",
        "seqLength": "60",
        "imWidth": "320",
        "imHeight": "180",
        "imExt": ".jpg",
        "camera": street.SEQUENCES[name][1],
    }
    assert load(folder).shape == (60, 180, 320, 3)
    assert Image.open(folder / "img1" / "000001.jpg").layer[0][1:3] == (1, 1)  # colour as fine as brightness


@pytest.mark.parametrize("name", ONE_OF_EACH.values())
def test_drawing_again_gives_the_same_pixels(drawn, tmp_path, name):
    street.draw_sequence(tmp_path, name, frames=4)
    np.testing.assert_array_equal(load(tmp_path), load(drawn[name])[:4])


@pytest.mark.parametrize("name", street.SEQUENCES)
def test_the_average_of_the_neighbours_is_as_hard_as_on_real_footage(drawn, name):
    low, high = DECIBELS[street.SEQUENCES[name][1]]
    scores = average_psnr(load(drawn[name], shrink=2))
    assert len(scores) == 14
    assert low < scores.mean() < high


@pytest.mark.parametrize("name", street.SEQUENCES)
def test_something_moves_and_nothing_jumps(drawn, name):
    frames = load(drawn[name], shrink=2).astype(float)
    ghosts = np.abs((frames[:-2] + frames[2:]) / 2 - frames[1:-1]).max((1, 2, 3))
    assert (ghosts > 25).all()  # of 255: in each frame something ghosts visibly
    steps = np.abs(np.diff(frames, axis=0)).mean((1, 2, 3))
    assert (steps[1:] < 2 * steps[:-1] + 1).all()


def test_a_fixed_camera_stands_still_and_a_moving_one_does_not(drawn):
    for name, (_, camera) in street.SEQUENCES.items():
        still = (np.ptp(load(drawn[name], shrink=2), axis=0) < 12).all(-1).mean()  # the share of pixels at rest
        assert still > 0.5 if camera == "fixed" else still < 0.1, name


def test_every_sequence_shows_another_street(drawn):
    first = {name: load(folder, shrink=2)[0] for name, folder in drawn.items()}
    for name, frame in first.items():
        for other, picture in first.items():
            assert name == other or psnr(frame, picture) < 20
    palettes = {
        split: {s["palette"] for s in street.SCENES.values() if s["split"] == split} for split in ("train", "test")
    }
    assert not palettes["train"] & palettes["test"]
    seeds = [scene["seed"] for scene in street.SCENES.values()]
    assert len(set(seeds)) == len(seeds)


def test_an_unknown_name_is_named(tmp_path):
    with pytest.raises(ValueError, match="street-99"):
        street.draw_sequence(tmp_path, "street-99")
