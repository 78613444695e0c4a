"""Train a model, and carry on where a disconnected machine stopped: notebooks 04, 06 and 07."""

from __future__ import annotations

import contextlib
import dataclasses

import keras
import numpy as np
import pandas as pd
from keras import ops

import vfi_utils as vfi
from stages import models, runs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Budget:
    """Length and settings of a training run.

    Attributes:
        epochs, steps_per_epoch: length of the run; a step is one batch.
        batch_size, crop: windows in a batch (over all devices), and side in px of the square cut from each.
        learning_rate: peak of Adam's rate: a warm-up over the first 5% of the steps, then a cosine down to 0.
        temporal_padding: share of the training windows with frames missing at their ends (see `CropBatches`).
        global_clipnorm: norm to which the gradient of all weights together is shortened if it is longer; 0: never.
    """

    epochs: int
    steps_per_epoch: int
    batch_size: int = 8
    crop: int = 64
    learning_rate: float = 1e-3
    temporal_padding: float = 0.0
    global_clipnorm: float = 0.0


def choose_budget(name: str = "", **chosen) -> Budget:
    """Budget with the settings that you chose; the rest as the run `name` was begun with, else as suits this machine.

    On a GPU an epoch goes once through MOT17's 1320 windows. Without one the runs are short enough to wait for.
    """
    suits = {"epochs": 3, "steps_per_epoch": 80, "batch_size": 8, "crop": 32}
    if models.gpu_name():
        suits = {"epochs": 120, "steps_per_epoch": 83, "batch_size": 16, "crop": 64}
    if vfi.fast():
        suits = {"epochs": 2, "steps_per_epoch": 3, "batch_size": 2, "crop": 32}
    begun = runs.Run(name, {}).recorded() if name else {}
    begun = {field.name: begun[field.name] for field in dataclasses.fields(Budget) if field.name in begun}
    return Budget(**suits | begun | chosen)


class CropBatches(keras.utils.PyDataset):
    """Training batches, without end: random crops, flipped and reversed in time at random.

    `batches[k]` depends on the seed and on k alone, so a resumed run sees the batches that it would have seen. Each
    window comes once before any comes again.

    Args:
        frames, windows: what to learn from, as `get_frames(dataset, "train")` returns them.
        model_frames: frames that the model takes.
        budget: its batch size, crop, and temporal padding: the share of the windows that lose frames at their ends, as
            beside a cut or at the ends of a video; the nearest frame that is left is repeated in their place.
        seed: of the crops, flips and order.

    Returns, for each k:
        inputs: uint8 `[B, crop, crop, 3 * model_frames]`.
        targets: float32 `[B, crop, crop, 3]` in [0, 1].
    """

    num_batches = None  # keras' word for "without end"

    def __init__(self, frames: dict[str, np.ndarray], windows: pd.DataFrame, model_frames: int, budget, seed: int = 0):
        super().__init__(workers=2, max_queue_size=4)
        height, width = next(iter(frames.values())).shape[1:3]
        if not 1 <= budget.crop <= min(height, width):
            raise ValueError(f"crop = {budget.crop} px must be at least 1 and fit into frames of {width}x{height} px.")
        self.frames, self.model_frames, self.budget, self.seed = frames, model_frames, budget, seed
        self.rows = list(windows.itertuples(index=False))

    def __getitem__(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        random, crop, size = np.random.default_rng([self.seed, k]), self.budget.crop, self.budget.batch_size
        batch = []
        for number in range(k * size, (k + 1) * size):
            passed, position = divmod(number, len(self.rows))
            order = np.random.default_rng([self.seed, passed, 1]).permutation(len(self.rows))
            window = vfi.window_of(self.frames, self.rows[order[position]])
            length, height, width = window.shape[:3]
            top, left = random.integers(height - crop + 1), random.integers(width - crop + 1)
            in_time, down, across = random.choice([1, -1], size=3)
            window = window[::in_time, top : top + crop, left : left + crop][:, ::down, ::across]
            if random.random() < self.budget.temporal_padding:
                middle = length // 2
                before, after = random.integers(1, middle + 1, size=2)
                window = window[middle + np.clip(np.arange(-middle, middle + 1), -before, after)]
            batch.append(window)
        neighbours, targets = vfi.split_middle(np.stack(batch))
        return vfi.innermost(neighbours, self.model_frames), targets.astype(np.float32) / 255


def charbonnier(target, prediction):
    """Charbonnier loss, a smooth absolute difference (Charbonnier et al. 1994): mean of sqrt(d^2 + 0.001^2)."""
    return ops.mean(ops.sqrt(ops.square(prediction - target) + 1e-6), axis=(1, 2, 3))


def slopes(images):
    """Differences of neighbouring pixels, down and across: `[B, H, W, C]` -> `[B, H - 1, W, C]`, `[B, H, W - 1, C]`."""
    return images[:, 1:] - images[:, :-1], images[:, :, 1:] - images[:, :, :-1]


def sharpness(images):
    """Logarithm of the energy of the detail, grey, in cells of 16x16 px: `[B, H, W, 3]` -> `[B, H / 16, W / 16, 1]`.

    What is added to the energy is that of a camera's noise, about 4 levels from pixel to pixel: noise is not asked for.
    """
    down, across = slopes(ops.mean(images, axis=-1, keepdims=True))
    energy = ops.average_pool(ops.square(down[:, :, :-1]) + ops.square(across[:, :-1]), 16, 16, "same")
    return ops.log(energy + 3e-4)


def log_error(target, prediction):
    """A PSNR to be lowered, so that a window is worth what can be gained in it, and the Charbonnier loss of the detail.

    The logarithm of each image's mean squared error, and twenty times how far the differences of neighbouring pixels
    are from the truth's. (By squared error alone the windows with the fastest motion would decide.)
    """
    wrong = prediction - target
    detail = sum(ops.mean(ops.sqrt(ops.square(part) + 1e-6), axis=(1, 2, 3)) for part in slopes(wrong))
    return ops.log(ops.mean(ops.square(wrong), axis=(1, 2, 3)) + 2e-5) + 20 * detail


def log_error_and_detail(target, prediction):
    """As `log_error`, and how much more or less detail there is in a place than in the truth (`sharpness`).

    The error is least where what nobody can know is blurred, and a video of which every second frame is blurred pulses.
    At 4 of it `motion` had 0.94 of the detail of eight test clips; at 6, and in its last 250 steps 7, it has 0.96, and
    0.03 dB less (one run each).
    """
    lost = ops.mean(ops.square(sharpness(prediction) - sharpness(target)), axis=(1, 2, 3))
    return log_error(target, prediction) + 7 * lost


LOSSES = {
    "charbonnier": charbonnier,
    "mse": "mean_squared_error",  # the article's
    "log_error": log_error,
    "log_error_and_detail": log_error_and_detail,
}


def psnr(target, prediction):
    """PSNR of each image in dB, peak 255, as `vfi.psnr` takes it: on the rounded and clipped prediction."""
    difference = ops.round(ops.clip(ops.cast(prediction, "float32"), 0, 1) * 255) - ops.round(target * 255)
    error = ops.mean(ops.square(difference), axis=(1, 2, 3))
    return 10 * ops.log10(255.0**2 / ops.maximum(error, 1e-6))


def train_on_crops(
    model,
    frames,
    windows,
    test_frames,
    test_windows,
    *,
    name,
    budget,
    loss="charbonnier",
    seed=0,
    precision="",
    tests=32,
):
    """Trained model, as `train` returns it, that learned from random crops of windows (see `CropBatches`).

    Args:
        model: untrained keras model, uint8 `[B, H, W, 3 * n]` in, float32 `[B, H, W, 3]` in [0, 1] out.
        frames, windows: what to learn from, as `get_frames(dataset, "train")` returns them.
        test_frames, test_windows: what the test curve is measured on; nothing is chosen by it.
        name, budget, loss, precision: see `train`.
        seed: of the crops, flips and order; the same seed gives the same batches.
        tests: windows, evenly spread over the test windows, that are measured after every epoch.
    """
    batches = CropBatches(frames, windows, models.frames_of(model), budget, seed)
    validation, average = test_arrays(test_frames, test_windows, models.frames_of(model), tests)
    identity = describe_data(frames, windows) | {"seed": seed}
    print(f"{name}: {len(windows)} windows")
    return train(
        model,
        batches,
        validation,
        name=name,
        budget=budget,
        loss=loss,
        identity=identity,
        precision=precision,
        average_psnr=average,
    )


def test_arrays(frames, windows, model_frames: int, count: int = 32) -> tuple[tuple[np.ndarray, np.ndarray], float]:
    """Inputs and targets for `fit`'s validation, of windows evenly spread, and the average's PSNR in them, in dB."""
    neighbours, targets = vfi.take_windows(frames, vfi.spread(windows, count))
    arrays = vfi.innermost(neighbours, model_frames), targets.astype(np.float32) / 255
    return arrays, float(vfi.psnr(vfi.average(neighbours), targets).mean())


def describe_data(frames: dict[str, np.ndarray], windows: pd.DataFrame) -> dict[str, str]:
    """Names and a fingerprint of what a run learns from."""
    text = windows.to_csv(index=False) + str({name: part.shape for name, part in sorted(frames.items())})
    return {"sequences": ", ".join(sorted(frames)), "data": vfi.digest(text)}


def train(
    model,
    batches: keras.utils.PyDataset,
    validation,
    *,
    name: str,
    budget: Budget,
    loss="charbonnier",
    identity: dict | None = None,
    precision: str = "",
    average_psnr: float = float("nan"),
):
    """Trained model, of a run that begins, carries on where it stopped, or is reused if it has finished.

    Writes under `work/runs/<name>/`: `run.json` (settings, and whether the run has finished), `history.csv` (a row an
    epoch), `checkpoints/` (to resume from), `model.keras` (the last epoch's weights).

    Args:
        model: untrained keras model whose output is float32 `[B, H, W, 3]` in [0, 1].
        batches: batches `(inputs, targets)`; `batches[k]` depends on k alone. `inputs` is what the model takes: an
            array, a tuple or a dict of arrays.
        validation: `(inputs, targets)`, measured after every epoch, or a function of the model that returns
            `{"test_loss": ..., "test_psnr": ...}`. Nothing is chosen by it.
        name: of the run.
        budget: length and settings of the run.
        loss: one of `LOSSES`, or a function of targets and predictions, as keras takes it.
        identity: what else the reader chose and the run depends on: data, seed.
        precision: "float32", "mixed_float16" or "mixed_bfloat16"; "" means mixed_float16 on a GPU, else float32.
        average_psnr: what the average of the neighbours scores in the validation, in dB; for the history.

    Raises:
        ValueError: if a run of that name was made with other settings, or a setting is not possible.
        FloatingPointError: if a loss is not finite. The weights of the epoch before are kept.
    """
    if isinstance(loss, str) and loss not in LOSSES:
        raise ValueError(f"loss = {loss!r} must be one of {', '.join(LOSSES)}.")
    settings = {"network": runs.describe_network(model), **(identity or {}), **dataclasses.asdict(budget)}
    settings["loss"] = loss if isinstance(loss, str) else loss.__name__
    precision = precision or ("mixed_float16" if models.gpu_name() else "float32")
    with runs.Run(name, settings) as run:
        if run.finished:
            return models.load_model(name)
        with all_devices(budget.batch_size) as devices:
            print(
                f"{name}: {budget.epochs} epochs of {budget.steps_per_epoch} steps of {budget.batch_size} crops of "
                f"{budget.crop}x{budget.crop} px; {model.count_params():,} parameters; {settings['loss']}; on "
                + (f"{devices} x " if devices > 1 else "")
                + (models.gpu_name() or "the CPU")
                + (f", {budget.batch_size // devices} crops each" if devices > 1 else ""),
                flush=True,
            )
            steps = budget.epochs * budget.steps_per_epoch
            how = loss, budget.learning_rate, steps, precision, budget.global_clipnorm, devices
            trained = compile_for_training(model, *how)
            function = callable(validation)
            remaining = run.remaining(batches, budget.steps_per_epoch)
            if devices > 1 and keras.backend.backend() == "tensorflow":
                remaining.workers = (
                    1  # TensorFlow fetches ahead, across the end of an epoch: keras' threads refuse that
                )
            trained.fit(
                remaining,
                epochs=budget.epochs,
                steps_per_epoch=budget.steps_per_epoch,
                initial_epoch=run.resume(trained),
                validation_data=None if function else whole_shares(validation, devices),
                validation_batch_size=8 * devices,
                shuffle=False,
                callbacks=[
                    runs.EpochLog(
                        run, budget.epochs, budget.steps_per_epoch, average_psnr, validation if function else None
                    )
                ],
                verbose=0,
            )
        return run.finish(trained, precision=precision, devices=devices)


@contextlib.contextmanager
def all_devices(batch_size: int):
    """Context to compile and fit a model in, on all GPUs of this machine; it holds how many work.

    Each gets an equal share of every batch, so it is the largest number of them that divides the batch. The batch and
    the rate stay what they are, and so do the numbers.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        devices = [device.name for device in devices]
    else:
        devices = keras.distribution.list_devices() if keras.backend.backend() == "jax" else [""]
    count = max(number for number in range(1, len(devices) + 1) if batch_size % number == 0)
    if runs.process()[1] > 1 and count < len(devices):
        raise ValueError(
            f"batch_size = {batch_size} must be a multiple of the {len(devices)} devices of all processes."
        )
    if count == 1:
        yield 1
    elif keras.backend.backend() == "tensorflow":
        with tf.distribute.MirroredStrategy(devices[:count]).scope():
            yield count
    else:
        before = keras.distribution.distribution()
        parallel = keras.distribution.DataParallel(devices=devices[:count], auto_shard_dataset=False)
        keras.distribution.set_distribution(parallel)
        try:
            yield count
        finally:
            keras.distribution.set_distribution(before)


def whole_shares(arrays, devices: int):
    """Arrays without the last rows that would leave a device with fewer than the others, which JAX refuses."""
    devices = devices if keras.backend.backend() == "jax" else 1
    return keras.tree.map_structure(lambda array: array[: len(array) // devices * devices or None], arrays)


def compile_for_training(
    model, loss, learning_rate: float, steps: int, precision="float32", global_clipnorm: float = 0.0, devices: int = 1
):
    """Copy of a model, compiled with Adam and a warmed-up cosine; with float16 the loss is scaled, or small gradients
    would vanish."""
    model, warm_up = runs.in_precision(model, precision, devices), max(1, steps // 20)
    rate = keras.optimizers.schedules.CosineDecay(
        learning_rate / 100, max(1, steps - warm_up), warmup_target=learning_rate, warmup_steps=warm_up
    )
    optimizer = keras.optimizers.Adam(rate, global_clipnorm=global_clipnorm or None)
    if precision == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    loss = LOSSES.get(loss, loss) if isinstance(loss, str) else loss
    model.compile(optimizer, loss, metrics=[psnr])
    return model
