"""Train a model, and carry on where a disconnected machine stopped: notebooks 04, 06 and 07."""

from __future__ import annotations

import copy
import itertools
import json
import math
import os
import shutil
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import keras
import numpy as np
import pandas as pd
from keras import ops

import vfi_utils as vfi
from stages import models


def training_budget() -> dict:
    """Epochs, steps an epoch, batch size and crop (px) that suit this machine, for `train`.

    On a GPU an epoch goes once through MOT17's 1320 windows. Without one the runs are short enough to wait for.
    """
    if vfi.fast():
        return {"epochs": 2, "steps_per_epoch": 3, "batch_size": 2, "crop": 32}
    if models.gpu_name():
        return {"epochs": 120, "steps_per_epoch": 83, "batch_size": 16, "crop": 64}
    return {"epochs": 8, "steps_per_epoch": 100, "batch_size": 8, "crop": 32}


def crop_batches(
    frames: dict[str, np.ndarray],
    windows: pd.DataFrame,
    model_frames: int,
    batch_size: int,
    crop: int,
    seed: int,
    first_step: int = 0,
    temporal_padding: float = 0.0,
):
    """Training batches, without end: random crops, flipped and reversed in time at random.

    Batch k depends on the seed and on k alone, so a resumed run sees the batches that it would have seen. Each window
    comes once before any comes again. Four batches are cut ahead by two threads.

    Args:
        temporal_padding: share of the windows that lose frames at their ends, as beside a cut or at the ends of a
            video: the nearest frame that is left is repeated in their place.

    Yields:
        inputs: uint8 `[B, crop, crop, 3 * model_frames]`.
        targets: float32 `[B, crop, crop, 3]` in [0, 1].
    """
    places = list(windows.itertuples(index=False))

    def cut(step: int) -> tuple[np.ndarray, np.ndarray]:
        random = np.random.default_rng([seed, step])
        batch = []
        for number in range(step * batch_size, (step + 1) * batch_size):
            passed, position = divmod(number, len(places))
            order = np.random.default_rng([seed, passed, 1]).permutation(len(places))
            window = vfi.window_of(frames, places[order[position]])
            length, height, width = window.shape[:3]
            top, left = random.integers(height - crop + 1), random.integers(width - crop + 1)
            in_time, down, across = random.choice([1, -1], size=3)
            window = window[::in_time, top : top + crop, left : left + crop][:, ::down, ::across]
            if random.random() < temporal_padding:
                k = length // 2
                before, after = random.integers(1, k + 1, size=2)
                window = window[k + np.clip(np.arange(-k, k + 1), -before, after)]
            batch.append(window)
        neighbours, targets = vfi.split_middle(np.stack(batch))
        return vfi.innermost(neighbours, model_frames), targets.astype(np.float32) / 255

    with ThreadPoolExecutor(max_workers=2) as pool:
        ahead = deque(pool.submit(cut, first_step + k) for k in range(4))
        for step in itertools.count(first_step + 4):
            yield ahead.popleft().result()
            ahead.append(pool.submit(cut, step))


def charbonnier(target, prediction):
    """Charbonnier loss, a smooth absolute difference (Charbonnier et al. 1994): mean of sqrt(d^2 + 0.001^2)."""
    return ops.mean(ops.sqrt(ops.square(prediction - target) + 1e-6), axis=(1, 2, 3))


def mse(target, prediction):
    """Mean squared error of each image, the article's loss."""
    return ops.mean(ops.square(prediction - target), axis=(1, 2, 3))


LOSSES = {"charbonnier": charbonnier, "mse": mse}


def psnr_of_batch(target, prediction):
    """PSNR of each image in dB, peak 255, as `vfi.psnr` takes it: on the rounded and clipped prediction."""
    difference = ops.round(ops.clip(ops.cast(prediction, "float32"), 0, 1) * 255) - ops.round(target * 255)
    error = ops.mean(ops.square(difference), axis=(1, 2, 3))
    return 10 * ops.log10(255.0**2 / ops.maximum(error, 1e-6))


def train(
    model,
    frames: dict[str, np.ndarray],
    windows: pd.DataFrame,
    test_frames: dict[str, np.ndarray],
    test_windows: pd.DataFrame,
    *,
    name: str,
    epochs: int,
    steps_per_epoch: int,
    batch_size: int = 8,
    crop: int = 64,
    loss: str = "charbonnier",
    learning_rate: float = 1e-3,
    seed: int = 0,
    precision: str = "",
    temporal_padding: float = 0.0,
    global_clipnorm: float = 0.0,
    test_count: int = 32,
):
    """Trained model, of a run that begins, carries on where it stopped, or is reused if it has finished.

    Writes under `work/runs/<name>/`: `run.json` (settings, and whether the run has finished), `history.csv` (a row an
    epoch: the truth about the run), `backup/` (to resume from), `model.keras` (the last epoch's weights).

    Args:
        model: untrained keras model, uint8 `[B, H, W, 3 * n]` in, float32 `[B, H, W, 3]` in [0, 1] out.
        frames, windows: what to learn from, as `get_frames(dataset, "train")` returns them.
        test_frames, test_windows: what the test curve is measured on; nothing is chosen by it.
        name: of the run.
        epochs, steps_per_epoch: length of the run; a step is one batch.
        batch_size, crop: windows in a batch, and side in px of the square cut from each.
        loss: "charbonnier" or "mse" (the article's).
        learning_rate: peak of Adam's rate: a warm-up over the first 5% of the steps, then a cosine down to 0.
        seed: of the crops, flips and order; the same seed gives the same batches.
        precision: "float32", "mixed_float16" or "mixed_bfloat16"; "" means mixed_float16 on a GPU, else float32.
        temporal_padding: share of the training windows with frames missing at their ends (see `crop_batches`).
        global_clipnorm: norm to which the gradient of all weights together is shortened if it is longer; 0: never.
        test_count: test windows, evenly spread, that are measured after every epoch.

    Returns:
        The trained model.

    Raises:
        ValueError: if a run of that name was made with other settings, or a setting is not possible.
    """
    if loss not in LOSSES:
        raise ValueError(f"loss = {loss!r} must be one of {', '.join(LOSSES)}.")
    height, width = next(iter(frames.values())).shape[1:3]
    if not 1 <= crop <= min(height, width):
        raise ValueError(f"crop = {crop} px must be at least 1 and fit into frames of {width}x{height} px.")
    precision = precision or ("mixed_float16" if models.gpu_name() else "float32")
    settings = {
        "architecture": architecture(model),
        "sequences": ", ".join(sorted(frames)),
        "data": vfi.digest(windows.to_csv(index=False) + str({k: v.shape for k, v in sorted(frames.items())})),
        "epochs": epochs,
        "steps_per_epoch": steps_per_epoch,
        "batch_size": batch_size,
        "crop": crop,
        "loss": loss,
        "learning_rate": learning_rate,
        "seed": seed,
        "precision": precision,
        "temporal_padding": temporal_padding,
        "global_clipnorm": global_clipnorm,
    }
    folder = vfi.work("runs", name)
    if not (folder / "run.json").exists():
        vfi.from_drive(folder)
    if begin_run(folder, settings):
        return models.load_model(name)

    done = finished_epochs(folder / "backup", steps_per_epoch)
    first_step = done * steps_per_epoch
    batches = crop_batches(
        frames, windows, models.frames_of(model), batch_size, crop, seed, first_step, temporal_padding
    )
    neighbours, targets = vfi.take_windows(test_frames, vfi.spread(test_windows, test_count))
    average = vfi.psnr(vfi.average(neighbours), targets).mean()
    config = model.get_config()
    steps = epochs * steps_per_epoch
    trained = compile_for_training(model, loss, learning_rate, steps, precision, global_clipnorm)
    print(
        f"{name}: {len(windows)} windows; {epochs} epochs of {steps_per_epoch} steps of {batch_size} crops of "
        f"{crop}x{crop} px; {model.count_params():,} parameters; {loss}; on {models.gpu_name() or 'the CPU'}",
        flush=True,
    )
    trained.fit(
        batches,
        epochs=epochs,
        steps_per_epoch=steps_per_epoch,
        validation_data=(vfi.innermost(neighbours, models.frames_of(model)), targets.astype(np.float32) / 255),
        validation_batch_size=8,
        shuffle=False,
        callbacks=[
            epoch_log(folder, done, epochs, steps_per_epoch, average),
            keras.callbacks.BackupAndRestore(str(folder / "backup"), double_checkpoint=True, delete_checkpoint=False),
            keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: vfi.to_drive(folder)),
        ],
        verbose=0,
    )
    batches.close()
    model = type(model).from_config(config)
    model.set_weights(trained.get_weights())
    finish_run(folder, model)
    return model


def finish_run(folder: Path, model) -> None:
    """Save a trained model and mark its run as finished: the marker is written last, and the backup goes after it."""
    model.save(folder / "model.part.keras")
    (folder / "model.part.keras").replace(folder / "model.keras")
    run = json.loads((folder / "run.json").read_text()) | {
        "finished": True,
        "seconds": round(pd.read_csv(folder / "history.csv").seconds.sum(), 1),
        "machine": models.gpu_name() or f"CPU, {os.cpu_count()} cores",
        "keras": f"{keras.__version__} on {keras.backend.backend()}",
    }
    vfi.write_atomic(folder / "run.json", json.dumps(run, indent=1))
    shutil.rmtree(folder / "backup", ignore_errors=True)
    vfi.to_drive(folder)


def architecture(model) -> str:
    """Fingerprint of a model's layers, whatever the model and they are called and wherever their code is."""
    config = copy.deepcopy(model.get_config())
    for layer in config.get("layers", []):
        if layer.get("registered_name"):
            layer["module"] = None
    text = json.dumps(config | {"name": ""}, sort_keys=True, default=str)
    for number, layer in enumerate(config.get("layers", [])):
        text = text.replace(f'"{layer["name"]}"', f'"#{number}"')
    return vfi.digest(text)


def begin_run(folder: Path, settings: dict) -> bool:
    """Whether the run in `folder` has finished; otherwise it is started or resumed.

    Raises:
        ValueError: if it was made with other settings. Resuming would ignore some of them silently.
    """
    begun = [folder / name for name in ("history.csv", "backup", "model.keras") if (folder / name).exists()]
    if not (folder / "run.json").exists() or not begun:
        vfi.write_atomic(folder / "run.json", json.dumps({"settings": settings, "finished": False}, indent=1))
        return False
    run = json.loads((folder / "run.json").read_text())
    if run["settings"] != settings:
        raise ValueError(
            f"The run in {vfi.display_path(folder)} was made with other settings "
            f"({vfi.changes(run['settings'], settings)}). Give this one another name (RUN_SUFFIX in notebook 04), or "
            "delete that folder, and its copy on Drive."
        )
    finished = run["finished"] and (folder / "model.keras").exists()
    doing = "reusing the finished run" if finished else "carrying on with the run"
    print(f"{folder.name}: {doing} in {vfi.display_path(folder)}")
    return finished


def finished_epochs(backup: Path, steps_per_epoch: int) -> int:
    """Number of epochs that a backup holds, after mending what an interruption left half-written.

    `BackupAndRestore` writes the weights first and the epoch's number after, so a kill between the two leaves a number
    that is one too low, and a kill during the first leaves weights that cannot be read. The optimiser's own step count
    is in the weights file; the number is made to agree with it, and unreadable weights give way to the previous ones.
    Backups are made at the end of an epoch. In float16 the optimiser skips a step now and then, so it is rounded up.
    """
    latest, previous = backup / "latest.weights.h5", backup / "latest.weights.h5.bkp"
    for weights in (latest, previous):
        try:
            with h5py.File(weights) as file:
                optimizer = file["optimizer"]
                steps = int(optimizer.get("inner_optimizer", optimizer)["vars/0"][()])
        except (OSError, KeyError):
            continue
        if weights == previous:
            print("the last backup is broken; going on from the one before")
            shutil.copyfile(previous, latest)
        epochs = math.ceil(steps / steps_per_epoch)
        vfi.write_atomic(backup / "training_metadata.json", json.dumps({"epoch": epochs, "batch": 0}))
        return epochs
    shutil.rmtree(backup, ignore_errors=True)
    return 0


def compile_for_training(
    model, loss: str, learning_rate: float, steps: int, precision: str, global_clipnorm: float = 0.0
):
    """Model compiled with Adam and a warmed-up cosine; in mixed precision, if wanted, where that is safe.

    In mixed precision the inner convolutions, normalisations and activations compute with 16 bits. The rest stays in
    float32: rescaling, sums, warps, and convolutions with a bias and no activation, whose output is colours or motion.
    With float16 the loss is scaled so that small gradients survive.
    """
    if precision != "float32":
        config, weights = copy.deepcopy(model.get_config()), model.get_weights()
        for layer in config["layers"]:
            inside = layer["config"].get("activation") != "linear" or not layer["config"].get("use_bias")
            if layer["class_name"] in ("BatchNormalization", "ReLU") or (layer["class_name"] == "Conv2D" and inside):
                layer["config"]["dtype"] = precision
        model = type(model).from_config(config)
        model.set_weights(weights)
    warm_up = max(1, steps // 20)
    rate = keras.optimizers.schedules.CosineDecay(
        learning_rate / 100, max(1, steps - warm_up), warmup_target=learning_rate, warmup_steps=warm_up
    )
    optimizer = keras.optimizers.Adam(rate, global_clipnorm=global_clipnorm or None)
    if precision == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    model.compile(optimizer, LOSSES[loss], metrics=[keras.metrics.MeanMetricWrapper(psnr_of_batch, name="psnr")])
    return model


def epoch_log(folder: Path, done: int, epochs: int, steps_per_epoch: int, average: float):
    """Callback that prints a line and appends a row to `history.csv` after every epoch.

    A row is written before the epoch is backed up. An epoch that is done again replaces its row, so that the file
    holds each epoch once whenever it is read. `average` is what the average of the neighbours scores in the windows of
    `test_psnr`, in dB.
    """
    path = folder / "history.csv"

    class EpochLog(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            table = pd.read_csv(path) if path.exists() and done else pd.DataFrame({"epoch": []})
            self.rows = table[table.epoch <= done].to_dict("records")

        def on_epoch_begin(self, epoch, logs=None):
            self.epoch, self.started = epoch, time.perf_counter()

        def on_train_batch_end(self, batch, logs=None):
            steps = min(12, steps_per_epoch) - 2  # the first two compile
            if self.epoch == done and batch == 1:
                self.warm = time.perf_counter()
            elif self.epoch == done and steps > 0 and batch == steps + 1:
                seconds = (time.perf_counter() - self.warm) / steps
                left = seconds * steps_per_epoch * (epochs - done)
                print(
                    f"{seconds:.2f} s a step, {seconds * steps_per_epoch:.0f} s an epoch and the test; "
                    f"expected to finish after {time.strftime('%H:%M', time.localtime(time.time() + left))}",
                    flush=True,
                )

        def on_epoch_end(self, epoch, logs=None):
            row = {
                "epoch": epoch + 1,
                "step": (epoch + 1) * steps_per_epoch,
                "loss": logs["loss"],
                "psnr": logs["psnr"],
                "test_loss": logs["val_loss"],
                "test_psnr": logs["val_psnr"],
                "average_psnr": average,
                "learning_rate": float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)),
                "seconds": round(time.perf_counter() - self.started, 2),
            }
            self.rows.append(row)
            vfi.write_atomic(path, pd.DataFrame(self.rows).astype({"epoch": int, "step": int}).to_csv(index=False))
            print(
                f"epoch {epoch + 1}/{epochs}: train loss {row['loss']:.4f}, {row['psnr']:.2f} dB; "
                f"test loss {row['test_loss']:.4f}, {row['test_psnr']:.2f} dB; {row['seconds']:.0f} s",
                flush=True,
            )

    return EpochLog()
