"""Training: its batches, its resumption after a kill at any moment, what it refuses, and that it learns."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import vfi_utils as vfi
from definitions import WITHOUT_TENSORFLOW, definitions
from stages import training
from stages.evaluation import evaluate, summarize
from stages.frames import get_frames
from stages.models import load_model, predict_middle

SETTINGS = dict(epochs=3, steps_per_epoch=4, batch_size=2, crop=32, loss="mse", test_count=2, precision="float32")


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
    return training.train(model or small(), *data(), name=name, **{**SETTINGS, **changes})


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("VFI_WORK", str(tmp_path / "work"))
    monkeypatch.delenv("VFI_DRIVE", raising=False)
    return tmp_path / "work" / "runs"


def same(first, second, tolerance=0.0):
    pairs = zip(first.get_weights(), second.get_weights(), strict=True)
    return all(np.abs(a - b).max() <= tolerance for a, b in pairs)


def take(batches, count):
    taken = [next(batches) for _ in range(count)]
    batches.close()
    return taken


def test_batches_have_the_stated_form():
    frames, windows, *_ = data()
    for model_frames in (2, 6):
        inputs, targets = take(training.crop_batches(frames, windows, model_frames, 3, 32, seed=0), 1)[0]
        assert inputs.shape == (3, 32, 32, 3 * model_frames) and inputs.dtype == np.uint8
        assert (
            targets.shape == (3, 32, 32, 3) and targets.dtype == np.float32 and 0 <= targets.min() <= targets.max() <= 1
        )


def test_a_batch_depends_on_the_seed_and_its_number_alone():
    frames, windows, *_ = data()
    whole = take(training.crop_batches(frames, windows, 6, 2, 32, seed=3), 6)
    resumed = take(training.crop_batches(frames, windows, 6, 2, 32, seed=3, first_step=4), 2)
    for (inputs, targets), (again, targets_again) in zip(whole[4:], resumed, strict=True):
        assert np.array_equal(inputs, again) and np.array_equal(targets, targets_again)
    other = take(training.crop_batches(frames, windows, 6, 2, 32, seed=4), 1)[0]
    assert not np.array_equal(other[0], whole[0][0])


def test_each_window_comes_once_before_any_comes_again():
    """Frames that are all one value tell which window and which moment a crop came from."""
    frames = {"a": np.arange(35, dtype=np.uint8)[:, None, None, None] * np.ones((1, 40, 40, 3), np.uint8)}
    windows = vfi.build_windows({"a": 35})
    batches = take(training.crop_batches(frames, windows, 6, 2, 16, seed=0), len(windows) // 2)
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


def test_same_seed_same_numbers(runs):
    first, second, third = train("first"), train("second"), train("third", seed=1)
    assert same(first, second)
    columns = ["loss", "psnr", "test_loss", "test_psnr"]
    tables = [pd.read_csv(runs / name / "history.csv")[columns] for name in ("first", "second")]
    assert tables[0].equals(tables[1])
    assert not same(first, third)


def test_a_finished_run_is_not_trained_again(runs, monkeypatch, capsys):
    first = train()
    monkeypatch.setattr(training, "crop_batches", lambda *a, **k: pytest.fail("trained again"))
    assert same(train(), first)
    assert "reusing the finished run" in capsys.readouterr().out


@pytest.mark.parametrize(
    "change", [{"learning_rate": 1e-4}, {"seed": 5}, {"epochs": 9}, {"loss": "charbonnier"}, {"crop": 16}]
)
def test_other_settings_ask_for_another_name(runs, change):
    stopped = runs / "small"
    interrupt(runs)
    with pytest.raises(ValueError, match=f"{next(iter(change))}.*another name"):
        train(**change)
    assert (stopped / "history.csv").exists() and (stopped / "backup").exists(), "nothing made is lost"


def test_a_changed_model_asks_for_another_name(runs):
    interrupt(runs)
    with pytest.raises(ValueError, match="architecture.*another name"):
        train(model=small(width=9))


def test_settings_can_be_changed_until_something_was_trained(runs):
    """Out of memory in the first step, say: halving the batch must not ask for another name."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(training, "compile_for_training", lambda *a: (_ for _ in ()).throw(MemoryError))
        train()
    train(batch_size=1)


def test_impossible_settings_are_refused_before_anything_is_written(runs):
    for change, message in [({"loss": "l1"}, "must be one of"), ({"crop": 46}, "fit into frames of 80x45")]:
        with pytest.raises(ValueError, match=message):
            train(**change)
    assert not runs.exists()


def interrupt(runs, at_step=6, **changes):
    """Stop a run after so many steps, as the reader does with the stop button; an epoch is four."""
    import keras

    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if int(keras.ops.convert_to_numpy(self.model.optimizer.iterations)) == at_step:
                raise KeyboardInterrupt

    fit = keras.Model.fit
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(
            keras.Model, "fit", lambda self, *a, callbacks, **k: fit(self, *a, callbacks=[*callbacks, Stop()], **k)
        )
        train(**changes)
    assert not (runs / "small" / "model.keras").exists()


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


def test_a_run_killed_in_mid_epoch_resumes_to_the_same_numbers(runs):
    result = subprocess.run([sys.executable, "-c", KILLED, str(vfi.ROOT)], env=dict(os.environ))
    assert result.returncode == 9
    assert len(pd.read_csv(runs / "killed" / "history.csv")) == 1
    resumed, whole = train("killed"), train("whole")
    assert same(resumed, whole, 1e-6)
    columns = ["epoch", "step", "loss", "test_psnr", "learning_rate"]
    tables = [pd.read_csv(runs / name / "history.csv")[columns] for name in ("killed", "whole")]
    pd.testing.assert_frame_equal(*tables, rtol=1e-4)


@pytest.mark.parametrize("harm", ["weights", "number", "number_behind", "both", "first_epoch"])
def test_a_half_written_backup_is_not_trusted(runs, harm):
    """A kill while a backup is written leaves a broken file, or weights that are newer than their number."""
    interrupt(runs, at_step=10 if harm != "first_epoch" else 2)
    backup = runs / "small" / "backup"
    weights, number = backup / "latest.weights.h5", backup / "training_metadata.json"
    if harm == "weights":
        weights.write_bytes(weights.read_bytes()[:5000])
    elif harm == "number":
        number.write_text('{"epo')
    elif harm == "number_behind":
        number.write_text('{"epoch": 1, "batch": 0}')
    elif harm == "both":
        for file in backup.glob("*.h5*"):
            file.write_bytes(b"")
    else:
        assert not weights.exists()
    resumed, whole = train(), train("whole")
    assert same(resumed, whole, 1e-6)
    assert pd.read_csv(runs / "small" / "history.csv").epoch.tolist() == [1, 2, 3]


def test_steps_skipped_in_float16_do_not_cost_an_epoch(tmp_path):
    import h5py

    for path, steps in [("optimizer/inner_optimizer/vars/0", 398), ("optimizer/vars/0", 400)]:
        with h5py.File(tmp_path / "latest.weights.h5", "w") as file:
            file[path] = steps
        assert training.finished_epochs(tmp_path, 100) == 4
        assert json.loads((tmp_path / "training_metadata.json").read_text())["epoch"] == 4


def test_a_run_goes_on_from_its_copy_on_drive(runs, tmp_path, monkeypatch):
    (tmp_path / "drive").mkdir()
    monkeypatch.setenv("VFI_DRIVE", str(tmp_path / "drive"))
    interrupt(runs)
    shutil.rmtree(runs)  # the machine is gone
    done = []
    monkeypatch.setattr(training, "crop_batches", lambda *a, cut=training.crop_batches: done.append(a[6]) or cut(*a))
    train()
    assert done == [4], "it began after the four steps of the first epoch"
    shutil.rmtree(runs)
    assert same(load_model("small"), train())


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
    frames, windows, *_ = data()
    model = small()
    model.set_weights(start)
    trained = training.compile_for_training(model, "charbonnier", 1e-3, 4, "float32")
    for batch in take(training.crop_batches(frames, windows, 6, 2, 32, seed=0), 4):
        trained.train_on_batch(*batch)
    return trained.get_weights()


UNDER_JAX = """
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/tests", sys.argv[1] + "/tests/tools"]
import keras, numpy as np, test_train
assert keras.backend.backend() == "jax"
np.savez(sys.argv[3], *test_train.weights_after_four_steps(list(np.load(sys.argv[2]).values())))
test_train.train("jax", epochs=2, steps_per_epoch=3)
"""


@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
def test_long_gradients_are_shortened(runs, precision):
    """Adam undoes any scale, but not one far below its epsilon: then hardly anything moves."""
    start = small().trainable_weights
    moved = {}
    for name, options in [("still", {"global_clipnorm": 1e-12}), ("moved", {})]:
        after = train(name, precision=precision, **options).trainable_weights
        moved[name] = max(np.abs(np.array(one) - np.array(two)).max() for one, two in zip(start, after, strict=True))
    assert moved["still"] < 1e-6 < 1e-4 < moved["moved"]
    settings = [json.loads((runs / name / "run.json").read_text())["settings"] for name in ("still", "moved")]
    assert [one["global_clipnorm"] for one in settings] == [1e-12, 0]


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
    settings = SETTINGS | {"epochs": 4, "steps_per_epoch": 40, "batch_size": 4, "learning_rate": 3e-3}
    model = training.train(small(), train_frames, train_windows, test_frames, test_windows, name="street", **settings)
    summary = summarize(evaluate({"street": model}, test_frames, test_windows))
    overall = summary[summary.footage == "all windows"].set_index("model").psnr
    assert overall["street"] > overall["nearest"] + 2
    assert overall["street"] > overall["average"] - 0.1


def test_losses_against_hand_computed_values():
    target, predicted = np.zeros((2, 1, 2, 3), np.float32), np.zeros((2, 1, 2, 3), np.float32)
    predicted[1, 0, 0] = 0.6
    assert np.allclose(training.mse(target, predicted), [0, 0.18])
    assert np.allclose(training.charbonnier(target, predicted), [0.001, (np.sqrt(0.36 + 1e-6) + 0.001) / 2], atol=1e-6)
    assert np.allclose(training.psnr_of_batch(target, predicted)[1], 10 * np.log10(1 / 0.18), atol=1e-3)
