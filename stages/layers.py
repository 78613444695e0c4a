"""Keras layers that move and weigh pixels, for the networks of notebooks 06 and 07.

Importing this module registers the layers with keras, so that a `.keras` file that holds them can be loaded.
"""

from __future__ import annotations

import keras
from keras import ops

from stages import motion

keras.config.set_image_data_format("channels_last")  # whatever the user's keras.json says
keras.config.set_floatx("float32")


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


@keras.saving.register_keras_serializable("vfi")
class FramesToBatch(keras.layers.Layer):
    """Let a layer treat each of n frames alike: `[B, H, W, n * C]` -> `[n * B, H, W, C]`."""

    def __init__(self, frames=6, **arguments):
        super().__init__(autocast=False, **arguments)
        self.frames = frames

    def get_config(self):
        return super().get_config() | {"frames": self.frames}

    def call(self, stacked):
        return ops.concatenate(ops.split(stacked, self.frames, axis=-1), axis=0)

    def compute_output_shape(self, shape):
        return (None, *shape[1:3], shape[3] // self.frames)


@keras.saving.register_keras_serializable("vfi")
class BatchToFrames(FramesToBatch):
    """Undo `FramesToBatch`: `[n * B, H, W, C]` -> `[B, H, W, n * C]`."""

    def call(self, images):
        return ops.concatenate(ops.split(images, self.frames, axis=0), axis=-1)

    def compute_output_shape(self, shape):
        return (None, *shape[1:3], shape[3] * self.frames)


@keras.saving.register_keras_serializable("vfi", name="Double")  # as shipped models call it
class Upsample(keras.layers.Layer):
    """Enlarge twofold, bilinearly, whatever the size: `[B, H, W, C]` -> `[B, 2H, 2W, C]`.

    Keras' own `UpSampling2D` fails where TensorFlow does not know the size while it traces.
    """

    def __init__(self, **arguments):
        super().__init__(autocast=False, **arguments)

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
class Warp(keras.layers.Layer):
    """`warp` as a layer: images `[B, H, W, C]` and flow `[B, h, w, 2]` -> `[B, h, w, C]`."""

    def __init__(self, kernel="linear", **arguments):
        super().__init__(autocast=False, **arguments)
        self.kernel = kernel

    def get_config(self):
        return super().get_config() | {"kernel": self.kernel}

    def call(self, images, flow):
        return warp(images, flow, self.kernel)

    def compute_output_shape(self, images_shape, flow_shape):
        return (*flow_shape[:3], images_shape[3])


@keras.saving.register_keras_serializable("vfi")
class SpaceToDepth(keras.layers.Layer):
    """Two by two pixels become channels of one: `[B, 2H, 2W, C]` -> `[B, H, W, 4C]`."""

    def __init__(self, **arguments):
        super().__init__(autocast=False, **arguments)

    def call(self, images):
        _, height, width, channels = ops.shape(images)
        pixels = ops.reshape(images, (-1, height // 2, 2, width // 2, 2, channels))
        return ops.reshape(ops.transpose(pixels, (0, 1, 3, 2, 4, 5)), (-1, height // 2, width // 2, 4 * channels))

    def compute_output_shape(self, shape):
        return (shape[0], *(side and side // 2 for side in shape[1:3]), 4 * shape[3])


@keras.saving.register_keras_serializable("vfi")
class DepthToSpace(keras.layers.Layer):
    """Undo `SpaceToDepth`: `[B, H, W, 4C]` -> `[B, 2H, 2W, C]`."""

    def __init__(self, **arguments):
        super().__init__(autocast=False, **arguments)

    def get_config(self):
        return super().get_config()  # without this line keras forgets the layer's name

    def call(self, features):
        _, height, width, channels = ops.shape(features)
        pixels = ops.reshape(features, (-1, height, width, 2, 2, channels // 4))
        return ops.reshape(ops.transpose(pixels, (0, 1, 3, 2, 4, 5)), (-1, 2 * height, 2 * width, channels // 4))

    def compute_output_shape(self, shape):
        return (shape[0], *(side and 2 * side for side in shape[1:3]), shape[3] // 4)


def enlarge(images, height, width):
    """Enlarge bilinearly to any size, as cv2.resize does: `[B, h, w, C]` -> `[B, height, width, C]`."""
    for axis, size in ((1, height), (2, width)):
        have = ops.shape(images)[axis]
        at = (ops.arange(size, dtype="float32") + 0.5) * (ops.cast(have, "float32") / ops.cast(size, "float32")) - 0.5
        at = ops.clip(at, 0, ops.cast(have - 1, "float32"))
        shares = ops.maximum(0.0, 1 - ops.abs(at[:, None] - ops.arange(have, dtype="float32")))
        images = ops.moveaxis(ops.tensordot(shares, images, axes=[[1], [axis]]), 0, axis)
    return images


def blur(images, taps):
    """Weighted mean of neighbours across and down, edges repeated: `[B, H, W, C]` of the same size."""
    for axis in (1, 2):
        reach = len(taps) // 2
        margin = [[reach, reach] if a == axis else [0, 0] for a in range(4)]
        padded, rest = ops.pad(images, margin, mode="symmetric"), (slice(None),) * axis
        parts = [padded[(*rest, slice(first, first - 2 * reach or None))] for first in range(len(taps))]
        images = sum(tap * part for tap, part in zip(taps, parts)) / sum(taps)
    return images


@keras.saving.register_keras_serializable("vfi")
class Shrink(keras.layers.Layer):
    """Mean of as many px side by side as make the picture twice as large as another: uint8 or float -> float32.

    `[B, k * h, k * w, C]` and `[B, h / 2, w / 2, D]` -> `[B, h, w, C]`, for any whole number k.
    """

    def __init__(self, **arguments):
        super().__init__(autocast=False, **arguments)

    def call(self, images, half):
        height, width = (2 * side for side in ops.shape(half)[1:3])
        _, tall, wide, channels = ops.shape(images)
        parts = ops.reshape(images, (-1, height, tall // height, width, wide // width, channels))
        return ops.mean(ops.cast(parts, "float32"), axis=(2, 4))

    def compute_output_shape(self, images_shape, half_shape):
        return (images_shape[0], *(side and 2 * side for side in half_shape[1:3]), images_shape[3])


@keras.saving.register_keras_serializable("vfi")
class Held(keras.layers.Layer):
    """Adds `strength` times the mean square of what it passes on to the loss: what gains less than that stays near 0.

    As an activity regularizer does, which Keras 3.10 sums over a batch, and later ones average.
    """

    def __init__(self, strength, **arguments):
        super().__init__(autocast=False, **arguments)
        self.strength = strength

    def get_config(self):
        return super().get_config() | {"strength": self.strength}

    def call(self, numbers):
        self.add_loss(self.strength * ops.mean(ops.square(ops.cast(numbers, "float32"))))
        return numbers

    def compute_output_shape(self, shape):
        return shape


@keras.saving.register_keras_serializable("vfi")
class Evidence(keras.layers.Layer):
    """What a network looks at to choose between fetched pictures: their brightness, compared, and the rules.

    Takes pictures, 0 to 255, `[B, H, W, 3n]`, the average of the inner frames third from the end and these two last;
    and the rules' weights `[B, H, W, k]`. Gives float32 `[B, H, W, n + k]`: four times how far each picture is from the
    average, the average's own brightness in its place, and w / (1 + w) of each weight w.
    """

    def __init__(self, **arguments):
        super().__init__(autocast=False, **arguments)

    def call(self, pictures, rule):
        pictures = ops.cast(pictures, "float32") / 255
        red, green, blue = (pictures[..., channel::3] for channel in range(3))
        grey = 0.299 * red + 0.587 * green + 0.114 * blue
        average = grey[..., -3:-2]
        compared = [4 * (grey[..., :-3] - average), average - 0.5, 4 * (grey[..., -2:] - average)]
        rule = ops.cast(rule, "float32")
        return ops.concatenate([*compared, rule / (1 + rule)], axis=-1)

    def compute_output_shape(self, pictures_shape, rule_shape):
        return (*pictures_shape[:3], pictures_shape[3] // 3 + rule_shape[3])


def blended(pictures) -> list:
    """Red, green and blue of the pictures that are blended, in [0, 1]: uint8 `[B, H, W, 3n + 6]` -> `[B, H, W, n]`."""
    return [ops.cast(pictures[..., channel:-6:3], "float32") / 255 for channel in range(3)]


def within(drawn, given: list):
    """Frame whose colours, channel by channel, are not beyond those `given`, of `blended`."""
    lowest, highest = (ops.stack([far(part, axis=-1) for part in given], axis=-1) for far in (ops.min, ops.max))
    return ops.clip(drawn, lowest, highest)


@keras.saving.register_keras_serializable("vfi")
class Blend(keras.layers.Layer):
    """Pictures weighed by rules times e to the power of an answer, and sharpened by its last two: `evidence.compose`.

    Takes pictures uint8 `[B, H, W, 3n + 6]`, of which the last two, the frames as they stand, are not blended; the
    rules' weights `[B, h, w, n]`, to which `least` is added, and an answer `[B, h, w, n + 2]`, both enlarged where they
    are smaller. Gives float32 `[B, H, W, 3]`, in [0, 1]: no colour is beyond those of the pictures.
    """

    def __init__(self, least, **arguments):
        super().__init__(autocast=False, **arguments)
        self.least = least

    def get_config(self):
        return super().get_config() | {"least": self.least}

    def call(self, pictures, rule, answer):
        size = ops.shape(pictures)[1:3]
        rule, answer = (enlarge(ops.cast(part, "float32"), *size) for part in (rule, answer))
        weights = ops.softmax(ops.log(rule + self.least) + answer[..., :-2], axis=-1)
        given = blended(pictures)
        drawn = ops.stack([ops.sum(weights * part, axis=-1) for part in given], axis=-1)
        for number, taps in enumerate(([1, 2, 1], [1, 4, 6, 4, 1])):
            share = answer[..., number - 2, None]
            drawn = drawn + share * (drawn - blur(drawn, taps))
        return within(drawn, given)

    def compute_output_shape(self, pictures_shape, rule_shape, answer_shape):
        return (*pictures_shape[:3], 3)


@keras.saving.register_keras_serializable("vfi")
class Doubts(keras.layers.Layer):
    """What a DnCNN looks at to find what is wrong in a blended frame: how pictures differ from it, and the weights.

    Takes pictures uint8 `[B, H, W, 3m]`; the frame, float32 `[B, H, W, 3]` in [0, 1]; the rules' weights `[B, h, w, n]`
    and the answer `[B, h, w, k]`, both enlarged where they are smaller. Gives float32 `[B, H, W, 3 + 3m + n + k]`, most
    of it within 1 of 0: small differences count, and of large ones that they are large.
    """

    def __init__(self, **arguments):
        super().__init__(autocast=False, **arguments)

    def call(self, pictures, drawn, rule, answer):
        rule, answer = (enlarge(ops.cast(part, "float32"), *ops.shape(drawn)[1:3]) for part in (rule, answer))
        drawn = ops.cast(drawn, "float32")
        differ = ops.cast(pictures, "float32") / 255 - ops.tile(drawn, (1, 1, 1, pictures.shape[-1] // 3))
        return ops.concatenate([2 * drawn - 1, ops.tanh(10 * differ), ops.tanh(rule), answer / 2], axis=-1)

    def compute_output_shape(self, pictures_shape, drawn_shape, rule_shape, answer_shape):
        return (*drawn_shape[:3], 3 + pictures_shape[3] + rule_shape[3] + answer_shape[3])


@keras.saving.register_keras_serializable("vfi")
class Correct(keras.layers.Layer):
    """Sum of a frame and a residual, `[B, H, W, 3]` in [0, 1]; no colour is beyond those of the blended pictures."""

    def __init__(self, **arguments):
        super().__init__(autocast=False, **arguments)

    def call(self, pictures, drawn, residual):
        return within(ops.cast(drawn, "float32") + ops.cast(residual, "float32"), blended(pictures))

    def compute_output_shape(self, pictures_shape, drawn_shape, residual_shape):
        return drawn_shape


@keras.saving.register_keras_serializable("vfi")
class MotionModel(keras.Model):
    """Model that weighs what paths fetch, as notebook 07's does; its layer "answer" says how.

    If it has a layer "refine", a model of what is still wrong in the blended frame, that is for small frames.
    """

    follows_paths = True
    grid = motion.FINE  # px, on which it has learned, and looks for, motion
