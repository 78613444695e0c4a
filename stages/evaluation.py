"""Measure models on windows: notebooks 02, 05 and 06."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

import vfi_utils as vfi
from stages.models import BASELINES, load_model, predict_between


def ssim(prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Structural similarity of each frame (Wang et al. 2004, as `tf.image.ssim` takes it): uint8 -> float `[B]`."""
    import tensorflow as tf  # inside: training and predicting do without it, on another backend

    return tf.image.ssim(tf.constant(prediction), tf.constant(target), max_val=255).numpy()


def detail(prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Sharpness: how strongly neighbouring pixels differ, as a share of the truth's energy: uint8 -> float `[B]`.

    1 is as sharp as the truth, and below is blurred. A ghost's double edges count as detail, so it says nothing alone.
    """
    grey = [frames.mean(axis=-1) for frames in (prediction, target)]
    energy = [sum((np.diff(image, axis=axis) ** 2).sum(axis=(1, 2)) for axis in (1, 2)) for image in grey]
    return energy[0] / np.maximum(energy[1], 1e-6)


def evaluate(models: dict, frames: dict[str, np.ndarray], windows: pd.DataFrame, batch: int = 16) -> pd.DataFrame:
    """Scores of models, and of the baselines beside them, on every window.

    Args:
        models: name -> keras model, name or path for `load_model`, or function of the neighbours.
        frames: sequence -> uint8 `[T, H, W, 3]`.
        windows: of `build_windows`, at either spacing: sequence, start, middle (and camera, if known) of each.
        batch: windows held in memory at once.

    Returns:
        A row for each model and window: model, sequence, camera, spacing, middle, motion (share of pixels that move
        between t-1 and t+1), mse (of values in 0-1), psnr (dB), ssim, detail, psnr_moving (dB, over the pixels that
        move; NaN without any), colour_error (how far the frame's mean red, green and blue are off, of 255, on average),
        beats_average (bool). Equal frames count as 100 dB, so that one of them cannot make a mean infinite.

    Raises:
        ValueError: if there is no window, or a sequence of the windows has no frames.
    """
    missing = set(windows.sequence) - set(frames)
    if windows.empty or missing:
        raise ValueError(f"evaluate needs windows, and frames for each sequence; {len(windows)} windows, no {missing}.")
    models = {name: load_model(m) if isinstance(m, (str, Path)) else m for name, m in {**BASELINES, **models}.items()}
    windows = windows if "spacing" in windows else windows.assign(spacing="article")
    rows = []
    for (sequence, spacing), part in windows.groupby(["sequence", "spacing"], sort=False):
        for first in range(0, len(part), batch):
            chunk = part.iloc[first : first + batch]
            neighbours, targets = vfi.take_windows(frames, chunk)
            times, inner = vfi.window_times(spacing, neighbours.shape[1]), neighbours.shape[1] // 2
            moving = vfi.moving_pixels(neighbours[:, inner - 1], neighbours[:, inner])
            to_beat = vfi.psnr(vfi.average(neighbours), targets)
            for name, model in models.items():
                predicted = predict_between(model, neighbours, times, 0)
                score = vfi.psnr(predicted, targets)
                colour_error = np.abs(predicted.mean(axis=(1, 2)) - targets.mean(axis=(1, 2))).mean(axis=-1)
                rows.append(
                    pd.DataFrame(
                        {
                            "model": name,
                            "sequence": sequence,
                            "camera": chunk.camera.to_numpy() if "camera" in chunk else "",
                            "spacing": spacing,
                            "middle": chunk.middle.to_numpy(),
                            "motion": moving.mean(axis=(1, 2)),
                            "mse": 10 ** (-score / 10),
                            "psnr": vfi.cap_psnr(score),
                            "ssim": ssim(predicted, targets),
                            "detail": detail(predicted, targets),
                            "psnr_moving": vfi.cap_psnr(vfi.psnr(predicted, targets, moving)),
                            "colour_error": colour_error,
                            "beats_average": score > to_beat,
                        }
                    )
                )
        print(f"measured {sequence}: {len(part)} windows, {len(models)} models", flush=True)
    return pd.concat(rows, ignore_index=True)


def summarize(scores: pd.DataFrame) -> pd.DataFrame:
    """Means of the rows of `evaluate`: per sequence, per kind of camera, and over all windows; each spacing by itself.

    Returns:
        Columns footage, spacing, model, windows, mse, psnr, ssim, detail, psnr_moving (dB), colour_error, beats_average
        (share of windows).
    """
    groups = {name: part for name, part in scores.groupby("sequence", sort=False)}
    groups |= {f"{name} cameras": part for name, part in scores.groupby("camera") if name}
    groups["all windows"] = scores
    means = ("mse", "psnr", "ssim", "detail", "psnr_moving", "colour_error", "beats_average")
    measures, keys = {"windows": ("psnr", "size"), **{name: (name, "mean") for name in means}}, ["spacing", "model"]
    tables = [part.groupby(keys, sort=False).agg(**measures).assign(footage=name) for name, part in groups.items()]
    return pd.concat(tables).reset_index()[["footage", *keys, *measures]]
