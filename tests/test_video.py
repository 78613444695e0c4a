"""Interpolating a video: what comes out, at its ends, beside cuts and in tiles; interruptions and bad input."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from fractions import Fraction

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

import vfi_utils as vfi
from conftest import ROOT, clean_environment
from stages import ffmpeg, video
from stages.models import frame_predictor, load_model, predict_float, predict_middle
from stages.tiles import join_tiles, receptive_radius, split_tiles, tile_starts

ODD = (97, 55)  # px


def drawn(frames: int = 12, size: tuple = (96, 54), seed: int = 0) -> list[np.ndarray]:
    """Draw a camera that moves over a smooth random picture, 2 px a frame."""
    picture = np.random.default_rng(seed).integers(0, 256, (7, 40, 3), dtype=np.uint8)
    picture = np.asarray(Image.fromarray(picture).resize((6 * size[0], size[1]), Image.Resampling.BICUBIC))
    return [picture[:, 2 * t : 2 * t + size[0]] for t in range(frames)]


def convert(*arguments) -> None:
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *map(str, arguments)], check=True)


def write(path, frames=None, rate=25, sound: str = "", **options):
    """Write a video that the tests interpolate, with a beep in the codec `sound`, if any; return its path."""
    encoder = ffmpeg.H264 if path.suffix in (".mp4", ".mov", ".mkv") else ffmpeg.ENCODERS[path.suffix]
    silent = path.with_name("silent.mp4") if sound or path.suffix in (".gif", ".webm") else path
    frames = drawn() if frames is None else frames
    ffmpeg.write_frames(silent, frames, Fraction(rate), encoder, **options)
    seconds = len(frames) / Fraction(rate)
    beep = ["-f", "lavfi", "-i", f"sine=d={float(seconds)}", "-map", 0, "-map", 1, "-c:a", sound] if sound else []
    if silent != path:
        palette = ["-lavfi", "split[a][b];[a]palettegen[c];[b][c]paletteuse"]
        convert("-i", silent, *beep, *(palette if path.suffix == ".gif" else ["-c:v", "copy"]), path)
    return path


def sound_of(path) -> str:
    """Return a checksum of the packets of a file's sound, and their codec."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(path), "-map", "0:a", "-c", "copy", "-f", "md5", "-"]
    done = subprocess.run(command, capture_output=True, text=True)
    codec = re.search(r"Audio: (\w+)", done.stderr)[1]
    return f"{codec} {done.stdout.strip()}"


def midway(neighbours: np.ndarray) -> np.ndarray:
    """Draw, on frames of one number, the number in the middle of the six."""
    return (neighbours[2] + neighbours[3]) / 2


def numbers(count: int, factor: int, cuts=(), predict=midway) -> tuple[list, list]:
    """Interpolate frames of one pixel that are 0, 1, 2, ...; return what comes out, and the kinds."""
    frames = (np.full((1, 1, 3), float(t)) for t in range(count))
    stream = list(video.interpolate_frames(frames, factor, predict, cuts))
    return [float(frame[0, 0, 0]) for frame, _ in stream], [kind for _, kind in stream]


# ---------------------------------------------------------------------------------------------------------------------
# The stream of frames
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [2, 4, 8])
@pytest.mark.parametrize("count", [2, 3, 7, 20])
def test_frame_count_and_times(factor, count):
    values, kinds = numbers(count, factor)
    assert values == [t / factor for t in range((count - 1) * factor + 1)] + [count - 1] * (factor - 1)
    assert kinds.count("predicted") == (count - 1) * (factor - 1)
    assert kinds[-factor + 1 :] == ["held"] * (factor - 1)


def test_neighbours_are_the_six_around_and_repeat_at_the_ends():
    seen = []
    numbers(5, 2, predict=lambda six: seen.append(six[:, 0, 0, 0].tolist()) or six[2])
    assert seen == [[0, 0, 0, 1, 2, 3], [0, 0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 4], [1, 2, 3, 4, 4, 4]]


def test_the_middle_of_the_middle_has_neighbours_at_even_steps():
    seen = []
    numbers(8, 4, predict=lambda six: seen.append(six[:, 0, 0, 0].tolist()) or midway(six))
    halves = [six for six in seen if (six[3] - six[2]) == 0.5]
    assert [3, 3.5, 4, 4.5, 5, 5.5] in halves
    assert all(np.diff(six).max() == 0.5 for six in halves)


@pytest.mark.parametrize("factor", [2, 4])
def test_nothing_is_predicted_across_a_cut(factor):
    seen = []
    values, kinds = numbers(10, factor, cuts=[4], predict=lambda six: seen.append(six[:, 0, 0, 0]) or midway(six))
    assert all(six.max() <= 3 or six.min() >= 4 for six in seen)
    assert values[3 * factor : 4 * factor] == [3] * factor
    assert kinds[3 * factor + 1 : 4 * factor] == ["held"] * (factor - 1)
    assert len(values) == 10 * factor


def test_frames_flow_through():
    taken = []

    def source():
        for t in range(1000):
            taken.append(t)
            yield np.zeros((1, 1, 3))

    stream = video.interpolate_frames(source(), 8, midway)
    for _ in range(80):
        next(stream)
    assert len(taken) < 20, "few frames ahead of what was asked for"


# ---------------------------------------------------------------------------------------------------------------------
# Tiles
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(40, 64), (64, 65), (65, 200), (131, 77), (5, 300)])
def test_tiles_join_to_what_was_split(size):
    images = np.random.default_rng(0).integers(0, 256, (2, *size, 3), dtype=np.uint8)
    tiles = split_tiles(images, 64, 9)
    assert len({tile.shape for tile in tiles}) == 1, "one size: a model is compiled once"
    assert max(tiles[0].shape[1:3]) <= 64
    for tile in tiles[1:] if len(tiles) > 1 else []:  # what the margins hold must not matter
        assert tile.shape[1] >= min(size[0], 19)
    joined = join_tiles(tiles, size, 64, 9)
    np.testing.assert_array_equal(joined, images)


def test_margins_are_left_out():
    images = np.zeros((1, 100, 150, 1))
    tiles = [tile.copy() for tile in split_tiles(images, 64, 9)]
    starts = [(y, x) for y in tile_starts(100, 64, 9)[0] for x in tile_starts(150, 64, 9)[0]]
    for tile, (y, x) in zip(tiles, starts):
        height, width = tile.shape[1:3]
        for axis, start, length, side in ((1, y, height, 100), (2, x, width, 150)):
            view = np.moveaxis(tile, axis, 0)
            view[: 9 if start else 0] = 1
            view[length - 9 if start + length < side else length :] = 1
    assert join_tiles(tiles, (100, 150), 64, 9).max() == 0


@pytest.fixture(scope="module")
def model():
    return load_model("dncnn_residual")


def test_tiled_equals_untiled(model):
    assert receptive_radius(model) == 15
    neighbours = np.stack(drawn(6, (140, 101)))[None]
    whole = predict_float(model, neighbours, tile=1000)
    assert whole.dtype == np.float32 and whole.shape == (1, 101, 140, 3)
    np.testing.assert_allclose(predict_float(model, neighbours, tile=64), whole, atol=1e-4)
    np.testing.assert_array_equal(vfi.to_uint8(whole), predict_middle(model, neighbours))


def test_a_model_that_does_more_than_convolve_is_not_tiled():
    import keras

    inputs = keras.Input((None, None, 6), dtype="uint8")
    small = keras.layers.AveragePooling2D(2)(keras.layers.Rescaling(1 / 255)(inputs))
    outputs = keras.layers.Conv2D(3, 1)(keras.layers.UpSampling2D(2)(small))
    assert receptive_radius(keras.Model(inputs, outputs)) is None
    strided = keras.layers.Conv2D(3, 3, strides=2, padding="same")(keras.layers.Rescaling(1 / 255)(inputs))
    assert receptive_radius(keras.Model(inputs, strided)) is None
    computed = keras.ops.roll(keras.layers.Conv2D(3, 1)(keras.layers.Rescaling(1 / 255)(inputs)), 30, axis=1)
    assert receptive_radius(keras.Model(inputs, computed)) is None, "an operation that is not a layer"


class ResourceExhaustedError(Exception):
    """What TensorFlow raises has this name."""


class XlaRuntimeError(Exception):
    """What JAX raises has this name."""


@pytest.mark.parametrize(
    "full", [ResourceExhaustedError("OOM"), XlaRuntimeError("RESOURCE_EXHAUSTED: Out of memory"), MemoryError()]
)
def test_full_memory_halves_the_tile(model, monkeypatch, capsys, full):
    sizes = []

    def predict_on_batch(stacked):
        sizes.append(max(stacked.shape[1:3]))
        if sizes[-1] > 80:
            raise full
        return stacked[..., 6:9].astype(np.float32) / 255

    monkeypatch.setattr(model, "predict_on_batch", predict_on_batch)
    predict, six = frame_predictor(model), np.stack(drawn(6, (300, 70)))
    np.testing.assert_array_equal(predict(six), six[2])
    tries = len(sizes)
    predict(six)
    assert max(sizes[tries:]) <= 80, "it stays with the smaller tile"
    assert capsys.readouterr().out.splitlines() == [
        f"memory is full: predicting tiles of {size} px from here on" for size in (150, 75)
    ]


def test_other_errors_are_not_taken_for_full_memory(model, monkeypatch):
    def predict_on_batch(stacked):
        raise XlaRuntimeError("INVALID_ARGUMENT")

    monkeypatch.setattr(model, "predict_on_batch", predict_on_batch)
    with pytest.raises(XlaRuntimeError):
        frame_predictor(model)(np.stack(drawn(6)))


# ---------------------------------------------------------------------------------------------------------------------
# Files in, files out
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "target", "rate", "factor", "mode", "size", "sound", "kept"),
    [
        ("a.mp4", "b.mp4", "30000/1001", 2, "smooth", (96, 54), "aac", "copied"),
        ("a.mp4", "b.mkv", "24000/1001", 4, "smooth", ODD, "aac", "copied"),
        ("a.mp4", "b.mp4", "25", 8, "slow", ODD, "aac", "left out"),
        ("a.webm", "b.webm", "30000/1001", 2, "smooth", ODD, "libopus", "copied"),
        ("a.webm", "b.mp4", "30", 2, "smooth", (96, 54), "", "none"),
        ("a.mp4", "b.webm", "25", 2, "smooth", (96, 54), "aac", "copied"),
        ("a.gif", "b.gif", "25", 2, "smooth", ODD, "", "none"),
        ("a.gif", "b.mp4", "20", 4, "smooth", (96, 54), "", "none"),
        ("a.mov", "b.MOV", "15", 2, "smooth", (64, 48), "pcm_s16le", "copied"),
    ],
)
def test_what_comes_out(tmp_path, capsys, name, target, rate, factor, mode, size, sound, kept):
    frames = drawn(30, size)  # two parts
    source = write(tmp_path / name, frames, rate, sound)
    made = video.interpolate_video(source, tmp_path / target, factor, mode, "average")
    facts, rate = video.read_facts(tmp_path / target), Fraction(rate)
    assert facts["frames"] == made["frames"] == 30 * factor
    assert facts["size"] == made["size"] == size
    assert facts["rate"] == made["rate"] == (rate * factor if mode == "smooth" else rate)
    assert abs(facts["seconds"] - (30 / rate) * (1 if mode == "smooth" else factor)) < 1 / rate
    assert made["sound"] == kept and facts["sound"] == (kept == "copied")
    printed = capsys.readouterr().out
    assert f"{source.name}: 30 frames, {size[0]}x{size[1]} px, {rate} = {float(rate):.2f} fps" in printed
    assert f"{target}: {30 * factor} frames" in printed and f"sound: {kept}" in printed
    if kept == "copied" and target != "b.webm":
        assert sound_of(tmp_path / target) == sound_of(source)
    elif kept == "copied" and name == "a.mp4":
        assert sound_of(tmp_path / target).startswith("opus") and "converting it to opus" in printed
    assert sorted(path.name for path in tmp_path.iterdir() if path.stem != "silent") == sorted([name, target])
    read = list(ffmpeg.read_frames(tmp_path / target))
    original = np.stack(list(ffmpeg.read_frames(source)))
    least = 25 if ".gif" in (source.suffix, target[-4:]) else 35  # dB: a GIF has 256 colours, and dots between them
    assert vfi.psnr(np.stack(read[::factor]), original).min() > least, "the source's frames are all there"


def test_the_true_middle_comes_between(tmp_path):
    frames = drawn(13, (96, 54))
    video.interpolate_video(write(tmp_path / "a.mp4", frames[::2]), tmp_path / "b.mp4", model="dncnn_residual")
    read = np.stack(list(ffmpeg.read_frames(tmp_path / "b.mp4")))
    repeated = np.stack(frames[:12:2])
    assert (vfi.psnr(read[1:12:2], np.stack(frames[1::2])) > vfi.psnr(repeated, np.stack(frames[1::2])) + 3).all()


def test_large_sizes_are_kept_and_shrunk_on_demand(tmp_path):
    source = write(tmp_path / "a.mp4", drawn(2, (1920, 1080)))
    assert video.interpolate_video(source, tmp_path / "b.mp4", model="nearest")["size"] == (1920, 1080)
    assert video.read_facts(tmp_path / "b.mp4")["size"] == (1920, 1080)
    video.interpolate_video(source, tmp_path / "c.mp4", model="nearest", max_side=639)
    assert video.read_facts(tmp_path / "c.mp4")["size"] == (638, 358)


def test_a_turned_video_comes_out_upright(tmp_path):
    write(tmp_path / "a.mp4")
    convert("-display_rotation", 90, "-i", tmp_path / "a.mp4", "-c", "copy", tmp_path / "turned.mp4")
    video.interpolate_video(tmp_path / "turned.mp4", tmp_path / "b.mp4", model="nearest")
    read = next(ffmpeg.read_frames(tmp_path / "b.mp4"))
    assert read.shape == (96, 54, 3)
    assert vfi.psnr(read[None], np.rot90(drawn(1)[0], 1)[None])[0] > 33


@pytest.mark.parametrize("space", ["bt709", "smpte170m", "unknown"])
def test_colours_stay(tmp_path, space):
    flat = [np.full((64, 96, 3), colour, np.uint8) for colour in ((200, 40, 60), (40, 180, 90), (60, 70, 220))]
    matrix = "bt709" if space == "bt709" else "bt601"
    known = "null" if space == "unknown" else f"scale=out_color_matrix={matrix},setparams=colorspace={space}:range=tv"
    source = write(tmp_path / "a.mp4", flat, filters=known)
    video.interpolate_video(source, tmp_path / "b.mp4", model="nearest", scene_threshold=255)
    log = []
    read = list(ffmpeg.read_frames(tmp_path / "b.mp4", filters="showinfo=checksum=0", log=log))
    assert np.abs(np.stack(read[::2]).astype(int) - np.stack(flat)).max() <= 3
    assert f"color_space:{space}" in "".join(log)


def test_sound_stays_in_step_with_a_picture_that_starts_late(tmp_path):
    write(tmp_path / "a.mp4", drawn(25), sound="aac")
    silent, late = tmp_path / "silent.mp4", tmp_path / "late.mp4"
    convert("-itsoffset", 0.4, "-i", silent, "-i", tmp_path / "a.mp4", "-map", "0:v", "-map", "1:a", "-c", "copy", late)
    assert video.read_facts(late)["start"] == pytest.approx(0.4, abs=0.03)
    video.interpolate_video(late, tmp_path / "b.mp4", model="nearest")
    assert video.read_facts(tmp_path / "b.mp4")["start"] == pytest.approx(video.read_facts(late)["start"], abs=0.02)


def test_cuts_and_repeated_frames_are_printed_and_nothing_is_predicted_across(tmp_path, capsys):
    frames = drawn(20) + drawn(20, seed=5)
    frames = [frames[t - t // 6] for t in range(40)]  # every sixth is shown twice: 25 -> 30 fps
    cut = next(t for t in range(40) if t - t // 6 == 20)
    video.interpolate_video(write(tmp_path / "a.mp4", frames, 30), tmp_path / "b.mp4", model="average")
    printed = capsys.readouterr().out
    assert f"cuts: {cut / 30:.2f} s (" in printed
    assert "frames that repeat the one before: 6\n" in printed
    read = np.stack(list(ffmpeg.read_frames(tmp_path / "b.mp4")))
    assert vfi.psnr(read[[2 * cut - 1]], frames[cut - 1][None])[0] > 33, "held"
    video.interpolate_video(tmp_path / "a.mp4", tmp_path / "c.mp4", model="average", scene_threshold=255)
    assert "cuts: none\n" in capsys.readouterr().out


def test_a_rate_that_the_container_rounds_is_exact(tmp_path):
    for name, rate in (("a.mkv", "60000/1001"), ("b.mkv", "24000/1001"), ("c.mkv", "30"), ("d.mkv", "100/3")):
        assert video.read_facts(write(tmp_path / name, drawn(40), rate))["rate"] == Fraction(rate)


# ---------------------------------------------------------------------------------------------------------------------
# Interruptions
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [2, 8])
def test_an_interrupted_video_goes_on_and_is_the_same(tmp_path, monkeypatch, capsys, factor):
    monkeypatch.setattr(video, "PART", 6)
    source = write(tmp_path / "a.mp4", drawn(10) + drawn(15, seed=3))
    expected = video.interpolate_video(source, tmp_path / "whole.mp4", factor, model="average")["path"]
    calls = []

    def stop_later(neighbours):
        calls.append(1)
        if len(calls) > 14 * (factor - 1):
            raise KeyboardInterrupt
        return vfi.average(neighbours)

    monkeypatch.setitem(vfi.BASELINES, "nearest", stop_later)
    target, parts = tmp_path / "b.mp4", tmp_path / "b.mp4.parts"
    with pytest.raises(KeyboardInterrupt):
        video.interpolate_video(source, target, factor, model="nearest")
    assert sorted(p.name for p in parts.iterdir()) == ["00000.json", "00000.mp4", "00001.json", "00001.mp4"]
    assert not target.exists()
    (parts / "00001.mp4").write_bytes(b"broken")
    monkeypatch.setitem(vfi.BASELINES, "nearest", vfi.average)
    capsys.readouterr()
    video.interpolate_video(source, target, factor, model="nearest")
    printed = capsys.readouterr().out
    assert "00001.mp4 is broken" in printed and f"going on after the {6 * factor} frames" in printed
    assert not parts.exists()
    for one, other in zip(ffmpeg.read_frames(target), ffmpeg.read_frames(expected), strict=True):
        np.testing.assert_array_equal(one, other)


def test_parts_of_other_settings_or_another_input_are_not_used(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(video, "PART", 6)
    source, parts = write(tmp_path / "a.mp4"), tmp_path / "b.mp4.parts"

    def interrupt(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ffmpeg, "join_parts", interrupt)
        video.interpolate_video(source, tmp_path / "b.mp4", model="nearest")
    assert len(list(parts.glob("*.mp4"))) == 2
    shutil.copytree(parts, tmp_path / "kept")
    video.interpolate_video(source, tmp_path / "b.mp4", model="average")
    assert "rebuilding" in (printed := capsys.readouterr().out) and "model: 'nearest' -> 'average'" in printed
    shutil.move(tmp_path / "kept", parts)
    os.utime(source, (1, 1))
    video.interpolate_video(source, tmp_path / "b.mp4", model="nearest")
    assert "source: " in capsys.readouterr().out


def test_a_finished_video_is_kept_until_something_changes(tmp_path, capsys):
    source, target = write(tmp_path / "a.mp4"), tmp_path / "b.mp4"
    first = video.interpolate_video(source, target, model="nearest")
    written = target.stat().st_mtime_ns
    assert video.interpolate_video(source, target, model="nearest") == first
    assert target.stat().st_mtime_ns == written and "reusing" in capsys.readouterr().out
    video.interpolate_video(source, target, model="average")
    assert target.stat().st_mtime_ns > written


@pytest.mark.skipif(os.name == "nt", reason="needs signals")
def test_a_killed_command_goes_on(tmp_path):
    source, target = write(tmp_path / "a.mp4", drawn(100, (160, 90))), tmp_path / "b.mp4"
    parts = tmp_path / "b.mp4.parts"
    command = [sys.executable, "-m", "stages.video", source, target, "--model", "average", "--factor", "8"]
    options = {
        "cwd": ROOT,
        "env": clean_environment(),
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
    }
    for part, stop, code in (("00000.json", signal.SIGKILL, -9), ("00001.json", signal.SIGINT, 130)):
        process, until = subprocess.Popen(command, **options), time.monotonic() + 60
        while not (parts / part).exists() and process.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        process.send_signal(stop)
        last_words = process.communicate()[1]
        assert process.returncode == code and (parts / part).exists() and not target.exists()
    assert last_words.endswith("interrupted: the same command goes on after the last whole part\n")
    done = subprocess.run(command, **options)
    assert done.returncode == 0 and "going on after the" in done.stdout, done.stderr
    assert video.read_facts(target)["frames"] == 800
    assert not parts.exists()


# ---------------------------------------------------------------------------------------------------------------------
# Bad input
# ---------------------------------------------------------------------------------------------------------------------


def variable(folder):
    frames = [folder / f"{t}.png" for t in range(4)]
    for frame, path in zip(drawn(4), frames):
        Image.fromarray(frame).save(path)
    steps = "".join(f"file {path.name}\nduration {seconds}\n" for path, seconds in zip(frames, (0.04, 0.04, 0.2, 0.04)))
    (folder / "list.txt").write_text("ffconcat version 1.0\n" + steps)
    options = ["-pix_fmt", "yuv420p", "-fps_mode", "vfr", "-video_track_timescale", 12800]
    convert("-f", "concat", "-i", folder / "list.txt", *options, folder / "variable.mp4")
    return folder / "variable.mp4"


def sound_only(folder):
    convert("-f", "lavfi", "-i", "sine=d=1", folder / "sound.mp4")
    return folder / "sound.mp4"


def text(folder):
    (folder / "text.mp4").write_text("no video\n" * 100)
    return folder / "text.mp4"


def empty(folder):
    (folder / "empty.mp4").touch()
    return folder / "empty.mp4"


def cut_off(folder):
    whole = write(folder / "whole.mp4")
    (folder / "cut.mp4").write_bytes(whole.read_bytes()[:2000])
    return folder / "cut.mp4"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (lambda folder: folder / "nothing.mp4", r"nothing\.mp4 is not there"),
        (lambda folder: folder, "is a folder, and no video"),
        (text, r"text\.mp4 is not a video that ffmpeg can read"),
        (empty, r"empty\.mp4 is not a video that ffmpeg can read"),
        (cut_off, r"cut\.mp4 is not a video that ffmpeg can read"),
        (sound_only, r"sound\.mp4 is not a video .*no picture"),
        (lambda folder: write(folder / "one.mp4", drawn(1)), r"one\.mp4 has 1 frame, of two needed"),
        (variable, r"variable\.mp4 has a variable frame rate \(40 to 200 ms a frame\).*-vf fps="),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(tmp_path, source, message):
    source, out = source(tmp_path), tmp_path / "out"
    out.mkdir()
    with pytest.raises((ValueError, FileNotFoundError), match=message) as raised:
        video.interpolate_video(source, out / "b.mp4", model="average")
    assert "\n" not in str(raised.value)
    assert not list(out.iterdir())


@pytest.mark.parametrize(
    "options",
    [
        {"factor": 3},
        {"mode": "fast"},
        {"max_side": -1},
        {"scene_threshold": -1},
        {"target": "b.avi"},
        {"target": "a.mp4"},
    ],
)
def test_bad_settings(tmp_path, options):
    source = write(tmp_path / "a.mp4")
    with pytest.raises(ValueError):
        video.interpolate_video(source, tmp_path / options.pop("target", "b.mp4"), model="average", **options)
    assert list(tmp_path.iterdir()) == [source]


def test_a_gif_of_too_many_frames_a_second_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at most 50 frames a second"):
        video.interpolate_video(write(tmp_path / "a.mp4", rate=30), tmp_path / "b.gif", model="average")


def test_no_space(tmp_path, monkeypatch):
    source = write(tmp_path / "a.mp4")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1000, 999, 1))
    with pytest.raises(OSError, match="needs .* GiB, and"):
        video.interpolate_video(source, tmp_path / "b.mp4", model="average")
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_no_space_while_writing(tmp_path):
    (tmp_path / "a.part.mkv").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        ffmpeg.write_frames(tmp_path / "a.mkv", drawn(60, (640, 360)), Fraction(25))
    assert not list(tmp_path.iterdir())


def test_no_permission(tmp_path, monkeypatch):
    source, out = write(tmp_path / "a.mp4"), tmp_path / "out"
    out.mkdir(mode=0o555)
    if os.access(out, os.W_OK):  # root may write anywhere
        out.rmdir()
        out.touch()
    with pytest.raises(OSError, match=r"out cannot be written to \(.*\): choose another folder"):
        video.interpolate_video(source, out / "b.mp4", model="average")


# ---------------------------------------------------------------------------------------------------------------------
# The command line
# ---------------------------------------------------------------------------------------------------------------------


def command(*arguments) -> subprocess.CompletedProcess:
    whole = [sys.executable, "-m", "stages.video", *map(str, arguments)]
    return subprocess.run(whole, cwd=ROOT, env=clean_environment(), capture_output=True, text=True, timeout=120)


def test_command_line(tmp_path):
    source = write(tmp_path / "a.mp4", rate=Fraction(30000, 1001), sound="aac")
    done = command(source, tmp_path / "b.mp4", "--factor", 4, "--mode", "slow", "--model", "average", "--max-side", 48)
    assert done.returncode == 0, done.stderr
    facts = video.read_facts(tmp_path / "b.mp4")
    assert (facts["frames"], facts["size"], facts["rate"]) == (48, (48, 26), Fraction(30000, 1001))
    assert "sound: left out" in done.stdout


def test_command_line_fails_with_one_line_and_a_code(tmp_path, capsys):
    assert video.main([str(tmp_path / "no.mp4"), str(tmp_path / "b.mp4"), "--model", "average"]) == 1
    printed = capsys.readouterr()
    assert printed.out == "" and re.fullmatch(r"error: .*no\.mp4 is not there\.\n", printed.err)
    assert video.main([str(write(tmp_path / "a.mp4")), str(tmp_path / "b.mp4"), "--model", "nobody"]) == 1
    assert "No model 'nobody'" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        video.main(["--help"])
    assert stopped.value.code == 0
    printed = capsys.readouterr().out
    assert all(f"--{name}" in printed for name in ("factor", "mode", "model", "max-side", "scene-threshold"))
    with pytest.raises(SystemExit) as stopped:
        video.main(["only-one.mp4"])
    assert stopped.value.code != 0
