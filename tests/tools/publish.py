"""Put what the notebooks made where the README and GitHub show it; no number is typed by hand.

python tests/tools/publish.py WHAT ..., where WHAT is one of

figures                            work/figures/ -> assets/figures/
results NAME --called "a footage"  work/results/summary_NAME.csv -> assets/results_NAME.csv
why NAME --called "a footage"      work/results/why_NAME.csv -> assets/results_why_NAME.csv
train dncnn ...                    trains them all alike on VFI_DATASET, to work/runs/
train motion                       trains it on VFI_DATASET at its own size, to work/runs/
further dncnn ...                  trains the shipped ones further: work/runs/dncnn-further/
refine motion                      trains what refines small frames of the shipped one: work/runs/motion-refined/
models dncnn ... --called "..."    work/runs/dncnn -> assets/models/dncnn.{keras,csv,md}
readme                             assets/results_*.csv -> the tables in README.md and assets/RESULTS.md

Publish models under the oldest supported Keras (tests/colab-oldest.txt): a newer one reads what an older one
wrote, and not the other way round.
"""

from __future__ import annotations

import argparse
import functools
import json
import re
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import pandas as pd

import vfi_utils as vfi
from definitions import network, refine
from stages import evidence, motion, path_crops, training
from stages.footage import choose_dataset, dataset_name, get_footage, list_sequences
from stages.frames import get_frames
from stages.models import BASELINES, gpu_name, load_model

ROOT = vfi.ROOT
BUDGET = ("epochs", "steps_per_epoch", "batch_size", "crop", "learning_rate", "temporal_padding", "global_clipnorm")
FURTHER, REFINED = "-further", "-refined"
COMMANDS = {"": "train", FURTHER: "further", REFINED: "refine"}  # by the end of a run's name
FIRST = "the first of them"
SPACING = "the article's: neighbours at -3, -2, -1, 1, 2, 3 (or the inner of them); a video's steps are even"
SPACINGS = (
    "half at a video's own, a quarter at the article's, the rest at thirds, quarters and wider; 6, 4 and 2 frames"
)
FOR_MOTION = {"epochs": 20, "steps_per_epoch": 250, "batch_size": 6, "crop": 80, "learning_rate": 5e-4}
FOR_MOTION |= {"global_clipnorm": 1.0}
ALIKE = {"temporal_padding": 0.1, "global_clipnorm": 0.1}  # what all DnCNNs are trained with
FOR_A_GPU = {"epochs": 200, "steps_per_epoch": 250, "batch_size": 16, "crop": 80}


@functools.cache  # called first by `main`, before anything that is published changes the tree
def commit() -> str:
    """Return the commit of the working tree, marked if it has changes."""
    for digits in range(8, 41):  # more than eight if a reader of tables would take these for a number
        command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", f"--abbrev={digits}", "--exclude=*"]
        name = subprocess.run(command, capture_output=True, text=True).stdout.strip()
        if not re.fullmatch(r"\d+(e\d+)?", name):
            break
    return name or "unknown"


def publish_figures() -> None:
    """Copy the figures of the last run."""
    for figure in sorted(vfi.work("figures").glob("*.*")):
        vfi.write_atomic(ROOT / "assets" / "figures" / figure.name, figure.read_bytes())
        print("assets/figures/" + figure.name)


def write_results(name: str, table: pd.DataFrame, called: str) -> None:
    """Write a tool's table, with what it was measured on, when, and at which commit."""
    facts = {"data": called or dataset_name(choose_dataset()), "date": time.strftime("%Y-%m-%d"), "commit": commit()}
    vfi.write_atomic(ROOT / "assets" / f"results_{name}.csv", table.assign(**facts).to_csv(index=False))
    print(f"assets/results_{name}.csv")


def measure_clips(name: str, about: str, measure, by: list[str], **facts) -> None:
    """Run a tool that measures each test clip of VFI_DATASET, and write its table.

    Args:
        name: of the table.
        about: of the tool, for `--help`.
        measure: a function of a clip (a row of `list_sequences`) that returns rows, each a dict.
        by: the columns that say what was measured; of the others the means are kept.
        facts: columns that are the same in every row.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--called", default="", help="what the footage is, in words")
    options, rows = parser.parse_args(), []
    commit()
    for clip in list_sequences(get_footage()).query("split == 'test'").itertuples():
        rows += measure(clip)
        print(f"measured {clip.sequence}", flush=True)
    means = pd.DataFrame(rows).groupby(by, sort=False, as_index=False).mean().round(4)
    write_results(name, means.assign(**facts), options.called)


def publish_results(name: str, called: str) -> None:
    """Copy a summary, with what it was measured on, when, at which commit, and how long its models trained where."""
    table = pd.read_csv(vfi.work("results", f"summary_{name}.csv"))
    facts = {}
    for model in table.model.unique():
        path, card = vfi.work("runs", model, "run.json"), ROOT / "assets" / "models" / f"{model}.md"
        facts[model] = {"steps": 0, "minutes": 0.0, "machine": ""}
        if path.exists():
            run = json.loads(path.read_text())
            steps = run["settings"]["epochs"] * run["settings"]["steps_per_epoch"]
            facts[model] = {"steps": steps, "minutes": round(run["seconds"] / 60, 1), "machine": run["machine"]}
        elif card.exists():  # the shipped one was measured
            history, machine = pd.read_csv(card.with_suffix(".csv")), re.search(r"machine \| ([^;]*)", card.read_text())
            minutes = round(history.seconds.sum() / 60, 1)
            facts[model] = {"steps": int(history.step.iloc[-1]), "minutes": minutes, "machine": machine[1]}
    for fact in ("steps", "minutes", "machine"):
        table[fact] = [facts[model][fact] for model in table.model]
    table.insert(0, "data", called)
    table["date"], table["commit"] = time.strftime("%Y-%m-%d"), commit()
    measures = {"mse": 6, "psnr": 3, "ssim": 4, "detail": 3, "psnr_moving": 3, "colour_error": 2, "beats_average": 3}
    vfi.write_atomic(ROOT / "assets" / f"results_{name}.csv", table.round(measures).to_csv(index=False))
    print(f"assets/results_{name}.csv")


def publish_why(name: str, called: str) -> None:
    """Copy what notebook 06 measured, with what it was measured on, when, and at which commit."""
    write_results(f"why_{name}", pd.read_csv(vfi.work("results", f"why_{name}.csv")), called)


def why_table(path: Path) -> str:
    """Return the log of notebook 06's runs: a line a change, means over the seeds."""
    table = pd.read_csv(path)
    titles = "head-frames-windows, seeds, steps, parameters, minutes, train, test, lowest to highest, where it moves"
    long = "open_channels" in table  # measured in the long runs alone
    titles += ", open channels" * long
    rows = [f"| {titles.replace(', ', ' | ')} |", "|---|" + "---:|" * titles.count(",")]
    for change, part in table.groupby("change", sort=False):
        mean, test = part.mean(numeric_only=True), part.test_psnr
        cells = [change, *((f"{len(part)}", f"{mean.steps:,.0f}") if mean.steps else ("-", "-"))]
        cells += [f"{mean.parameters:,.0f}", f"{mean.minutes:.1f}", f"{mean.train_psnr:.2f}", f"{mean.test_psnr:.2f}"]
        cells += [f"{test.min():.2f} to {test.max():.2f}" if len(test) > 1 else "-", f"{mean.psnr_moving:.2f}"]
        if long:
            cells.append(", ".join(map(str, part.open_channels)) if mean.steps else "-")
        rows.append(f"| {' | '.join(cells)} |")
    first = table.iloc[0]
    by = "[notebook 06](notebooks/06_why_it_ghosts.ipynb)"
    if long:
        by = "[long_runs.py](../tests/tools/long_runs.py), with that notebook's networks (full: 03's); open: above 0"
        by += " anywhere, of the last ReLU's 32 channels (full: 72), in each seed"
    caption = (
        f"*{first.data}: PSNR in dB, means over the seeds; bn is batch normalisation. "
        f"Measured {first.date} at commit {first.commit} by {by}.*"
    )
    return "\n".join([*rows, "", caption])


def close_windows(frames: dict[str, np.ndarray]) -> pd.DataFrame:
    """What the series' DnCNNs learn from: a window at every frame, and at every second one of every second frame."""
    lengths = {sequence: len(images) for sequence, images in frames.items()}
    near = vfi.build_windows(lengths, stride=1).assign(step=1)
    return pd.concat([near, vfi.build_windows(lengths, stride=2, step=2)], ignore_index=True)


def begin(name: str, end: str = ""):
    """A network to be trained, and what its run is called.

    Args:
        name: of the network.
        end: of the run's name: "" begins anew. `FURTHER` and `REFINED` begin with the shipped weights, and `before.csv`
            and `before.md` in the run's folder are the curves and the card of the model that it begins with.

    Raises:
        ValueError: if what weighs shall be trained further, and is refined already: it cannot change under that.
    """
    model, run = network(name), name + end
    if end:
        shipped = ROOT / "assets" / "models" / name
        weights = load_model(shipped.with_suffix(".keras")).get_weights()
        if end == REFINED:
            model = refine(model)
        elif len(weights) > len(model.weights):
            raise ValueError(f"{shipped.name}.keras is refined. Begin with train, publish it, and refine it last.")
        model.set_weights([*weights, *model.get_weights()[len(weights) :]])
        if not vfi.work("runs", run, "history.csv").exists():
            for kind in (".csv", ".md"):
                vfi.write_atomic(vfi.work("runs", run, "before" + kind), shipped.with_suffix(kind).read_bytes())
    return model, run


def train_model(name: str, end: str = "", **budget) -> None:
    """Train a network of the series as notebook 07 trains its own; all of them on the same windows, equally long.

    Args:
        end: see `begin`; warm-up and cosine are new.
        budget: of `training.Budget`, and loss, seed and precision; those left out suit this machine.
    """
    frames, _ = get_frames("", "train")
    test_frames, test_windows = get_frames("", "test")
    windows = close_windows(frames)
    how = {key: budget.pop(key) for key in ("loss", "seed", "precision") if key in budget}
    budget = training.choose_budget(**(FOR_A_GPU if gpu_name() else {}) | ALIKE | budget)
    model, run = begin(name, end)
    training.train_on_crops(model, frames, windows, test_frames, test_windows, name=run, budget=budget, **how)


def train_motion(end: str = "", windows: int = 2000, seed: int = 0, loss: str = "log_error", **budget) -> None:
    """Train notebook 07's network on the clips of VFI_DATASET as they are, not shrunk; the curve is of the test clips.

    What refines is trained on clips that are shrunk to `evidence.REFINED`, and so is its curve.

    Args:
        end: see `begin`.
        windows: two crops of each are learned from.
        loss: one of `training.LOSSES`.
        seed: of windows, crops, and their order.
        budget: of `training.Budget`, and precision.
    """
    clips, largest = list_sequences(get_footage()), evidence.REFINED if end == REFINED else path_crops.LARGEST
    shrink = np.maximum(1, (clips.width * clips.height / largest) ** 0.5)
    clips["shrink"] = np.where((clips.split == "test") & (end == REFINED), shrink, 1)
    train, test = (
        {
            clip.sequence: vfi.load_frames(clip.folder, (int(clip.width / clip.shrink), int(clip.height / clip.shrink)))
            for clip in clips[clips.split == split].itertuples()
        }
        for split in ("train", "test")
    )
    lengths = {name: len(frames) for name, frames in test.items()}
    chosen = [vfi.spread(vfi.build_windows({name: n}, spacing="video"), 1) for name, n in lengths.items()]
    validation, average = path_crops.test_on(test, pd.concat(chosen), len(chosen))
    precision = budget.pop("precision", "")
    budget = training.choose_budget(**FOR_MOTION | budget)
    files = path_crops.get_crops(train, dataset_name(choose_dataset()), windows, budget.crop, seed, largest)
    model, run = begin("motion", end)
    training.train(
        model,
        path_crops.PathBatches(files, budget.batch_size, seed),
        validation,
        name=run,
        budget=budget,
        loss=loss,
        identity={"data": files[0].parent.name, "windows": windows, "seed": seed},
        precision=precision,
        average_psnr=average,
    )


def card_facts(card: Path) -> dict[str, str]:
    """Return the table of a model's card: {"steps": "3,200 of 8 crops of 64x64 px", ...}."""
    return dict(re.findall(r"^\| (.+?) \| (.+) \|$", card.read_text(), flags=re.MULTILINE))


def publish_model(run_name: str, called: str) -> None:
    """Save a finished run's weights in a model of this Keras, copy its curves, and write the card beside them.

    Of a run that trained a model further (`dncnn-further`), the curves begin where that model's own training began.
    """
    source, target = vfi.work("runs", run_name), ROOT / "assets" / "models"
    end = next(end for end in (FURTHER, REFINED, "") if run_name.endswith(end))
    name = run_name.removesuffix(end)
    run = json.loads((source / "run.json").read_text())
    if not run["finished"]:
        raise ValueError(f"{source} has not finished: run notebook {'07' if name == 'motion' else '04'}.")
    history = pd.read_csv(source / "history.csv", float_precision="round_trip")
    if end:
        facts = card_facts(source / "before.md")
        before = pd.read_csv(source / "before.csv", float_precision="round_trip")
        history[["epoch", "step"]] += before[["epoch", "step"]].iloc[-1]
        history = pd.concat([before, history], ignore_index=True)
        data = "on the same" if facts["trained on"] == called else facts["trained on"]
        first = f"{facts['steps']}; {data}; commit {facts['published at commit']}"
        first += f"; of these the first {facts[FIRST]}" if FIRST in facts else ""
    target.mkdir(parents=True, exist_ok=True)
    model, weighs = network(name), name == "motion"
    model = refine(model) if end == REFINED else model
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(source / "model.keras") as archive:
        model.load_weights(archive.extract("model.weights.h5", folder))
    model.save(target / f"{name}.keras")
    vfi.write_atomic(target / f"{name}.csv", history.to_csv(index=False))
    settings, last = run["settings"], history.iloc[-1]
    padded = settings.get("temporal_padding", 0)
    precision = run.get("precision") or settings["precision"]  # a run of version 1 has it among its settings
    budget = {name: settings[name] for name in BUDGET if name in settings}
    if weighs or end:
        budget |= {"precision": precision, "loss": settings["loss"], "seed": settings["seed"]}
        budget |= {"windows": settings["windows"]} if weighs else {}
        clips = "a folder with `train` and `test` clips" if weighs else "a folder of clips"
        began = " and the model that it began with in `assets/models`" if end else ""
        command = f"{COMMANDS[end]} {name} --budget '{json.dumps(budget)}'"
        again = [f"with `VFI_DATASET` set to {clips}{began},", "", f"    python tests/tools/publish.py {command}"]
    else:
        again = ["in notebook 04 set `DATASET` to a folder of clips and, before training,", ""]
        again.append(f"    budget = training.Budget({', '.join(f'{key}={value}' for key, value in budget.items())})")
    most = "twice" if end == REFINED else "four times"  # copies are so much smaller
    grids = f"`path` uses {motion.GRID:,}; of two frames alone both use {motion.PAIR:,}"
    card = [
        f"# {name}",
        "",
        "| | |",
        "|---|---|",
        f"| trained on | {called} |",
        f"| steps | {int(last.step):,} of {settings['batch_size']} crops of {settings['crop']}x{settings['crop']} px"
        + f"{f' on the copy that it looks at, up to {most} as much of the frames' * weighs} |",
        *([f"| {FIRST} | {first} |"] if end else []),
        *([f"| the others | what refines alone, on frames of at most {evidence.REFINED:,} px |"] * (end == REFINED)),
        f"| spacing | {SPACINGS if weighs else SPACING} |",
        *([f"| motion is found on | copies of at most {model.grid:,} px; {grids} |"] * weighs),
        f"| loss | {settings['loss']}{end and '; before: ' + facts['loss']} |",
        f"| rate | {settings['learning_rate']}, warm-up and cosine{end and '; before: ' + facts['rate']} |",
        f"| precision while training | {precision}; stored as float32 |",
        *([f"| windows with frames missing at their ends | {padded:.0%} |"] * (not weighs)),
        f"| longest gradient | {settings.get('global_clipnorm') or 'any'} |",
        f"| parameters | {model.count_params():,} |",
        f"| seed | {settings['seed']} |",
        f"| minutes | {history.seconds.sum() / 60:.0f} |",
        f"| machine | {run['machine']}; Keras {run['keras']} |",
        f"| last epoch | train {last.psnr:.2f} dB on crops, test {last.test_psnr:.2f} dB on whole frames |",
        f"| published at commit | {commit()} |",
        f"| scores | [results](../results_street.csv), curves in [{name}.csv]({name}.csv) |",
        "| licence | the code's is MIT; the clips' own vary, not all are stated, and no clip is in the repository |",
        "",
        f"The weights are those of the last epoch{'' if weighs else '; nothing was chosen by a test window'}.",
        *([run["note"]] if "note" in run else []),
        "To train it again:",
        *again,
        "",
        "All models of the series, alike and longer, on a GPU: `make train` (CONTRIBUTING.md).",
        "",
    ]
    vfi.write_atomic(target / f"{name}.md", "\n".join(card))
    print(f"assets/models/{name}.keras, .csv, .md")


def results_of_peers(folder: Path, table: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Return what `make peers` measured on the footage of `table`, in rows like its own, and what to tell of it."""
    path = folder / "results_peers.csv"
    peers = pd.read_csv(path) if path.exists() else table[:0]
    peers = peers[(peers.data == table.data.iloc[0]) & ~peers.model.isin(BASELINES)]
    if peers.empty:
        return peers, ""
    first = peers.iloc[0]
    return peers, f"{' and '.join(peers.model.unique())}: `make peers`, {first.date}, commit {first.commit}."


def results_elsewhere(folder: Path, table: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Return what was measured elsewhere on the footage of `table`, in rows like its own, and what to tell of it.

    The mean over all windows is made from those of the sequences. SSIM is left out: another program took it.
    """
    path = folder / "results_elsewhere.csv"
    windows = table[table.model == "average"].set_index("footage").windows
    rows = []
    for model, part in pd.read_csv(path).groupby("model", sort=False) if path.exists() else ():
        if model in BASELINES or not set(part.sequence) <= set(windows.index):
            continue
        part = part.rename(columns={"sequence": "footage"})[["footage", "psnr", "psnr_moving", "beats_average"]]
        means = part.set_index("footage").apply(np.average, weights=windows[part.footage])
        part = pd.concat([part, means.to_frame().T.assign(footage="all windows")])
        rows.append(part.assign(model=f"{model}, measured elsewhere", steps=0))
    if not rows:
        return table[:0], ""
    return pd.concat(rows), (
        "Measured elsewhere: not by this repository, but on the same windows, shrunken alike, with one thread; "
        "[how, and their SSIM](assets/results_elsewhere.csv), which another program took."
    )


def results_table(path: Path) -> str:
    """Return the README's table for one file of results, with those of others on the same footage; the best first."""
    table = pd.read_csv(path).query("spacing == 'article'")
    sequences = [name for name in table.footage.unique() if not name.endswith((" cameras", " windows"))]
    others = [results_of_peers(path.parent, table), results_elsewhere(path.parent, table)]
    everyone = pd.concat([table, *(rows for rows, _ in others if len(rows))])
    psnr = everyone.pivot(index="model", columns="footage", values="psnr")
    ranked = everyone[everyone.footage == "all windows"].set_index("model").sort_values("psnr", ascending=False)
    overall = table[table.footage == "all windows"].set_index("model")
    head = ["", *sequences, "all", "SSIM", "PSNR where it moves", "beats the average in"]
    rows = [" | ".join(["", *head, ""]).strip(), "|".join(["", "---", *["---:"] * (len(head) - 1), ""])]
    for model, row in ranked.iterrows():
        cells = [f"{psnr.loc[model, name]:.2f}" for name in [*sequences, "all windows"]]
        share = "-" if model == "average" else f"{100 * row.beats_average:.0f}%"
        ssim = "-" if np.isnan(row.ssim) else f"{row.ssim:.3f}"
        rows.append(" | ".join(["", model, *cells, ssim, f"{row.psnr_moving:.2f}", share, ""]).strip())
    trained = overall[overall.steps > 0]
    how = "; ".join(f"{model} {row.steps:,.0f} steps, {row.minutes:.0f} minutes" for model, row in trained.iterrows())
    verdicts = []
    for model in trained.index:
        gain = overall.psnr[model] - overall.psnr["average"]
        shares = table[table.model == model].set_index("footage").beats_average
        kinds = [kind for kind in ("fixed cameras", "moving cameras") if kind in shares]
        kinds = [f"{100 * shares[kind]:.0f}% with {kind}" for kind in kinds]
        verdicts.append(
            f"- `{model}` {'beats' if gain > 0 else 'loses to'} the average by {abs(gain):.2f} dB; it is better in "
            f"{100 * shares['all windows']:.0f}% of the windows ({' and '.join(kinds)}). "
            f"The mean colour of its frames is off by {overall.colour_error[model]:.1f} levels of 255."
        )
    first = overall.iloc[0]
    caption = f"*{first.data}: {first.windows:.0f} windows, PSNR in dB. Measured {first.date} at commit {first.commit}."
    if how:
        caption += f" Trained on {trained.machine.iloc[0]}: {how}."
    caption = " ".join([caption, *(words for _, words in others if words)])
    return "\n".join([*rows, "", caption + "*", "", *verdicts])


def interval(differences: np.ndarray, draws: int = 10_000) -> str:
    """Mean of differences, one a clip, and the 95% interval of that mean when clips are drawn anew (bootstrap)."""
    drawn = np.random.default_rng(0).choice(differences, (draws, len(differences))).mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return f"{differences.mean():+.2f} ({low:+.2f} to {high:+.2f})"


def spacing_table(path: Path) -> str:
    """Table of what was measured at both spacings, means over clips, the best at a video's own spacing first."""
    table = pd.read_csv(path)
    clips = table[~table.footage.str.endswith((" cameras", " windows"))]
    means = clips.groupby(["model", "spacing"])[["psnr", "ssim", "detail", "beats_average"]].mean().unstack()
    own = clips[clips.spacing == "video"].pivot(index="footage", columns="model", values="psnr")
    columns = ["a video's spacing", "SSIM", "detail", "against path, 95% of clips", "beats the average in"]
    rows = [f"| | {' | '.join(columns)} | the article's spacing |", "|---|" + "---:|" * 6]
    for model, row in means.sort_values(("psnr", "video"), ascending=False).iterrows():
        share = "-" if model == "average" else f"{100 * row[('beats_average', 'video')]:.0f}%"
        against = "-" if model == "path" else interval((own[model] - own.path).to_numpy())
        digits = {"psnr": 2, "ssim": 3, "detail": 2}
        cells = [f"{row[(measure, 'video')]:.{count}f}" for measure, count in digits.items()]
        cells += [against, share]
        rows.append(" | ".join(["", model, *cells, f"{row[('psnr', 'article')]:.2f}", ""]).strip())
    first, windows = clips.iloc[0], clips[(clips.model == "average") & (clips.spacing == "video")].windows.sum()
    caption = (
        f"*{first.data}: {clips.footage.nunique()} clips, {windows} windows, PSNR in dB, means over clips of means "
        f"over windows; in brackets what 95% of the means lie in when the clips are drawn anew. Measured {first.date} "
        f"at commit {first.commit}.*"
    )
    return "\n".join([*rows, "", caption])


def clips_table(path: Path) -> str:
    """Table of PSNR at a video's own spacing, a line a clip."""
    table = pd.read_csv(path).query("spacing == 'video'")
    psnr = table[~table.footage.str.endswith((" cameras", " windows"))].pivot(
        index="footage", columns="model", values="psnr"
    )
    psnr = psnr[psnr.mean().sort_values(ascending=False).index]
    rows = ["| | " + " | ".join(psnr.columns) + " |", "|---|" + "---:|" * len(psnr.columns)]
    for clip, row in [*psnr.iterrows(), ("mean", psnr.mean())]:
        rows.append(" | ".join(["", clip, *(f"{value:.2f}" for value in row), ""]).strip())
    return "\n".join(rows)


def moments_table(path: Path) -> str:
    """Table of PSNR at moments between two known frames: means over the clips, a line a predictor."""
    table = pd.read_csv(path)
    psnr = table.pivot_table(index="model", columns=["factor", "moment"], values="psnr").sort_values((4, "1/4"))[::-1]
    rows = ["| | " + " | ".join(f"{moment}, frames x {factor}" for factor, moment in psnr.columns) + " |"]
    rows.append("|---|" + "---:|" * len(psnr.columns))
    for name, row in psnr.iterrows():
        rows.append(" | ".join(["", name, *("-" if np.isnan(value) else f"{value:.2f}" for value in row), ""]).strip())
    first = table.iloc[0]
    caption = (
        f"*{first.data}: PSNR in dB, means over {table.footage.nunique()} clips of means over all their frames. "
        f"Measured {first.date} at commit {first.commit}.*"
    )
    return "\n".join([*rows, "", caption])


def caption_of_clips(table: pd.DataFrame) -> str:
    """What stands under a table that `measure_clips` wrote."""
    first = table.iloc[0]
    return (
        f"*{first.data}: PSNR in dB at a video's own spacing, means over {table.footage.nunique()} clips of "
        f"{first.windows} windows. Measured {first.date} at commit {first.commit}.*"
    )


def hindsight_table(path: Path) -> str:
    """Table of PSNR when what the camera did is put right afterwards: means over clips, a line for each path."""
    table = pd.read_csv(path)
    means = table.groupby("model", sort=False).mean(numeric_only=True).drop(columns="windows")
    rows = [f"| | {' | '.join(means.columns)} |", "|---|" + "---:|" * len(means.columns)]
    rows += [f"| {name} | {' | '.join(f'{value:.2f}' for value in row)} |" for name, row in means.iterrows()]
    return "\n".join([*rows, "", caption_of_clips(table)])


def ablation_table(path: Path) -> str:
    """Table of `motion` changed where it answers: means over clips at a video's own spacing, PSNR elsewhere."""
    table = pd.read_csv(path)
    means = table.groupby(["spacing", "model"], sort=False).mean(numeric_only=True)
    own, *others = (means.loc[where] for where in table.spacing.unique())
    rows = ["| | PSNR | SSIM | detail | PSNR, the article's spacing | PSNR, half the size |", "|---|" + "---:|" * 5]
    for name, row in own.iterrows():
        elsewhere = " | ".join(f"{other.psnr[name]:.2f}" for other in others)
        rows.append(f"| {name} | {row.psnr:.2f} | {row.ssim:.3f} | {row.detail:.2f} | {elsewhere} |")
    return "\n".join([*rows, "", caption_of_clips(table)])


def pairs_table(path: Path) -> str:
    """Table of what was measured on pairs of frames, a part for each benchmark, the least error first."""
    table = pd.read_csv(path).sort_values(["benchmark", "error"])
    columns = ["error, levels", "PSNR", "against path, 95% of pairs"]
    rows = [f"| | | {' | '.join(columns)} |", "|---|---|" + "---:|" * len(columns)]
    for row in table.itertuples():
        against = "-" if row.model == "path" else row.against_path
        where = f"{row.benchmark}, {row.pairs} pairs"
        rows.append(f"| {where} | {row.model} | {row.error:.2f} | {row.psnr:.2f} | {against} |")
    first = table.iloc[0]
    return "\n".join([*rows, "", f"*{first.data}, two frames alone. Measured {first.date} at commit {first.commit}.*"])


TABLES = {
    "pairs": pairs_table,
    "ablation": ablation_table,
    "hindsight": hindsight_table,
    "moments": moments_table,
    "why": why_table,
    "spacing": spacing_table,
    "clips": clips_table,
    "results": results_table,
}


def publish_readme(path: Path = ROOT / "README.md") -> None:
    """Fill in the tables between `<!-- KIND: results_NAME.csv -->` and `<!-- end -->`, KIND being one of `TABLES`."""
    text, inside = path.read_text(encoding="utf-8"), path.parent.name == "assets"

    def fill(found: re.Match) -> str:
        table = TABLES[found[2]](ROOT / "assets" / found[3])
        if inside:  # links are from there
            table = table.replace("](assets/", "](").replace("](notebooks/", "](../notebooks/")
        return f"{found[1]}\n{table}\n\n{found[4]}"

    pattern = r"(<!-- (\w+): (results_\w+\.csv) -->\n).*?(<!-- end -->)"
    vfi.write_atomic(path, re.sub(pattern, fill, text, flags=re.DOTALL))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["figures", "results", "why", *COMMANDS.values(), "models", "readme"])
    parser.add_argument("names", nargs="*", help="of data sets or of runs")
    parser.add_argument("--called", default="", help="what the footage is, in words")
    parser.add_argument("--budget", type=json.loads, default={}, help="of training, as on a model's card")
    options = parser.parse_args()
    if options.what == COMMANDS[REFINED] and options.names != ["motion"]:
        parser.error(f"refine motion is all there is to refine, not {' '.join(options.names) or 'nothing'}")
    commit()
    if options.what == "figures":
        publish_figures()
    elif options.what == "readme":
        publish_readme()
        publish_readme(ROOT / "assets" / "RESULTS.md")
    for name in options.names:
        if end := [end for end, command in COMMANDS.items() if command == options.what]:
            (train_motion if name == "motion" else functools.partial(train_model, name))(*end, **options.budget)
        else:
            publish = {"results": publish_results, "why": publish_why, "models": publish_model}
            publish[options.what](name, options.called)


if __name__ == "__main__":
    main()
