"""Training runs that survive a disconnect: what a run is, its checkpoints, its history, and its copy on Drive."""

from __future__ import annotations

import contextlib
import copy
import inspect
import io
import json
import os
import shutil
import time
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from keras import ops

import vfi_utils as vfi
from stages import markers, models

# What a layer's config holds besides its settings: names, and what a Keras version, a machine or a file adds.
ADDED = "name module registered_name build_config compile_config shared_object_id quantization_config dtype trainable"
ADDED += " shape batch_shape batch_input_shape sparse ragged optional data_format"
KEPT = 2  # checkpoints of a run


def process() -> tuple[int, int]:
    """Number of this process, and how many train together: several under JAX, after `keras.distribution.initialize`."""
    if keras.backend.backend() != "jax":
        return 0, 1
    import jax

    return jax.process_index(), jax.process_count()


class LaterBatches(keras.utils.PyDataset):
    """Batches of `batches` from number `first` on, without end: what is left for a run that resumes.

    Where several processes train together, each takes its share of every batch.
    """

    num_batches = None

    def __init__(self, batches: keras.utils.PyDataset, first: int):
        super().__init__(workers=batches.workers, max_queue_size=batches.max_queue_size)
        self.batches, self.first = batches, first

    def __getitem__(self, k: int):
        count, (number, together) = self.batches.num_batches, process()
        batch = self.batches[(self.first + k) % count if count else self.first + k]
        return batch if together == 1 else keras.tree.map_structure(lambda a: np.split(a, together)[number], batch)


def describe_network(model) -> str:
    """Fingerprint of a network: its layers' settings that are not the default, their connections and weights' shapes.

    It does not depend on names, on precision, or on what a version of Keras writes into a file.
    """
    config = model.get_config()
    entries = config.get("layers", [])
    number = {entry["name"]: index for index, entry in enumerate(entries)}
    kinds = {operation.name: type(operation) for operation in getattr(model, "operations", model.layers)}

    def essence(value):
        if isinstance(value, dict):
            if "keras_history" in value:
                name, *output = value["keras_history"]
                return [number.get(name, name), *output]
            kept = {key: essence(part) for key, part in sorted(value.items()) if key not in ADDED.split()}
            return {key: part for key, part in kept.items() if part not in (None, {}, [])}
        return [essence(part) for part in value] if isinstance(value, (list, tuple)) else value

    layers = []
    for entry in entries:
        kind = kinds.get(entry["name"])
        defaults = inspect.signature(kind.__init__).parameters if kind else {}
        chosen = {k: v for k, v in entry["config"].items() if k not in defaults or v != defaults[k].default}
        if "layers" in chosen:  # a model inside
            chosen = {"layers": describe_network(model.get_layer(entry["name"]))}
        layers.append([entry["class_name"], essence(chosen), essence(entry.get("inbound_nodes", []))])
    shapes = [list(weight.shape) for weight in model.weights]
    return vfi.digest(json.dumps([layers, shapes], sort_keys=True, default=str))


def read_run(path: Path) -> dict:
    """Content of a `run.json`; empty if there is none, or if it is damaged, which is printed."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        content = None
    if isinstance(content, dict) and isinstance(content.get("settings"), dict):
        return content
    print(f"{vfi.display_path(path)} is damaged and not used")
    return {}


class Run:
    """A training run in `work/runs/<name>/`, and its copy on Drive: what it is, what it has done, whether it is over.

    `with Run(name, settings) as run:` brings it back from Drive, if it is there, and compares what it was made with.
    Then `run.finished` says whether there is nothing left to do; `run.resume(model)` puts a compiled model where the
    run stopped, `run.remaining(batches, steps)` holds the batches still to come, and `run.finish(model)` ends it.

    Args:
        name: of the run.
        settings: what the reader chose and the run depends on. A run that was made with others is refused.
    """

    def __init__(self, name: str, settings: dict):
        self.name, self.settings, self.folder = name, settings, vfi.work("runs", name)
        self.finished, self.rows, self.state, self.lock = False, [], {}, contextlib.ExitStack()
        self.writes = process()[0] == 0  # of several processes, which share the folder, the first

    def __enter__(self):
        if self.writes:
            self.lock.enter_context(markers.locked(self.folder))  # a second trainer waits, and finds the run finished
        try:
            self.open()
        except BaseException:
            self.lock.close()
            raise
        return self

    def __exit__(self, *error):
        self.lock.close()

    def recorded(self) -> dict:
        """Settings that the run was begun with; empty if there is no such run."""
        return self.read().get("settings", {})

    def read(self) -> dict:
        """Content of `run.json`, brought back from Drive first if only Drive has it; without it nothing is taken."""
        path = self.folder / "run.json"
        if not path.exists() and (copied := vfi.drive_copy(self.folder)) and copied.exists():
            if read_run(copied / "run.json"):
                vfi.from_drive(self.folder)
            else:
                print(f"{copied} has no run.json that can be read: nothing of it is used")
        return read_run(path)

    def open(self) -> None:
        """Find out what is there; start the run or carry on with it.

        Raises:
            ValueError: if it was made with other settings; resuming would ignore some of them silently.
        """
        run, place = self.read(), vfi.display_path(self.folder)
        trained = (self.folder / "model.keras").exists()
        checkpoint = self.newest_checkpoint(run.get("settings"))
        recorded = run.get("settings") or checkpoint.get("settings", {})
        remedy = "Give this run another name (RUN_SUFFIX in notebook 04): what is there stays as it is."
        if trained and not recorded:
            raise ValueError(f"{place} holds a trained model, and no run.json that says how it was made. {remedy}")
        settings = {key: value for key, value in json.loads(json.dumps(self.settings)).items() if key in recorded}
        recorded = {key: value for key, value in recorded.items() if key in settings}
        if (trained or checkpoint) and recorded != settings:
            raise ValueError(
                f"The run in {place} was made with other settings ({markers.changes(recorded, settings)}). {remedy}"
            )
        self.finished = bool(trained and run.get("finished"))
        if self.finished:
            print(f"{self.name}: reusing the finished run in {place}")
            self.rows = run.get("history", [])
            if self.rows and self.writes:
                self.write_history()  # it may be damaged
            return
        if checkpoint:
            self.rows, self.state = checkpoint["rows"], checkpoint["state"]
            print(f"{self.name}: carrying on after epoch {len(self.rows)} with the run in {place}")
        if self.writes:
            begun = {"settings": self.settings, "finished": False}
            vfi.write_atomic(self.folder / "run.json", json.dumps(begun, indent=1))
            self.write_history()

    def newest_checkpoint(self, settings: dict | None) -> dict:
        """Settings, rows and arrays of the last whole checkpoint made with these settings; empty if there is none."""
        for path in sorted(self.folder.glob("checkpoints/*.npz"), reverse=True):
            content = path.read_bytes()
            if path.stem.rpartition("-")[2] == vfi.digest(content):
                with np.load(io.BytesIO(content)) as file:
                    arrays = {name: file[name] for name in file.files}
                about = json.loads(str(arrays.pop("about")))
                if settings in (None, about["settings"]):
                    return about | {"state": arrays}
                print(f"{vfi.display_path(path)} is of another run and not used")
                continue
            print(f"{vfi.display_path(path)} is damaged and not used")
            path.unlink()
        return {}

    def write_history(self) -> None:
        """Write `history.csv` as far as the run has come; before its first epoch there is none."""
        table = pd.DataFrame(self.rows)
        if self.rows:
            vfi.write_atomic(self.folder / "history.csv", table.to_csv(index=False))
        else:
            (self.folder / "history.csv").unlink(missing_ok=True)

    def keep(self, model, row: dict) -> None:
        """Add an epoch: a row of the history, then a checkpoint of the model; both to Drive in this order."""
        self.rows.append(row)
        if not self.writes:
            return
        self.write_history()
        state = {f"{kind}/{n}": array for kind, part in arrays_of(model).items() for n, array in enumerate(part)}
        content, folder = io.BytesIO(), self.folder / "checkpoints"
        np.savez(content, about=json.dumps({"settings": self.settings, "rows": self.rows}), **state)
        path = folder / f"{len(self.rows):05d}-{vfi.digest(content.getvalue())}.npz"
        vfi.write_atomic(path, content.getvalue())
        for name in ("run.json", "history.csv", f"checkpoints/{path.name}"):
            vfi.to_drive(self.folder / name)
        self.drop_checkpoints(len(self.rows) - KEPT)

    def drop_checkpoints(self, last: int) -> None:
        """Remove the checkpoints up to that epoch, here and on Drive."""
        for folder in filter(None, (self.folder, vfi.drive_copy(self.folder))):
            for path in folder.glob("checkpoints/*.npz"):
                if int(path.name.partition("-")[0]) <= last:
                    with contextlib.suppress(OSError):
                        path.unlink()

    def resume(self, model) -> int:
        """Number of epochs that are done; the compiled model gets the weights and optimiser state after them."""
        for kind, variables in state_of(model).items() if self.state else ():
            saved = [self.state[f"{kind}/{n}"] for n in range(len(self.state)) if f"{kind}/{n}" in self.state]
            for variable, array in zip(variables, saved, strict=kind != "scale"):  # only float16 has a scale
                variable.assign(array)
        return len(self.rows)

    def remaining(self, batches: keras.utils.PyDataset, steps_per_epoch: int) -> LaterBatches:
        """Batches that the run has not seen."""
        return LaterBatches(batches, len(self.rows) * steps_per_epoch)

    def finish(self, model, **facts):
        """Copy of the trained model in float32, saved; the run is marked as finished after it, and Drive gets both."""
        model = in_precision(model, "float32")
        if not all(np.isfinite(weight).all() for weight in model.get_weights()):
            raise FloatingPointError(f"{self.name}: the trained weights are not finite, so no model is saved.")
        if not self.writes:
            return model
        model.save(self.folder / "model.part.keras")
        (self.folder / "model.part.keras").replace(self.folder / "model.keras")
        facts |= {
            "seconds": round(sum(row["seconds"] for row in self.rows), 1),
            "machine": models.gpu_name() or f"CPU, {os.cpu_count()} cores",
            "keras": f"{keras.__version__} on {keras.backend.backend()}",
        }
        run = {"settings": self.settings, "finished": True, **facts, "history": self.rows}
        vfi.write_atomic(self.folder / "run.json", json.dumps(run, indent=1))
        for name in ("model.keras", "history.csv", "run.json"):
            vfi.to_drive(self.folder / name)
        self.drop_checkpoints(len(self.rows))
        shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)
        return model


def in_precision(model, precision: str, devices: int = 1):
    """Copy of a model whose inner layers compute in `precision`; "float32" undoes "mixed_float16".

    On several devices batch normalisation looks at the whole batch, as on one.

    In mixed precision the inner convolutions, normalisations and activations compute with 16 bits. The rest stays in
    float32: rescaling, sums, warps, and convolutions with a bias and no activation, whose output is colours or motion.
    """
    config, weights = copy.deepcopy(model.get_config()), model.get_weights()
    entries = list(config.get("layers", []))
    for layer in entries:
        entries += layer["config"].get("layers", [])  # of a model inside
        inside = layer["config"].get("activation") != "linear" or not layer["config"].get("use_bias")
        if layer["class_name"] in ("BatchNormalization", "ReLU") or (layer["class_name"] == "Conv2D" and inside):
            layer["config"]["dtype"] = precision
        if layer["class_name"] == "BatchNormalization" and keras.backend.backend() == "tensorflow":
            layer["config"]["synchronized"] = devices > 1
    model = type(model).from_config(config)
    model.set_weights(weights)
    return model


def state_of(model) -> dict[str, list]:
    """Variables of a compiled model that a checkpoint holds: its own, Adam's, and those that scale a float16 loss."""
    optimizer = model.optimizer
    if not optimizer.built:
        optimizer.build(model.trainable_variables)
    adam = getattr(optimizer, "inner_optimizer", optimizer)
    scale = [] if adam is optimizer else [optimizer.step_counter, optimizer.dynamic_scale]
    return {"model": model.variables, "adam": adam.variables, "scale": scale}


def arrays_of(model) -> dict[str, list[np.ndarray]]:
    """Values of `state_of`."""
    return {kind: [np.asarray(ops.convert_to_numpy(v)) for v in part] for kind, part in state_of(model).items()}


class EpochLog(keras.callbacks.Callback):
    """Callback that prints a line and keeps a row and a checkpoint after every epoch, and stops at one not finite.

    Args:
        run: the run that is trained.
        epochs, steps_per_epoch: its length.
        average_psnr: what the average of the neighbours scores in the windows of `test_psnr`, in dB.
        measure: function of the model that returns further columns of the history, such as `test_psnr`.
    """

    def __init__(self, run: Run, epochs: int, steps_per_epoch: int, average_psnr=float("nan"), measure=None):
        super().__init__()
        self.run, self.epochs, self.steps_per_epoch = run, epochs, steps_per_epoch
        self.average_psnr, self.measure = average_psnr, measure
        self.first, self.started, self.warm = len(run.rows), 0.0, 0.0

    def on_epoch_begin(self, epoch, logs=None):
        self.started = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        steps = min(12, self.steps_per_epoch) - 2  # the first two compile
        if len(self.run.rows) == self.first and batch == 1:
            self.warm = time.perf_counter()
        elif len(self.run.rows) == self.first and steps > 0 and batch == steps + 1:
            seconds = (time.perf_counter() - self.warm) / steps
            left = seconds * self.steps_per_epoch * (self.epochs - self.first)
            print(
                f"{seconds:.2f} s a step, {seconds * self.steps_per_epoch:.0f} s an epoch and the test; "
                f"expected to finish after {time.strftime('%H:%M', time.localtime(time.time() + left))}",
                flush=True,
            )

    def on_epoch_end(self, epoch, logs=None):
        logs = logs | {f"test_{name[4:]}": value for name, value in logs.items() if name.startswith("val_")}
        logs |= self.measure(self.model) if self.measure else {}
        row = {"epoch": epoch + 1, "step": (epoch + 1) * self.steps_per_epoch}
        row |= {name: float(logs.get(name, "nan")) for name in ("loss", "psnr", "test_loss", "test_psnr")}
        for name in ("loss", "test_loss"):
            if name in logs and not np.isfinite(row[name]):
                raise FloatingPointError(
                    f"{self.run.name}: {name} of epoch {epoch + 1} is {row[name]}. Training stops; the checkpoint of "
                    f"epoch {epoch} stays in {vfi.display_path(self.run.folder)}. Try a lower learning_rate, or "
                    "precision = 'float32', under another name."
                )
        rate = float(ops.convert_to_numpy(self.model.optimizer.learning_rate))
        seconds = round(time.perf_counter() - self.started, 2)
        row |= {"average_psnr": self.average_psnr, "learning_rate": rate, "seconds": seconds}
        self.run.keep(self.model, row)
        print(
            f"epoch {epoch + 1}/{self.epochs}: train loss {row['loss']:.4f}, {row['psnr']:.2f} dB; "
            f"test loss {row['test_loss']:.4f}, {row['test_psnr']:.2f} dB; {row['seconds']:.0f} s",
            flush=True,
        )
