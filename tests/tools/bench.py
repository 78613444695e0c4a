"""Measure what the series promises of speed and memory, each beside a baseline in the same run.

python tests/tools/bench.py                    # everything, about fifteen minutes on two cores
python tests/tools/bench.py decode --footage F # one part; F: a folder of 1920x1080 JPEGs instead of a drawn picture
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
from PIL import Image

import vfi_utils as vfi
from definitions import definitions
from stages import ffmpeg, mot17, training
from stages import sample_street as street
from stages.models import gpu_name, load_model, predict_middle


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


def decode(folder: Path, footage: str) -> bool:
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
    print(f"decode, {kind}: full {rates[0]:.0f} frames/s, load_frames {rates[1]:.0f} frames/s")
    print(f"  ratio {np.median(ratios):.1f} (median of 3; promised: 5), agreement {agreement:.1f} dB (promised: 50)")
    return bool(np.median(ratios) >= 5 and agreement >= 50)


MEMORY = """
import resource, sys
sys.path.insert(0, sys.argv[1])
from stages.frames import build_frames
table = build_frames(sys.argv[2])
print(table.groupby("split").windows.sum().to_dict(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


def memory(folder: Path, footage: str) -> bool:
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
    frames = sum(known[1] for known in mot17.MOT17.values())
    print(
        f"memory, {frames} frames of 1920x1080 in {time.perf_counter() - started:.0f} s: windows, peak GiB {last_line}"
    )
    print("  (promised: under 1 GB)")
    return float(last_line.split()[-1]) < 1e9 / 2**30


def feeding(folder: Path, footage: str) -> bool:
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
    place = gpu_name() or "the CPU"
    print(f"feeding, on {place}: {real:.3f} s a step with real batches, {same:.3f} s on one fixed batch")
    print(f"  ratio {real / same:.3f} (promised: at most 1.10)")
    return bool(real / same <= 1.1)


def predicting(folder: Path, footage: str) -> bool:
    """Time to predict one frame at a time: models of the series beside what ffmpeg and OpenCV need, on all cores."""
    import peers

    street.draw_sequence(folder, "street-06", 7)
    shipped = [name for name in ("motion", "dncnn") if (vfi.ASSETS / "models" / f"{name}.keras").exists()]
    predictors = {name: functools.partial(predict_middle, load_model(name)) for name in shipped} | peers.PEERS
    times = {}
    for size, repeats in (((160, 90), 15), ((1280, 720), 3)):
        pictures = [Image.open(file).resize(size, Image.Resampling.BICUBIC) for file in vfi.image_files(folder)]
        neighbours, _ = vfi.split_middle(np.stack(pictures)[None])
        for name, predict in predictors.items():
            seconds = []
            for _ in range(repeats + 1):  # the first compiles
                started = time.perf_counter()
                predict(neighbours)
                seconds.append(time.perf_counter() - started)
            times[name, size] = 1000 * np.median(seconds[1:])
            print(f"predicting, {size[0]}x{size[1]}: {name} {times[name, size]:.0f} ms a frame", flush=True)
    small, large = times[shipped[0], (160, 90)], times[shipped[0], (1280, 720)]
    print(f"  {shipped[0]}: 1280x720 takes {large / small:.0f} times as long as 160x90 (promised: at most 60)")
    print("  at 160x90 fLDRnet takes 82 to 115 ms and EBME 150 to 280 (measured elsewhere, one thread; promised: less)")
    return bool(large / small <= 60 and small < 82)


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
print(ours, planning.read_facts(source.with_name("ffmpeg.mp4"))[0].frames / (time.perf_counter() - started))
"""


def video(folder: Path, footage: str) -> bool:
    """Frames written a second, video doubled, on two cores: a model of the series beside ffmpeg's minterpolate."""
    for size, frames in (((640, 360), 16), ((1280, 720), 8)):
        street_clip(folder / "clip.mp4", size, frames)
        street_clip(folder / "two.mp4", size, 2)
        for name in ("path", "motion"):
            command = [sys.executable, "-c", VIDEO_SPEED, str(vfi.ROOT), str(folder / "clip.mp4"), name]
            last_line = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
            ours, theirs = map(float, last_line.split())
            rates = f"{name} {ours:.2f} frames/s, minterpolate {theirs:.2f} frames/s, ratio {ours / theirs:.2f}"
            print(f"video, {size[0]}x{size[1]}: {rates}", flush=True)
    return True


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


def video_memory(folder: Path, footage: str) -> bool:
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
        ours, theirs = peaks[seconds]
        print(f"video memory, {seconds} s of 1280x720: peak {ours:.0f} MiB, and {theirs:.0f} MiB in ffmpeg", flush=True)
    growth = [long / short - 1 for short, long in zip(peaks[10], peaks[60])]
    print(f"  grows by {100 * growth[0]:.1f}%, and by {100 * growth[1]:.1f}% in ffmpeg (promised: at most 10%)")
    return max(growth) <= 0.1


def main() -> None:
    parts = {
        "decode": decode,
        "memory": memory,
        "feeding": feeding,
        "predicting": predicting,
        "video": video,
        "video_memory": video_memory,
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*parts, []], help="default: all")
    parser.add_argument("--footage", default="", help="a folder of JPEGs for decode")
    parser.add_argument("--draw", default="", help="draw the picture for decode to this path, and nothing else")
    options = parser.parse_args()
    if options.draw:
        street_jpeg(Path(options.draw))
        return
    kept = {}
    for name in options.parts or parts:
        with tempfile.TemporaryDirectory() as folder:
            kept[name] = parts[name](Path(folder), options.footage)
    if not all(kept.values()):
        sys.exit("not as promised: " + ", ".join(name for name, well in kept.items() if not well))


if __name__ == "__main__":
    main()
