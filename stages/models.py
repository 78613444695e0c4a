"""Find models, load them, and predict middle frames of any size with them: notebooks 03 to 08.

`stages.layers` registers with keras the layers that the files of models may hold.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable
from pathlib import Path

import keras
import numpy as np
from keras import ops
from PIL import Image

import vfi_utils as vfi
from stages import layers

TILE = 512  # px: larger frames are predicted in tiles
SMALL = 320  # px: motion in larger frames is estimated on a copy that is shrunk to this
POINTWISE = "Activation Add Average BatchNormalization Concatenate InputLayer ReLU Rescaling Split Subtract"


def gpu_name() -> str:
    """Name of the GPU that keras will use, or "" if there is none."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        devices = tf.config.list_physical_devices("GPU")
        return tf.config.experimental.get_device_details(devices[0]).get("device_name", "GPU") if devices else ""
    if keras.backend.backend() == "jax":
        import jax

        return next((device.device_kind for device in jax.devices() if device.platform == "gpu"), "")
    return ""


def model_file(name_or_path: str | Path, untrained: bool = False) -> Path:
    """Path of a model's file: yours in `work/` if that stage has run; else the one shipped in `assets/models/`.

    Raises:
        FileNotFoundError: naming where it looked and the notebook to run.
    """
    name = str(name_or_path)
    if name.endswith(".keras"):
        places = [Path(name).expanduser().resolve()]
    else:
        yours = vfi.work("models", f"{name}.keras") if untrained else vfi.work("runs", name, "model.keras")
        places = [yours, vfi.ASSETS / "models" / f"{name}.keras"]
        if not yours.exists():
            vfi.from_drive(yours.parent)
    for place in places:
        if place.exists():
            return place
    looked = " and ".join(vfi.display_path(place) for place in places)
    raise FileNotFoundError(
        f"No model {name!r}: looked for {looked}. Run notebook {'03' if untrained else '04'}, or name another model."
    )


def load_model(name_or_path: str | Path):
    """Trained model, and a line that says which: `load_model("dncnn")` takes your run's, else the shipped one.

    Returns:
        A `keras.Model`: uint8 `[B, H, W, 3 * n]` in, float32 `[B, H, W, 3]` in [0, 1] out.
    """
    path = model_file(name_or_path)
    print(f"model {name_or_path}: {vfi.display_path(path)}")
    return keras.models.load_model(path, compile=False)


def load_untrained(name: str):
    """Untrained model that notebook 03 wrote; else a shipped model's architecture, with fresh weights.

    The initialisers' seeds are part of the architecture, so fresh weights are the same weights every time.
    """
    path = model_file(name, untrained=True)
    model = keras.models.load_model(path, compile=False)
    if path.is_relative_to(vfi.ASSETS):
        print(f"untrained {name}: the architecture of {vfi.display_path(path)} with fresh weights")
        return type(model).from_config(model.get_config())
    print(f"untrained {name}: {vfi.display_path(path)}")
    return model


def frames_of(model) -> int:
    """Number of frames that a model takes."""
    return model.input_shape[-1] // 3


def receptive_radius(model) -> int | None:
    """Distance in px that an output pixel sees; None for a model of more than convolutions that keep the size."""
    radius = 0
    for layer in getattr(model, "operations", model.layers):
        if type(layer).__name__ == "Conv2D" and set(layer.strides) == {1} and layer.padding == "same":
            radius += max(size // 2 * step for size, step in zip(layer.kernel_size, layer.dilation_rate))
        elif type(layer).__name__ not in POINTWISE.split() or getattr(layer, "axis", -1) not in (-1, 3):
            return None
    return radius


def tile_starts(length: int, tile: int, overlap: int) -> tuple[list[int], int]:
    """Starts of the tiles along a side of `length` px, and the size, at most `tile`, that all of them have."""
    if length <= tile:
        return [0], length
    count = -(-(length - 2 * overlap) // (tile - 2 * overlap))
    size = -(-(length - 2 * overlap) // count) + 2 * overlap
    return np.linspace(0, length - size, count).round().astype(int).tolist(), size


def split_tiles(images: np.ndarray, tile: int, overlap: int) -> list[np.ndarray]:
    """Views of `[..., H, W, C]`, at most `tile` px a side, which `join_tiles` undoes.

    Each pixel lies at least `overlap` px inside one of them, or at that distance from the edge of the picture.
    """
    (rows, height), (columns, width) = (tile_starts(side, tile, overlap) for side in images.shape[-3:-1])
    return [images[..., y : y + height, x : x + width, :] for y in rows for x in columns]


def join_tiles(tiles: Iterable[np.ndarray], size: tuple[int, int], tile: int, overlap: int) -> np.ndarray:
    """Tiles `[..., h, w, C]` without their margins, put together to `[..., H, W, C]`; `size` is (H, W)."""
    corners, joined = itertools.product(*(tile_starts(side, tile, overlap)[0] for side in size)), None
    for (y, x), part in zip(corners, tiles):
        if joined is None:
            joined = np.empty((*part.shape[:-3], *size, part.shape[-1]), part.dtype)
        top, left = overlap if y else 0, overlap if x else 0  # the margins below and right are overwritten
        joined[..., y + top : y + part.shape[-3], x + left : x + part.shape[-2], :] = part[..., top:, left:, :]
    return joined


def moves_pixels(model) -> bool:
    """Whether a model has layers named "flow", "weights" and "residual", as notebook 07's has."""
    return {"flow", "weights", "residual"} <= {layer.name for layer in model.layers}


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


def move_pixels(model, neighbours: np.ndarray, tile: int = TILE, side: int = SMALL) -> np.ndarray:
    """Middle frames, predicted with the motion of small ones and the pixels of large ones.

    The model, trained on small frames, knows small motion. It sees a copy shrunk to `side` px; its flow, weights and
    residual are enlarged, tile by tile, and the pixels are fetched from the frames as they are.

    Args:
        model: one that `moves_pixels`.
        neighbours: uint8 `[B, n, H, W, 3]`.
        tile: side in px of what is predicted at once. The result does not depend on it.
        side: px, the longer one of the shrunken copy.

    Returns:
        float32 `[B, H, W, 3]`, in [0, 1] or slightly beyond.
    """
    frames, (height, width) = frames_of(model), neighbours.shape[2:4]
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


def predict_float(model, neighbours: np.ndarray, tile: int = TILE) -> np.ndarray:
    """Middle frames of any size: uint8 `[B, n, H, W, 3]` -> float32 `[B, H, W, 3]` in [0, 1].

    A model of convolutions sees no further than its receptive radius: it predicts tiles that overlap by that, with the
    memory of one tile, and they are what the whole frame would have been. A model that moves pixels says on a shrunken
    copy where they come from (`move_pixels`). Another model gets the whole frame.
    """
    stacked, overlap = vfi.innermost(neighbours, frames_of(model)), receptive_radius(model)
    if moves_pixels(model) and max(stacked.shape[1:3]) > SMALL:
        return move_pixels(model, neighbours, tile)
    if overlap is None:
        return model.predict_on_batch(stacked)
    parts = (model.predict_on_batch(part) for part in split_tiles(stacked, tile, overlap))
    return join_tiles(parts, stacked.shape[1:3], tile, overlap)


def predict_middle(model, neighbours: np.ndarray, batch_size: int = 8) -> np.ndarray:
    """Middle frames, as a model or a baseline predicts them.

    Args:
        model: a keras model, or a function of `neighbours` such as `average`.
        neighbours: uint8 `[B, n, H, W, 3]`, RGB, n frames in time order, the middle one not among them. A model of
            fewer frames takes its own innermost ones.
        batch_size: windows that go through the model at once.

    Returns:
        uint8 `[B, H, W, 3]`, rounded and clipped.

    Raises:
        ValueError: if the neighbours have another shape or type, or are fewer than the model takes.
    """
    if not hasattr(model, "predict_on_batch"):
        return model(neighbours)
    vfi.innermost(neighbours[:1], frames_of(model))  # refuses what does not fit
    parts = [predict_float(model, neighbours[i : i + batch_size]) for i in range(0, len(neighbours), batch_size)]
    return vfi.to_uint8(np.concatenate(parts))


def frame_predictor(model, tile: int = TILE) -> Callable[[np.ndarray], np.ndarray]:
    """Function that predicts one middle frame with a model or a baseline: uint8 `[n, H, W, 3]` -> `[H, W, 3]`.

    When memory is full it halves the tile, says so, and stays with the smaller one.
    """
    if not hasattr(model, "predict_on_batch"):
        return lambda neighbours: model(neighbours[None])[0]

    def predict(neighbours: np.ndarray) -> np.ndarray:
        nonlocal tile
        try:
            return vfi.to_uint8(predict_float(model, neighbours[None], tile))[0]
        except Exception as error:  # TensorFlow's, JAX's and Python's ways to say that memory is full
            full = isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError"
            full |= type(error).__name__ in ("XlaRuntimeError", "JaxRuntimeError") and "RESOURCE_EXH" in str(error)
            smaller = min(tile, max(neighbours.shape[1:3])) // 2
            overlap = 32 if moves_pixels(model) else receptive_radius(model)
            if not full or overlap is None or smaller <= 2 * overlap:
                raise
        tile = smaller
        print(f"memory is full: predicting tiles of {tile} px from here on", flush=True)
        return predict(neighbours)

    return predict
