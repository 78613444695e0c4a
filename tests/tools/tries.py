"""Print the numbers of assets/TRY.md: what comes out of the things to try at each notebook's end, on the sample.

python tests/tools/tries.py          # all; on 2 CPU cores most of the time is 03's
python tests/tools/tries.py 06 07    # those of some notebooks

Models are the shipped ones.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import cv2
import keras
import numpy as np

import vfi_utils as vfi
from definitions import definitions
from stages import interpolation, models, mot17, training
from stages.evaluation import evaluate
from stages.footage import get_footage, list_sequences
from stages.frames import LEFT_OUT, get_frames

VIDEO, ARTICLE = vfi.window_times("video"), vfi.window_times("article")


def shipped(name: str):
    """A model of assets/models, or a baseline."""
    path = vfi.ASSETS / "models" / f"{name}.keras"
    return models.load_model(path if path.exists() else name)


def mean_psnr(truths: np.ndarray, predicted: np.ndarray) -> float:
    """Mean over frames, in dB, none above 60."""
    return float(np.minimum(vfi.psnr(truths, predicted), 60).mean())


def try_01() -> None:
    clips = list_sequences(get_footage("sample"))
    for camera in ("fixed", "moving"):
        clip = clips[clips.camera == camera].iloc[0]
        files = vfi.image_files(clip.folder)
        for apart in (2, 8):
            ends = [vfi.read_frame(files[k]).astype(int) for k in (len(files) // 2, len(files) // 2 + apart)]
            changed = (np.abs(ends[1] - ends[0]).max(axis=-1) > 8).mean()
            print(f"{clip.sequence}, {camera}: {changed:.1%} of the pixels change in {apart} frames")


def try_02() -> None:
    for stride in (4, 1):
        for split in ("train", "test"):
            frames = {k: facts[1] for k, facts in mot17.MOT17.items() if facts[0] == split and k not in LEFT_OUT}
            print(
                f"MOT17, {split}: {len(vfi.build_windows(frames, stride=stride)):,} windows, one every {stride} frames"
            )
    neighbours, truths = vfi.take_windows(*get_frames("sample", "test"))
    for k in range(3):
        outer = vfi.average(neighbours[:, [2 - k, 3 + k]])
        print(f"average of t-{k + 1} and t+{k + 1}: {mean_psnr(truths, outer):.2f} dB")


def try_03() -> None:
    made = definitions("03_define_dncnn.ipynb", "dncnn", "he_normal", "disc_window", "multiply_adds")
    for depth, step, rate in ((15, 3, 1e-3), (5, 3, 1e-3), (15, 6, 1e-3), (15, 3, 1e-2), (15, 3, 1e-1)):
        neighbours, truth = vfi.split_middle(made["disc_window"](step=step)[None])
        inputs, target = vfi.innermost(neighbours, 6), truth.astype(np.float32) / 255
        model = made["dncnn"](depth=depth)
        model.compile(keras.optimizers.Adam(rate), "mse")
        losses = model.fit(inputs, target, epochs=150, verbose=0).history["loss"]
        average = float(np.square(vfi.average(neighbours) / 255 - target).mean())
        below = next((k + 1 for k, loss in enumerate(losses) if loss < average), None)
        what = f"{depth} layers, {step} px a frame, Adam({rate}): {model.count_params():,} parameters"
        print(f"{what}; loss {losses[-1]:.5f}")
        print(f"  the average's {average:.5f}; first below it at step {below}")


def try_04() -> None:
    example = training.Budget(epochs=1, steps_per_epoch=1, batch_size=8, crop=64)
    batches = training.CropBatches(*get_frames("sample", "train"), model_frames=6, budget=example, seed=3)
    for name, top in (("dncnn", 1e-3), ("dncnn_residual", 1e-3), ("dncnn", 1e-1)):
        model = models.load_untrained(name)
        rate = keras.optimizers.schedules.CosineDecay(1e-5, 19, warmup_target=top, warmup_steps=1)
        model.compile(keras.optimizers.Adam(rate), loss="mean_squared_error", metrics=[training.psnr])
        history = model.fit(batches, epochs=2, steps_per_epoch=10, shuffle=False, verbose=0).history
        print(f"{name}, rate {top}: loss {np.round(history['loss'], 3)}, {np.round(history['psnr'], 1)} dB")


def try_05() -> None:
    scores = evaluate({name: shipped(name) for name in ("dncnn", "dncnn_2frames")}, *get_frames("sample", "test"))
    print(scores.groupby("model").psnr.mean().round(2).to_string())


def try_06() -> None:
    y, x = np.mgrid[:360, :760]
    checks = np.repeat(((x // 16 + y // 16) % 2 * 255).astype(np.uint8)[..., None], 3, axis=-1)
    for px in (1, 2, 4):
        large = [checks[:, 60 + round(2 * px * time) :][:, :640] for time in range(-3, 4)]
        window = np.stack([cv2.resize(frame, vfi.FRAME_SIZE, interpolation=cv2.INTER_AREA) for frame in large])
        neighbours, truth = vfi.split_middle(window[None])
        inner = np.s_[:, 10:-10, 30:-30]
        tried = {"average": vfi.average, "path": models.PathPredictor(), "through two": models.PathPredictor(2)}
        tried["all places trusted"] = models.PathPredictor(trusted=np.inf)
        for name, model in tried.items():
            score = mean_psnr(truth[inner], models.predict_middle(model, neighbours)[inner])
            print(f"checks of 16 px, panned by {px} px, {name}: {score:.1f} dB")


def try_07() -> None:
    frames, windows = get_frames("sample", "test", spacing="video")
    neighbours, truths = vfi.take_windows(frames, vfi.spread(windows, 12))
    tried = {f"path through {count}": models.PathPredictor(count) for count in (2, 4, 6)}
    tried |= {"motion": shipped("motion"), "average": vfi.average}
    noise = np.random.default_rng(0).normal(0, 8, neighbours.shape)
    noisy = np.clip(np.rint(neighbours + noise), 0, 255).astype(np.uint8)
    for name, model in tried.items():
        ways = {"": (neighbours, VIDEO), ", told the article's times": (neighbours, ARTICLE), ", noisy": (noisy, VIDEO)}
        for way, (six, times) in ways.items():
            print(f"{name}{way}: {mean_psnr(truths, models.predict_between(model, six, times, 0)):.2f} dB")


def try_08() -> None:
    frames, _ = get_frames("sample", "test")
    frames, times = next(iter(frames.values()))[:12], range(0, 48, 4)
    two, four = (
        list(interpolation.interpolate_shot(shipped("path"), frames, times, range(0, 45, step))) for step in (2, 1)
    )
    print("the frames halfway are the same by factor 2 and 4:", all(map(np.array_equal, two, four[::2])))


def main() -> None:
    tries = {name.removeprefix("try_"): made for name, made in globals().items() if name.startswith("try_")}
    for number in sys.argv[1:] or tries:
        print(f"== {number}", flush=True)
        tries[number]()


if __name__ == "__main__":
    main()
