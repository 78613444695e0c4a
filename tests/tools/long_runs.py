"""Notebook 06's runs, long enough to answer: work/results/why_NAME_long.csv, a row as soon as a run is measured.

python tests/tools/long_runs.py street --more clips     # hours without a GPU; interrupted, it goes on
python tests/tools/long_runs.py street --steps 15000 --seeds 1 --only direct-6-all direct-2-all
python tests/tools/publish.py why street_long --called "Public street clips"

The networks, crops, rate and optimiser are the notebook's; `minutes` are those of the quickest epoch, times the epochs.
`--more` names footage that joins the windows to learn from in the runs called "twice": other places. Three controls ask
whether the heads differ, or the weights that they begin with, or the loss.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import keras
import pandas as pd

import vfi_utils as vfi
from definitions import definitions
from stages import training
from stages.evaluation import evaluate, summarize
from stages.footage import choose_dataset, dataset_name
from stages.frames import get_frames
from stages.models import predict_middle

STEPS = 5000
SHARES = {"eighth": 1 / 8, "half": 1 / 2, "all": 1}
HEADS = ("direct", "residual")
RUNS = [  # head, frames, data, and what is otherwise than in the notebook; what answers most comes first
    *((head, 6, data, "") for data in ("all", "eighth") for head in HEADS),
    *((head, 2, "all", "") for head in HEADS),
    *((head, 6, "twice", "") for head in HEADS),
    ("direct", 6, "all", "small"),
    ("residual", 6, "all", "he"),
    ("direct", 6, "all", "charbonnier"),
    *((head, 4, "all", "") for head in HEADS),
    *((head, 6, "half", "") for head in HEADS),
]


def build(head: str, frames: int, control: str, seed: int) -> keras.Model:
    """Notebook 06's network; a control has the last layer's first weights of the other head."""
    network = definitions("06_why_it_ghosts.ipynb", "network", "trunk", "move")["network"]
    model = network(head, frames, seed=seed)
    if control in ("small", "he"):
        other = network("residual" if control == "small" else "direct", frames, seed=seed)
        last, donor = (
            [layer for layer in m.layers if isinstance(layer, keras.layers.Conv2D)][-1] for m in (model, other)
        )
        last.set_weights(donor.get_weights())
    return model


def measure(model, learned: tuple, test: tuple) -> dict:
    """The notebook's measures of one model."""
    neighbours, targets = vfi.take_windows(learned[0], vfi.spread(learned[1], 24))
    train = vfi.cap_psnr(vfi.psnr(predict_middle(model, neighbours), targets)).mean()
    scores = summarize(evaluate({"it": model}, *test)).query("footage == 'all windows'").set_index("model").loc["it"]
    return {"train_psnr": train, "test_psnr": scores.psnr} | scores[["psnr_moving", "beats_average"]].to_dict()


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
    if not rows:
        rows = [{"run": "average", "head": "average", "change": "average of the neighbours", "frames": 0, "windows": 0}]
        rows[0] |= {"batch_norm": False, "seed": 0, "parameters": 0, "steps": 0, "minutes": 0.0}
        rows[0] |= measure(vfi.average, (frames, windows), test)
    budget = training.choose_budget(epochs=10, steps_per_epoch=options.steps // 10, learning_rate=1e-3)
    for head, count, data, control in RUNS:
        change = f"{head}-{count}-{data}" + f"-{control}" * bool(control)
        if options.only and change not in options.only:
            continue
        runs = [f"why-{change}-s{seed}-{name}-{options.steps}" for seed in range(options.seeds)]
        change += f"-{options.steps}" * (options.steps != STEPS)
        for seed, run in enumerate(runs):
            if run in {row["run"] for row in rows} or (data == "twice" and not options.more):
                continue
            used = both if data == "twice" else (frames, vfi.spread(windows, round(SHARES[data] * len(windows))))
            how = {"budget": budget, "seed": seed, "tests": 8, "precision": "float32"}
            how["loss"] = "charbonnier" if control == "charbonnier" else "mse"
            model = training.train_on_crops(build(head, count, control, seed), *used, *test, name=run, **how)
            row = {"run": run, "head": head, "change": change, "frames": count, "windows": len(used[1])}
            row |= {"batch_norm": False, "seed": seed, "parameters": model.count_params(), "steps": options.steps}
            seconds = pd.read_csv(vfi.work("runs", run, "history.csv")).seconds
            row |= {
                "minutes": len(seconds) * seconds.min() / 60
            }  # as its quickest epoch: the machine has other work, too
            rows.append(row | measure(model, used, test))
            vfi.write_atomic(target, pd.DataFrame(rows).fillna(0).round(4).to_csv(index=False))
            print(f"{run}: test {rows[-1]['test_psnr']:.2f} dB, the average {rows[0]['test_psnr']:.2f}", flush=True)


if __name__ == "__main__":
    main()
