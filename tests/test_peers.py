"""The peers draw the frame half-way, and only that: footage that moves evenly, and footage that stands still."""

import importlib.util
import shutil

import numpy as np
import pytest
from PIL import Image

import ablation
import hindsight
import peers
import vfi_utils as vfi
from stages import motion, seqinfo
from stages.models import load_model, predict_between

HEIGHT, WIDTH = 64, 96
PEERS = [
    pytest.param(
        peer,
        id=name,
        marks=pytest.mark.skipif(
            "OpenCV" in name and not importlib.util.find_spec("cv2"), reason="needs opencv-python-headless"
        ),
    )
    for name, peer in peers.PEERS.items()
]


def texture(height: int, width: int, seed: int) -> np.ndarray:
    """Draw smooth noise: uint8 `[height, width, 3]`."""
    noise = np.random.default_rng(seed).integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC))


def moving_square(speed: int) -> np.ndarray:
    """Draw 7 frames of a square that moves right before a background that stands: uint8 `[7, HEIGHT, WIDTH, 3]`."""
    frames = np.stack([texture(HEIGHT, WIDTH, seed=0)] * vfi.WINDOW)
    for t, frame in enumerate(frames):
        left = WIDTH // 2 - 16 + speed * (t - vfi.WINDOW // 2)
        frame[16:48, left : left + 32] = texture(32, 32, seed=1)
    return frames


@pytest.mark.parametrize("peer", PEERS)
def test_what_moves_evenly_lands_in_the_middle(peer):
    neighbours, targets = vfi.split_middle(np.stack([moving_square(3), moving_square(-2)]))
    predicted = peer(neighbours)
    assert predicted.shape == targets.shape and predicted.dtype == np.uint8
    assert (vfi.psnr(predicted, targets) > vfi.psnr(vfi.average(neighbours), targets) + 5).all()
    for other in (2, 3):  # t-1 and t+1: neither is what was taken
        assert (vfi.psnr(predicted, targets) > vfi.psnr(predicted, neighbours[:, other]) + 5).all()


@pytest.mark.parametrize("peer", PEERS)
def test_what_stands_still_comes_back(peer):
    frames = np.stack([texture(HEIGHT, WIDTH, seed=2)] * 6)[None]
    assert np.abs(peer(frames).astype(int) - frames[:, 0]).max() <= 1


def test_doubled_keeps_every_pixel_and_puts_straight_lines_between():
    frames = np.stack([texture(HEIGHT, WIDTH, seed=3)] * 2)
    assert (peers.doubled(frames)[:, ::2, ::2] == frames).all()
    ramp = np.broadcast_to(np.arange(0, 80, 8, dtype=np.uint8)[None, None, :, None], (1, 4, 10, 3))
    assert (peers.doubled(ramp)[0, 0, 2:-4, 0] == np.arange(8, 72, 4)[:14]).all()


def test_an_ffmpeg_that_makes_nothing_is_named(monkeypatch):
    monkeypatch.setattr(peers, "MINTERPOLATE", "minterpolate=fps=1")
    with pytest.raises(RuntimeError, match="instead of one frame"):
        peers.minterpolate(np.zeros((1, 6, HEIGHT, WIDTH, 3), np.uint8))


def test_every_frame_that_was_left_out_is_measured_at_its_moment(tmp_path, monkeypatch):
    wide = texture(HEIGHT, 2 * WIDTH, seed=2)
    for split in ("train", "test"):
        folder = tmp_path / "clips" / split / f"{split}-pan" / "img1"
        folder.mkdir(parents=True)
        for number in range(14):  # the last is no frame's neighbour for either factor
            Image.fromarray(wide[:, 2 * number : 2 * number + WIDTH]).save(folder / f"{number + 1:06}.png")
        seqinfo.write_seqinfo(folder.parent, rate=25, frames=14, size=(WIDTH, HEIGHT))
    monkeypatch.setenv("VFI_DATASET", str(tmp_path / "clips"))
    table = peers.measure_moments().set_index(["factor", "moment", "model"])
    assert set(table.footage) == {"test-pan"}
    assert table.frames[3, "1/3"].unique() == [8]
    assert table.frames[4, "1/4"].unique() == [6] and table.frames[4, "1/2"].unique() == [3]
    psnr = table.psnr.unstack()
    assert (psnr["path"] > psnr["average"] + 10).all(), "an even pan is followed, at the right moments"
    assert np.isnan(psnr["path, the middle of a middle"][3, "1/3"])
    assert psnr["path, the middle of a middle"][4, "1/2"] == psnr["path"][4, "1/2"], "its halves are the path's"


def test_pairs_are_measured_as_their_archives_unpack(tmp_path):
    wide = texture(HEIGHT, 2 * WIDTH, seed=5)
    for name, left in (("Grove2", 10), ("Urban3", 30)):
        for file, x in (
            ("other-data/{}/frame10", -2),
            ("other-gt-interp/{}/frame10i11", 0),
            ("other-data/{}/frame11", 2),
        ):
            path = tmp_path / f"{file.format(name)}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(wide[:, left + x : left + x + WIDTH]).save(path)
    with pytest.raises(FileNotFoundError, match="UCF101"):
        peers.measure_pairs(tmp_path)
    shutil.copytree(tmp_path / "other-data", tmp_path / "ucf101_interp_ours")
    for folder in (tmp_path / "ucf101_interp_ours").iterdir():
        for old, new in (("frame10", "frame_00"), ("frame11", "frame_02")):
            (folder / f"{old}.png").rename(folder / f"{new}.png")
        shutil.copy(tmp_path / "other-gt-interp" / folder.name / "frame10i11.png", folder / "frame_01_gt.png")
    table = peers.measure_pairs(tmp_path)
    assert set(table.benchmark) == set(peers.PAIRS) and (table.pairs == 2).all()
    for measure in ("psnr", "error"):
        both = table.pivot(index="model", columns="benchmark", values=measure)
        assert (both["UCF101"] == both["Middlebury OTHER"]).all(), "the same pictures"
    assert (table.query("model == 'path'").repeats == 0).all()
    psnr = table[table.benchmark == "UCF101"].set_index("model").psnr
    assert psnr["path"] > psnr["average"] + 10 and psnr["motion"] > psnr["average"] + 10
    assert table.query("model == 'path'").against_path.unique().tolist() == ["+0.00 (+0.00 to +0.00)"]
    one = tmp_path / "ucf101_interp_ours" / "Grove2"
    shutil.copy(one / "frame_00.png", one / "frame_01_gt.png")
    repeats = peers.measure_pairs(tmp_path).query("model == 'path'").set_index("benchmark").repeats
    assert repeats["UCF101"] == 1 and repeats["Middlebury OTHER"] == 0, "the true frame is the one before"
    (one / "frame_02.png").unlink()
    with pytest.raises(FileNotFoundError, match="frame_02.png is not there"):
        peers.measure_pairs(tmp_path)


def test_the_camera_is_what_most_of_the_picture_does():
    places = motion.pixel_grid(60, 100)
    camera = np.array([[0.01, -0.02], [0.02, 0.01], [-0.8, 0.4]])
    flow = np.dstack([places, np.ones((60, 100))]) @ camera
    flow[10:30, 20:60] += 5  # what moves by itself
    assert np.abs(hindsight.fit_camera(flow) - camera).max() < 0.02


def test_what_is_off_as_a_whole_is_put_right():
    wide = texture(HEIGHT, 2 * WIDTH, seed=3)
    truth, late = wide[:, 8 : 8 + WIDTH], wide[:, 7 : 7 + WIDTH]  # by one px
    predicted, moved, turned = (vfi.psnr(frame[None], truth[None])[0] for frame in hindsight.put_right(late, truth))
    assert min(moved, turned) > predicted + 5
    rows = hindsight.put_right(truth, truth)
    assert all(np.abs(frame.astype(int) - truth).max() <= 2 for frame in rows)


def test_of_motion_the_answer_alone_is_changed():
    wide, times = texture(HEIGHT, 2 * WIDTH, seed=4), (-5, -3, -1, 1, 3, 5)
    window = np.stack([wide[:, 20 + round(1.3 * time) : 20 + round(1.3 * time) + WIDTH] for time in times])
    model = load_model("motion")
    made = ablation.change_answers(model, window, times)
    assert (made["motion"] == predict_between(model, window[None], times, 0)[0]).all()
    frames = [frame.tobytes() for frame in made.values()]
    assert len(frames) == 11 and len({*frames}) >= 9  # in frames this small, copy and grid may be the same already
    detail = {name: ablation.detail(frame[None], wide[None, :, 20 : 20 + WIDTH])[0] for name, frame in made.items()}
    assert detail["sharpened by 0.1 less"] < detail["motion"] < detail["sharpened by 0.1 more"]
