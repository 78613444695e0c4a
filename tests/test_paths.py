"""The classic follows pixels at any spacing: even and uneven motion, other moments, few frames, captions, odd sizes."""

import os
import platform
import subprocess
import sys
import threading

import cv2
import numpy as np
import pytest

import vfi_utils as vfi
from stages import blending, interpolation, models, motion

ARTICLE, VIDEO = (-3, -2, -1, 1, 2, 3), (-5, -3, -1, 1, 3, 5)
HEIGHT, WIDTH = 90, 160


def texture(shift: float) -> np.ndarray:
    """Smooth bars and waves, `shift` px further to the right: uint8 `[90, 160, 3]`."""
    x, y = np.meshgrid(np.arange(WIDTH) - shift, np.arange(HEIGHT))
    waves = [np.sin(x / 5) + np.sin(x / 13 + y / 9), np.sin(x / 7 - y / 6), np.cos(x / 4.5) + np.sin(y / 8)]
    return np.rint(128 + 50 * np.stack(waves, axis=-1)).astype(np.uint8)


def place(time: float, acceleration: float) -> float:
    return 1.5 * time + acceleration * time**2


def scene(times, acceleration: float = 0.0) -> np.ndarray:
    return np.stack([texture(place(time, acceleration)) for time in times])[None]


def score(predicted: np.ndarray, t: float, acceleration: float = 0.0, margin: int = 16) -> float:
    inner = (slice(None), slice(margin, -margin), slice(margin, -margin))
    truth = texture(place(t, acceleration))[None]
    return float(vfi.psnr(np.ascontiguousarray(predicted[inner]), np.ascontiguousarray(truth[inner]))[0])


@pytest.mark.parametrize("times", [ARTICLE, VIDEO])
@pytest.mark.parametrize("frames", [2, 4, 6])
def test_what_moves_evenly_is_exact_at_both_spacings(times, frames):
    assert score(models.predict_between(models.PathPredictor(frames), scene(times), times, 0), 0) > 44


@pytest.mark.parametrize("times", [ARTICLE, VIDEO])
def test_what_accelerates_is_exact_under_a_cubic_and_not_under_a_straight_line(times):
    straight, cubic = (
        score(models.predict_between(models.PathPredictor(frames), scene(times, 0.25), times, 0), 0, 0.25)
        for frames in (2, 4)
    )
    assert cubic > 40 and cubic > straight + 6


def test_predict_middle_is_at_the_articles_spacing():
    neighbours = scene(ARTICLE, 0.25)
    middle = models.predict_middle(models.load_model("path"), neighbours)
    assert (middle == models.predict_between(models.load_model("path"), neighbours, ARTICLE, 0)).all()
    assert score(middle, 0, 0.25) > score(models.predict_between(models.PathPredictor(), neighbours, VIDEO, 0), 0, 0.25)


@pytest.mark.parametrize("t", [-0.5, -1 / 3, 0.25, 0.9])
def test_any_moment(t):
    assert score(models.predict_between(models.load_model("path"), scene(VIDEO, 0.1), VIDEO, t), t, 0.1) > 40


@pytest.mark.parametrize("times", [(-1, 1), (-1, 1, 3), (-3, -1, 1), (-5, -3, -1, 1), (-1, 2, 3, 5, 8), (-0.7, 0.4, 2)])
def test_few_and_uneven_frames(times):
    assert score(models.predict_between(models.load_model("path"), scene(times), times, 0), 0) > 42


def test_a_time_unit_does_not_matter():
    neighbours, path = scene(VIDEO, 0.2), models.load_model("path")
    seconds = [3 + time / 60 for time in VIDEO]
    assert np.abs(models.predict_between(path, neighbours, VIDEO, 0).astype(int)
                  - models.predict_between(path, neighbours, seconds, 3.0)).max() <= 1  # fmt: skip


@pytest.mark.parametrize(
    "times, t", [((-1, -1), 0), ((1, -1), 0), ((-1, 1), 1), ((-1, 1), 2), ((-1, 1, 2), 0), ((-1,), 0)]
)
def test_times_that_make_no_sense_are_refused(times, t):
    with pytest.raises(ValueError):
        models.predict_between(models.load_model("path"), scene((-1, 1)), times, t)


def test_lagrange_weights():
    assert np.allclose(motion.lagrange_weights((-3, -1, 1, 3), 0) * 16, (-1, 9, 9, -1))
    assert np.allclose(motion.lagrange_weights((-2, -1, 1, 2), 0) * 6, (-1, 4, 4, -1))
    assert np.isclose(motion.lagrange_weights((0, 1.5, 4), 0.7).sum(), 1)


@pytest.mark.parametrize("spoiled", [0, 1, 4, 5])
def test_a_frame_that_cannot_be_followed_is_left_out(spoiled):
    """A frame of something else in a slot, as after a flash: the path goes through the others."""
    neighbours = scene(VIDEO, 0.1)
    other = np.random.default_rng(0).integers(0, 256, (30, 54, 3), np.uint8)
    neighbours[0, spoiled] = cv2.resize(other, (WIDTH, HEIGHT))
    without, every = (
        score(models.predict_between(path, neighbours, VIDEO, 0), 0, 0.1)
        for path in (models.PathPredictor(), models.PathPredictor(trusted=np.inf))
    )
    assert without > 36 and without > every + 3


def test_a_path_goes_through_what_is_trusted():
    moved = np.random.default_rng(0).normal(size=(6, 3, 4, 2)).astype(np.float32)
    moments = (-2, -1, 0, 1, 2, 3)

    def path(believed):
        trust = np.zeros((6, 3, 4), np.float32)
        trust[list(believed)] = list(believed.values())
        return motion.lay_path(moved, trust, moments, 0.5)

    def through(*slots):
        return np.tensordot(motion.lagrange_weights([moments[k] for k in slots], 0.5), moved[list(slots)], 1)

    one = np.ones((3, 4), np.float32)
    assert np.allclose(path({0: one, 1: one, 4: one, 5: one}), through(0, 1, 2, 3, 4, 5), atol=1e-5)
    assert np.allclose(path({1: one, 4: one}), through(1, 2, 3, 4), atol=1e-5)
    assert np.allclose(path({0: one, 5: one}), through(2, 3), atol=1e-5), "the last frame only beside the next"
    halfway = (through(2, 3) + through(1, 2, 3)) / 2
    assert np.allclose(path({1: one / 2}), halfway, atol=1e-5)
    assert np.allclose(path({4: one, 5: one}), through(2, 3, 4, 5), atol=1e-5), "one side alone"


@pytest.mark.parametrize("speed", [1.5, 3, 6])
@pytest.mark.parametrize("size, thickness", [(0.8, 2), (0.5, 1), (0.4, 1)])
def test_a_caption_over_moving_footage_stands_still(speed, size, thickness):
    """Without the rule thin letters over 6 px a half-frame are off by 50 levels; the average's stay within one."""
    frames, truth = [texture(speed * time) for time in VIDEO], texture(0)
    for picture in (*frames, truth):
        cv2.putText(
            picture, "A caption 12", (14, 60), cv2.FONT_HERSHEY_DUPLEX, size, (255,) * 3, thickness, cv2.LINE_AA
        )
    letters = truth.min(axis=-1) > 250
    predicted = models.predict_between(models.load_model("path"), np.stack(frames)[None], VIDEO, 0)[0]
    assert letters.sum() > 100
    assert np.abs(predicted.astype(int) - truth)[letters].mean() < 3


def test_a_caption_on_a_large_frame_stands_still_too():
    """Above `FINE` what stands is looked for at half the size; letters are two px thick there."""
    large = [cv2.resize(texture(3 * time), (1600, 900), interpolation=cv2.INTER_CUBIC) for time in (*VIDEO, 0)]
    for frame in large:
        cv2.putText(frame, "A caption 12", (140, 600), cv2.FONT_HERSHEY_DUPLEX, 1.6, (255,) * 3, 2, cv2.LINE_AA)
    letters = large[-1].min(axis=-1) > 250
    assert large[0].shape[0] * large[0].shape[1] > blending.FINE
    predicted = models.predict_between(models.load_model("path"), np.stack(large[:6])[None], VIDEO, 0)[0]
    assert np.abs(predicted.astype(int) - large[-1])[letters].mean() < 3


@pytest.mark.parametrize("there", [slice(1, 6), slice(0, 5), slice(1, 4)])
def test_a_caption_that_comes_or_goes_stands_as_long_as_it_is_there(there):
    frames = [texture(6 * time) for time in VIDEO]
    for frame in frames[there]:
        cv2.putText(frame, "A caption 12", (14, 60), cv2.FONT_HERSHEY_DUPLEX, 0.8, (255,) * 3, 2, cv2.LINE_AA)
    letters = np.min(frames[2:4], axis=(0, 3)) > 250
    predicted = models.predict_between(models.load_model("path"), np.stack(frames)[None], VIDEO, 0)[0]
    assert np.abs(predicted[letters].astype(int) - 255).mean() < 10
    assert np.abs(texture(0)[letters].astype(int) - 255).mean() > 80, "there is something to see"


def test_what_agrees_in_two_frames_by_chance_does_not_stand():
    same, moved, other = (texture(place) for place in (0, 4, 9))
    fetched, along = [moved, other], [moved, other]
    alone = blending.stand_still(fetched, along, [same, same], [])
    beside = blending.stand_still(fetched, along, [same, same], [(same, moved), (same, other)])
    still = blending.stand_still(fetched, along, [same, same], [(same, same), (same, other)])
    assert np.median(alone) > 0.9 and np.median(still) > 0.9 and np.median(beside) < 0.2


def test_steps_of_whole_pixels_are_exact_also_where_little_differs():
    """No rule takes a little of the average where nothing speaks against what was fetched."""
    faint = np.random.default_rng(0).integers(100, 140, (60, 160, 3), np.uint8)
    faint = cv2.resize(faint, (480, 180), interpolation=cv2.INTER_CUBIC)
    *frames, truth = (faint[40:130, 150 + 2 * time : 310 + 2 * time] for time in (*VIDEO, 0))
    predicted = models.predict_between(models.load_model("path"), np.stack(frames)[None], VIDEO, 0)[0]
    assert (predicted == truth)[15:-15, 30:-30].all()


def test_what_one_side_hides_is_taken_from_the_other():
    """A block comes in from the right: what it covers after the middle is still to be seen in the frames before."""
    frames = [texture(time) for time in (*VIDEO, 0)]
    for time, frame in zip((*VIDEO, 0), frames):
        frame[30:70, 110 + 8 * -time :] = (250, 40, 40)
    flows = motion.find_flows(frames[:6])
    six, two = (blending.fetch_pictures(frames[:6], motion.follow(flows, VIDEO, 0, count))[1] for count in (6, 2))
    covered = np.s_[17:33, 52:54]  # of the copies of half the size; the block's edge is at 110 px in the middle
    share = [(np.sum(weights[:4:2], 0) / np.sum(weights[:4], 0))[covered].mean() for weights in (six, two)]
    assert share[0] > share[1] + 0.05, "the frame before counts more, because the one before it shows the same"


def test_what_passes_a_background_that_stands_is_not_erased():
    """A disc that is left of a pixel before and right of it after stands there in the middle."""
    background = cv2.resize(np.random.default_rng(0).integers(60, 200, (30, 54, 3), np.uint8), (WIDTH, HEIGHT))
    frames = [background.copy() for _ in range(7)]
    for time, frame in zip((*VIDEO, 0), frames):
        cv2.circle(frame, (80 + 6 * time, 45), 14, (250, 60, 40), -1, cv2.LINE_AA)
    predicted = models.predict_between(models.load_model("path"), np.stack(frames[:6])[None], VIDEO, 0)[0]
    disc = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.circle(disc, (80, 45), 8, 1, -1)
    assert np.abs(predicted.astype(int) - frames[6])[disc > 0].mean() < 12


@pytest.mark.parametrize(
    "size, quick, fine",
    [
        ((90, 160), (180, 320), (180, 320)),
        ((225, 400), (180, 320), (225, 400)),
        ((360, 640), (180, 320), (270, 480)),
        ((2160, 3840), (180, 320), (270, 480)),
    ],
)
def test_a_finer_grid_is_no_finer_than_its_frame(size, quick, fine):
    assert motion.grid_size(*size) == quick and motion.grid_size(*size, motion.FINE) == fine


@pytest.mark.parametrize("size", [(64, 64), (37, 53), (91, 161), (270, 480), (33, 400)])
def test_any_size(size):
    frames = np.stack([cv2.resize(texture(2 * time), size[::-1]) for time in VIDEO])[None]
    predicted = models.predict_between(models.load_model("path"), frames, VIDEO, 0)
    assert predicted.shape == (1, *size, 3) and predicted.dtype == np.uint8
    assert vfi.psnr(predicted, vfi.average(frames))[0] < 60, "it is not the average"


def test_a_shot_keeps_its_own_frames_and_predicts_the_rest():
    times = [time / 25 for time in range(8)]
    frames = [texture(place(25 * time, 0.1)) for time in times]
    wanted = [k / 60 for k in range(17)]
    seen = list(interpolation.interpolate_shot(models.load_model("path"), iter(frames), times, wanted))
    assert len(seen) == len(wanted)
    for moment, frame in zip(wanted, seen):
        assert score(frame[None], 25 * moment, 0.1) > 40
        if moment in times:
            assert (frame == frames[times.index(moment)]).all()


def test_a_shot_equals_single_predictions():
    times = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    frames = [texture(place(time, 0.1)) for time in times]
    seen = list(interpolation.interpolate_shot(models.load_model("path"), iter(frames), times, [2.5, 3.25, 5.5]))
    for moment, first, last, frame in zip((2.5, 3.25, 5.5), (0, 1, 3), (6, 7, 7), seen):
        alone = models.predict_between(
            models.load_model("path"), np.stack(frames[first:last])[None], times[first:last], moment
        )[0]
        assert (frame == alone).all()


def test_of_two_frames_alone_motion_is_found_on_larger_copies_also_as_a_video():
    """Two photographs are a video of two frames: what is predicted between them is the same, whoever asks."""
    first, second = (cv2.resize(texture(time), (1280, 720), interpolation=cv2.INTER_CUBIC) for time in (-1, 1))
    shapes = [motion.find_flows(frames)[0][0].shape for frames in ([first, second], [first, second, second])]
    assert shapes == [(540, 960, 2), (180, 320, 2)]
    path = models.load_model("path")
    seen = list(interpolation.interpolate_shot(path, iter([first, second]), [0.0, 1.0], [0.25, 0.5]))
    for moment, frame in zip((0.25, 0.5), seen):
        assert (frame == models.predict_between(path, np.stack([first, second])[None], [0, 1], moment)[0]).all()


def test_two_frames_alone_are_fetched_more_sharply_than_in_a_video():
    fine = np.random.default_rng(0).integers(0, 256, (180, 320, 3), dtype=np.uint8)
    fine = cv2.GaussianBlur(fine, (0, 0), 0.6)
    flow = np.full((180, 320, 2), (0.5, 0), np.float32)
    paths = motion.follow([(flow, -flow)], [0, 1], 0.5)
    alone, among = (blending.fetch_pictures(frames, paths)[0][0] for frames in ([fine, fine], [fine, fine, fine]))
    energy = [(np.diff(picture.astype(float), axis=1) ** 2).mean() for picture in (alone, among)]
    assert energy[0] > 1.01 * energy[1]


HELD = """
import sys
import numpy as np
sys.path.insert(0, sys.argv[1])
from stages import motion
if sys.argv[2] == "keep":
    motion.keep_memory()
def held():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
before = held()
for _ in range(2):
    arrays = [np.ones(2**22, np.uint8) for _ in range(8)]
    del arrays
print((held() - before) / 2**25)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone is told to keep it")
@pytest.mark.parametrize("keep", [True, False])
def test_what_arrays_free_is_kept(keep):
    command = [sys.executable, "-c", HELD, str(vfi.ROOT), "keep" if keep else "give back"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert (float(done.stdout) > 0.9) == keep, "eight arrays of 4 MiB"


def test_threads_end_with_the_shot_and_what_fails_in_one_is_raised():
    times, before = [float(time) for time in range(30)], cv2.getNumThreads()
    frames, asked = [texture(place(time, 0.0)) for time in times], []

    def predict(neighbours):
        asked.append(len(neighbours))
        if len(asked) > 4:
            raise MemoryError("full")
        return vfi.average(neighbours)

    stream = interpolation.interpolate_shot(predict, iter(frames), times, [k / 2 for k in range(58)])
    assert (next(stream) == frames[0]).all()
    with pytest.raises(MemoryError, match="full"):
        list(stream)
    assert len(asked) < 5 + 2 * motion.WORKERS, "it went on"
    stream = interpolation.interpolate_shot(models.load_model("path"), iter(frames), times, [0.5, 1.5, 2.5, 3.5])
    next(stream)
    assert cv2.getNumThreads() == motion.CORES // motion.WORKERS
    stream.close()
    assert cv2.getNumThreads() == before
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ThreadPoolExecutor")]


@pytest.mark.parametrize("t", [0.25, 0.5])
def test_baselines_know_other_moments(t):
    frames = np.stack([np.full((16, 16, 3), value, np.uint8) for value in (10, 50)])[None]
    assert models.predict_between(vfi.average, frames, (0, 1), t)[0, 0, 0, 0] == 10 + 40 * t
    assert models.predict_between(vfi.nearest, frames, (0, 1), t)[0, 0, 0, 0] == 10
    assert models.predict_between(vfi.nearest, frames, (0, 1), 0.75)[0, 0, 0, 0] == 50


def test_a_model_of_the_middle_refuses_another_moment():
    model = models.load_model("dncnn")
    with pytest.raises(ValueError, match="predicts the middle between two frames alone"):
        models.predict_between(model, scene(VIDEO), VIDEO, 0.5)
    assert models.predict_between(model, scene(VIDEO), VIDEO, 0).shape == (1, HEIGHT, WIDTH, 3)
