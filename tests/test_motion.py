"""The layers that move and weigh pixels, what the network of notebook 07 sees, and what it learns from."""

import dataclasses
import os
import subprocess
import sys

import cv2
import keras
import numpy as np
import pytest
from keras import layers, ops

import vfi_utils as vfi
from definitions import WITHOUT_TENSORFLOW, network, refine
from stages import evidence, interpolation, models, motion, path_crops, training
from stages import layers as moving
from stages.models import load_model, predict_between

RANDOM = np.random.default_rng(0)
VIDEO = (-5, -3, -1, 1, 3, 5)


@pytest.fixture(scope="module")
def weighing():
    return lambda: network("motion")


@pytest.fixture(params=["weighs", "refines"])
def either(request):
    """Builds the network that weighs, or the one that refines what that blends, too."""
    return (lambda: network("motion")) if request.param == "weighs" else lambda: refine(network("motion"))


def smooth_image(height=40, width=56, at=(0.0, 0.0), channels=3):
    """A picture of waves, `[1, H, W, C]` in [0, 1], seen from `at` = (x, y) px further."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    x, y = x + at[0], y + at[1]
    waves = [np.sin(x / (3 + c) + 0.4 * c) + np.cos(y / (4 - c / 2) - c) for c in range(channels)]
    return (np.stack(waves, axis=-1)[None] / 4 + 0.5).astype(np.float32)


def shaken_street(times, height=96, width=160):
    """Frames, uint8 `[n, H, W, 3]`, of a smooth random picture that a hand moves, and of a block that passes before it.

    Its motion at time t is 2 t - 0.08 t^2 px to the right; the block's is the opposite.
    """
    noise = np.random.default_rng(2).integers(0, 256, (24, 40, 3), dtype=np.uint8)
    large = cv2.resize(noise, (width + 120, height), interpolation=cv2.INTER_CUBIC)
    block = cv2.resize(noise[::-1], (width + 120, height), interpolation=cv2.INTER_CUBIC)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    frames = []
    for time in times:
        shift = np.float32(2 * time - 0.08 * time**2)
        frame = cv2.remap(large, x + 60 - shift, y, cv2.INTER_CUBIC)
        other = cv2.remap(block, x + 60 + shift, y, cv2.INTER_CUBIC)
        inside = (abs(x - width / 2 + shift) < width / 8) & (abs(y - height / 2) < height / 4)
        frames.append(np.where(inside[..., None], other, frame))
    return np.stack(frames)


def paths_of(frames, times=VIDEO, t=0.0):
    return motion.follow(motion.find_flows(frames), times, t)


def some_weights(model):
    """The model with weights that are not those of its start."""
    random = np.random.default_rng(1)
    model.set_weights([weight + random.normal(0, 0.02, weight.shape) for weight in model.get_weights()])
    return model


def arrays_for(frames, paths):
    return [part[None] for part in evidence.look(frames, paths, *evidence.gather(frames, paths))]


def constant_flow(image, x, y):
    return np.broadcast_to(np.float32([x, y]), (*image.shape[:3], 2))


@pytest.mark.parametrize("kernel", ["linear", "cubic"])
def test_warp_by_whole_pixels_copies_them_and_repeats_the_edge(kernel):
    image = RANDOM.random((2, 7, 9, 5), dtype=np.float32)
    for x, y in [(0, 0), (2, 0), (0, -3), (-20, 30)]:
        rows = np.clip(np.arange(7) + y, 0, 6)
        columns = np.clip(np.arange(9) + x, 0, 8)
        warped = ops.convert_to_numpy(moving.warp(image, constant_flow(image, x, y), kernel))
        assert np.abs(warped - image[:, rows][:, :, columns]).max() < 1e-6


def test_warp_reads_between_pixels_and_cubic_does_it_better():
    image, truth = smooth_image(), smooth_image(at=(0.5, -0.3))
    errors = {}
    for kernel in ("linear", "cubic"):
        warped = ops.convert_to_numpy(moving.warp(image, constant_flow(image, 0.5, -0.3), kernel))
        errors[kernel] = np.abs(warped - truth)[:, 3:-3, 3:-3].max()
    assert errors["linear"] < 0.01
    assert errors["cubic"] < errors["linear"] / 4


def test_warp_by_hand():
    """A linear ramp read at a place of its own for each pixel: both kernels are exact on it."""
    y, x = np.mgrid[:8, :10].astype(np.float32)
    image = np.stack([2 * x + 3 * y, x - y], axis=-1)[None]
    flow = RANDOM.uniform(-1.5, 1.5, (1, 8, 10, 2)).astype(np.float32)
    inside = (slice(None), slice(3, 5), slice(3, 7))
    for kernel in ("linear", "cubic"):
        warped = ops.convert_to_numpy(moving.warp(image, flow, kernel))
        wanted = np.stack([2 * (x + flow[..., 0]) + 3 * (y + flow[..., 1]), x + flow[..., 0] - y - flow[..., 1]], -1)
        assert np.abs(warped - wanted)[inside].max() < 1e-4


class Trainable(layers.Layer):
    """Holds an array as a trainable weight, so that training moves it along its gradient."""

    def __init__(self, start, **arguments):
        super().__init__(**arguments)
        self.start = start

    def build(self, shape):
        self.value = self.add_weight(shape=self.start.shape, initializer=lambda *a, **k: ops.array(self.start))

    def call(self, x):
        return self.value + 0 * x


def gradient(function, start, shape):
    """The gradient of sum(function(start) * weights) by `start`, taken by one step of gradient descent."""
    trainable = Trainable(start)
    source = keras.Input(batch_shape=(start.shape[0], 1, 1, 1))
    model = keras.Model(source, function(trainable(source)))
    weights = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    model.compile(
        keras.optimizers.SGD(1.0), lambda target, prediction: ops.sum(prediction * weights), jit_compile=False
    )
    model.train_on_batch(np.zeros((start.shape[0], 1, 1, 1), np.float32), np.zeros(shape, np.float32))
    return start - ops.convert_to_numpy(trainable.value), weights


@pytest.mark.parametrize("kernel", ["linear", "cubic"])
@pytest.mark.parametrize("by", ["flow", "images"])
def test_gradients_of_the_warp_are_those_of_finite_differences(kernel, by):
    images = RANDOM.random((1, 6, 7, 2)).astype(np.float32)
    # away from whole pixels, where the linear kernel has a corner
    flow = (RANDOM.integers(-2, 2, (1, 6, 7, 2)) + RANDOM.uniform(0.2, 0.8, (1, 6, 7, 2))).astype(np.float32)
    layer = moving.Warp(kernel=kernel)
    start = flow if by == "flow" else images

    def warped(x):
        return layer(images, x) if by == "flow" else layer(x, flow)

    found, weights = gradient(warped, start, images.shape)
    for place in [(0, 0, 0, 0), (0, 3, 3, 1), (0, 5, 6, 0), (0, 2, 4, 1), (0, 4, 1, 0)]:
        nudge = np.zeros_like(start)
        nudge[place] = 1e-2
        up, down = (float((ops.convert_to_numpy(warped(start + sign * nudge)) * weights).sum()) for sign in (1, -1))
        assert found[place] == pytest.approx((up - down) / 2e-2, abs=2e-3)


# What moves and weighs ---------------------------------------------------------------------------------------


def test_frames_to_batch_is_undone():
    stacked = RANDOM.random((2, 5, 6, 18), dtype=np.float32)
    folded = moving.FramesToBatch(frames=6)(stacked)
    assert np.array_equal(ops.convert_to_numpy(folded)[2:4], stacked[..., 3:6])
    assert np.array_equal(ops.convert_to_numpy(moving.BatchToFrames(frames=6)(folded)), stacked)


def test_space_to_depth_is_undone_and_says_where_pixels_go():
    images = RANDOM.random((2, 6, 8, 3), dtype=np.float32)
    deep = ops.convert_to_numpy(moving.SpaceToDepth()(images))
    assert deep.shape == (2, 3, 4, 12) and np.array_equal(deep[1, 2, 1], images[1, 4:6, 2:4].ravel())
    assert np.array_equal(ops.convert_to_numpy(moving.DepthToSpace()(deep)), images)
    assert moving.SpaceToDepth().compute_output_shape((None, 6, 8, 3)) == (None, 3, 4, 12)
    assert moving.DepthToSpace().compute_output_shape((None, None, 4, 12)) == (None, None, 8, 3)


def test_upsampling_is_bilinear():
    images = RANDOM.random((2, 5, 7, 3), dtype=np.float32)
    wanted = layers.UpSampling2D(2, interpolation="bilinear")(images)
    assert np.abs(ops.convert_to_numpy(moving.Upsample()(images) - wanted)).max() < 1e-6


def some_pictures():
    pictures = RANDOM.integers(0, 256, (2, 6, 8, 3 * evidence.PICTURES + 6), dtype=np.uint8)
    rule = RANDOM.dirichlet(np.ones(evidence.PICTURES), (2, 6, 8)).astype(np.float32)
    return pictures, rule


def test_evidence_compares_brightness_with_the_average():
    pictures, rule = some_pictures()
    seen = ops.convert_to_numpy(moving.Evidence()(pictures, rule))
    grey = pictures.reshape(2, 6, 8, -1, 3) @ np.array([0.299, 0.587, 0.114]) / 255
    assert seen.shape == moving.Evidence().compute_output_shape(pictures.shape, rule.shape) == (2, 6, 8, 24)
    average = evidence.PICTURES - 1
    assert np.allclose(seen[..., average], grey[..., average] - 0.5, atol=1e-5)
    for other in (2, average + 2):
        assert np.allclose(seen[..., other], 4 * (grey[..., other] - grey[..., average]), atol=1e-5)
    assert np.allclose(seen[..., 13:], rule / (1 + rule), atol=1e-6), "a weight may be large"


def test_enlarging_is_bilinear():
    images = RANDOM.random((2, 5, 7, 3), dtype=np.float32)
    for height, width in ((20, 28), (15, 14), (5, 7)):
        wanted = [cv2.resize(image, (width, height)) for image in images]
        assert np.abs(ops.convert_to_numpy(moving.enlarge(images, height, width)) - wanted).max() < 1e-5


@pytest.mark.parametrize("scale", [1, 3])
def test_shrinking_takes_means(scale):
    images = RANDOM.integers(0, 256, (2, 6 * scale, 8 * scale, 5), dtype=np.uint8)
    half = np.zeros((2, 3, 4, 7), np.float32)
    shrunk = ops.convert_to_numpy(moving.Shrink()(images, half))
    assert shrunk.shape == moving.Shrink().compute_output_shape(images.shape, half.shape) == (2, 6, 8, 5)
    assert shrunk[1, 5, 2, 4] == pytest.approx(images[1, 5 * scale :, 2 * scale : 3 * scale, 4].mean(), rel=1e-5)


def test_blend_is_what_the_rule_says_until_it_is_corrected():
    pictures, rule = some_pictures()
    nothing = np.zeros((2, 6, 8, evidence.ANSWERED), np.float32)
    known = pictures.reshape(2, 6, 8, -1, 3)[:, :, :, : evidence.PICTURES] / 255
    part = rule / rule.sum(-1, keepdims=True)
    by_rule = (known * part[..., None]).sum(axis=-2)
    assert np.abs(ops.convert_to_numpy(moving.Blend(evidence.LEAST)(pictures, rule, nothing)) - by_rule).max() < 0.04
    chosen = nothing.copy()
    chosen[..., 9] = 20
    blended = ops.convert_to_numpy(moving.Blend(evidence.LEAST)(pictures, rule, chosen))
    assert np.abs(blended - pictures[..., 27:30] / 255).max() < 1e-3


def test_blend_sharpens_and_draws_no_colour_that_no_picture_has():
    pictures, rule = some_pictures()
    answer = np.zeros((2, 6, 8, evidence.ANSWERED), np.float32)
    wanted = ops.convert_to_numpy(moving.Blend(evidence.LEAST)(pictures, rule, answer))
    answer[..., -2:] = 0.5, -0.3
    sharp = ops.convert_to_numpy(moving.Blend(evidence.LEAST)(pictures, rule, answer))
    for size, share in ((3, 0.5), (5, -0.3)):
        kernel = np.float32({3: [1, 2, 1], 5: [1, 4, 6, 4, 1]}[size])
        blurred = [cv2.sepFilter2D(image, -1, *[kernel / kernel.sum()] * 2, borderType=2) for image in wanted]
        wanted = wanted + share * (wanted - np.stack(blurred))
    known = pictures.reshape(2, 6, 8, -1, 3)[:, :, :, : evidence.PICTURES] / np.float32(255)
    wanted = np.clip(wanted, known.min(axis=-2), known.max(axis=-2))
    assert np.abs(sharp - wanted).max() < 1e-5


@pytest.mark.parametrize("size", [(96, 160), (384, 640)])  # seen as it is, and on a copy of a quarter of its sides
def test_blend_in_training_and_in_use_agree(size):
    frames = list(shaken_street(VIDEO, *size))
    pictures, weights = evidence.gather(frames, paths_of(frames))
    scale = evidence.copy_scale(*size)
    assert scale == size[0] // 96
    answer = np.random.default_rng(0).normal(0, 2, (96, 160, evidence.ANSWERED)).astype(np.float32)
    answer[..., -2:] /= 10
    answer = cv2.GaussianBlur(answer, (0, 0), scale - 1) if scale > 1 else answer
    rule = cv2.merge([cv2.resize(weight, (size[1] // min(scale, 2), size[0] // min(scale, 2))) for weight in weights])
    whole = np.concatenate([*pictures, *frames[2:4]], axis=-1)
    in_training = moving.Blend(evidence.LEAST)(whole[None], rule[None], answer[None])
    in_training = vfi.to_uint8(ops.convert_to_numpy(in_training))[0].astype(int)
    difference = np.abs(in_training - evidence.compose(pictures, weights, answer))
    if scale > 1:  # in use, what stands still is weighed at full size
        difference = np.minimum(difference, np.quantile(difference, 0.999))
    assert difference.mean() < 0.5 and difference.max() <= 2


def test_doubts_are_how_pictures_differ_from_the_blend():
    pictures, rule = some_pictures()
    drawn = RANDOM.random((2, 6, 8, 3), dtype=np.float32)
    answer = RANDOM.normal(size=(2, 3, 4, evidence.ANSWERED)).astype(np.float32)
    seen = ops.convert_to_numpy(moving.Doubts()(pictures, drawn, rule, answer))
    assert seen.shape == moving.Doubts().compute_output_shape(*(part.shape for part in (pictures, drawn, rule, answer)))
    assert np.allclose(seen[..., :3], 2 * drawn - 1, atol=1e-6)
    assert np.allclose(seen[..., 9:12], np.tanh(10 * (pictures[..., 6:9] / 255 - drawn)), atol=1e-4)
    assert np.allclose(seen[..., 42:53], np.tanh(rule), atol=1e-6)
    assert np.allclose(seen[1, ..., 53:], cv2.resize(answer[1], (8, 6)) / 2, atol=1e-5)


def test_what_is_corrected_keeps_to_the_colours_of_the_blended_pictures():
    pictures, drawn = some_pictures()[0], np.full((2, 6, 8, 3), 0.5, np.float32)
    known = pictures.reshape(2, 6, 8, -1, 3)[:, :, :, : evidence.PICTURES] / np.float32(255)
    lowest, highest = known.min(axis=-2), known.max(axis=-2)
    for residual in (-0.05, 0.0, 0.05, 9.0):
        made = ops.convert_to_numpy(moving.Correct()(pictures, drawn, np.full_like(drawn, residual)))
        assert np.abs(made - np.clip(0.5 + residual, lowest, highest)).max() < 1e-6


# What the network sees -----------------------------------------------------------------------------------------


def test_one_sided_paths_know_nothing_of_the_other_side():
    paths, other = paths_of(list(shaken_street(VIDEO))), {}
    for name in ("bends", "trust"):
        other[name] = getattr(paths, name).copy()
        other[name][0, 3:] += 7
    alone = evidence.one_sided(paths, 0)
    assert np.array_equal(alone, evidence.one_sided(dataclasses.replace(paths, **other), 0))
    last_step = paths.shift_to(0, 2) - paths.shift_to(0, 1)  # from -3 to -1, and half of it more to 0
    assert np.abs(alone + last_step / 2).max() < 1e-3
    pair = list(shaken_street((-1, 1)))
    assert np.array_equal(evidence.one_sided(paths_of(pair, (-1, 1)), 1), paths_of(pair, (-1, 1)).shifts[1])


def test_what_one_side_says_alone_moves_as_the_camera_does():
    """A hand that turns round: the straight line overshoots, and the median of all paths knows by how much."""
    paths = paths_of(list(shaken_street(VIDEO)))
    turned = dataclasses.replace(paths, shifts=paths.shifts + np.float32([3, -2]))
    for side in range(2):
        straight = evidence.one_sided(paths, side)
        (shift, further), (turned_shift, turned_further) = (evidence.alone(known, side) for known in (paths, turned))
        assert (
            np.abs(turned_shift - shift - [3, -2]).max() < 0.01
            and np.abs(turned_further - further - [3, -2]).max() < 0.01
        )
        assert np.median(np.abs(shift - straight)) < 0.3, "this camera moves evenly, but for fractions of a px"
        assert np.abs(np.median(further - 3 * shift, axis=(0, 1))).max() < 1, "the next frame is three times as far"


def test_outer_frames_lie_over_the_middle_and_neighbours_stand_for_those_that_are_missing():
    *frames, truth = shaken_street((*VIDEO, 0))
    pictures, weights = evidence.gather(frames, paths_of(frames))
    assert len(pictures) == len(weights) == evidence.PICTURES
    inside = np.s_[:, 16:-16, 24:-24]
    moved, still = np.stack(pictures[4:8])[inside], np.stack([frames[slot] for slot in (1, 0, 4, 5)])[inside]
    truth = truth[None].repeat(4, axis=0)[inside]
    assert (vfi.psnr(moved, truth) - vfi.psnr(still, truth)).min() > 6, "dB"
    assert 0.05 < np.mean(weights[4:8]) < 0.2, "in all of them"
    four, weights = evidence.gather(frames[1:5], paths_of(frames[1:5], VIDEO[1:5]))
    assert np.array_equal(four[4], four[5]) and np.array_equal(four[6], four[7])
    assert not np.array_equal(four[4], four[6])
    assert min(weights[4].mean(), weights[6].mean()) > 0.05 and not np.any(weights[5:8:2])
    two, weights = evidence.gather(frames[2:4], paths_of(frames[2:4], VIDEO[2:4]))
    assert all(np.array_equal(two[k], two[0 if k < 6 else 3]) for k in range(4, 8)) and not np.any(weights[4:10])
    assert np.abs(two[8].astype(int) - two[0]).mean() < 5, "alone as with the other, but for the kernel"
    halfway, late = (
        evidence.gather(frames, dataclasses.replace(paths_of(frames), position=position))[1] for position in (0.5, 0.75)
    )
    before, after = late[4] / halfway[4], late[6] / halfway[6]
    assert np.median(before) < 0.6 and np.median(after) > 1.4, "the nearer side counts more"


def test_even_motion_is_described_as_straight_and_few_frames_are_told():
    shifts = np.zeros((2, 9, 16, 2), np.float32)
    shifts[0], shifts[1] = (-1, -0.5), (1, 0.5)
    moments, slots = tuple((k - 2) * 1.0 for k in range(6)), (0, 1, 2, 3, 4, 5)
    bends, trust = np.zeros((2, 6, 9, 16, 2), np.float32), np.ones((2, 6, 9, 16), np.float32)
    paths = motion.Paths(shifts, -2 * shifts, bends, trust, shifts, slots, moments, 0.5)
    described = evidence.describe(paths, np.asarray)
    assert described.shape == (9, 16, evidence.DESCRIBED)
    for side in range(2):
        assert np.abs(described[..., 13 * side : 13 * side + 8]).max() < 1e-5, "no bend"
        assert np.abs(described[..., 13 * side + 8 : 13 * side + 10]).max() < 1e-5, "alone is the same"
        across = np.sinh(described[..., 13 * side + 10 : 13 * side + 12]) * 4 * paths.unit  # px of this grid
        assert np.abs(across - np.float32([2, 1]) * (1 - 2 * side)).max() < 1e-4
        assert np.abs(described[..., 13 * side + 12]).max() < 1e-4, "both sides say the same"
    assert (described[..., 26:34] == 1).all(), "all are trusted"
    assert described[0, 0, -5:].tolist() == [1, 1, 1, 1, 0.5]
    few = evidence.describe(dataclasses.replace(paths, slots=(-1, 1, 2, 3, 4, -1)), np.asarray)
    assert few[0, 0, -5:].tolist() == [0, 1, 1, 0, 0.5]


def test_distances_are_told_alike_on_either_grid():
    frames = shaken_street(VIDEO, 360, 640)
    grids = {motion.GRID: (180, 320), motion.FINE: (270, 480)}
    described = []
    for grid, size in grids.items():
        paths = motion.follow(motion.find_flows(frames, grid), VIDEO, 0)
        assert paths.shifts.shape[1:3] == size
        seen = evidence.describe(paths, lambda part: cv2.resize(part, (80, 45)))
        described.append(np.sinh(np.median(seen[..., : 2 * 13], axis=(0, 1))))
    told = np.abs(described)
    assert told.max() > 0.3, "it moves and bends"
    assert (np.abs(told[0] - told[1]) < 0.03 + 0.05 * told[0]).all()


@pytest.mark.parametrize("height, width", [(90, 160), (37, 53), (64, 64), (360, 640), (540, 960)])
def test_the_network_begins_as_the_rule_at_any_size(weighing, height, width):
    frames = [cv2.resize(frame, (width, height)) for frame in shaken_street((*VIDEO, 0))]
    truth, neighbours = frames.pop(), np.stack(frames)[None]
    path, untrained = (predict_between(model, neighbours, VIDEO, 0)[0] for model in (load_model("path"), weighing()))
    assert untrained.shape == (height, width, 3) and untrained.dtype == np.uint8
    scores = [vfi.psnr(truth[None], picture[None])[0] for picture in (path, untrained)]
    assert abs(scores[0] - scores[1]) < 0.6 and np.abs(path.astype(int) - untrained).mean() < 1


@pytest.mark.parametrize("times, t", [((-1, 1), 0), ((-3, -1, 1, 3), 0.4), ((0, 2.5, 3), 1)])
def test_few_frames_and_any_moment(weighing, times, t):
    frames = shaken_street((*times, t))
    predicted = predict_between(weighing(), frames[None, :-1], times, t)
    average = predict_between(vfi.average, frames[None, :-1], times, t)
    assert vfi.psnr(frames[-1:], predicted)[0] > vfi.psnr(frames[-1:], average)[0] + 3


@pytest.mark.parametrize("size", [(96, 160), (300, 500)])  # of the larger ones its grid is finer
def test_a_shot_is_predicted_at_any_moment(either, size):
    model, frames = some_weights(either()), shaken_street(range(6), *size)
    made = list(interpolation.interpolate_shot(model, iter(frames), range(6), [0, 1 / 3, 2.5, 5]))
    assert np.array_equal(made[0], frames[0]) and np.array_equal(made[3], frames[5])
    assert np.array_equal(made[1], predict_between(model, frames[None, :4], range(4), 1 / 3)[0])
    assert np.array_equal(made[2], predict_between(model, frames[None], range(6), 2.5)[0])


def test_same_pictures_give_the_same_picture(either):
    still = np.repeat(shaken_street((0,)), 6, axis=0)[None]
    assert np.abs(predict_between(some_weights(either()), still, VIDEO, 0).astype(int) - still[:, 0]).max() <= 1


def test_no_colour_that_no_picture_has(either):
    frames = list(shaken_street(VIDEO))
    pictures, weights = evidence.gather(frames, paths_of(frames))
    predicted = models.predict_weighed(some_weights(either()), frames, paths_of(frames)).astype(int)
    assert (predicted <= np.max(pictures, axis=0).astype(int) + 2).all()
    assert (predicted >= np.min(pictures, axis=0).astype(int) - 2).all()


@pytest.mark.parametrize("size", [(96, 160), (192, 320)])  # seen as it is, and on a copy of half its sides
def test_small_frames_are_refined_in_use_as_in_training(size):
    model, frames = some_weights(refine(network("motion"))), list(shaken_street(VIDEO, *size))
    paths = paths_of(frames)
    pictures, weights = evidence.gather(frames, paths)
    part = evidence.copy_scale(*size)
    rule = cv2.merge([cv2.resize(weight, (size[1] // part, size[0] // part)) for weight in weights])
    whole = np.concatenate([*pictures, *frames[2:4]], axis=-1)
    description = evidence.look(frames, paths, pictures, weights)[-1]
    in_training = model.predict_on_batch([array[None] for array in (whole, rule, description)])
    used = models.predict_weighed(model, frames, paths).astype(int)
    assert np.abs(used - vfi.to_uint8(in_training)[0]).mean() < 0.3
    blended = models.predict_weighed(keras.Model(model.inputs, model.get_layer("middle").output), frames, paths)
    assert np.abs(used - blended).mean() > 1, "it does something"


def test_large_frames_are_not_refined():
    model = some_weights(refine(network("motion")))
    alone = keras.Model(model.inputs, model.get_layer("middle").output)
    for size, same in (((225, 400), False), ((226, 400), True)):
        frames = list(shaken_street(VIDEO, *size))
        made = [models.predict_weighed(each, frames, paths_of(frames)) for each in (model, alone)]
        assert np.array_equal(*made) == same


def test_what_refines_learns_alone(crops, folder):
    """What weighs stays as it was, bit by bit, while the DnCNN learns that the truth is a mean of two pictures."""
    model = some_weights(network("motion"))
    before = model.get_weights()
    for path in crops:
        part = dict(np.load(path))
        truth = part["pictures"][..., :3].astype(int) // 2 + part["pictures"][..., 9:12] // 2
        np.savez(path, **{**part, "truth": truth.astype(np.uint8)})
    batches, refined = path_crops.PathBatches(crops, 4), refine(model)
    start = np.mean([training.log_error(y, refined(x)) for x, y in (batches[k] for k in range(3))])
    budget = training.Budget(epochs=2, steps_per_epoch=20, batch_size=4, crop=80, learning_rate=2e-3)
    trained = training.train(refined, batches, batches[100], name="refined", budget=budget, loss="log_error")
    end = np.mean([training.log_error(y, trained(x)) for x, y in (batches[k] for k in range(3))])
    assert end < start - 0.3
    assert all(np.array_equal(one, other) for one, other in zip(before, trained.get_weights()))


@pytest.mark.parametrize("channels, name", [((27, 5, 31), "answer"), ((39, 11, 39), "correction")])
def test_a_model_that_weighs_otherwise_is_refused_by_name(tmp_path, channels, name):
    inputs = [keras.Input((None, None, count)) for count in channels]
    made = keras.layers.Conv2D(12, 1, name=name)(keras.layers.Concatenate()(inputs))
    moving.MotionModel(inputs, made).save(tmp_path / "motion.keras")
    with pytest.raises(ValueError, match="motion.keras was made by another version of notebook 07.*train again"):
        load_model(tmp_path / "motion.keras")


def test_a_saved_model_predicts_the_same_and_fresh_weights_repeat(either, tmp_path):
    model, frames = some_weights(either()), shaken_street(VIDEO)[None]
    model.save(tmp_path / "motion.keras")
    loaded = load_model(tmp_path / "motion.keras")
    assert isinstance(loaded, moving.MotionModel) and not isinstance(load_model("dncnn"), moving.MotionModel)
    assert np.array_equal(predict_between(loaded, frames, VIDEO, 0), predict_between(model, frames, VIDEO, 0))
    again = either().get_weights()
    assert all(np.array_equal(a, b) for a, b in zip(either().get_weights(), again, strict=True))


def test_it_keeps_to_its_budget(either, tmp_path):
    either().save(tmp_path / "motion.keras")
    assert (tmp_path / "motion.keras").stat().st_size <= 10e6


def test_sixteen_bits_leave_weights_and_colours_alone(either):
    model = training.compile_for_training(some_weights(either()), "log_error", 1e-3, 10, "mixed_bfloat16")
    inside = [layer for layer in model.layers if layer.name == "refine"]
    every = [layer for outer in (model, *inside) for layer in outer.layers if layer not in inside]
    precise = [layer for layer in every if layer.compute_dtype == "float32"]
    coarse = [layer for layer in every if layer not in precise]
    assert all(layer.activation.__name__ != "linear" for layer in coarse) and len(coarse) > 10 + 5 * len(inside)
    frames = list(shaken_street(VIDEO))
    arrays = arrays_for(frames, paths_of(frames))
    exact = some_weights(either()).predict_on_batch(arrays)
    assert np.abs(model.predict_on_batch(arrays) - exact).max() < 0.05


def test_the_answer_is_held_to_the_rules_alike_in_any_batch(weighing):
    frames = list(shaken_street(VIDEO))
    arrays, model = arrays_for(frames, paths_of(frames)), some_weights(weighing())
    truth = np.full((*arrays[0].shape[:3], 3), 0.5, np.float32)
    answer = models.inside(model, "answer").predict_on_batch(arrays)
    wanted = training.log_error(truth, model.predict_on_batch(arrays))[0] + 0.125 * (answer**2).mean()
    model = training.compile_for_training(model, "log_error", 1e-3, 10)
    for copies in (1, 3):
        batch = [np.repeat(array, copies, axis=0) for array in (*arrays, truth)]
        loss = model.test_on_batch(batch[:-1], batch[-1], return_dict=True)["loss"]
        assert float(loss) == pytest.approx(float(wanted), abs=1e-4)


UNDER_JAX = """
import numpy as np, keras
sys.path.insert(0, sys.argv[1])
from stages import training
from stages.models import load_model
assert keras.backend.backend() == "jax"
model = load_model(sys.argv[2])
arrays = [np.load(sys.argv[3])[name] for name in ("pictures", "rule", "description")]
np.save(sys.argv[4], model.predict_on_batch(arrays))
model = training.compile_for_training(model, "log_error_and_detail", 1e-3, 10, "float32")
print("loss", model.test_on_batch(arrays, np.full((*arrays[0].shape[:3], 3), 0.5, np.float32))[0])
model.train_on_batch(arrays, np.full((*arrays[0].shape[:3], 3), 0.5, np.float32))
"""


def test_tensorflow_and_jax_predict_the_same_and_both_train(either, tmp_path):
    pytest.importorskip("jax")
    model, frames = some_weights(either()), list(shaken_street(VIDEO))
    model.save(tmp_path / "a.keras")
    arrays = arrays_for(frames, paths_of(frames))
    np.savez(tmp_path / "in.npz", **dict(zip(("pictures", "rule", "description"), arrays)))
    paths = [vfi.ROOT, tmp_path / "a.keras", tmp_path / "in.npz", tmp_path / "out.npy"]
    command = [sys.executable, "-c", WITHOUT_TENSORFLOW + UNDER_JAX, *map(str, paths)]
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert np.abs(np.load(tmp_path / "out.npy") - model.predict_on_batch(arrays)).max() < 1e-3
    model = training.compile_for_training(model, "log_error_and_detail", 1e-3, 10, "float32")
    loss = model.test_on_batch(arrays, np.full((*arrays[0].shape[:3], 3), 0.5, np.float32))[0]
    assert float(done.stdout.split("loss")[1]) == pytest.approx(float(loss), rel=1e-3)


# What it learns from --------------------------------------------------------------------------------------------


@pytest.fixture
def crops(folder):
    frames = {"a": shaken_street(range(-12, 13)), "b": shaken_street(range(-12, 13), 144, 208)}
    return path_crops.get_crops(frames, "street", 6, 80)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("VFI_WORK", str(tmp_path))
    return tmp_path


def test_windows_have_the_frames_that_their_times_say():
    frames = np.arange(60, dtype=np.uint8)[:, None, None, None] * np.ones((1, 16, 24, 3), np.uint8)
    seen = set()
    for seed in range(300):
        neighbours, times, truth = path_crops.random_window(frames, np.random.default_rng(seed))
        assert np.unique([frame[0, 0, 0] for frame in neighbours]).size == len(times), "captions aside"
        if truth.std() == 0:
            assert [int(frame[0, 0, 0]) - int(truth[0, 0, 0]) for frame in neighbours] == times
        assert sum(time < 0 for time in times) and sum(time > 0 for time in times)
        seen |= {(len(times), tuple(times))}
    assert {count for count, _ in seen} >= {2, 4, 6}
    assert {VIDEO, (-3, -2, -1, 1, 2, 3)} <= {times for _, times in seen}
    assert any(times[0] != -times[-1] for _, times in seen), "also moments that are not the middle"


def test_large_frames_are_shrunk_to_what_the_network_sees():
    frames = np.zeros((20, 500, 800, 3), np.uint8)
    for seed in range(5):
        truth = path_crops.random_window(frames, np.random.default_rng(seed))[2]
        assert truth[..., 0].size <= path_crops.LARGEST
        small = path_crops.random_window(frames, np.random.default_rng(seed), 48 * 80)[-1]
        assert small[..., 0].size <= 48 * 80


def test_crops_are_what_the_network_sees_and_truth_fits(crops):
    part = np.load(crops[0])
    assert part["pictures"].shape == (80, 80, 39) and part["rule"].shape == (80, 80, 11)
    assert part["description"].shape == (40, 40, 39) and part["truth"].shape == (80, 80, 3)
    scores = []
    for path in crops:
        part = np.load(path)
        middle = moving.Blend(evidence.LEAST)(
            part["pictures"][None], part["rule"][None], np.zeros((1, 80, 80, evidence.ANSWERED), np.float32)
        )
        scores.append(vfi.psnr(part["truth"][None], vfi.to_uint8(ops.convert_to_numpy(middle)))[0])
    assert np.median(scores) > 28, "the truth lies where the pictures do"


def test_in_training_the_network_sees_what_it_sees_in_use():
    """A crop of all of a frame, shrunk by the network, is the copy that `look` makes of it."""
    *frames, truth = shaken_street((*VIDEO, 0), 192, 192)
    part = path_crops.cut_crops(frames, VIDEO, truth, 96, np.random.default_rng(0))[0]
    looked = evidence.look(frames, paths_of(frames), *evidence.gather(frames, paths_of(frames)))
    assert part["truth"].shape == (192, 192, 3) and looked[0].shape == (96, 96, 39)
    half = part["description"][None]
    for name, seen, bound in zip(("pictures", "rule"), looked, (0.51, 1e-3)):
        shrunk = ops.convert_to_numpy(moving.Shrink()(part[name][None], half))[0]
        assert np.abs(shrunk[..., :10] - seen[..., :10]).max() < bound, name
    assert np.array_equal(part["description"], looked[2].astype(np.float16))


def test_a_hand_shakes_smoothly_and_the_last_frame_by_less_than_a_pixel():
    picture = shaken_street((0,), 180, 320)[0]
    times = [*range(-6, 7), 0]
    shaken = path_crops.shake([picture] * len(times), times, np.random.default_rng(0))
    height, width = shaken[0].shape[:2]
    down, across = (180 - height) // 2, (320 - width) // 2
    still = picture[down : down + height, across : across + width]
    still, *greys = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (still, *shaken)]
    moved = np.median(motion.find_flow(still, greys[-1]), axis=(0, 1))
    assert 0.1 < np.abs(moved).max() < 0.6, "the truth lies between pixels, as the others do"
    found = np.array([np.median(motion.find_flow(greys[-1], grey), axis=(0, 1)) for grey in greys[:-1]])
    assert 3 < np.abs(found).max() < 0.05 * 320 and np.abs(found[6]).max() < 0.1
    assert np.abs(np.diff(found, 2, axis=0)).max() < np.abs(np.diff(found, axis=0)).max(), "a swing, not a jitter"
    flat = [np.zeros((20, 400, 3), np.uint8)] * 3
    assert path_crops.shake(flat, [-9, 9, 0], np.random.default_rng(0)) is flat


def test_other_frames_have_crops_of_their_own(folder):
    street, other = shaken_street(range(-6, 7)), shaken_street(range(-5, 8))
    files = [path_crops.get_crops({"a": frames}, "a", 1, 80)[0] for frames in (street, other)]
    files.append(path_crops.get_crops({"a": street, "short": street[:2]}, "a", 1, 80, seed=1)[0])
    assert len({path.parent for path in files}) == 3
    for frames, crop in (({"a": street[:2]}, 80), ({}, 80), ({"a": street}, 72)):
        with pytest.raises(ValueError, match="multiple of 16, and one of"):
            path_crops.get_crops(frames, "a", 1, crop)


def test_a_damaged_crop_is_named(crops):
    content = bytearray(crops[1].read_bytes())
    content[len(content) // 2] ^= 1
    crops[1].write_bytes(content)
    with pytest.raises(ValueError, match=f"{crops[1].name} is damaged .*Delete it"):
        path_crops.read_crop(crops[1])
    crops[1].write_bytes(b"")
    with pytest.raises(ValueError, match="Delete it"):
        path_crops.PathBatches(crops, 2)


def test_crops_are_kept_and_what_is_missing_is_made_the_same(crops, folder):
    before = {path: path.read_bytes() for path in crops}
    kept = crops[0].stat().st_mtime_ns
    crops[-1].unlink()
    frames = {"a": shaken_street(range(-12, 13)), "b": shaken_street(range(-12, 13), 144, 208)}
    assert path_crops.get_crops(frames, "street", 6, 80) == crops
    assert crops[0].stat().st_mtime_ns == kept
    assert crops[-1].read_bytes() == before[crops[-1]]


def test_batches_repeat_and_hold_one_size(crops, folder):
    larger = path_crops.get_crops({"c": shaken_street(range(-12, 13), 176, 240)}, "large", 4, 80)
    flat = path_crops.get_crops({"d": shaken_street(range(-12, 13), 96, 400)}, "flat", 3, 80)  # its copy: 48x200 px
    batches = path_crops.PathBatches(crops + larger + flat, 2)
    sizes = set()
    for k in range(12):
        (inputs, targets), (again, _) = batches[k], batches[k]
        assert all(np.array_equal(inputs[name], again[name]) for name in inputs)
        assert targets.dtype == np.float32 and targets.min() >= 0 and targets.max() <= 1
        assert inputs["description"].shape[1] == 40 and inputs["rule"].shape[1] == 80
        assert inputs["pictures"].shape[1] == targets.shape[1]
        sizes.add((len(targets), targets.shape[1]))
    assert sizes == {(2, 160), (2, 80)}
    assert all(batches[k][1].shape != batches[k + 1][1].shape for k in range(6)), "keras looks at two"
    budget = training.Budget(epochs=1, steps_per_epoch=5, batch_size=2, crop=80)
    training.train(network("motion"), batches, lambda model: {}, name="sizes", budget=budget, loss="log_error")


def test_flipping_turns_round_what_points_there(crops):
    """Mirrored paths are described as the mirrored description says."""
    paths = paths_of(list(shaken_street(VIDEO)))
    size = paths.trust.shape[3:1:-1]

    def mirrored(field):
        return field[..., ::-1, :] * np.float32([-1, 1])

    fields = {name: mirrored(getattr(paths, name)) for name in ("shifts", "across", "bends", "flows")}
    other = dataclasses.replace(paths, **fields, trust=paths.trust[..., ::-1])
    described, turned = (evidence.describe(either, lambda part: cv2.resize(part, size)) for either in (paths, other))
    described = described[:, ::-1].copy()
    described[..., evidence.ACROSS] *= -1
    assert np.abs(turned - described).max() < 1e-2

    class Both:  # draws that both flips are made
        def random(self):
            return 0.0

    whole = next(path for path in crops if np.load(path)["description"][0, 0, -5:-1].all())  # one of six frames
    part, flipped = np.load(whole), path_crops.flip(whole, Both())
    assert np.array_equal(flipped["truth"], part["truth"][::-1, ::-1])
    signs = flipped["description"] / np.where(part["description"] == 0, 1, part["description"])[::-1, ::-1]
    changed = {k for k in range(evidence.DESCRIBED) if (signs[..., k] == -1).any()}
    assert changed <= {*evidence.ACROSS, *(k + 1 for k in evidence.ACROSS)} and len(changed) > 10


def test_it_learns_whom_to_believe(weighing, crops, folder):
    """Where the truth is what one side alone fetches, the network comes to choose it, and a resumed run is its own."""
    for path in crops:
        part = dict(np.load(path))
        np.savez(path, **{**part, "truth": part["pictures"][..., 12:15]})
    budget = training.Budget(epochs=2, steps_per_epoch=20, batch_size=4, crop=80, learning_rate=3e-3)
    batches = path_crops.PathBatches(crops, 4)
    before = np.mean([training.log_error(y, weighing()(x)) for x, y in (batches[k] for k in range(3))])
    trained = training.train(weighing(), batches, batches[100], name="motion-try", budget=budget, loss="log_error")
    after = np.mean([training.log_error(y, trained(x)) for x, y in (batches[k] for k in range(3))])
    assert after < before - 0.5


def test_the_test_curve_is_measured_on_whole_frames(weighing):
    frames = {"a": shaken_street(range(-12, 13))}
    windows = vfi.build_windows({"a": 25}, spacing="video")
    measure, average = path_crops.test_on(frames, windows, 2)
    neighbours, truth = vfi.take_windows(frames, vfi.spread(windows, 2))
    assert average == pytest.approx(vfi.psnr(truth, vfi.average(neighbours)).mean())
    made = predict_between(load_model("path"), neighbours, VIDEO, 0)
    assert measure(load_model("path"))["test_psnr"] == pytest.approx(vfi.psnr(truth, made).mean())
    assert measure(weighing())["test_psnr"] > average


def test_as_much_detail_is_asked_for_as_the_truth_has():
    """Of two predictions that are as far off, the blurred one costs more; where both are even, neither does."""
    target = cv2.GaussianBlur(RANDOM.random((48, 48, 3), dtype=np.float32), (3, 3), 0)[None]
    rough = target - target.mean()
    blurred, sharpened = (target + way * 0.3 * rough for way in (-1, 1))
    without, costs = (
        [float(loss(target, picture)[0]) for picture in (blurred, sharpened)]
        for loss in (training.log_error, training.log_error_and_detail)
    )
    assert costs[0] > costs[1] + 0.1 and without[0] == pytest.approx(without[1], abs=0.01)
    assert np.greater(costs, without).all()
    assert ops.convert_to_numpy(training.sharpness(blurred) - training.sharpness(target)).shape == (1, 3, 3, 1)
    lost = ops.convert_to_numpy(training.sharpness(target) - training.sharpness(blurred))
    energy = np.exp(ops.convert_to_numpy(training.sharpness(target))) - 3e-4
    assert lost == pytest.approx(np.log((energy + 3e-4) / (0.7**2 * energy + 3e-4)), abs=1e-4)
    even = np.full((1, 48, 48, 3), 0.5, np.float32)
    assert ops.convert_to_numpy(training.sharpness(even + 0.1)) == pytest.approx(np.log(3e-4))


def test_log_error_is_worth_the_same_to_easy_and_hard_pictures():
    target = RANDOM.random((2, 16, 16, 3), dtype=np.float32)
    smooth = np.float32([0.1, 0.01])[:, None, None, None]  # even errors, so the detail is right
    full, half = (ops.convert_to_numpy(training.log_error(target, target + part * smooth)) for part in (1, 0.5))
    assert (full - half)[0] == pytest.approx(np.log(4), abs=0.05) and (full - half)[1] > 0.9
    rough = target + 0.1 * np.where(np.indices((16, 16)).sum(axis=0) % 2, 1, -1)[None, :, :, None].astype(np.float32)
    assert (ops.convert_to_numpy(training.log_error(target, rough)) > full[0] + 2).all(), "detail counts"


def test_windows_of_every_second_frame():
    frames = {"a": np.arange(20, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8)}
    windows = vfi.build_windows({"a": 20}, stride=3, step=2)
    assert windows.start.tolist() == [0, 3, 6] and windows.middle.tolist() == [6, 9, 12]
    neighbours, targets = vfi.take_windows(frames, windows)
    assert neighbours[0, :, 0, 0, 0].tolist() == [0, 2, 4, 8, 10, 12] and targets[0, 0, 0, 0] == 6


def test_padded_ends_repeat_the_nearest_frame_that_is_left():
    frames = {"a": np.arange(7, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 3), np.uint8)}
    budget = training.Budget(epochs=1, steps_per_epoch=1, batch_size=16, crop=8, temporal_padding=1.0)
    batches = training.CropBatches(frames, vfi.build_windows({"a": 7}), 6, budget)
    seen = {tuple(stack[0, 0, ::3].tolist()) for stack in batches[0][0]}
    sides = {2: (2, 2, 2), 1: (1, 1, 2), 0: (0, 1, 2)}, {4: (4, 4, 4), 5: (4, 5, 5), 6: (4, 5, 6)}
    possible = {a + b for a in sides[0].values() for b in sides[1].values()}
    assert seen <= possible | {window[::-1] for window in possible} and len(seen) > 4
    budget = training.Budget(epochs=1, steps_per_epoch=1, batch_size=16, crop=8)
    whole = training.CropBatches(frames, vfi.build_windows({"a": 7}), 6, budget)[0][0]
    assert {tuple(sorted(stack[0, 0, ::3].tolist())) for stack in whole} == {(0, 1, 2, 4, 5, 6)}
