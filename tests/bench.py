"""Measure what the series promises of speed and memory, each beside a baseline in the same run.

python tests/bench.py                    # everything, about five minutes on two cores
python tests/bench.py decode --footage F # one part; F: a folder of 1920x1080 JPEGs instead of a drawn picture
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from PIL import Image

import vfi_utils as vfi
from definitions import definitions


def street_jpeg(path: Path) -> None:
    """Save a drawn street as a 1920x1080 JPEG with a little grain: 200 to 400 KB, as those of MOT17."""
    street = vfi.footage_source("sample_street")
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
import vfi_utils as vfi
table = vfi.build_frames(sys.argv[2])
print(table.groupby("split").windows.sum().to_dict(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


def memory(folder: Path, footage: str) -> bool:
    """Peak memory of notebook 02's stage for all of MOT17: its 14 sequences, each image a link to one picture."""
    street_jpeg(folder / "picture.jpg")
    for name, (split, frames, *_) in vfi.MOT17.items():
        images = folder / "all" / split / name / "img1"
        images.mkdir(parents=True)
        for number in range(1, frames + 1):
            os.symlink(folder / "picture.jpg", images / f"{number:06d}.jpg")
    environment = {**os.environ, "VFI_WORK": str(folder / "work")}
    started = time.perf_counter()
    command = [sys.executable, "-c", MEMORY, str(vfi.ROOT), str(folder / "all")]
    told = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
    frames = sum(known[1] for known in vfi.MOT17.values())
    print(f"memory, {frames} frames of 1920x1080 in {time.perf_counter() - started:.0f} s: windows, peak GiB {told}")
    print("  (promised: under 1 GB)")
    return float(told.split()[-1]) < 1e9 / 2**30


def feeding(folder: Path, footage: str) -> bool:
    """Time of a training step on real batches over its time on one fixed batch, interleaved."""
    build = definitions("03_define_dncnn.ipynb", "dncnn", "he_normal")["dncnn"]
    random = np.random.default_rng(0)
    frames = {"a": random.integers(0, 256, (400, 90, 160, 3), dtype=np.uint8)}
    np.save(folder / "a.npy", frames["a"])
    frames = {"a": np.load(folder / "a.npy", mmap_mode="r")}
    model = vfi.compile_for_training(build(), "mse", 1e-3, 1000, "float32")
    batches = vfi.crop_batches(frames, vfi.build_windows({"a": 400}), 6, batch_size=8, crop=64, seed=0)
    fixed = next(batches)
    model.train_on_batch(*fixed)
    seconds = {"real": [], "fixed": []}
    for _ in range(30):
        for kind in seconds:
            started = time.perf_counter()
            model.train_on_batch(*(next(batches) if kind == "real" else fixed))
            seconds[kind].append(time.perf_counter() - started)
    real, same = np.median(seconds["real"]), np.median(seconds["fixed"])
    place = vfi.gpu_name() or "the CPU"
    print(f"feeding, on {place}: {real:.3f} s a step with real batches, {same:.3f} s on one fixed batch")
    print(f"  ratio {real / same:.3f} (promised: at most 1.10)")
    return bool(real / same <= 1.1)


def main() -> None:
    parts = {"decode": decode, "memory": memory, "feeding": feeding}
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
