"""Cut pictures into tiles that overlap and join them again, so that a network needs the memory of one tile."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np

POINTWISE = "Activation Add Average BatchNormalization Concatenate InputLayer ReLU Rescaling Split Subtract"


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
