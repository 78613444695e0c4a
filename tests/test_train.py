"""Training: its batches, its resumption after a kill at any moment, what it refuses, and that it learns."""

import dataclasses
import functools
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time

import keras
import numpy as np
import pandas as pd
import pytest

import vfi_utils as vfi
from definitions import WITHOUT_TENSORFLOW, definitions
from stages import runs as stage_runs
from stages import training
from stages.evaluation import evaluate, summarize
from stages.frames import get_frames
from stages.models import load_model, predict_middle

BUDGET = dict(epochs=3, steps_per_epoch=4, batch_size=2, crop=32)
SETTINGS = dict(loss="mse", tests=2, precision="float32")
BUDGET_FIELDS = {field.name for field in dataclasses.fields(training.Budget)}


def panning_frames(count=30, seed=0):
    """A coarse random picture that slides by a px a frame: uint8 `[T, 45, 80, 3]`."""
    from PIL import Image

    coarse = np.random.default_rng(seed).integers(0, 256, (20, 40, 3), dtype=np.uint8)
    wide = np.asarray(Image.fromarray(coarse).resize((160, 45), Image.Resampling.BICUBIC))
    return np.stack([wide[:, time : time + 80] for time in range(count)])


def data():
    frames = {"a": panning_frames(30, 0), "b": panning_frames(23, 1)}
    windows = vfi.build_windows({name: len(part) for name, part in frames.items()})
    return frames, windows, frames, windows[windows.sequence == "b"]


def small(name="small", **options):
    build = definitions("03_define_dncnn.ipynb", "dncnn", "he_normal")["dncnn"]
    return build(**{"depth": 4, "width": 8, "residual": True, "name": name, **options})


def train(name="small", model=None, **changes):
    budget = training.Budget(**BUDGET | {k: v for k, v in changes.items() if k in BUDGET_FIELDS})
    options = SETTINGS | {k: v for k, v in changes.items() if k not in BUDGET_FIELDS}
    return training.train_on_crops(model or small(), *data(), name=name, budget=budget, **options)


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("VFI_WORK", str(tmp_path / "work"))
    monkeypatch.delenv("VFI_DRIVE", raising=False)
    return tmp_path / "work" / "runs"


def same(first, second, tolerance=0.0):
    pairs = zip(first.get_weights(), second.get_weights(), strict=True)
    return all(np.abs(a - b).max() <= tolerance for a, b in pairs)


def crops(model_frames=6, seed=0, **changes):
    frames, windows, *_ = data()
    return training.CropBatches(frames, windows, model_frames, training.Budget(**BUDGET | changes), seed)


def test_batches_have_the_stated_form():
    for model_frames in (2, 6):
        inputs, targets = crops(model_frames, batch_size=3)[0]
        assert inputs.shape == (3, 32, 32, 3 * model_frames) and inputs.dtype == np.uint8
        assert targets.shape == (3, 32, 32, 3) and targets.dtype == np.float32
        assert 0 <= targets.min() <= targets.max() <= 1


def test_a_batch_depends_on_the_seed_and_its_number_alone():
    whole, again = crops(seed=3), crops(seed=3)
    batches = [whole[k] for k in range(6)]
    for k in (4, 1):
        assert all(np.array_equal(one, two) for one, two in zip(batches[k], again[k], strict=True))
    assert not np.array_equal(batches[0][0], batches[1][0])
    assert not np.array_equal(crops(seed=4)[0][0], batches[0][0])


def test_batches_are_those_of_version_1():
    """Published runs can be repeated: a checksum of what the first version cut."""
    inputs, targets = crops(temporal_padding=0.3, seed=5)[7]
    assert [inputs.sum(), round(255 * targets.sum(dtype=float))] == [4642579, 771897]


class Seen(keras.utils.PyDataset):
    """Batches without end that hold their own number, taken by two threads; some take longer."""

    num_batches = None

    def __init__(self, inputs=lambda number: number):
        super().__init__(workers=2, max_queue_size=3)
        self.inputs = inputs

    def __getitem__(self, k):
        time.sleep(0.01 * (k % 3))
        number = np.full((2, 8, 8, 3), k, np.float32)
        return self.inputs(number), number


def numbers_seen(first, epochs, steps):
    """The batches that `fit` feeds, in order."""
    seen = []

    class Keep(keras.layers.Layer):
        def call(self, inputs):
            return inputs

    model = keras.Sequential([keras.Input((8, 8, 3)), Keep()])
    model.compile("sgd", lambda target, predicted: keras.ops.mean(predicted), run_eagerly=True)
    step, module = model.train_step, model
    model.train_step = lambda batch: (seen.append(int(np.max(batch[0]))), step(batch))[1]
    later = stage_runs.LaterBatches(Seen(), first)
    module.fit(later, epochs=epochs, steps_per_epoch=steps, verbose=0, shuffle=False)
    return seen


def test_fit_sees_the_batches_in_order_epoch_after_epoch():
    assert numbers_seen(0, 3, 4) == list(range(12))
    assert numbers_seen(8, 1, 4) == [8, 9, 10, 11], "those that a run which resumes would have seen"


def test_each_window_comes_once_before_any_comes_again():
    """Frames that are all one value tell which window and which moment a crop came from."""
    frames = {"a": np.arange(35, dtype=np.uint8)[:, None, None, None] * np.ones((1, 40, 40, 3), np.uint8)}
    windows = vfi.build_windows({"a": 35})
    batches = training.CropBatches(frames, windows, 6, training.Budget(**BUDGET | {"crop": 16}))
    batches = [batches[k] for k in range(len(windows) // 2)]
    middles = sorted(round(255 * target[0, 0, 0]) for _, targets in batches for target in targets)
    assert middles == windows.middle.tolist()
    orders = {tuple(np.sign(np.diff(stack[0, 0, ::3].astype(int)))) for inputs, _ in batches for stack in inputs}
    assert orders == {(1,) * 5, (-1,) * 5}, "some windows are reversed in time, and whole"


def test_training_learns_and_writes_what_it_says(runs):
    frames, windows, test_frames, test_windows = data()
    model = train(epochs=6, steps_per_epoch=25, batch_size=4, learning_rate=3e-3)
    neighbours, targets = vfi.take_windows(test_frames, test_windows)
    gain = vfi.psnr(predict_middle(model, neighbours), targets) - vfi.psnr(vfi.average(neighbours), targets)
    assert gain.mean() > 1, "a residual network learns a steady slide better than the average shows it"
    history = pd.read_csv(runs / "small" / "history.csv")
    assert history.epoch.tolist() == [1, 2, 3, 4, 5, 6] and history.step.iloc[-1] == 150
    assert history.loss.iloc[-1] < history.loss.iloc[0]
    ends = vfi.psnr(vfi.average(neighbours[[0, -1]]), targets[[0, -1]]).mean()
    assert np.allclose(history.average_psnr, ends), "the line to beat, in the windows of the curve"
    measured = vfi.psnr(predict_middle(model, neighbours[[0, -1]]), targets[[0, -1]]).mean()
    assert abs(history.test_psnr.iloc[-1] - measured) < 0.02, "the curve's last point is the saved model's score"
    run = json.loads((runs / "small" / "run.json").read_text())
    assert run["finished"] and run["settings"]["seed"] == 0
    assert sorted(path.name for path in (runs / "small").iterdir()) == ["history.csv", "model.keras", "run.json"]
    assert same(load_model("small"), model)


def test_same_seed_same_numbers(runs, whole):
    model, history = whole
    assert same(train(), model)
    columns = ["loss", "psnr", "test_loss", "test_psnr"]
    assert pd.read_csv(runs / "small" / "history.csv")[columns].equals(history[columns])
    assert not same(train("other", seed=1), model)


def test_a_finished_run_is_not_trained_again(runs, monkeypatch, capsys):
    first = train()
    monkeypatch.setattr(keras.Model, "fit", lambda *a, **k: pytest.fail("trained again"))
    assert same(train(), first)
    assert "reusing the finished run" in capsys.readouterr().out


def test_other_settings_ask_for_another_name(runs):
    stopped = runs / "small"
    interrupt(runs)
    changes = {"learning_rate": 1e-4, "seed": 5, "epochs": 9, "loss": "charbonnier", "crop": 16}
    for name, value in [*changes.items(), ("model", small(width=9))]:
        with pytest.raises(ValueError, match=f"{'network' if name == 'model' else name}.*another name") as refused:
            train(**{name: value})
        assert "delete" not in str(refused.value)
    assert (stopped / "history.csv").exists() and list(stopped.glob("checkpoints/*.npz")), "nothing made is lost"


def test_settings_can_be_changed_until_something_was_trained(runs):
    """Out of memory in the first step, say: halving the batch must not ask for another name."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(keras.Model, "fit", lambda *a, **k: (_ for _ in ()).throw(MemoryError))
        train()
    train(batch_size=1)


def test_impossible_settings_are_refused_before_anything_is_written(runs):
    for change, message in [({"loss": "l1"}, "must be one of"), ({"crop": 46}, "fit into frames of 80x45")]:
        with pytest.raises(ValueError, match=message):
            train(**change)
    assert not runs.exists()


def interrupt(runs, at_step=6, name="small", **changes):
    """Stop a run after so many steps, as the reader does with the stop button; an epoch is four."""

    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if int(keras.ops.convert_to_numpy(self.model.optimizer.iterations)) == at_step:
                raise KeyboardInterrupt

    fit = keras.Model.fit
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(
            keras.Model, "fit", lambda self, *a, callbacks, **k: fit(self, *a, callbacks=[*callbacks, Stop()], **k)
        )
        train(name, **changes)
    assert not (runs / name / "model.keras").exists()


KILLED = """
import os, sys
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/tests", sys.argv[1] + "/tests/tools"]
import keras, test_train
class Kill(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.optimizer.iterations) == 6:
            os._exit(9)
fit = keras.Model.fit
keras.Model.fit = lambda self, *a, callbacks, **k: fit(self, *a, callbacks=[*callbacks, Kill()], **k)
test_train.train("killed")
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The model and history of the run that nothing disturbs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VFI_WORK", str(tmp_path_factory.mktemp("whole")))
        return train(), pd.read_csv(vfi.work("runs", "small", "history.csv"))


def test_a_run_killed_in_mid_epoch_resumes_to_the_same_numbers(runs, whole):
    result = subprocess.run([sys.executable, "-c", KILLED, str(vfi.ROOT)], env=dict(os.environ))
    assert result.returncode == 9
    assert len(pd.read_csv(runs / "killed" / "history.csv")) == 1
    model, history = whole
    assert same(train("killed"), model, 1e-6)
    columns = ["epoch", "step", "loss", "test_psnr", "learning_rate"]
    resumed = pd.read_csv(runs / "killed" / "history.csv")
    pd.testing.assert_frame_equal(resumed[columns], history[columns], rtol=1e-4)


def some_epochs(until, name="small", **settings):
    """Epochs of a run without the training: after epoch n all weights are n. It ends there, as if it were killed.

    Returns:
        The weight that it began with: the number of the epoch that it carried on after.
    """
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, kernel_initializer="zeros")])
    model.compile("adam", "mean_squared_error")
    with stage_runs.Run(name, {"seed": 0} | settings) as run:
        assert not run.finished
        done, began = run.resume(model), float(model.get_weights()[0][0, 0])
        assert done == began == len(run.rows)
        for epoch in range(done + 1, until + 1):
            model.set_weights([np.full(weight.shape, epoch) for weight in model.get_weights()])
            run.keep(model, {"epoch": epoch, "loss": 1 / epoch, "seconds": 1.0})
    return began


def finish(name="small", **settings):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    with stage_runs.Run(name, {"seed": 0} | settings) as run:
        return run.finished or run.finish(model)


def checkpoints(runs, name="small"):
    return sorted((runs / name / "checkpoints").iterdir())


def epochs_in_history(runs, name="small"):
    return pd.read_csv(runs / name / "history.csv").epoch.tolist()


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize("harm", ["flipped", "cut", "both", "part"])
def test_a_damaged_checkpoint_is_not_trusted(runs, harm, capsys):
    """A flipped bit, a file cut short: refused, and the one before is used."""
    some_epochs(5)
    kept = checkpoints(runs)
    assert [path.name[:5] for path in kept] == ["00004", "00005"], "the last two are kept"
    if harm == "flipped":
        flip_a_bit(kept[1])
    elif harm == "cut":
        kept[1].write_bytes(kept[1].read_bytes()[:1000])
    elif harm == "both":
        for path in kept:
            path.write_bytes(b"")
    else:
        (kept[1].parent / "00006-0123456789ab.npz.part").write_bytes(b"half")
    assert some_epochs(6) == {"part": 5, "both": 0}.get(harm, 4)
    assert capsys.readouterr().out.count("is damaged and not used") == {"part": 0, "both": 2}.get(harm, 1)
    assert epochs_in_history(runs) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("content", ["", '{"settings": {"se', "null", '{"finished": true}', "\0\0", None])
def test_a_damaged_run_file_stops_nothing_that_can_go_on(runs, content, capsys):
    some_epochs(2)
    path = runs / "small" / "run.json"
    path.unlink() if content is None else path.write_text(content)
    assert some_epochs(3) == 2
    assert content is None or "run.json is damaged" in capsys.readouterr().out
    with pytest.raises(ValueError, match="seed: 0 -> 1"):
        path.unlink() if content is None else path.write_text(content)
        some_epochs(3, seed=1)
    finish()
    path.unlink() if content is None else path.write_text(content)
    before = (runs / "small" / "model.keras").read_bytes()
    with pytest.raises(ValueError, match="no run.json that says how it was made.*another name") as refused:
        finish()
    assert "delete" not in str(refused.value)
    assert (runs / "small" / "model.keras").read_bytes() == before, "a trained model is never written over"


@pytest.mark.parametrize("content", ["", "epoch,loss\n1", "null", "epoch,loss\n2,0.1\n", None])
def test_a_damaged_history_is_written_again(runs, content):
    """Also one that Drive got without the first or the last epochs: checkpoints hold the rows so far."""
    some_epochs(2)
    path = runs / "small" / "history.csv"
    rows = pd.read_csv(path)
    path.unlink() if content is None else path.write_text(content)
    assert some_epochs(3) == 2
    assert epochs_in_history(runs) == [1, 2, 3] and pd.read_csv(path)[:2].equals(rows)
    finish()
    path.unlink() if content is None else path.write_text(content)
    assert finish() is True and epochs_in_history(runs) == [1, 2, 3], "of a finished run, too"


@pytest.fixture
def drive(tmp_path, monkeypatch):
    (tmp_path / "drive").mkdir()
    monkeypatch.setenv("VFI_DRIVE", str(tmp_path / "drive"))
    return tmp_path / "drive" / "runs"


def test_a_run_goes_on_from_its_copy_on_drive(runs, drive, capsys):
    some_epochs(3)
    assert [path.name[:5] for path in checkpoints(drive)] == ["00002", "00003"]
    shutil.rmtree(runs)  # the machine is gone
    assert some_epochs(4) == 3 and epochs_in_history(runs) == [1, 2, 3, 4]
    model = finish()
    assert not list(drive.rglob("*.npz")), "a finished run needs no checkpoint, on Drive neither"
    shutil.rmtree(runs)
    assert finish() is True and same(load_model("small"), model)


@pytest.mark.parametrize("copies", range(7))
def test_dying_between_two_copies_to_drive_loses_no_epoch(runs, drive, copies):
    """Three copies an epoch: run.json, history.csv, checkpoint."""
    copied = []

    def die(path, copy=vfi.to_drive):
        if len(copied) == copies:
            raise KeyboardInterrupt
        copied.append(path.name[:5])
        copy(path)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(vfi, "to_drive", die)
        some_epochs(3)
    assert copied == ["run.j", "histo", "00001", "run.j", "histo", "00002"][:copies]
    shutil.rmtree(runs)
    assert some_epochs(3) == copies // 3
    assert epochs_in_history(runs) == [1, 2, 3]


@pytest.mark.parametrize("content", ["", "null", None])
def test_a_copy_on_drive_without_its_settings_is_not_taken(runs, drive, content, capsys):
    """Or a run would go on from another one's weights, with another loss and rate."""
    some_epochs(2, learning_rate=0.1)
    shutil.rmtree(runs)
    copy = drive / "small" / "run.json"
    copy.unlink() if content is None else copy.write_text(content)
    assert some_epochs(1) == 0
    assert "nothing of it is used" in capsys.readouterr().out


def test_a_drive_that_was_away_at_the_start_keeps_what_it_has(runs, drive, monkeypatch):
    some_epochs(5)
    shutil.rmtree(runs)
    with monkeypatch.context() as patch:
        patch.setattr(vfi, "from_drive", lambda path: False)
        assert some_epochs(1) == 0
    assert [path.name[:5] for path in checkpoints(drive)] == ["00001", "00004", "00005"]
    shutil.rmtree(runs)
    with monkeypatch.context() as patch:
        patch.setattr(vfi, "from_drive", lambda path: False)
        some_epochs(2, seed=1)
    shutil.rmtree(runs)
    assert some_epochs(3, seed=1) == 2, "what is there of another run is not taken"


def test_precision_and_machine_are_no_part_of_what_a_run_is(runs, monkeypatch):
    """What was finished on a GPU is reused without one, and what was begun there goes on."""
    finished = train(precision="mixed_float16")
    run = json.loads((runs / "small" / "run.json").read_text())
    assert run["precision"] == "mixed_float16" and "precision" not in run["settings"]
    monkeypatch.setattr(keras.Model, "fit", lambda *a, **k: pytest.fail("trained again"))
    assert same(train(precision="float32"), finished)
    run["settings"] |= {"architecture": "0123456789ab", "precision": "mixed_float16"}
    del run["settings"]["network"]
    (runs / "small" / "run.json").write_text(json.dumps(run))
    assert same(train(precision="float32"), finished), "one that version 1 finished"


def test_what_was_begun_in_float16_goes_on_in_float32(runs):
    interrupt(runs, precision="mixed_float16")
    train(precision="float32")
    assert epochs_in_history(runs) == [1, 2, 3]


def test_a_budget_is_that_of_the_run_that_was_begun(runs, monkeypatch):
    interrupt(runs)
    monkeypatch.setattr(training.models, "gpu_name", lambda: "some GPU")
    assert training.choose_budget("small") == training.Budget(**BUDGET)
    assert training.choose_budget("small", epochs=9).epochs == 9
    assert training.choose_budget("other").epochs == training.choose_budget().epochs == 120


def test_a_network_is_what_its_layers_compute():
    plain, fingerprint = small(), stage_runs.describe_network
    others = [small(width=9), small(depth=5), small(residual=False)]
    assert len({fingerprint(model) for model in [plain, *others]}) == 4
    assert fingerprint(small("another")) == fingerprint(plain), "not what it is called"
    assert fingerprint(stage_runs.in_precision(plain, "mixed_bfloat16")) == fingerprint(plain)
    config = plain.get_config()
    for layer in config["layers"]:  # as another version of Keras may write it
        layer["config"] |= {"quantization_config": None, "data_format": None}
        layer["module"] = "elsewhere"
        layer.setdefault("build_config", {})["new"] = 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plain, "get_config", lambda: config)
        assert fingerprint(plain) == fingerprint(small())


class Spoilt(training.CropBatches):
    """Batches whose targets are not numbers from the sixth on: in the second epoch."""

    def __getitem__(self, k):
        inputs, targets = super().__getitem__(k)
        return inputs, targets * (np.nan if k >= 5 else 1)


def test_a_loss_that_is_not_finite_stops_the_run(runs, monkeypatch):
    monkeypatch.setattr(training, "CropBatches", Spoilt)
    for _ in range(2):  # the second time it carries on, and stops at the same place
        with pytest.raises(FloatingPointError, match="loss of epoch 2 is nan"):
            train()
        assert not json.loads((runs / "small" / "run.json").read_text())["finished"]
        assert not (runs / "small" / "model.keras").exists()
        assert pd.read_csv(runs / "small" / "history.csv").epoch.tolist() == [1]
        [kept] = checkpoints(runs)
        with np.load(kept) as file:
            assert all(np.isfinite(file[name]).all() for name in file.files if name != "about")


def test_weights_that_are_not_finite_are_never_saved(runs):
    with pytest.raises(FloatingPointError, match="epoch 1"):
        train(learning_rate=1e38)
    assert not (runs / "small" / "model.keras").exists()


def test_another_data_set_and_loss_train_alike(runs):
    """A dict of inputs, a loss of one's own, a function that validates: what a model of several inputs needs."""
    first, second = keras.Input((8, 8, 3), name="first"), keras.Input((8, 8, 3), name="second")
    mix = keras.layers.Conv2D(3, 1, kernel_initializer="zeros", bias_initializer="ones")  # far from what is right
    model = keras.Model({"first": first, "second": second}, mix(keras.layers.Concatenate()([first, second])))

    def own_loss(target, predicted):
        return keras.ops.mean(keras.ops.abs(predicted - target / 100), axis=(1, 2, 3))

    def validate(model):
        size = model.predict_on_batch({"first": np.zeros((1, 8, 8, 3)), "second": np.zeros((1, 8, 8, 3))}).size
        return {"test_loss": 0.5, "test_psnr": size}

    batches = Seen(lambda number: {"first": number / 100, "second": 1 - number / 100})
    budget = training.Budget(**BUDGET, learning_rate=0.1)
    options = dict(budget=budget, loss=own_loss, identity={"data": "numbers"})
    trained = training.train(model, batches, validate, name="own", **options)
    history = pd.read_csv(runs / "own" / "history.csv")
    assert history.test_psnr.tolist() == [192] * 3 and history.loss.iloc[-1] < history.loss.iloc[0]
    assert json.loads((runs / "own" / "run.json").read_text())["settings"]["loss"] == "own_loss"
    assert same(training.train(model, batches, validate, name="own", **options), trained)


def test_mixed_precision_trains_and_saves_float32(runs):
    for precision in ("mixed_float16", "mixed_bfloat16"):
        model = train(precision, precision=precision)
        kept = {layer.dtype_policy.name for layer in load_model(precision).layers}
        assert kept <= {"float32", "uint8"}, kept
        assert np.isfinite(pd.read_csv(runs / precision / "history.csv").loss).all()
        assert not same(model, small()), "it learned something"


def test_mixed_precision_resumes(runs):
    whole = train("whole", precision="mixed_float16")
    interrupt(runs, precision="mixed_float16")
    assert same(train(precision="mixed_float16"), whole, 1e-6)


def weights_after_four_steps(start):
    model = small()
    model.set_weights(start)
    trained = training.compile_for_training(model, "charbonnier", 1e-3, 4, "float32")
    for k in range(4):
        trained.train_on_batch(*crops()[k])
    return trained.get_weights()


UNDER_JAX = """
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/tests", sys.argv[1] + "/tests/tools"]
import keras, numpy as np, test_train
assert keras.backend.backend() == "jax"
np.savez(sys.argv[3], *test_train.weights_after_four_steps(list(np.load(sys.argv[2]).values())))
test_train.train("jax", epochs=2, steps_per_epoch=3)
"""


@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
def test_long_gradients_are_shortened(precision):
    """Adam undoes any scale, but not one far below its epsilon: then hardly anything moves."""
    moved = {}
    for norm in (1e-12, 0):
        model = training.compile_for_training(small(), "charbonnier", 1e-3, 4, precision, norm)
        start = model.get_weights()[0]  # the first kernel; later ones include averages of batches
        model.fit(crops(), steps_per_epoch=4, shuffle=False, verbose=0)
        moved[norm] = np.abs(model.get_weights()[0] - start).max()
    assert moved[1e-12] < 1e-6 < 1e-4 < moved[0]


def test_jax_trains_the_same_model(runs, tmp_path):
    """The same weights at the start (the backends' seeds differ) and the same batches give the same weights."""
    pytest.importorskip("jax")
    start = small().get_weights()
    np.savez(tmp_path / "start.npz", *start)
    command = [
        sys.executable,
        "-c",
        WITHOUT_TENSORFLOW + UNDER_JAX,
        vfi.ROOT,
        tmp_path / "start.npz",
        tmp_path / "jax.npz",
    ]
    subprocess.run(list(map(str, command)), env={**os.environ, "KERAS_BACKEND": "jax"}, check=True)
    under_jax = np.load(tmp_path / "jax.npz").values()
    for ours, theirs, first in zip(weights_after_four_steps(start), under_jax, start, strict=True):
        assert np.abs(ours - theirs).max() <= 0.05 * np.abs(ours - first).max() + 1e-6
    assert len(pd.read_csv(runs / "jax" / "history.csv")) == 2


def test_a_model_trained_on_the_sample_beats_what_it_should(runs):
    """On a street it has not seen: far above showing a frame again, and no worse than the average it starts from."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VFI_FAST", "1")
        train_frames, train_windows = get_frames("sample", "train")
        test_frames, test_windows = get_frames("sample", "test")
    budget = training.Budget(epochs=4, steps_per_epoch=40, batch_size=4, crop=32, learning_rate=3e-3)
    footage = train_frames, train_windows, test_frames, test_windows
    model = training.train_on_crops(small(), *footage, name="street", budget=budget, **SETTINGS)
    summary = summarize(evaluate({"street": model}, test_frames, test_windows))
    overall = summary[summary.footage == "all windows"].set_index("model").psnr
    assert overall["street"] > overall["nearest"] + 2
    assert overall["street"] > overall["average"] - 0.1


HOLDS = """
import os, sys, time
sys.path[:0] = [sys.argv[1]]
import vfi_utils as vfi
from stages import markers
with markers.locked(vfi.work("runs", "small")):
    print("held", flush=True)
    sys.stdin.readline()
    if sys.argv[2] == "dies":
        os._exit(9)
"""


@pytest.mark.parametrize("end", ["ends", "dies"])
def test_a_second_trainer_waits_and_says_who_holds_the_run(runs, end, capsys, monkeypatch):
    command = [sys.executable, "-c", HOLDS, str(vfi.ROOT), end]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    timer = threading.Timer(1, lambda: holder.communicate("go\n"))
    timer.start()
    started = time.perf_counter()
    assert some_epochs(1) == 0 and time.perf_counter() - started > 0.9
    timer.join()
    assert f"waiting for process {holder.pid}" in capsys.readouterr().out
    assert some_epochs(2) == 1, "it lets go"


def test_the_lock_of_a_dead_trainer_is_taken_over(runs, capsys):
    command = [sys.executable, "-c", HOLDS, str(vfi.ROOT), "dies"]
    assert subprocess.run(command, input="go\n", stdout=subprocess.PIPE, text=True).returncode == 9
    assert some_epochs(1) == 0
    assert "taken over" in capsys.readouterr().out


TWO_DEVICES = """
import contextlib, sys
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/tests", sys.argv[1] + "/tests/tools"]
import keras
if keras.backend.backend() == "tensorflow":
    import tensorflow as tf
    [cpu] = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import test_train
from stages import training
test_train.train("two", batch_size=4)
training.all_devices = lambda batch_size: contextlib.nullcontext(1)
test_train.train("one", batch_size=4)
"""


@pytest.fixture(scope="module")
def two_devices(tmp_path_factory):
    """Function that trains on one device and on two: the histories, what was printed, and the run's file."""

    @functools.cache
    def train_on(backend):
        pytest.importorskip(backend)
        folder = tmp_path_factory.mktemp(backend)
        two = {"KERAS_BACKEND": backend, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
        command = [sys.executable, "-c", TWO_DEVICES, str(vfi.ROOT)]
        environment = {**os.environ, **two, "VFI_WORK": str(folder)}
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        histories = [pd.read_csv(folder / "runs" / name / "history.csv") for name in ("one", "two")]
        return *histories, done, json.loads((folder / "runs" / "two" / "run.json").read_text())

    return train_on


def assert_same_losses(one, two):
    assert one.epoch.tolist() == two.epoch.tolist() == [1, 2, 3]
    for column in ("loss", "test_loss"):
        assert np.abs(one[column] - two[column]).max() < 1e-5, "a tenth of what is asked"


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_two_devices_train_as_one(two_devices, backend):
    one, two, done, run = two_devices(backend)
    assert "on 2 x the CPU, 2 crops each" in done.stdout and "Error" not in done.stderr
    assert run["devices"] == 2
    assert_same_losses(one, two)


ONE_OF_TWO = """
import os, sys
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/tests", sys.argv[1] + "/tests/tools"]
import keras
number, address, dies = int(sys.argv[2]), sys.argv[3], sys.argv[4] == "dies"
keras.distribution.initialize(job_addresses=f"{address},{address}", num_processes=2, process_id=number)
import test_train
class Die(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
    def on_train_batch_end(self, batch, logs=None):
        if self.epoch == 1 and batch == 2:
            os._exit(9)
if dies and number == 1:
    fit = keras.Model.fit
    keras.Model.fit = lambda self, *a, callbacks, **k: fit(self, *a, callbacks=[*callbacks, Die()], **k)
model = test_train.train("machines", batch_size=4)
print("weights", sum(float(abs(weight).sum()) for weight in model.get_weights()))
"""


def start_two_processes(how):
    """The two processes, as on two machines, that train one run together over the loopback."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    command = [sys.executable, "-c", ONE_OF_TWO, str(vfi.ROOT)]
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return [subprocess.Popen([*command, str(n), address, how], env=environment, **pipes) for n in (0, 1)]


def test_two_processes_train_as_one_and_resume_when_one_dies(runs, two_devices):
    one, *_ = two_devices("jax")
    processes = start_two_processes("dies")
    try:
        assert processes[1].wait(timeout=300) == 9
        assert not (runs / "machines" / "model.keras").exists()
        processes[0].kill()  # it waits for the other, in vain
        processes[0].communicate()
        assert epochs_in_history(runs, "machines") == [1]
        processes += start_two_processes("lives")
        printed = [process.communicate(timeout=300)[0] for process in processes[2:]]
        assert [process.returncode for process in processes[2:]] == [0, 0], printed
    finally:
        for process in processes:
            process.kill()
    assert all("carrying on after epoch 1" in text for text in printed)
    first, second = (text.rpartition("weights ")[2].split()[0] for text in printed)
    assert first == second, "both have the same model"
    assert_same_losses(one, pd.read_csv(runs / "machines" / "history.csv"))


def test_losses_against_hand_computed_values():
    target, predicted = np.zeros((2, 1, 2, 3), np.float32), np.zeros((2, 1, 2, 3), np.float32)
    predicted[1, 0, 0] = 0.6
    article = keras.losses.get(training.LOSSES["mse"])
    assert np.allclose(article(target, predicted), [[[0, 0]], [[0.36, 0]]])
    assert np.allclose(training.charbonnier(target, predicted), [0.001, (np.sqrt(0.36 + 1e-6) + 0.001) / 2], atol=1e-6)
    assert np.allclose(training.psnr(target, predicted)[1], 10 * np.log10(1 / 0.18), atol=1e-3)
