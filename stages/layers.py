"""Keras layers that move pixels, for the networks of notebooks 06 and 07.

Importing this module registers the layers with keras, so that a `.keras` file that holds them can be loaded.
"""

from __future__ import annotations

import keras
from keras import ops

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


def image_gradients(images):
    """Central differences across and down, px^-1; each of the images' shape `[B, H, W, C]`; edges repeat."""
    padded = ops.pad(images, [[0, 0], [1, 1], [1, 1], [0, 0]], mode="symmetric")
    across = (padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]) / 2
    down = (padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]) / 2
    return across, down


@keras.saving.register_keras_serializable("vfi")
class PadToMultiple(keras.layers.Layer):
    """Repeat the right and lower edges until H and W are multiples, two at least: `[B, H, W, C]`."""

    def __init__(self, multiple=8, **arguments):
        super().__init__(autocast=False, **arguments)
        self.multiple = multiple

    def get_config(self):
        return super().get_config() | {"multiple": self.multiple}

    def call(self, images):
        for axis, side in zip((1, 2), ops.shape(images)[1:3], strict=True):
            greater = max if isinstance(side, int) else ops.maximum  # TensorFlow may not know the side yet
            length = greater(side + -side % self.multiple, 2 * self.multiple)
            images = ops.take(images, ops.minimum(ops.arange(length), side - 1), axis=axis)
        return images

    def compute_output_shape(self, shape):
        return (shape[0], None, None, shape[3])


@keras.saving.register_keras_serializable("vfi")
class CropLike(keras.layers.Layer):
    """Undo `PadToMultiple`: cut `images` to the height and width of `like`."""

    def __init__(self, **arguments):
        super().__init__(autocast=False, **arguments)

    def call(self, images, like):
        height, width = ops.shape(like)[1:3]
        return images[:, :height, :width]

    def compute_output_shape(self, images_shape, like_shape):
        return (images_shape[0], *like_shape[1:3], images_shape[3])


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
class BatchToFrames(keras.layers.Layer):
    """Undo `FramesToBatch`: `[n * B, H, W, C]` -> `[B, H, W, n * C]`."""

    def __init__(self, frames=6, **arguments):
        super().__init__(autocast=False, **arguments)
        self.frames = frames

    def get_config(self):
        return super().get_config() | {"frames": self.frames}

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
class LucasKanade(keras.layers.Layer):
    """One step of Lucas and Kanade (1981): the small shift that makes two pictures agree around each pixel.

    Minimises, over a square window, the squared difference between `moved`, shifted by the step, and `still`. With
    `symmetric`, half-way between the two: `moved` is shifted by the step and `still` by its opposite. Where a
    picture has no texture the damping keeps the step at 0.

    Inputs `[B, H, W, C]` each -> float32 `[B, H, W, 2]`, px, within +-1.
    """

    def __init__(self, window=5, symmetric=True, damping=0.0001, **arguments):
        super().__init__(autocast=False, **arguments)
        self.window, self.symmetric, self.damping = window, symmetric, damping

    def get_config(self):
        return super().get_config() | {"window": self.window, "symmetric": self.symmetric, "damping": self.damping}

    def call(self, moved, still):
        moved, still = ops.cast(moved, "float32"), ops.cast(still, "float32")
        across, down = image_gradients((moved + still) / 2 if self.symmetric else moved)
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
class Median(keras.layers.Layer):
    """The median of 3x3 pixels, of each channel, edges repeated; gradients end here: `[B, H, W, C]` -> the same."""

    def __init__(self, **arguments):
        super().__init__(autocast=False, **arguments)

    def call(self, images):
        height, width = ops.shape(images)[1:3]
        padded = ops.pad(images, [[0, 0], [1, 1], [1, 1], [0, 0]], mode="symmetric")
        nine = [padded[:, y : y + height, x : x + width] for y in range(3) for x in range(3)]
        return ops.stop_gradient(ops.sort(ops.stack(nine, axis=-1), axis=-1)[..., 4])


@keras.saving.register_keras_serializable("vfi")
class MotionModel(keras.Model):
    """Model that says where pixels come from: its layers "flow", "weights" and "residual" do, as notebook 07's."""
