"""Measure what the series costs in time and memory, each beside a baseline in the same run: assets/bench.csv.

python tests/tools/bench.py                    # everything, about fifteen minutes on two cores
python tests/tools/bench.py decode --footage F # one part; F: a folder of 1920x1080 JPEGs instead of a drawn picture

Read a row as: "what" took "value", and "baseline" took "baseline_value" in the same run; "ratio" is the first over the
second, for rates and for times alike. Numbers of two runs, or of two machines, are not to be compared: ratios are.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import os
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import pandas as pd
from PIL import Image

import publish
import vfi_utils as vfi
from definitions import definitions
from stages import blending, evidence, ffmpeg, mot17, motion, training
from stages import sample_street as street
from stages.models import ask, gpu_name, inside, load_model, predict_middle, refine


def row(
    what: str, value: float, unit: str, baseline: str = "", baseline_value: float = float("nan"), **promise
) -> dict:
    """A row of the table, which is printed, too; `promise` is the promise in words, and whether it is kept."""
    ratio = value / baseline_value
    beside = f"; {baseline} {baseline_value:.3g} {unit}, ratio {ratio:.2f}" if baseline else ""
    print(
        f"{what}: {value:.3g} {unit}{beside}" + (f" (promised: {promise['promised']})" if promise else ""), flush=True
    )
    made = {"what": what, "value": value, "unit": unit, "baseline": baseline, "baseline_value": baseline_value}
    return made | {"ratio": ratio, "promised": promise.get("promised", ""), "kept": promise.get("kept", True)}


def street_jpeg(path: Path) -> None:
    """Save a drawn street as a 1920x1080 JPEG with a little grain: 200 to 400 KB, as those of MOT17."""
    with tempfile.TemporaryDirectory() as folder:
        street.draw_sequence(Path(folder), next(iter(street.SEQUENCES)), 1)
        picture = Image.open(next(Path(folder).glob("img1/*.jpg"))).resize((1920, 1080), Image.Resampling.LANCZOS)
    grain = np.random.default_rng(0).normal(0, 1, (1080, 1920, 3))
    Image.fromarray(np.clip(np.asarray(picture) + grain, 0, 255).astype(np.uint8)).save(path, quality=92)


def full_decode(path: Path) -> np.ndarray:
    """The baseline: decode every pixel, then average areas."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB").resize(vfi.FRAME_SIZE, Image.Resampling.BOX))


def decode(folder: Path, footage: str) -> list[dict]:
    """Frames a second of `load_frames` beside a full decode and box filter in one thread; their agreement."""
    if footage:
        files = sorted(Path(footage).expanduser().rglob("*.jpg"))[:120]
    else:
        files = [folder / "000001.jpg"]
        # In a process of its own: its large arrays would change how this one gets memory, and with it the baseline.
        subprocess.run([sys.executable, __file__, "--draw", str(files[0])], check=True)
    together = folder / "together"
    together.mkdir()
    for number in range(120):
        os.symlink(files[number % len(files)].resolve(), together / f"{number:06d}.jpg")
    ratios = []
    for _ in range(3):
        started = time.perf_counter()
        slow = [full_decode(path) for path in sorted(together.iterdir())[:30]]
        middle = time.perf_counter()
        fast = vfi.load_frames(together)
        ratios.append((len(fast) / (time.perf_counter() - middle)) / (len(slow) / (middle - started)))
    rates = len(slow) / (middle - started), ratios[-1] * len(slow) / (middle - started)
    agreement = vfi.psnr(fast[:30], np.stack(slow)).min()
    kind = f"{len(files)} files of {footage}" if footage else "a drawn 1920x1080 JPEG"
    what = f"decode, {kind}"
    return [
        row(what, rates[1], "frames/s", "every pixel decoded", rates[0])
        | {"ratio": np.median(ratios), "promised": "5, median of 3", "kept": np.median(ratios) >= 5},
        row(f"{what}, agreement", agreement, "dB", promised="50", kept=agreement >= 50),
    ]


MEMORY = """
import re, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from stages.frames import build_frames
table = build_frames(sys.argv[2])
# Not resource's ru_maxrss: that begins with what the process had that started this one.
peak = int(re.search("VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 2**20
print(table.groupby("split").windows.sum().to_dict(), peak)
"""


def memory(folder: Path, footage: str) -> list[dict]:
    """Peak memory of notebook 02's stage for all of MOT17: its 14 sequences, each image a link to one picture."""
    street_jpeg(folder / "picture.jpg")
    for name, (split, frames, *_) in mot17.MOT17.items():
        images = folder / "all" / split / name / "img1"
        images.mkdir(parents=True)
        for number in range(1, frames + 1):
            os.symlink(folder / "picture.jpg", images / f"{number:06d}.jpg")
    environment = {**os.environ, "VFI_WORK": str(folder / "work")}
    started = time.perf_counter()
    command = [sys.executable, "-c", MEMORY, str(vfi.ROOT), str(folder / "all")]
    last_line = subprocess.run(
        command, env=environment, check=True, capture_output=True, text=True
    ).stdout.splitlines()[-1]
    frames, peak = sum(known[1] for known in mot17.MOT17.values()), float(last_line.split()[-1])
    what = f"memory, {frames} frames of 1920x1080 shrunken in {time.perf_counter() - started:.0f} s"
    return [row(what, peak, "GiB", promised="below 1 GB", kept=peak < 1e9 / 2**30)]


def feeding(folder: Path, footage: str) -> list[dict]:
    """Time of a step of `fit` on real batches over its time on one fixed batch, interleaved."""
    build = definitions("03_define_dncnn.ipynb", "dncnn", "he_normal")["dncnn"]
    random = np.random.default_rng(0)
    frames = {"a": random.integers(0, 256, (400, 90, 160, 3), dtype=np.uint8)}
    np.save(folder / "a.npy", frames["a"])
    frames = {"a": np.load(folder / "a.npy", mmap_mode="r")}
    model = training.compile_for_training(build(), "mse", 1e-3, 1000, "float32")
    budget = training.Budget(epochs=1, steps_per_epoch=20, batch_size=8, crop=64)
    batches = training.CropBatches(frames, vfi.build_windows({"a": 400}), 6, budget)
    fixed = batches[0]

    class Fixed(training.CropBatches):
        def __getitem__(self, k):
            return fixed

    data = {"real": batches, "fixed": Fixed(frames, vfi.build_windows({"a": 400}), 6, budget)}
    model.fit(data["fixed"], steps_per_epoch=2, shuffle=False, verbose=0)
    seconds = {"real": [], "fixed": []}
    for _ in range(5):
        for kind in seconds:
            started = time.perf_counter()
            model.fit(data[kind], steps_per_epoch=20, shuffle=False, verbose=0)
            seconds[kind].append((time.perf_counter() - started) / 20)
    real, same = np.median(seconds["real"]), np.median(seconds["fixed"])
    what = f"training step with real batches, on {gpu_name() or 'the CPU'}"
    kept = bool(real / same <= 1.1)
    return [row(what, real, "s", "one fixed batch", same, promised="at most 1.10", kept=kept)]


def predicting(folder: Path, footage: str) -> list[dict]:
    """Time to predict one frame at a time: models of the series beside what ffmpeg and OpenCV need, on all cores."""
    import peers

    street.draw_sequence(folder, "street-06", 7)
    shipped = ("path", "motion", "dncnn")
    predictors = {name: functools.partial(predict_middle, load_model(name)) for name in shipped} | peers.PEERS
    rows = []
    for size, repeats in (((160, 90), 15), ((640, 360), 5), ((1280, 720), 3), ((1920, 1080), 2)):
        pictures = [Image.open(file).resize(size, Image.Resampling.BICUBIC) for file in vfi.image_files(folder)]
        neighbours, _ = vfi.split_middle(np.stack(pictures)[None])
        times = {}
        for name, predict in predictors.items():
            if name == "dncnn" and size[0] > 640:
                continue  # half a minute a frame
            seconds = []
            for _ in range(repeats + 1):  # the first compiles
                started = time.perf_counter()
                predict(neighbours)
                seconds.append(time.perf_counter() - started)
            times[name] = 1000 * np.median(seconds[1:])
        baseline = "OpenCV dense inverse search"
        for name, milliseconds in times.items():
            what = f"a frame of {size[0]}x{size[1]}, {name}"
            rows.append(row(what, milliseconds, "ms", baseline, times[baseline]))
    return rows


def parts_of_a_frame(folder: Path, footage: str) -> list[dict]:
    """Time of each part of `path` and `motion` for one frame of a video, beside the whole of `path`, on all cores."""
    street.draw_sequence(folder, "street-06", 6)
    model, rows = load_model("motion"), []
    for size in ((320, 180), (640, 360), (1280, 720), (3840, 2160)):
        taken = time_parts(model, vfi.load_frames(folder, size))
        whole = sum(part for what, part in taken.items() if what.startswith("path"))
        rows += [row(f"{size[0]}x{size[1]}, {what}", ms, "ms", "all of path", whole) for what, ms in taken.items()]
    return rows


def time_parts(model, frames: np.ndarray) -> dict[str, float]:
    """Milliseconds of each part, median of five, for the middle of six frames, uint8 `[6, H, W, 3]`."""
    times, network = vfi.window_times("video"), inside(model, "answer")
    grids = {"path": motion.GRID, "motion": model.grid}
    flows = {name: motion.find_flows(frames, grid) for name, grid in grids.items()}
    paths = {name: motion.follow(found, times, 0) for name, found in flows.items()}
    pictures, weights = evidence.gather(frames, paths["motion"])
    seen = [part[None] for part in evidence.look(frames, paths["motion"], pictures, weights)]
    answer = ask(model, frames, paths["motion"], pictures, weights)
    known = blending.fetch_pictures(frames, paths["path"])

    def milliseconds(step, *arguments) -> float:
        seconds = []
        for _ in range(6):
            started = time.perf_counter()
            step(*arguments)
            seconds.append(time.perf_counter() - started)
        return 1000 * np.median(seconds[1:])

    taken = {}
    for name, grid in grids.items():
        taken[f"{name}, find (two flows)"] = milliseconds(motion.find_flows, frames[1:4], grid) / 2
        taken[f"{name}, follow"] = milliseconds(motion.follow, flows[name], times, 0)
    taken |= {
        "path, fetch and weigh": milliseconds(blending.fetch_pictures, frames, paths["path"]),
        "path, blend": milliseconds(blending.blend, *known),
        "motion, look": milliseconds(evidence.look, frames, paths["motion"], pictures, weights),
        "motion, network": milliseconds(network.predict_on_batch, seen),
        "motion, compose": milliseconds(evidence.compose, pictures, weights, answer),
    }
    if frames[0, ..., 0].size <= evidence.REFINED:
        refined = milliseconds(refine, model, frames, paths["motion"], pictures, weights, answer)
        taken["motion, refine"] = refined - taken["motion, compose"]
    more = milliseconds(evidence.gather, frames, paths["motion"]) - taken["path, fetch and weigh"]
    return taken | {"motion, six pictures more": more}


def street_clip(path: Path, size: tuple[int, int], frames: int, rate: int = 24) -> None:
    """Write a drawn street, enlarged to `size` (width, height) px, as a video; it goes back and forth if it is long."""
    with tempfile.TemporaryDirectory() as folder:
        street.draw_sequence(Path(folder), "street-06", min(frames, 24))
        drawn = [Image.open(file).resize(size, Image.Resampling.LANCZOS) for file in vfi.image_files(Path(folder))]
    there_and_back = itertools.cycle([*drawn, *drawn[-2:0:-1]])
    played = (np.asarray(next(there_and_back)) for _ in range(frames))
    ffmpeg.write_frames(path, played, Fraction(rate), [*ffmpeg.H264, "-preset", "veryfast"])


VIDEO_SPEED = """
import os, sys, time
from pathlib import Path
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
sys.path.insert(0, sys.argv[1])
from stages import ffmpeg, planning, video
source, name = Path(sys.argv[2]), sys.argv[3]
video.interpolate_video(source.with_name("two.mp4"), source.with_name("compiled.mp4"), model=name, overwrite=True)
started = time.perf_counter()
made = video.interpolate_video(source, source.with_name("ours.mp4"), model=name, overwrite=True)
ours, started = made.frames / (time.perf_counter() - started), time.perf_counter()
even = f"minterpolate=fps={made.rate}:mi_mode=mci:mc_mode=aobmc:vsbmc=1"
with ffmpeg.run("-i", source, "-vf", even, *ffmpeg.H264, source.with_name("ffmpeg.mp4")):
    pass
seconds = time.perf_counter() - started
print(ours, planning.read_facts(source.with_name("ffmpeg.mp4"))[0].frames / seconds)
"""


def video(folder: Path, footage: str) -> list[dict]:
    """Frames written a second, video doubled, on two cores: a model of the series beside ffmpeg's minterpolate."""
    rows = []
    for size, frames in (((640, 360), 96), ((1280, 720), 36)):
        street_clip(folder / "clip.mp4", size, frames)
        street_clip(folder / "two.mp4", size, 2)
        for name in ("path", "motion"):
            command = [sys.executable, "-c", VIDEO_SPEED, str(vfi.ROOT), str(folder / "clip.mp4"), name]
            last_line = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
            ours, theirs = map(float, last_line.split())
            what = f"a video of {size[0]}x{size[1]} doubled, {name}"
            rows.append(row(what, ours, "frames/s", "ffmpeg minterpolate", theirs))
    return rows


VIDEO_MEMORY = """
import os, re, sys, threading, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from stages import video
peaks = {}  # MiB, of this process and of each ffmpeg that it starts
def watch():
    while True:
        for status in Path("/proc").glob("[0-9]*/status"):
            try:
                found = dict(re.findall(r"(?m)^(Pid|PPid|VmHWM):\\s+(\\d+)", status.read_text()))
            except OSError:
                continue  # it has ended
            if str(os.getpid()) in (found["Pid"], found["PPid"]) and "VmHWM" in found:
                peaks[found["Pid"]] = int(found["VmHWM"]) / 2**10
        time.sleep(0.1)
threading.Thread(target=watch, daemon=True).start()
video.interpolate_video(*sys.argv[2:4], model=sys.argv[4])
time.sleep(0.3)
print(peaks.pop(str(os.getpid())), max(peaks.values()))
"""


def video_memory(folder: Path, footage: str) -> list[dict]:
    """Peak memory for 10 and for 60 seconds of 1280x720, with a network of one layer: minutes instead of hours."""
    import keras

    inputs = keras.Input((None, None, 18), dtype="uint8")
    outputs = keras.layers.Conv2D(3, 3, padding="same")(keras.layers.Rescaling(1 / 255)(inputs))
    keras.Model(inputs, outputs).save(folder / "small.keras")
    peaks = {}
    for seconds in (10, 60):
        source, target = folder / f"{seconds}.mp4", folder / f"{seconds}-doubled.mp4"
        street_clip(source, (1280, 720), 24 * seconds)
        files = [str(path) for path in (source, target, folder / "small.keras")]
        command = [sys.executable, "-c", VIDEO_MEMORY, str(vfi.ROOT), *files]
        last_line = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
        peaks[seconds] = list(map(float, last_line.split()))
    rows = []
    for place, who in enumerate(("ours", "ffmpeg's")):
        short, long = peaks[10][place], peaks[60][place]
        what = f"memory, 60 s of 1280x720 doubled, {who}"
        promise = {"promised": "at most 1.10", "kept": long / short <= 1.1}
        rows.append(row(what, long, "MiB", "10 s", short, **promise))
    return rows


PARTS = {
    "decode": decode,
    "memory": memory,
    "feeding": feeding,
    "predicting": predicting,
    "parts": parts_of_a_frame,
    "video": video,
    "video_memory": video_memory,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="default: all")
    parser.add_argument("--footage", default="", help="a folder of JPEGs for decode")
    parser.add_argument("--draw", default="", help="draw the picture for decode to this path, and nothing else")
    options = parser.parse_args()
    if options.draw:
        street_jpeg(Path(options.draw))
        return
    rows = []
    for name in options.parts or PARTS:
        with tempfile.TemporaryDirectory() as folder:
            made = PARTS[name](Path(folder), options.footage)
        facts = {"machine": f"{os.cpu_count()} cores, {gpu_name() or 'no GPU'}", "date": time.strftime("%Y-%m-%d")}
        rows += [{"part": name} | line | facts | {"commit": publish.commit()} for line in made]
    target = vfi.ASSETS / "bench.csv"
    table = pd.DataFrame(rows)
    if target.exists():  # parts that were not measured now stay
        before = pd.read_csv(target)
        table = pd.concat([before[~before.part.isin(table.part)], table])
    table["part"] = pd.Categorical(table.part, list(PARTS))
    table = table.sort_values("part", kind="stable")
    vfi.write_atomic(target, table.to_csv(index=False, float_format="%.4g"))
    print(f"\n{table.drop(columns=['machine', 'date', 'commit']).to_string(index=False)}\n{vfi.display_path(target)}")
    if broken := [line["what"] for line in rows if not line["kept"]]:
        sys.exit("not as promised: " + "; ".join(broken))


if __name__ == "__main__":
    main()
