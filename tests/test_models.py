"""The networks of notebook 03, models found and loaded, and what they draw, under TensorFlow and under JAX."""

import os
import subprocess
import sys

import numpy as np
import pytest

import vfi_utils as vfi
from definitions import WITHOUT_TENSORFLOW, definitions
from stages.models import load_model, load_untrained, predict_middle

RANDOM = np.random.default_rng(0)


@pytest.fixture(scope="module")
def dncnn():
    return definitions("03_define_dncnn.ipynb", "dncnn", "he_normal")["dncnn"]


def windows_of(count=2, neighbours=6, height=21, width=34):
    return RANDOM.integers(0, 256, (count, neighbours, height, width, 3), dtype=np.uint8)


def test_the_article_form(dncnn):
    model = dncnn()
    assert model.count_params() == 623_955
    assert sum(int(np.prod(w.shape)) for w in model.trainable_weights) == 622_083
    convolutions = [layer for layer in model.layers if layer.__class__.__name__ == "Conv2D"]
    assert [layer.use_bias for layer in convolutions] == [True] + 13 * [False] + [True]
    assert {layer.kernel_size for layer in convolutions} == {(3, 3)}
    predicted = model.predict_on_batch(np.zeros((1, 21, 34, 18), np.uint8))
    assert predicted.shape == (1, 21, 34, 3) and predicted.dtype == np.float32


def test_residual_starts_at_the_average(dncnn):
    neighbours = windows_of()
    predicted = predict_middle(dncnn(residual=True, depth=4, width=8), neighbours)
    assert np.abs(predicted.astype(int) - vfi.average(neighbours)).max() <= 1  # .5 is rounded to even by one of the two


def test_same_seed_same_weights(dncnn):
    first, second = dncnn(depth=4, width=8), dncnn(depth=4, width=8)
    assert all(np.array_equal(a, b) for a, b in zip(first.get_weights(), second.get_weights(), strict=True))
    third = type(first).from_config(first.get_config())
    assert all(np.array_equal(a, b) for a, b in zip(first.get_weights(), third.get_weights(), strict=True))


def test_receptive_field(dncnn):
    """Changing a pixel 4 px away changes the output of a network of depth 4, one 5 px away does not."""
    model = dncnn(depth=4, width=8)
    base = windows_of(1, height=21, width=21)
    for distance, changes in [(4, True), (5, False)]:
        other = base.copy()
        other[:, :, 10, 10 + distance] ^= 128
        predicted = [model.predict_on_batch(vfi.innermost(w, 6))[0, 10, 10] for w in (base, other)]
        assert (np.abs(predicted[0] - predicted[1]).max() > 0) == changes


def test_frames_go_in_in_time_order_without_the_middle():
    window = np.stack([np.full((1, 4, 5, 3), value, np.uint8) for value in range(7)], axis=1)
    neighbours, middle = vfi.split_middle(window)
    assert middle[0, 0, 0, 0] == 3
    assert vfi.innermost(neighbours, 6)[0, 0, 0, ::3].tolist() == [0, 1, 2, 4, 5, 6]
    assert vfi.innermost(neighbours, 2)[0, 0, 0, ::3].tolist() == [2, 4]
    assert vfi.average(neighbours)[0, 0, 0, 0] == 3 and vfi.nearest(neighbours)[0, 0, 0, 0] == 2


def test_a_model_of_fewer_frames_takes_its_innermost(dncnn):
    model, neighbours = dncnn(frames=2, depth=3, width=8), windows_of()
    predicted = predict_middle(model, neighbours)
    assert predicted.shape == (2, 21, 34, 3) and predicted.dtype == np.uint8
    assert np.array_equal(predicted, predict_middle(model, neighbours[:, 2:4]))
    assert not np.array_equal(predicted, predict_middle(model, neighbours[:, 3:5]))


def test_batches_do_not_change_what_is_predicted(dncnn):
    model, neighbours = dncnn(depth=3, width=8), windows_of(5)
    one_by_one = predict_middle(model, neighbours, batch_size=1)
    difference = predict_middle(model, neighbours, batch_size=3).astype(int) - one_by_one
    assert np.abs(difference).max() <= 1


def test_bad_neighbours_are_refused(dncnn):
    model = dncnn(depth=3, width=8)
    with pytest.raises(ValueError, match="takes 6 frames"):
        predict_middle(model, windows_of(neighbours=4))
    with pytest.raises(ValueError, match="must be uint8"):
        predict_middle(model, windows_of() / 255)
    with pytest.raises(ValueError, match="must be uint8"):
        predict_middle(model, windows_of()[0])


def test_predictions_are_rounded_and_clipped(dncnn):
    import keras

    neighbours = keras.Input((None, None, 18), dtype="uint8")
    scaled = keras.layers.Rescaling(1 / 255)(neighbours)
    for value, expected in [(1.7, 255), (-0.3, 0), (100.6 / 255, 101)]:
        constant = keras.initializers.Constant(value)
        layer = keras.layers.Conv2D(3, 1, kernel_initializer="zeros", bias_initializer=constant)
        predicted = predict_middle(keras.Model(neighbours, layer(scaled)), windows_of())
        assert np.unique(predicted).tolist() == [expected]


def test_models_are_found_in_order(dncnn, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("VFI_WORK", str(tmp_path / "work"))
    monkeypatch.setattr(vfi, "ASSETS", tmp_path / "assets")
    with pytest.raises(FileNotFoundError, match="Run notebook 04"):
        load_model("small")
    with pytest.raises(FileNotFoundError, match="Run notebook 03"):
        load_untrained("small")
    shipped = dncnn(depth=3, width=4, name="small")
    shipped.set_weights([weight + 1 for weight in shipped.get_weights()])
    (tmp_path / "assets" / "models").mkdir(parents=True)
    shipped.save(tmp_path / "assets" / "models" / "small.keras")
    assert np.array_equal(load_model("small").get_weights()[0], shipped.get_weights()[0])
    fresh = dncnn(depth=3, width=4, name="small")
    assert np.array_equal(load_untrained("small").get_weights()[0], fresh.get_weights()[0]), "trained weights kept"

    mine = dncnn(depth=3, width=5, name="small")
    for folder in (vfi.work("models"), vfi.work("runs", "small")):
        folder.mkdir(parents=True)
    mine.save(vfi.work("models", "small.keras"))
    mine.save(vfi.work("runs", "small", "model.keras"))
    assert load_untrained("small").count_params() == mine.count_params()
    assert load_model("small").count_params() == mine.count_params()
    assert load_model(tmp_path / "assets" / "models" / "small.keras").count_params() == shipped.count_params()
    assert "small: work/runs/small/model.keras" in capsys.readouterr().out.replace(os.sep, "/")


@pytest.mark.parametrize("path", sorted(vfi.ASSETS.glob("models/*.keras")), ids=lambda path: path.stem)
def test_shipped_models_load_and_beat_showing_a_frame_again(path):
    model = load_model(path.stem)
    side = np.linspace(0, 6 * np.pi, 64)
    picture = lambda time: np.uint8(127 + 60 * np.sin(side[:, None] + 0.1 * time) * np.cos(side - 0.2 * time))  # noqa: E731
    window = np.stack([np.repeat(picture(time)[..., None], 3, axis=-1) for time in range(-3, 4)])[None]
    neighbours, targets = vfi.split_middle(window)
    predicted = predict_middle(model, neighbours)
    assert vfi.psnr(predicted, targets)[0] > vfi.psnr(vfi.nearest(neighbours), targets)[0]
    assert path.stat().st_size < 10e6 and path.with_suffix(".csv").exists() and path.with_suffix(".md").exists()


KNOWN = {  # what each predicted from one window of noise when it was made: the frame's mean colour, and a pixel
    "dncnn": ([128.6, 123.34, 132.0], [147, 148, 162]),
    "dncnn_2frames": ([130.63, 129.53, 139.31], [136, 143, 154]),
    "dncnn_residual": ([126.59, 127.25, 128.5], [221, 151, 174]),
}


@pytest.mark.parametrize("name", KNOWN)
def test_shipped_models_predict_what_they_predicted(name):
    window = np.random.default_rng(0).integers(0, 256, (1, 6, 45, 80, 3), dtype=np.uint8)
    predicted = predict_middle(load_model(vfi.ASSETS / "models" / f"{name}.keras"), window)[0]
    colour, pixel = KNOWN[name]
    assert np.abs(predicted.mean(axis=(0, 1)) - colour).max() < 0.02
    assert np.abs(predicted[20, 40].astype(int) - pixel).max() <= 1


def test_the_shipped_motion_weighs_as_it_weighed():
    random = np.random.default_rng(0)
    pictures = random.integers(0, 256, (1, 48, 80, 39), dtype=np.uint8)
    rule, described = np.full((1, 48, 80, 11), 0.1, np.float32), random.normal(size=(1, 24, 40, 39)).astype(np.float32)
    model = load_model(vfi.ASSETS / "models" / "motion.keras")
    middle = 255 * model.predict_on_batch([pictures, rule, described])[0]
    assert np.abs(middle.mean(axis=(0, 1)) - [126.94, 127.49, 127.20]).max() < 0.02
    assert np.abs(middle[20, 40] - [91.5, 129.6, 155.6]).max() < 0.2


def test_importing_the_module_is_cheap():
    """Notebook 01 starts in a second because nothing heavy is imported at module level."""
    heavy = ("tensorflow", "keras", "jax", "matplotlib", "imageio", "gdown", "fsspec", "stages")
    code = f"import sys, vfi_utils; print(*[name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=vfi.ROOT, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("name", ["yours", "named.keras"])
def test_a_model_that_is_not_finite_is_never_offered(name, tmp_path, monkeypatch):
    monkeypatch.setenv("VFI_WORK", str(tmp_path))
    model = load_model(vfi.ASSETS / "models" / "dncnn_2frames.keras")
    first = model.get_weights()
    model.set_weights([np.full_like(first[0], np.nan), *first[1:]])
    path = vfi.work("runs", "yours", "model.keras") if name == "yours" else tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    model.save(path)
    with pytest.raises(ValueError, match="weights that are not finite.*smaller learning rate"):
        load_model(name if name == "yours" else path)


def test_the_classic_needs_no_keras():
    code = """
import sys
import numpy as np
from stages import models, video
frames = np.zeros((1, 4, 48, 64, 3), np.uint8)
for name in ("path", "average"):
    models.predict_between(models.load_model(name), frames, [0, 1, 2, 3], 1.5)
print(sorted({"keras", "tensorflow", "jax"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=vfi.ROOT, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]" and done.stderr == ""


UNDER_JAX = """
import numpy as np, keras
sys.path.insert(0, sys.argv[1])
from stages.models import load_model
assert keras.backend.backend() == "jax"
np.save(sys.argv[4], load_model(sys.argv[2]).predict_on_batch(np.load(sys.argv[3])))
"""


@pytest.mark.parametrize("residual", [False, True])
def test_tensorflow_and_jax_predict_the_same(dncnn, tmp_path, residual):
    pytest.importorskip("jax")
    model = dncnn(residual=residual, depth=6, width=16)
    model.set_weights([weight + RANDOM.normal(0, 0.02, weight.shape) for weight in model.get_weights()])
    model.save(tmp_path / "a.keras")
    inputs = vfi.innermost(windows_of(), 6)
    np.save(tmp_path / "in.npy", inputs)
    arguments = [
        sys.executable,
        "-c",
        WITHOUT_TENSORFLOW + UNDER_JAX,
        vfi.ROOT,
        tmp_path / "a.keras",
        tmp_path / "in.npy",
        tmp_path / "out.npy",
    ]
    subprocess.run(list(map(str, arguments)), env={**os.environ, "KERAS_BACKEND": "jax"}, check=True)
    assert np.abs(np.load(tmp_path / "out.npy") - model.predict_on_batch(inputs)).max() < 1e-5
