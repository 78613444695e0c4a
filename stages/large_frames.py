"""Large frames with the motion of small ones, for a model that was trained on small frames: notebooks 07 and 08."""

from __future__ import annotations

import functools

import keras
import numpy as np
from keras import ops
from PIL import Image

import vfi_utils as vfi
from stages import layers

SMALL = 320  # px: motion in larger frames is estimated on a copy that is shrunk to this


@functools.lru_cache(maxsize=4)  # it is compiled once
def inside(model, *names: str):
    """Model over the same weights that gives out the named layers' outputs."""
    return keras.Model(model.input, [model.get_layer(name).output for name in names])


@functools.lru_cache(maxsize=4)
def blender(frames: int):
    """Model that fetches pixels and blends them, as a network of notebook 07 ends.

    It takes frames uint8 `[B, H, W, 3 * n]` and maps float32 `[B, h, w, 3 * n + 3]`: flows, weights and a residual.
    """
    stacked = keras.Input((None, None, 3 * frames), dtype="uint8")
    maps = keras.Input((None, None, 3 * frames + 3))
    flow, weights, residual = ops.split(maps, [2 * frames, 3 * frames], axis=-1)
    pictures = layers.FramesToBatch(frames=frames)(keras.layers.Rescaling(1 / 255)(stacked))
    fetched = layers.Warp(kernel="cubic")(pictures, layers.FramesToBatch(frames=frames)(flow))
    fetched = layers.BatchToFrames(frames=frames)(fetched)
    pairs = zip(ops.split(weights, frames, axis=-1), ops.split(fetched, frames, axis=-1), strict=True)
    return keras.Model(
        [stacked, maps], keras.layers.Add()([residual, *(keras.layers.Multiply()(pair) for pair in pairs)])
    )


def move_pixels(model, neighbours: np.ndarray, tile: int, side: int = SMALL) -> np.ndarray:
    """Middle frames, predicted with the motion of small ones and the pixels of large ones.

    The model, trained on small frames, knows small motion. It sees a copy shrunk to `side` px; its flow, weights and
    residual are enlarged, tile by tile, and the pixels are fetched from the frames as they are.

    Args:
        model: a `layers.MotionModel`.
        neighbours: uint8 `[B, n, H, W, 3]`.
        tile: side in px of what is predicted at once. The result does not depend on it.
        side: px, the longer one of the shrunken copy.

    Returns:
        float32 `[B, H, W, 3]`, in [0, 1] or slightly beyond.
    """
    frames, (height, width) = model.input_shape[-1] // 3, neighbours.shape[2:4]
    stacked = vfi.innermost(neighbours, frames)
    small = [max(1, round(length * side / max(height, width))) for length in (width, height)]
    copies = [
        [Image.fromarray(frame).resize(small, Image.Resampling.BOX) for frame in np.split(stack, frames, axis=-1)]
        for stack in stacked
    ]
    copies = np.stack([np.concatenate(copy, axis=-1) for copy in copies])
    maps = np.concatenate(inside(model, "flow", "weights", "residual").predict_on_batch(copies), axis=-1)
    scale = np.array([width, height]) / small

    def predict_tile(top: int, left: int) -> np.ndarray:
        rows, columns = np.arange(top, min(top + tile, height)), np.arange(left, min(left + tile, width))
        places = np.stack(np.meshgrid((columns + 0.5) / scale[0], (rows + 0.5) / scale[1]), axis=-1) - 0.5
        places = np.minimum(places, np.array(small) - 1)  # what the model padded is not looked at
        places -= np.stack(np.meshgrid(np.arange(len(columns)), np.arange(len(rows))), axis=-1)
        places = np.broadcast_to(places.astype(np.float32), (len(stacked), *places.shape))
        local = np.array(ops.convert_to_numpy(layers.warp(maps, places)))
        flow = local[..., : 2 * frames].reshape(*local.shape[:3], frames, 2) * scale.astype(np.float32)
        here = np.stack(np.meshgrid(columns, rows), axis=-1)[:, :, None].astype(np.float32)
        flow = np.clip(here + flow, 0, [width - 1, height - 1]).astype(np.float32) - here  # beyond is the edge
        reach = -(-int(np.abs(flow).max() + 3) // 32) * 32  # px around the tile from which pixels are fetched
        around = [
            np.clip(np.arange(side[0] - reach, side[-1] + reach + 1), 0, length - 1)
            for side, length in ((rows, height), (columns, width))
        ]
        local[..., : 2 * frames] = (flow + reach).reshape(*local.shape[:3], -1)
        return blender(frames).predict_on_batch([stacked[:, around[0]][:, :, around[1]], local])

    lines = [[predict_tile(top, left) for left in range(0, width, tile)] for top in range(0, height, tile)]
    return np.concatenate([np.concatenate(line, axis=2) for line in lines], axis=1)
