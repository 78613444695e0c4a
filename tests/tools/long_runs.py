"""Notebook 06's runs, long enough to answer: work/results/why_NAME_long.csv, a row as soon as a run is measured.

python tests/tools/long_runs.py street --more clips     # hours without a GPU; interrupted, it goes on
python tests/tools/long_runs.py street --steps 15000 --seeds 1 --only direct-6-all direct-2-all
python tests/tools/long_runs.py street --steps 1500 --seeds 2 --only direct-6-every-full residual-6-every-full
python tests/tools/long_runs.py street --steps 15700 --seeds 1 --only residual-6-every-moved-full
python tests/tools/publish.py why street_long --called "Public street clips"

The networks, crops, rate and optimiser are the notebook's; `minutes` are those of the quickest epoch, times the epochs.
`--more` names footage that joins the windows to learn from in the runs called "twice": other places. Three controls ask
whether the heads differ, or the weights that they begin with, or the loss. A "leaky" ReLU lets a tenth of what is below
0 through, so none can die. In "moved", `path` moves the six frames to the middle before the network sees them, and the
network adds to what `path` predicts. "full" is the series' own DnCNN in the place of the notebook's small one, trained
as the shipped ones are, on "every" window that they learned from, but in one go; in "every-moved" it sees the six moved
frames alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import keras
import numpy as np
import pandas as pd

import vfi_utils as vfi
from definitions import definitions, network
from publish import ALIKE, close_windows
from stages import blending, motion, training
from stages.evaluation import evaluate, summarize
from stages.footage import choose_dataset, dataset_name
from stages.frames import get_frames
from stages.models import BASELINES, frames_of, predict_float, predict_middle

STEPS = 5000
SHARES = {"eighth": 1 / 8, "half": 1 / 2, "all": 1}
HEADS = ("direct", "residual")
RUNS = [  # head, frames, data, and what is otherwise than in the notebook; what answers most comes first
    *((head, 6, data, "") for data in ("all", "eighth") for head in HEADS),
    *((head, 2, "all", "") for head in HEADS),
    ("residual", 6, "moved", ""),
    *((head, 6, "twice", "") for head in HEADS),
    ("direct", 6, "all", "small"),
    ("residual", 6, "all", "he"),
    ("direct", 6, "all", "charbonnier"),
    *((head, 4, "all", "") for head in HEADS),
    *((head, 6, "half", "") for head in HEADS),
    ("residual", 6, "all", "leaky"),
    ("direct", 6, "every", "full-small"),
    *((head, 6, "every", "full") for head in HEADS),
    ("residual", 6, "every-moved", "full"),
]
SLOWER = 2e-4  # rate of "every-moved": at that of all others, 1e-3, all channels of its last ReLU closed
ZERO = ("frames", "windows", "seed", "parameters", "steps", "minutes", "open_channels")  # of what is no run
FULL = {"direct": "dncnn", "residual": "dncnn_residual"}
INSTEAD_OF = {  # controls, each with what it differs from in one thing: notebook 06 compares them
    **{f"{head}-6-twice": f"{head}-6-all" for head in HEADS},
    "direct-6-all-small": "direct-6-all",
    "residual-6-all-he": "residual-6-all",
    "direct-6-all-charbonnier": "direct-6-all",
    "residual-6-moved": "path",
    "residual-6-all-leaky-15000": "residual-6-all-15000",
    "residual-6-every-full-1500": "direct-6-every-full-1500",
    "direct-6-every-full-small-1500": "direct-6-every-full-1500",
    "residual-6-every-moved-full-15700": "path",
}


def build(head: str, frames: int, control: str, seed: int) -> keras.Model:
    """Notebook 06's network, or 03's; a control has the last layer's first weights of the other head."""
    of_06 = definitions("06_why_it_ghosts.ipynb", "network", "trunk", "move")["network"]

    def make(head: str, frames: int = frames) -> keras.Model:
        return network(FULL[head], seed, frames=frames) if "full" in control else of_06(head, frames, seed=seed)

    if frames == 8 and "full" in control:  # what `move` makes
        return add_to_path(make(head, 6))
    model = make(head)
    if control.endswith(("small", "he")):
        other = make("residual" if control.endswith("small") else "direct")
        last, donor = (
            [layer for layer in m.layers if isinstance(layer, keras.layers.Conv2D)][-1] for m in (model, other)
        )
        last.set_weights(donor.get_weights())
    if control == "leaky":
        weights = model.get_weights()
        model = keras.models.clone_model(model, clone_function=leak)
        model.set_weights(weights)
    return model


def add_to_path(model: keras.Model) -> keras.Model:
    """A DnCNN of six frames, 18 channels: the moved ones of `move`. It adds to `path`, which it does not see."""
    frames = keras.Input((None, None, 24), dtype="uint8", name="moved")
    pictures = keras.ops.split(keras.layers.Rescaling(1 / 255)(frames), 8, axis=-1)
    x = keras.layers.Concatenate()(pictures[:3] + pictures[5:])
    for layer in model.layers:
        if isinstance(layer, (keras.layers.Conv2D, keras.layers.BatchNormalization, keras.layers.ReLU)):
            x = layer(x)
    return keras.Model(frames, keras.layers.Add()([pictures[3], x]), name="adds_to_path")


def leak(layer: keras.layers.Layer) -> keras.layers.Layer:
    """The layer anew; one that lets a tenth of what is below 0 through, in the place of a ReLU."""
    relu = isinstance(layer, keras.layers.ReLU)
    return keras.layers.LeakyReLU(0.1) if relu else layer.from_config(layer.get_config())


def move(neighbours: np.ndarray) -> np.ndarray:
    """Six frames whose pixels are where they are at the middle, and what `path` predicts, twice, in their midst.

    uint8 `[B, 6, H, W, 3]` -> uint8 `[B, 8, H, W, 3]`. The average of the inner two, to which `residual` adds, is then
    `path`.
    """
    moved = []
    for window in neighbours:
        flows = motion.find_flows(window)
        paths = motion.follow(flows, vfi.window_times(), 0)
        six = [motion.fetch(frame, paths.shift_to(slot // 3, slot)) for slot, frame in enumerate(window)]
        moved.append([*six[:3], *[blending.predict_along(window, paths)] * 2, *six[3:]])
    return np.array(moved)


def move_all(frames: dict, windows: pd.DataFrame) -> tuple[dict, pd.DataFrame]:
    """Windows of nine frames, each a sequence of its own: `move`, with the true frame in the middle."""

    def around(row) -> np.ndarray:
        neighbours, truth = vfi.split_middle(vfi.window_of(frames, row)[None])
        moved = move(neighbours)[0]
        return np.stack([*moved[:4], truth[0], *moved[4:]])

    with motion.workers() as pool:
        made = {f"{number:04}": moved for number, moved in enumerate(pool.map(around, windows.itertuples()))}
    return made, vfi.build_windows(dict.fromkeys(made, 9), window=9)


def predict_moved(model, neighbours: np.ndarray) -> np.ndarray:
    """Middle frames, uint8 `[B, H, W, 3]`, of a network that sees what `move` makes."""
    return vfi.to_uint8(predict_float(model, move(neighbours)))


def open_channels(model, frames: dict, windows: pd.DataFrame) -> int:
    """How many channels of the last ReLU are ever above 0 in 24 of the windows; one that never is learns no more."""
    neighbours, _ = vfi.take_windows(frames, vfi.spread(windows, 24))
    last = [layer.output for layer in model.layers if layer.__class__.__name__.endswith("ReLU")][-1]
    given = keras.Model(model.input, last).predict(vfi.innermost(neighbours, frames_of(model)), batch_size=4, verbose=0)
    return int((given.max(axis=(0, 1, 2)) > 0).sum())


def measure(model, learned: tuple, test: tuple) -> dict:
    """The notebook's measures of one model."""
    neighbours, targets = vfi.take_windows(learned[0], vfi.spread(learned[1], 24))
    train = vfi.cap_psnr(vfi.psnr(predict_middle(model, neighbours), targets)).mean()
    scores = summarize(evaluate({"it": model}, *test)).query("footage == 'all windows'").set_index("model").loc["it"]
    return {"train_psnr": train, "test_psnr": scores.psnr} | scores[["psnr_moving", "beats_average"]].to_dict()


def keep(rows: list[dict], target: Path) -> None:
    """Write the table; a change that is compared with another one's runs names it."""
    table = pd.DataFrame(rows).drop(columns="instead_of", errors="ignore").fillna(0).round(4)
    vfi.write_atomic(target, table.assign(instead_of=table.change.map(INSTEAD_OF)).to_csv(index=False))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="as in the notebook")
    parser.add_argument("--more", default="", help='more footage for the runs called "twice"')
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+", default=[], help='of the runs, such as "direct-6-all": all, if none')
    options = parser.parse_args()
    name = dataset_name(choose_dataset(options.dataset))
    frames, windows = get_frames(options.dataset, "train")
    test_frames, test_windows = get_frames(options.dataset, "test")
    parts = [vfi.spread(part, 24) for _, part in test_windows.groupby("sequence", sort=False)]
    test = test_frames, pd.concat(parts, ignore_index=True)
    both = frames, windows
    if options.more:
        more_frames, more_windows = get_frames(options.more, "train")
        both = {**more_frames, **frames}, pd.concat([windows, more_windows], ignore_index=True)
    target = vfi.work("results", f"why_{name}_long.csv")
    rows = pd.read_csv(target).to_dict("records") if target.exists() else []
    for head, baseline in {"average": vfi.average, "path": BASELINES["path"]}.items():
        if not any(row["head"] == head for row in rows):
            row = {"run": head, "head": head, "change": f"{head} of the neighbours" if head == "average" else head}
            row |= dict.fromkeys(ZERO, 0) | {"batch_norm": False}
            rows.append(row | measure(baseline, (frames, windows), test))
    budget = training.choose_budget(epochs=10, steps_per_epoch=options.steps // 10, learning_rate=1e-3)
    for head, count, data, control in RUNS:
        moves = data.endswith("moved")
        change = f"{head}-{count}-{data}" + f"-{control}" * bool(control)
        runs = {f"why-{change}-s{seed}-{name}-{options.steps}": seed for seed in range(options.seeds)}
        missing = {run: seed for run, seed in runs.items() if run not in {row["run"] for row in rows}}
        if not missing or options.only and change not in options.only or data == "twice" and not options.more:
            continue
        used = both if data == "twice" else (frames, vfi.spread(windows, round(SHARES.get(data, 1) * len(windows))))
        used = (frames, close_windows(frames)) if data.startswith("every") else used
        full = (
            {"budget": dataclasses.replace(budget, batch_size=8, crop=64, **ALIKE), "precision": "mixed_bfloat16"}
            if "full" in control
            else {}
        )
        seen = (*move_all(*used), *move_all(*test)) if moves else (*used, *test)
        for run, seed in missing.items():
            how = {"budget": budget, "seed": seed, "tests": 8, "precision": "float32"}
            how |= {"loss": "charbonnier" if control == "charbonnier" else "mse"} | full
            if data == "every-moved":
                how["budget"] = dataclasses.replace(how["budget"], learning_rate=SLOWER)
            network = build(head, 8 if moves else count, control, seed)
            model = training.train_on_crops(network, *seen, name=run, **how)
            steps = f"-{options.steps}" * (options.steps != STEPS)
            row = {"run": run, "head": head, "change": change + steps, "frames": count, "windows": len(used[1])}
            row |= {"batch_norm": bool(full), "seed": seed, "parameters": model.count_params(), "steps": options.steps}
            seconds = pd.read_csv(vfi.work("runs", run, "history.csv")).seconds
            row["minutes"] = len(seconds) * seconds.min() / 60  # the machine has other work, too
            row["open_channels"] = open_channels(model, *seen[2:])
            whole = functools.partial(predict_moved, model) if moves else model
            rows.append(row | measure(whole, used, test))
            keep(rows, target)
            print(f"{run}: test {rows[-1]['test_psnr']:.2f} dB", flush=True)
    keep(rows, target)


if __name__ == "__main__":
    main()
