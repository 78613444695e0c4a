"""The layers that move pixels, and the network of notebook 07."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers, ops
from PIL import Image

import vfi_utils as vfi
from definitions import WITHOUT_TENSORFLOW, network
from stages import layers as moving
from stages import training
from stages.large_frames import move_pixels
from stages.layers import MotionModel
from stages.models import load_model, predict_middle

RANDOM = np.random.default_rng(0)


@pytest.fixture(scope="module")
def motion():
    return lambda: network("motion")


def smooth_image(height=40, width=56, at=(0.0, 0.0), channels=3):
    """A picture of waves, `[1, H, W, C]` in [0, 1], seen from `at` = (x, y) px further."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    x, y = x + at[0], y + at[1]
    waves = [np.sin(x / (3 + c) + 0.4 * c) + np.cos(y / (4 - c / 2) - c) for c in range(channels)]
    return (np.stack(waves, axis=-1)[None] / 4 + 0.5).astype(np.float32)


def passing_street(x=16, y=-9, height=96, width=160):
    """Seven frames, uint8 `[1, 7, H, W, 3]`, of a random picture that moves by (x, y) tenths of a px a frame.

    It is smooth and repeats nowhere: waves, a sixteenth of their size, could have moved any way.
    """
    noise = np.random.default_rng(2).integers(0, 256, (18, 26, 3), dtype=np.uint8)
    margin = 3 * max(abs(x), abs(y))
    large = Image.fromarray(noise).resize((10 * width + 2 * margin, 10 * height + 2 * margin), Image.Resampling.BICUBIC)
    corners = [(margin + x * t, margin + y * t) for t in range(-3, 4)]
    frames = [large.crop((left, top, left + 10 * width, top + 10 * height)) for left, top in corners]
    return np.stack([np.asarray(frame.reduce(10)) for frame in frames])[None]


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


def test_lucas_kanade_finds_a_small_step_and_its_direction():
    layer = moving.LucasKanade(symmetric=False)
    step = ops.convert_to_numpy(layer(smooth_image(), smooth_image(at=(0.3, -0.2))))
    assert np.abs(np.median(step, axis=(0, 1, 2)) - [0.3, -0.2]).max() < 0.03
    layer = moving.LucasKanade()  # half-way: each of the two pictures goes half of the way
    step = ops.convert_to_numpy(layer(smooth_image(), smooth_image(at=(0.6, -0.4))))
    assert np.abs(np.median(step, axis=(0, 1, 2)) - [0.3, -0.2]).max() < 0.03
    flat = np.full((1, 9, 9, 3), 0.5, np.float32)
    assert np.abs(ops.convert_to_numpy(layer(flat, flat + 0.01))).max() < 1e-3, "nothing to see, no step"


def test_median_throws_out_what_no_neighbour_agrees_with():
    flow = np.broadcast_to(np.float32([1, -2]), (2, 5, 6, 2)).copy()
    flow[0, 2, 3] = flow[1, 0, 0] = 50
    found = ops.convert_to_numpy(moving.Median()(flow))
    assert np.array_equal(found, np.broadcast_to(np.float32([1, -2]), flow.shape))
    image = RANDOM.random((1, 6, 7, 2), dtype=np.float32)
    found = ops.convert_to_numpy(moving.Median()(image))
    assert found[0, 3, 4, 1] == np.median(image[0, 2:5, 3:6, 1])


def test_frames_to_batch_and_padding_are_undone():
    stacked = RANDOM.random((2, 5, 6, 18), dtype=np.float32)
    folded = moving.FramesToBatch(frames=6)(stacked)
    assert np.array_equal(ops.convert_to_numpy(folded)[2:4], stacked[..., 3:6])
    assert np.array_equal(ops.convert_to_numpy(moving.BatchToFrames(frames=6)(folded)), stacked)
    padded = moving.PadToMultiple(multiple=4)(stacked)
    assert padded.shape == (2, 8, 8, 18)
    assert np.array_equal(ops.convert_to_numpy(moving.CropLike()(padded, stacked)), stacked)


@pytest.mark.parametrize("height, width", [(45, 80), (37, 53), (3, 5), (9, 121)])
def test_any_size_goes_in_and_comes_out(motion, height, width):
    inputs = RANDOM.integers(0, 256, (1, height, width, 18), dtype=np.uint8)
    predicted = motion().predict_on_batch(inputs)
    assert predicted.shape == (1, height, width, 3) and predicted.dtype == np.float32


def test_one_model_takes_frames_of_several_sizes(motion):
    model = motion()  # TensorFlow stops knowing the size when a second one comes
    for height, width in [(40, 56), (24, 32), (37, 53)]:
        inputs = RANDOM.integers(0, 256, (1, height, width, 18), dtype=np.uint8)
        assert model.predict_on_batch(inputs).shape == (1, height, width, 3)


def test_upsampling_is_bilinear():
    images = RANDOM.random((2, 5, 7, 3), dtype=np.float32)
    wanted = layers.UpSampling2D(2, interpolation="bilinear")(images)
    assert np.abs(ops.convert_to_numpy(moving.Upsample()(images) - wanted)).max() < 1e-6


def test_same_pictures_give_the_same_picture(motion):
    still = np.repeat(np.rint(255 * smooth_image()).astype(np.uint8)[:, None], 6, axis=1)
    assert np.abs(predict_middle(motion(), still).astype(int) - still[:, 0]).max() <= 1


def test_untrained_it_already_follows_motion(motion):
    neighbours, truth = vfi.split_middle(passing_street())
    predicted = predict_middle(motion(), neighbours)
    assert vfi.psnr(truth, predicted)[0] > vfi.psnr(truth, vfi.average(neighbours))[0] + 5


def test_a_saved_model_draws_the_same_and_fresh_weights_repeat(motion, tmp_path):
    model, inputs = motion(), RANDOM.integers(0, 256, (1, 24, 32, 18), dtype=np.uint8)
    model.save(tmp_path / "motion.keras")
    loaded = load_model(tmp_path / "motion.keras")
    assert np.abs(loaded.predict_on_batch(inputs) - model.predict_on_batch(inputs)).max() < 1e-6
    again = motion()
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), again.get_weights(), strict=True))


def test_it_keeps_to_its_budget(motion, tmp_path):
    model = motion()
    assert model.count_params() <= 2.5e6
    model.save(tmp_path / "motion.keras")
    assert (tmp_path / "motion.keras").stat().st_size <= 10e6


def test_sixteen_bits_leave_motion_and_colours_alone(motion):
    model = training.compile_for_training(motion(), "charbonnier", 1e-3, 10, "mixed_bfloat16")
    precise = [layer for layer in model.layers if layer.compute_dtype == "float32" and layer.weights]
    heads = [layer for layer in model.layers if type(layer).__name__ == "Conv2D" and layer not in precise]
    assert all(layer.activation.__name__ != "linear" for layer in heads) and len(heads) > 10
    inputs = RANDOM.integers(0, 256, (1, 24, 32, 18), dtype=np.uint8)
    assert np.abs(model.predict_on_batch(inputs) - motion().predict_on_batch(inputs)).max() < 0.05


def some_motion(motion):
    """A network with weights that are not those of its start, and six frames that move."""
    model, random = motion(), np.random.default_rng(1)
    model.set_weights([weight + random.normal(0, 0.02, weight.shape) for weight in model.get_weights()])
    window = np.stack([smooth_image(80, 112, at=(1.5 * t, t)) for t in (-3, -2, -1, 1, 2, 3)], axis=1)
    return model, np.rint(255 * window).astype(np.uint8)


UNDER_JAX = """
import numpy as np, keras
sys.path.insert(0, sys.argv[1])
from stages import training
from stages.models import load_model
assert keras.backend.backend() == "jax"
model = load_model(sys.argv[2])
np.save(sys.argv[4], model.predict_on_batch(np.load(sys.argv[3])))
model = training.compile_for_training(model, "charbonnier", 1e-3, 10, "float32")
target = np.zeros((*np.load(sys.argv[3]).shape[:3], 3), np.float32)
print("loss", model.train_on_batch(np.load(sys.argv[3]), target)[0])
"""


def test_tensorflow_and_jax_draw_the_same_and_both_train(motion, tmp_path):
    pytest.importorskip("jax")
    model, neighbours = some_motion(motion)
    model.save(tmp_path / "a.keras")
    inputs = vfi.innermost(neighbours, 6)
    np.save(tmp_path / "in.npy", inputs)
    paths = [vfi.ROOT, tmp_path / "a.keras", tmp_path / "in.npy", tmp_path / "out.npy"]
    command = [sys.executable, "-c", WITHOUT_TENSORFLOW + UNDER_JAX, *map(str, paths)]
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert np.abs(np.load(tmp_path / "out.npy") - model.predict_on_batch(inputs)).max() < 1e-3
    model = training.compile_for_training(model, "charbonnier", 1e-3, 10, "float32")
    loss = model.train_on_batch(inputs, np.zeros((*inputs.shape[:3], 3), np.float32))[0]
    assert float(done.stdout.split("loss")[1]) == pytest.approx(float(loss), rel=1e-3)


def test_large_frames_are_drawn_from_the_motion_of_small_ones(motion):
    model, neighbours = some_motion(motion)
    assert isinstance(model, MotionModel) and not isinstance(load_model("dncnn"), MotionModel)
    whole = model.predict_on_batch(vfi.innermost(neighbours, 6))
    same = move_pixels(model, neighbours, tile=512, side=112)
    assert same.shape == whole.shape
    assert np.abs(same - whole).max() < 1e-4, "nothing is shrunk, nothing changes"
    shrunk = move_pixels(model, neighbours, tile=512, side=56)
    for tile in (40, 16):
        assert np.abs(move_pixels(model, neighbours, tile=tile, side=56) - shrunk).max() < 1e-4


def test_large_motion_is_followed_on_a_shrunken_copy(motion):
    neighbours, truth = vfi.split_middle(passing_street(x=240, y=-150, height=240, width=400))
    whole = vfi.to_uint8(motion().predict_on_batch(vfi.innermost(neighbours, 6)))
    shrunk = vfi.to_uint8(move_pixels(motion(), neighbours, tile=512, side=80))
    assert vfi.psnr(truth, shrunk)[0] > vfi.psnr(truth, whole)[0] + 3


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
