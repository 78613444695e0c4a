"""PSNR, SSIM and the tables of `evaluate`, against values worked out by hand."""

import cv2
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import vfi_utils as vfi
from stages.evaluation import detail, evaluate, ssim, summarize


def flat(*values, height=16, width=20):
    return np.stack([np.full((height, width, 3), value, np.uint8) for value in values])


def test_psnr_by_hand():
    assert np.allclose(vfi.psnr(flat(10, 10), flat(11, 20)), [20 * np.log10(255), 20 * np.log10(25.5)])
    assert np.isinf(vfi.psnr(flat(7), flat(7)))[0]
    assert vfi.psnr(flat(0), flat(255))[0] == 0
    assert np.allclose(vfi.psnr(flat(250), flat(5)), 20 * np.log10(255 / 245)), "uint8 must not wrap around"


def test_psnr_is_per_frame_not_per_batch():
    together = vfi.psnr(flat(10, 10), flat(11, 30))
    assert np.allclose(together, [vfi.psnr(flat(10), flat(11))[0], vfi.psnr(flat(10), flat(30))[0]])


def test_psnr_over_some_pixels():
    predicted, where = flat(100), np.zeros((1, 16, 20), bool)
    predicted[0, 3, 4] = 110
    where[0, 3, 4] = where[0, 3, 5] = True
    assert np.allclose(vfi.psnr(predicted, flat(100), where), 10 * np.log10(255**2 / 50))
    assert np.isnan(vfi.psnr(predicted, flat(100), np.zeros_like(where)))[0]


@pytest.mark.parametrize("bad", [flat(1).astype(np.float32), flat(1)[0], flat(1, 1)])
def test_psnr_refuses_other_ranges_and_shapes(bad):
    with pytest.raises(ValueError, match="must be uint8 of one shape"):
        vfi.psnr(bad, flat(1))


def test_detail_is_lost_by_a_blur_and_grows_with_contrast():
    picture = np.random.default_rng(0).integers(0, 256, (2, 40, 60, 3), dtype=np.uint8)
    soft = np.stack([cv2.GaussianBlur(frame, (5, 5), 1.0) for frame in picture])
    assert np.allclose(detail(picture, picture), 1) and detail(soft, picture).max() < 0.3
    assert np.allclose(detail(picture // 2 * 2, picture // 2), 4)
    assert np.isfinite(detail(picture, np.zeros_like(picture))).all(), "a black frame has none"


def test_ssim():
    random = np.random.default_rng(0)
    picture = random.integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    other = random.integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    assert np.allclose(ssim(picture, picture), 1)
    assert ssim(picture, other)[0] < 0.2
    first, second = 100.0, 120.0  # flat pictures: only the comparison of means is left
    by_hand = (2 * first * second + (0.01 * 255) ** 2) / (first**2 + second**2 + (0.01 * 255) ** 2)
    assert np.allclose(ssim(flat(100), flat(120)), by_hand, atol=5e-4)


def moving_square(count=15, speed=2):
    frames = flat(*[50] * count, height=24, width=48)
    for time in range(count):
        frames[time, 8:16, speed * time : speed * time + 8] = 200
    return frames


@pytest.fixture
def table():
    frames = {"still": flat(*[90] * 11, height=24, width=48), "square": moving_square()}
    windows = vfi.build_windows({name: len(part) for name, part in frames.items()})
    windows["camera"] = windows.sequence.map({"still": "fixed", "square": "moving"})

    def oracle(neighbours):
        """Draws the square where both neighbours have it, and the wall elsewhere."""
        before, after = neighbours[:, 2], neighbours[:, 3]
        return np.where(before == after, before, 50).astype(np.uint8)

    return frames, windows, evaluate({"oracle": oracle}, frames, windows)


def test_evaluate_gives_a_row_for_each_model_and_window(table):
    _, windows, scores = table
    assert len(scores) == 4 * len(windows) == 20
    assert scores.model.unique().tolist() == ["average", "nearest", "path", "oracle"]
    measures = ["motion", "mse", "psnr", "ssim", "detail", "psnr_moving", "colour_error", "beats_average"]
    assert scores.columns.tolist() == ["model", "sequence", "camera", "spacing", "middle", *measures]


def test_evaluate_by_hand(table):
    _, _, scores = table
    average = scores[(scores.model == "average") & (scores.sequence == "square")].iloc[0]
    # t-1 and t+1 are 4 px apart: 4 columns of 8 px are wrong by 75 at each end, half of them on each side of the truth
    assert np.isclose(average.psnr, 10 * np.log10(255**2 / (75**2 * 8 * 8 / (24 * 48))))
    assert np.isclose(average.motion, 8 * 8 / (24 * 48))
    assert np.isclose(average.psnr_moving, 10 * np.log10(255**2 / 75**2))
    assert np.isclose(average.mse, 10 ** (-average.psnr / 10))
    still = scores[scores.sequence == "still"]
    assert (still.psnr == 100).all() and still.psnr_moving.isna().all() and not still.beats_average.any()


def test_colour_error_is_the_shift_of_the_mean_colour():
    frames = {"a": flat(*[100] * 7)}
    windows = vfi.build_windows({"a": 7})
    reddish = lambda neighbours: neighbours[:, 2] + np.array([6, 0, 0], np.uint8)  # noqa: E731
    scores = evaluate({"reddish": reddish}, frames, windows).set_index("model").colour_error
    assert scores["reddish"] == 2 and scores["average"] == 0


def test_a_model_that_is_worse_does_not_beat_the_average(table):
    _, _, scores = table
    for row in scores.itertuples():
        same = scores[(scores.sequence == row.sequence) & (scores.middle == row.middle) & (scores.model == "average")]
        assert row.beats_average == (row.psnr > same.psnr.iloc[0])
    assert not scores[scores.model == "average"].beats_average.any()


def test_summary_keeps_sequences_and_cameras_apart(table):
    _, _, scores = table
    summary = summarize(scores).set_index(["footage", "model"])
    assert set(summary.index.levels[0]) == {"still", "square", "fixed cameras", "moving cameras", "all windows"}
    assert summary.windows["all windows", "average"] == 5 and summary.windows["square", "average"] == 3
    expected = scores[scores.model == "average"].psnr.mean()
    assert np.isclose(summary.psnr["all windows", "average"], expected)
    assert np.isclose(summary.psnr["moving cameras", "oracle"], summary.psnr["square", "oracle"])


def test_the_order_of_rows_is_the_order_of_windows(table):
    """Notebook 05 lines a model's rows up with the table of windows."""
    _, windows, scores = table
    for _, part in scores.groupby("model"):
        assert part.middle.tolist() == windows.middle.tolist() and part.sequence.tolist() == windows.sequence.tolist()


def test_evaluate_names_what_is_missing(table):
    frames, windows, _ = table
    with pytest.raises(ValueError, match="square"):
        evaluate({}, {"still": frames["still"]}, windows)
    with pytest.raises(ValueError, match="needs windows"):
        evaluate({}, frames, windows.iloc[:0])


def test_spread_windows():
    windows = pd.DataFrame({"middle": range(10)})
    assert vfi.spread(windows, 4).middle.tolist() == [0, 3, 6, 9]
    assert len(vfi.spread(windows, 24)) == 10


GRIDS = [(1, 2, 5.8, ""), (3, 3, 5.5, "c"), (1, 6, 8, "c"), (2, 3, 4.6, "c"), (3, 5, 7, "")]


@pytest.mark.parametrize("rows, columns, width, caption", GRIDS)
def test_titles_lie_inside_the_picture(rows, columns, width, caption):
    images = [np.zeros((90, 160, 3), np.uint8)] * (rows * columns)
    figure, _ = vfi.show_images(images, ["Typ"] * len(images), columns, width=width, caption=caption)
    figure.canvas.draw()
    boxes = [axis.title.get_window_extent() for axis in figure.axes]
    assert max(box.y1 for box in boxes) <= figure.bbox.height - 1
    assert not caption or figure._supxlabel.get_window_extent().y0 >= 1
    plt.close(figure)
