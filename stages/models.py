"""Find models, load them, and predict frames of any size, at any moment, with them: notebooks 03 to 08.

Keras is imported when a model is: the classic and the baselines do without, and start seconds sooner.
"""

from __future__ import annotations

import functools
import threading
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

import vfi_utils as vfi
from stages import blending, evidence, motion
from stages.tiles import join_tiles, receptive_radius, split_tiles

TILE = 512  # px: larger frames are predicted in tiles
NETWORK = threading.Lock()  # held while a network predicts: Keras is not made for several threads


def gpu_name() -> str:
    """Name of the GPU that keras will use, or "" if there is none."""
    import keras

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


@dataclass(frozen=True)
class PathPredictor:
    """The classic of `stages/motion.py` as a predictor: pixels fetched along paths, as `motion.follow` lays them.

    Attributes:
        frames: through how many frames paths are laid at most: 2, 4 or 6.
        trusted: of `motion.follow`.
        grid: px of the copies on which motion is found; see `motion.grid_size`.
    """

    frames: int = motion.SLOTS
    trusted: float = motion.TRUSTED
    grid: int = motion.GRID
    follows_paths = True


BASELINES = vfi.BASELINES | {"path": PathPredictor()}  # what needs no training, beside every model in every table


def load_model(name_or_path: str | Path):
    """Trained model, and a line that says which: `load_model("dncnn")` takes your run's, else the shipped one.

    Returns:
        A `keras.Model`; for "path" the classic, which needs no training; for "average" or "nearest" that baseline.
    """
    if name_or_path in BASELINES:
        return BASELINES[name_or_path]
    path = model_file(name_or_path)
    print(f"model {Path(name_or_path).name.removesuffix('.keras')}: {vfi.display_path(path)}")
    return read_model(path)


def read_model(path: Path):
    """Model in a `.keras` file; `stages.layers` registers with keras what such files may hold of ours.

    Raises:
        ValueError: if weights are not finite: training went wrong, and every frame would be black. If a network that
            weighs pictures takes other ones than `evidence.look` shows.
    """
    import keras

    from stages import layers  # noqa: F401

    model = keras.models.load_model(path, compile=False)
    if not all(np.isfinite(weight).all() for weight in model.get_weights()):
        raise ValueError(
            f"{vfi.display_path(path)} holds weights that are not finite: its training went wrong. Delete this "
            "run's folder and train again with a smaller learning rate, or name another model."
        )
    channels = [3 * (evidence.PICTURES + 2), evidence.PICTURES, evidence.DESCRIBED, evidence.ANSWERED]
    answers = [layer.output for layer in model.layers if layer.name == "answer"]
    if follows_paths(model) and [tensor.shape[-1] for tensor in (*model.inputs, *answers)] != channels:
        raise ValueError(
            f"{vfi.display_path(path)} was made by another version of notebook 07, which weighed otherwise. "
            "Delete this run's folder and train again, or name another model."
        )
    return model


def load_untrained(name: str):
    """Untrained model that notebook 03 wrote; else a shipped model's architecture, with fresh weights.

    The initialisers' seeds are part of the architecture, so fresh weights are the same weights every time.
    """
    path = model_file(name, untrained=True)
    model = read_model(path)
    if path.is_relative_to(vfi.ASSETS):
        print(f"untrained {name}: the architecture of {vfi.display_path(path)} with fresh weights")
        return type(model).from_config(model.get_config())
    print(f"untrained {name}: {vfi.display_path(path)}")
    return model


def follows_paths(model) -> bool:
    """Whether a model predicts along paths: the classic, and the network that weighs what the classic fetches."""
    return getattr(model, "follows_paths", False)


@functools.lru_cache(maxsize=4)  # it is compiled once
def inside(model, name: str):
    """Model over the same weights that gives out the named layer's output."""
    import keras

    return keras.Model(model.input, model.get_layer(name).output)


def predict_weighed(model, frames, paths: motion.Paths) -> np.ndarray:
    """Frame at the paths' moment: what they fetch, weighed by rules and a network's answer to them, and refined.

    Args:
        model: a `layers.MotionModel`, as notebook 07 builds it.
        frames: n of uint8 `[H, W, 3]`, of any size.
        paths: from `motion.follow`.

    Returns:
        uint8 `[H, W, 3]`.
    """
    pictures, weights = evidence.gather(frames, paths)
    return refine(model, frames, paths, pictures, weights, ask(model, frames, paths, pictures, weights))


def refine(model, frames, paths: motion.Paths, pictures: list, weights: list, answer: np.ndarray) -> np.ndarray:
    """Frame of what was gathered, as a network says, and what its "refine" adds to a small one: uint8 `[H, W, 3]`.

    Args:
        model, frames, paths: of `predict_weighed`.
        pictures, weights: of `evidence.gather`.
        answer: of `ask`.
    """
    small = pictures[0][..., 0].size <= evidence.REFINED
    if not small or "refine" not in [layer.name for layer in model.layers]:
        return evidence.compose(pictures, weights, answer)
    drawn = evidence.compose(pictures, weights, answer, rounded=False) / 255
    seen = np.concatenate([*pictures, *(frames[slot] for slot in paths.slots[2:4])], axis=-1)
    rule = cv2.merge([cv2.resize(weight, answer.shape[1::-1]) for weight in weights])
    with NETWORK:
        refined = model.get_layer("refine").predict_on_batch([part[None] for part in (seen, drawn, rule, answer)])
    return vfi.to_uint8(refined)[0]


def ask(model, frames, paths: motion.Paths, pictures: list, weights: list) -> np.ndarray:
    """A network's answer to what was gathered, on the copy that it sees: float32 `[h, w, 13]`; see `evidence.compose`.

    Args:
        model, frames, paths: of `predict_weighed`.
        pictures, weights: of `evidence.gather`.
    """
    seen = [part[None] for part in evidence.look(frames, paths, pictures, weights)]
    with NETWORK:
        answer = inside(model, "answer").predict_on_batch(seen)[0]
    height, width = evidence.copy_size(*pictures[0].shape[:2])
    return np.asarray(answer[:height, :width], np.float32)


def frames_of(model) -> int:
    """Number of frames that a model takes."""
    return model.input_shape[-1] // 3


def predict_float(model, neighbours: np.ndarray, tile: int = TILE) -> np.ndarray:
    """Middle frames of any size: uint8 `[B, n, H, W, 3]` -> float32 `[B, H, W, 3]` in [0, 1].

    A model of convolutions sees no further than its receptive radius: it predicts tiles that overlap by that, with the
    memory of one tile, and they are what the whole frame would have been. Another model gets the whole frame.
    """
    stacked, overlap = vfi.innermost(neighbours, frames_of(model)), receptive_radius(model)
    if overlap is None:
        return model.predict_on_batch(stacked)
    parts = (model.predict_on_batch(part) for part in split_tiles(stacked, tile, overlap))
    return join_tiles(parts, stacked.shape[1:3], tile, overlap)


def predict_middle(model, neighbours: np.ndarray, batch_size: int = 8) -> np.ndarray:
    """Middle frames at the article's spacing: `predict_between` with neighbours at -3, -2, -1, 1, 2, 3 (or fewer)."""
    check_neighbours(neighbours)
    return predict_between(model, neighbours, vfi.window_times("article", neighbours.shape[1]), 0, batch_size)


def predict_between(model, neighbours: np.ndarray, times, t: float, batch_size: int = 8) -> np.ndarray:
    """Frames at a moment between two others, as a model, the classic or a baseline predicts them.

    Args:
        model: what `load_model` returns, or a function of `neighbours` such as `vfi.average`.
        neighbours: uint8 `[B, n, H, W, 3]`, RGB, n frames in time order, none of them at `t`. A model of fewer frames
            takes those around `t`.
        times: of the n frames, increasing, in any unit.
        t: the wanted moment, between two of them.
        batch_size: windows that go through a network at once.

    Returns:
        uint8 `[B, H, W, 3]`, rounded and clipped.

    Raises:
        ValueError: if the neighbours have another shape or type, the times do not fit, or a model that predicts the
            middle alone is asked for another moment.
    """
    check_neighbours(neighbours)
    if len(times) != neighbours.shape[1]:
        raise ValueError(f"{neighbours.shape[1]} neighbours need as many times, not {len(times)}: {list(times)}.")
    slots = motion.fill_slots(times, t)
    if follows_paths(model):
        predict = functools.partial(FramePredictor(model), times=times, t=t)
        if len(neighbours) == 1:  # on all of OpenCV's own threads
            return predict(neighbours[0])[None]
        with motion.workers() as pool:
            return np.stack(list(pool.map(predict, neighbours)))
    position = (t - times[slots[2]]) / (times[slots[3]] - times[slots[2]])
    if not hasattr(model, "predict_on_batch"):
        return baseline_between(model, neighbours, slots, position)
    refuse_other_moments(model, position)
    side = frames_of(model) // 2
    if -1 in slots[3 - side : 3 + side]:
        raise ValueError(
            f"The model takes {2 * side} frames, {side} before and {side} after {t}, and the times are {list(times)}."
        )
    inner = neighbours[:, slots[3 - side : 3 + side]]
    parts = [predict_float(model, inner[i : i + batch_size]) for i in range(0, len(inner), batch_size)]
    return vfi.to_uint8(np.concatenate(parts))


def check_neighbours(neighbours: np.ndarray) -> None:
    """Raise ValueError if neighbours are not uint8 `[B, n, H, W, 3]`."""
    if neighbours.ndim != 5 or neighbours.shape[-1] != 3 or neighbours.dtype != np.uint8:
        raise ValueError(f"neighbours must be uint8 [B, n, H, W, 3], not {neighbours.dtype} {list(neighbours.shape)}.")


def baseline_between(baseline, neighbours: np.ndarray, slots: tuple[int, ...], position: float) -> np.ndarray:
    """Frames of a function of the neighbours; of the two known ones also at other moments than the middle."""
    before, after = neighbours[:, slots[2]], neighbours[:, slots[3]]
    if baseline is vfi.average and position != 0.5:
        return vfi.to_uint8(((1 - position) * before.astype(np.float32) + position * after) / 255)
    if baseline is vfi.nearest:
        return after if position > 0.5 else before
    return baseline(neighbours[:, fill_gaps(slots)])


def fill_gaps(slots: tuple[int, ...]) -> list[int]:
    """Indices of six frames around a moment; the nearest one of the same side in place of those that are missing."""
    there = [slot for slot in slots if slot >= 0]
    return [min(max(slots[2] - 2 + k, there[0]), there[-1]) for k in range(len(slots))]


def refuse_other_moments(model, position: float) -> None:
    """Raise ValueError if a model that predicts the middle alone is asked for another moment."""
    if abs(position - 0.5) > 1e-3:
        raise ValueError(
            f"The model {model.name!r} predicts the middle between two frames alone, and {position:.3f} of the way was "
            "asked for. Use a factor of 2, or the model 'path', which predicts any moment."
        )


class FramePredictor:
    """Function that predicts single frames: `predictor(frames, times, t)`; when memory is full it takes smaller tiles.

    Args:
        model: what `load_model` returns, or a function of the neighbours.
        tile: px, the side of what goes through a network at once.
    """

    def __init__(self, model, tile: int = TILE):
        self.model, self.tile, self.grid = model, tile, getattr(model, "grid", motion.GRID)

    def __call__(self, frames, times, t: float, flows=None) -> np.ndarray:
        """Frame at the moment `t`.

        Args:
            frames: n of uint8 `[H, W, 3]`, or `[H, W, 4]`: opacity is predicted as a colour is, along the same paths.
            times: of the n frames.
            t: the wanted moment.
            flows: between the frames, of `motion.find_flows`, if they are there already.

        Returns:
            uint8, of the frames' shape.
        """
        slots = motion.fill_slots(times, t)
        if follows_paths(self.model):
            flows = flows or motion.find_flows(frames, self.grid)
        if frames[0].shape[-1] == 4:
            colour, opaque = ([frame[..., part] for frame in frames] for part in (slice(3), [3, 3, 3]))
            colour, opaque = (self(part, times, t, flows) for part in (colour, opaque))
            return np.concatenate([colour, opaque[..., :1]], axis=-1)
        if follows_paths(self.model):
            if isinstance(path := self.model, PathPredictor):
                return blending.predict_along(frames, motion.follow(flows, times, t, path.frames, path.trusted))
            return predict_weighed(self.model, frames, motion.follow(flows, times, t))
        position = (t - times[slots[2]]) / (times[slots[3]] - times[slots[2]])
        neighbours = np.stack([frames[slot] for slot in fill_gaps(slots)])[None]
        if not hasattr(self.model, "predict_on_batch"):
            return baseline_between(self.model, neighbours, tuple(range(motion.SLOTS)), position)[0]
        refuse_other_moments(self.model, position)
        return self.predict_in_tiles(neighbours)

    def predict_in_tiles(self, neighbours: np.ndarray) -> np.ndarray:
        """Frame in the middle, by a network, in tiles that memory holds: uint8 `[1, 6, H, W, 3]` -> `[H, W, 3]`."""
        while True:
            try:
                with NETWORK:
                    return vfi.to_uint8(predict_float(self.model, neighbours, self.tile))[0]
            except Exception as error:  # TensorFlow's, JAX's and Python's ways to say that memory is full
                full = isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError"
                full |= type(error).__name__ in ("XlaRuntimeError", "JaxRuntimeError") and "RESOURCE_EXH" in str(error)
                smaller = min(self.tile, max(neighbours.shape[2:4])) // 2
                overlap = receptive_radius(self.model)
                if not full or overlap is None or smaller <= 2 * overlap:
                    raise
            self.tile = smaller
            print(f"memory is full: predicting tiles of {smaller} px from here on", flush=True)
