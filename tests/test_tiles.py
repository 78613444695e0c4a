"""Frames predicted in tiles are what they would have been as a whole; full memory makes the tiles smaller."""

from __future__ import annotations

import numpy as np
import pytest
from test_video import drawn

import vfi_utils as vfi
from stages.models import FramePredictor, load_model, predict_float, predict_middle
from stages.tiles import join_tiles, receptive_radius, split_tiles, tile_starts


@pytest.mark.parametrize("size", [(40, 64), (64, 65), (65, 200), (131, 77), (5, 300)])
def test_tiles_join_to_what_was_split(size):
    images = np.random.default_rng(0).integers(0, 256, (2, *size, 3), dtype=np.uint8)
    tiles = split_tiles(images, 64, 9)
    assert len({tile.shape for tile in tiles}) == 1, "one size: a model is compiled once"
    assert max(tiles[0].shape[1:3]) <= 64
    for tile in tiles[1:] if len(tiles) > 1 else []:  # what the margins hold must not matter
        assert tile.shape[1] >= min(size[0], 19)
    joined = join_tiles(tiles, size, 64, 9)
    np.testing.assert_array_equal(joined, images)


def test_margins_are_left_out():
    images = np.zeros((1, 100, 150, 1))
    tiles = [tile.copy() for tile in split_tiles(images, 64, 9)]
    starts = [(y, x) for y in tile_starts(100, 64, 9)[0] for x in tile_starts(150, 64, 9)[0]]
    for tile, (y, x) in zip(tiles, starts):
        height, width = tile.shape[1:3]
        for axis, start, length, side in ((1, y, height, 100), (2, x, width, 150)):
            view = np.moveaxis(tile, axis, 0)
            view[: 9 if start else 0] = 1
            view[length - 9 if start + length < side else length :] = 1
    assert join_tiles(tiles, (100, 150), 64, 9).max() == 0


@pytest.fixture(scope="module")
def model():
    return load_model("dncnn_residual")


def test_tiled_equals_untiled(model):
    assert receptive_radius(model) == 15
    neighbours = np.stack(drawn(6, (140, 101)))[None]
    whole = predict_float(model, neighbours, tile=1000)
    assert whole.dtype == np.float32 and whole.shape == (1, 101, 140, 3)
    np.testing.assert_allclose(predict_float(model, neighbours, tile=64), whole, atol=1e-4)
    np.testing.assert_array_equal(vfi.to_uint8(whole), predict_middle(model, neighbours))


def test_a_model_that_does_more_than_convolve_is_not_tiled():
    import keras

    inputs = keras.Input((None, None, 6), dtype="uint8")
    small = keras.layers.AveragePooling2D(2)(keras.layers.Rescaling(1 / 255)(inputs))
    outputs = keras.layers.Conv2D(3, 1)(keras.layers.UpSampling2D(2)(small))
    assert receptive_radius(keras.Model(inputs, outputs)) is None
    strided = keras.layers.Conv2D(3, 3, strides=2, padding="same")(keras.layers.Rescaling(1 / 255)(inputs))
    assert receptive_radius(keras.Model(inputs, strided)) is None
    computed = keras.ops.roll(keras.layers.Conv2D(3, 1)(keras.layers.Rescaling(1 / 255)(inputs)), 30, axis=1)
    assert receptive_radius(keras.Model(inputs, computed)) is None, "an operation that is not a layer"


class ResourceExhaustedError(Exception):
    """What TensorFlow raises has this name."""


class XlaRuntimeError(Exception):
    """What JAX raises has this name."""


@pytest.mark.parametrize(
    "full", [ResourceExhaustedError("OOM"), XlaRuntimeError("RESOURCE_EXHAUSTED: Out of memory"), MemoryError()]
)
def test_full_memory_halves_the_tile(model, monkeypatch, capsys, full):
    sizes = []

    def predict_on_batch(stacked):
        sizes.append(max(stacked.shape[1:3]))
        if sizes[-1] > 80:
            raise full
        return stacked[..., 6:9].astype(np.float32) / 255

    monkeypatch.setattr(model, "predict_on_batch", predict_on_batch)
    predictor, six, times = FramePredictor(model), np.stack(drawn(6, (300, 70))), vfi.window_times("video")
    np.testing.assert_array_equal(predictor(six, times, 0), six[2])
    tries = len(sizes)
    predictor(six, times, 0)
    assert max(sizes[tries:]) <= 80, "it stays with the smaller tile"
    assert capsys.readouterr().out.splitlines() == [
        f"memory is full: predicting tiles of {size} px from here on" for size in (150, 75)
    ]


def test_other_errors_are_not_taken_for_full_memory(model, monkeypatch):
    def predict_on_batch(stacked):
        raise XlaRuntimeError("INVALID_ARGUMENT")

    monkeypatch.setattr(model, "predict_on_batch", predict_on_batch)
    with pytest.raises(XlaRuntimeError):
        FramePredictor(model)(np.stack(drawn(6)), vfi.window_times("video"), 0)
