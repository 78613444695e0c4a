"""Layers that move pixels, and drawing large frames with the motion of small ones: notebooks 06 to 08.

Importing this module registers the layers with keras, so that a `.keras` file that holds them can be loaded.
"""

from __future__ import annotations

import functools

import keras
import numpy as np
from keras import layers, ops
from PIL import Image

import vfi_utils as vfi

SMALL = 320  # px: motion in larger frames is estimated on a copy that is shrunk to this


def warp(images, flow, kernel: str = "linear"):
    """Fetch every pixel from where the flow points (backward warping).

    Args:
        images: tensor `[B, H, W, C]`.
        flow: float32 `[B, h, w, 2]`, px: pixel (x, y) of the result is read at (x + flow[0], y + flow[1]) of the
            image. Places outside of the image are read at its nearest edge.
        kernel: between the pixels, "linear" (2x2) or "cubic" (4x4, Keys 1981 with a = -1/2: sharper).

    Returns:
        A tensor `[B, h, w, C]` of the images' type.
    """
    taps, before = (4, 1) if kernel == "cubic" else (2, 0)
    margin = [before, taps - 1 - before]
    padded = ops.pad(images, [[0, 0], margin, margin, [0, 0]], mode="symmetric")
    batch, height, width, channels = ops.shape(padded)
    pixels = ops.reshape(padded, (-1, channels))

    tall, wide = ops.shape(flow)[1:3]
    x = ops.clip(ops.arange(wide, dtype="float32") + flow[..., 0], 0, ops.cast(width - taps, "float32"))
    y = ops.clip(ops.arange(tall, dtype="float32")[:, None] + flow[..., 1], 0, ops.cast(height - taps, "float32"))
    left, top = ops.floor(x), ops.floor(y)
    first = ops.arange(batch)[:, None, None] * height * width + ops.cast(top, "int32") * width + ops.cast(left, "int32")
    across = [ops.cast(weight, images.dtype)[..., None] for weight in tap_weights(x - left, kernel)]
    warped = 0
    for number, down in enumerate(tap_weights(y - top, kernel)):
        line = first + number * width
        row = sum(weight * ops.take(pixels, line + place, axis=0) for place, weight in enumerate(across))
        warped = warped + ops.cast(down, images.dtype)[..., None] * row
    return warped


def tap_weights(t, kernel: str) -> list:
    """Weights of the pixels around a place `t` (0 to 1) past one of them, 2 for "linear", 4 for "cubic"; sum 1."""
    if kernel == "cubic":
        inner = [((3 * t - 5) * t * t + 2) / 2, ((4 - 3 * t) * t + 1) * t / 2]
        return [((2 - t) * t - 1) * t / 2, *inner, (t - 1) * t * t / 2]
    return [1 - t, t]


def slopes(images):
    """Central differences across and down, px^-1; each of the images' shape `[B, H, W, C]`; edges repeat."""
    padded = ops.pad(images, [[0, 0], [1, 1], [1, 1], [0, 0]], mode="symmetric")
    across = (padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]) / 2
    down = (padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]) / 2
    return across, down


class Layer(keras.layers.Layer):
    """A layer whose settings are its keyword arguments, and whose inputs keep their types."""

    settings = {}

    def __init__(self, **arguments):
        chosen = {name: arguments.pop(name, default) for name, default in self.settings.items()}
        super().__init__(autocast=False, **arguments)
        self.__dict__.update(chosen)

    def get_config(self):
        return super().get_config() | {name: getattr(self, name) for name in self.settings}


@keras.saving.register_keras_serializable("vfi")
class PadToMultiple(Layer):
    """Repeat the right and lower edges until H and W are multiples, two at least: `[B, H, W, C]`."""

    settings = {"multiple": 8}

    def call(self, images):
        for axis, side in zip((1, 2), ops.shape(images)[1:3], strict=True):
            greater = max if isinstance(side, int) else ops.maximum  # TensorFlow may not know the side yet
            length = greater(side + -side % self.multiple, 2 * self.multiple)
            images = ops.take(images, ops.minimum(ops.arange(length), side - 1), axis=axis)
        return images

    def compute_output_shape(self, shape):
        return (shape[0], None, None, shape[3])


@keras.saving.register_keras_serializable("vfi")
class CropLike(Layer):
    """Undo `PadToMultiple`: cut `images` to the height and width of `like`."""

    def call(self, images, like):
        height, width = ops.shape(like)[1:3]
        return images[:, :height, :width]

    def compute_output_shape(self, images_shape, like_shape):
        return (images_shape[0], *like_shape[1:3], images_shape[3])


@keras.saving.register_keras_serializable("vfi")
class FramesToBatch(Layer):
    """Let a layer treat each of n frames alike: `[B, H, W, n * C]` -> `[n * B, H, W, C]`."""

    settings = {"frames": 6}

    def call(self, stacked):
        return ops.concatenate(ops.split(stacked, self.frames, axis=-1), axis=0)

    def compute_output_shape(self, shape):
        return (None, *shape[1:3], shape[3] // self.frames)


@keras.saving.register_keras_serializable("vfi")
class BatchToFrames(Layer):
    """Undo `FramesToBatch`: `[n * B, H, W, C]` -> `[B, H, W, n * C]`."""

    settings = {"frames": 6}

    def call(self, images):
        return ops.concatenate(ops.split(images, self.frames, axis=0), axis=-1)

    def compute_output_shape(self, shape):
        return (None, *shape[1:3], shape[3] * self.frames)


@keras.saving.register_keras_serializable("vfi")
class Double(Layer):
    """Enlarge twofold, bilinearly, whatever the size: `[B, H, W, C]` -> `[B, 2H, 2W, C]`.

    Keras' own `UpSampling2D` fails where TensorFlow does not know the size while it traces.
    """

    def call(self, images):
        for axis in (1, 2):
            margin = [[1, 1] if a == axis else [0, 0] for a in range(4)]
            padded, rest = ops.pad(images, margin, mode="symmetric"), (slice(None),) * axis
            near = padded[(*rest, slice(None, -2))], padded[(*rest, slice(2, None))]
            pairs = ops.stack([0.25 * there + 0.75 * images for there in near], axis=axis + 1)
            shape = list(ops.shape(images))
            shape[axis] = 2 * shape[axis]
            images = ops.reshape(pairs, shape)
        return images

    def compute_output_shape(self, shape):
        return (shape[0], *(side and 2 * side for side in shape[1:3]), shape[3])


@keras.saving.register_keras_serializable("vfi")
class Warp(Layer):
    """`warp` as a layer: images `[B, H, W, C]` and flow `[B, h, w, 2]` -> `[B, h, w, C]`."""

    settings = {"kernel": "linear"}

    def call(self, images, flow):
        return warp(images, flow, self.kernel)

    def compute_output_shape(self, images_shape, flow_shape):
        return (*flow_shape[:3], images_shape[3])


@keras.saving.register_keras_serializable("vfi")
class LucasKanade(Layer):
    """One step of Lucas and Kanade (1981): the small shift that makes two pictures agree around each pixel.

    Minimises, over a square window, the squared difference between `moved`, shifted by the step, and `still`. With
    `symmetric`, half-way between the two: `moved` is shifted by the step and `still` by its opposite. Where a
    picture has no texture the damping keeps the step at 0.

    Inputs `[B, H, W, C]` each -> float32 `[B, H, W, 2]`, px, within +-1.
    """

    settings = {"window": 5, "symmetric": True, "damping": 1e-4}

    def call(self, moved, still):
        moved, still = ops.cast(moved, "float32"), ops.cast(still, "float32")
        across, down = slopes((moved + still) / 2 if self.symmetric else moved)
        error = (still - moved) / (2 if self.symmetric else 1)
        products = [across * across, across * down, down * down, across * error, down * error]
        sums = ops.stack([ops.mean(product, axis=-1) for product in products], axis=-1)
        sums = ops.average_pool(sums, self.window, strides=1, padding="same")
        xx, xy, yy, x_error, y_error = ops.unstack(sums, 5, axis=-1)
        xx, yy = xx + self.damping, yy + self.damping
        steps = ops.stack([yy * x_error - xy * y_error, xx * y_error - xy * x_error], axis=-1)
        return ops.tanh(steps / (xx * yy - xy * xy)[..., None])

    def compute_output_shape(self, moved_shape, still_shape):
        return (*moved_shape[:3], 2)


@keras.saving.register_keras_serializable("vfi")
class Median(Layer):
    """The median of 3x3 pixels, of each channel, edges repeated; gradients end here: `[B, H, W, C]` -> the same."""

    def call(self, images):
        height, width = ops.shape(images)[1:3]
        padded = ops.pad(images, [[0, 0], [1, 1], [1, 1], [0, 0]], mode="symmetric")
        nine = [padded[:, y : y + height, x : x + width] for y in range(3) for x in range(3)]
        return ops.stop_gradient(ops.sort(ops.stack(nine, axis=-1), axis=-1)[..., 4])


def moves_pixels(model) -> bool:
    """Say whether a model has layers named "flow", "weights" and "residual", as notebook 07's has."""
    return {"flow", "weights", "residual"} <= {layer.name for layer in model.layers}


@functools.lru_cache(maxsize=4)  # it is compiled once
def inside(model, *names: str):
    """Return a model over the same weights that gives out the named layers' outputs."""
    return keras.Model(model.input, [model.get_layer(name).output for name in names])


@functools.lru_cache(maxsize=4)
def blender(frames: int):
    """Return a model that fetches pixels and blends them, as a network of notebook 07 ends.

    It takes frames uint8 `[B, H, W, 3 * n]` and maps float32 `[B, h, w, 3 * n + 3]`: flows, weights and a residual.
    """
    stacked = keras.Input((None, None, 3 * frames), dtype="uint8")
    maps = keras.Input((None, None, 3 * frames + 3))
    flow, weights, residual = ops.split(maps, [2 * frames, 3 * frames], axis=-1)
    pictures = FramesToBatch(frames=frames)(layers.Rescaling(1 / 255)(stacked))
    fetched = Warp(kernel="cubic")(pictures, FramesToBatch(frames=frames)(flow))
    fetched = BatchToFrames(frames=frames)(fetched)
    pairs = zip(ops.split(weights, frames, axis=-1), ops.split(fetched, frames, axis=-1), strict=True)
    return keras.Model([stacked, maps], layers.Add()([residual, *(layers.Multiply()(pair) for pair in pairs)]))


def move_pixels(model, neighbours: np.ndarray, tile: int = vfi.TILE, side: int = SMALL) -> np.ndarray:
    """Draw middle frames with the motion of small ones and the pixels of large ones.

    The model, trained on small frames, knows small motion. It sees a copy shrunk to `side` px; its flow, weights and
    residual are enlarged, tile by tile, and the pixels are fetched from the frames as they are.

    Args:
        model: one that `moves_pixels`.
        neighbours: uint8 `[B, n, H, W, 3]`.
        tile: side in px of what is drawn at once. The result does not depend on it.
        side: px, the longer one of the shrunken copy.

    Returns:
        float32 `[B, H, W, 3]`, in [0, 1] or slightly beyond.
    """
    frames, (height, width) = vfi.frames_of(model), neighbours.shape[2:4]
    stacked = vfi.innermost(neighbours, frames)
    small = [max(1, round(length * side / max(height, width))) for length in (width, height)]
    copies = [
        [Image.fromarray(frame).resize(small, Image.Resampling.BOX) for frame in np.split(stack, frames, axis=-1)]
        for stack in stacked
    ]
    copies = np.stack([np.concatenate(copy, axis=-1) for copy in copies])
    maps = np.concatenate(inside(model, "flow", "weights", "residual").predict_on_batch(copies), axis=-1)
    scale = np.array([width, height]) / small

    def draw(top: int, left: int) -> np.ndarray:
        rows, columns = np.arange(top, min(top + tile, height)), np.arange(left, min(left + tile, width))
        places = np.stack(np.meshgrid((columns + 0.5) / scale[0], (rows + 0.5) / scale[1]), axis=-1) - 0.5
        places = np.minimum(places, np.array(small) - 1)  # what the model padded is not looked at
        places -= np.stack(np.meshgrid(np.arange(len(columns)), np.arange(len(rows))), axis=-1)
        places = np.broadcast_to(places.astype(np.float32), (len(stacked), *places.shape))
        local = np.array(ops.convert_to_numpy(warp(maps, places)))
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

    lines = [[draw(top, left) for left in range(0, width, tile)] for top in range(0, height, tile)]
    return np.concatenate([np.concatenate(line, axis=2) for line in lines], axis=1)
