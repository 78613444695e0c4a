"""Interpolating a video: which frames at which times, at ends, cuts and stills; interruptions; the command line."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from fractions import Fraction

import av
import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

import vfi_utils as vfi
from conftest import ROOT, clean_environment
from stages import ffmpeg, interpolation, models, planning, shots, streams, video


def drawn(frames: int = 12, size: tuple = (64, 36), seed: int = 0) -> list[np.ndarray]:
    """Draw a camera that moves over a smooth random picture, 2 px a frame."""
    picture = np.random.default_rng(seed).integers(0, 256, (7, 40, 3), dtype=np.uint8)
    picture = np.asarray(Image.fromarray(picture).resize((6 * size[0], size[1]), Image.Resampling.BICUBIC))
    return [picture[:, 2 * t : 2 * t + size[0]] for t in range(frames)]


def convert(*arguments) -> None:
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *map(str, arguments)], check=True)


def write(path, frames=None, rate=25, times=None, **options):
    """Write a video that the tests interpolate; `times`, in ms, make its rate variable. Return its path."""
    frames = drawn() if frames is None else frames
    times = times and [*times, 2 * times[-1] - times[-2]]
    ffmpeg.write_frames(path, frames, 1000 if times else Fraction(rate), times=times, **options)
    return path


def read(path) -> np.ndarray:
    return np.stack(list(ffmpeg.read_frames(path)))


def stamps(path) -> list[float]:
    """Times in s at which a second tool sees the frames of a video, from the first one on."""
    with av.open(str(path)) as container:
        found = sorted(packet.pts * packet.time_base for packet in container.demux(video=0) if packet.pts is not None)
    return [float(at - found[0]) for at in found]


def ramp(model, frames, times, wanted):
    """Predict, of frames that are one number each, the number in between; as `interpolate_shot`, by time."""
    values = [float(frame.flat[0]) for frame in frames]
    assert len(values) == len(times) and np.all(np.diff(times) > 0) and np.all(np.diff(wanted) > 0)
    assert times[0] <= wanted[0] and wanted[-1] <= times[-1]
    yield from (np.full((1, 1, 3), np.interp(at, times, values)) for at in wanted)


def values(times, end, starts=(), used=None, near=0, **moments) -> list[float]:
    """Numbers that come out where frame k is the number k, shown at `times[k]`."""
    used = range(len(times)) if used is None else used
    kept = [Fraction(times[k]).limit_denominator(1000) for k in used]
    wanted = shots.list_moments(
        [Fraction(t).limit_denominator(1000) for t in times], Fraction(end).limit_denominator(1000), **moments
    )
    frames = (np.full((1, 1, 3), float(k)) for k in used)
    stream = shots.interpolate_shots(
        frames, shots.list_shots(kept, wanted, starts, near), lambda *arguments: ramp(None, *arguments)
    )
    return [round(float(frame.flat[0]), 6) for frame in stream]


# ---------------------------------------------------------------------------------------------------------------------
# Which moments
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [2, 3, 5, 8])
@pytest.mark.parametrize("count", [2, 3, 7])
def test_each_frame_becomes_so_many_and_the_last_is_held(factor, count):
    expected = [min(k / factor, count - 1) for k in range(count * factor)]
    assert values(range(count), count, factor=factor) == np.round(expected, 6).tolist()


def test_24_to_60_keeps_the_frames_that_are_on_the_grid():
    times = [Fraction(k, 24) for k in range(9)]
    moments = shots.list_moments(times, Fraction(9, 24), 2, Fraction(60))
    assert moments == [Fraction(k, 60) for k in range(23)], "0.375 s at 60: the last frame starts within"
    (shot,) = shots.list_shots(times, moments, [])
    assert set(shot.moments) & set(shot.times) == {
        0,
        0.08333333333333333,
        0.16666666666666666,
        0.25,
        0.3333333333333333,
    }
    assert shot.moments[-2:] == (shot.times[-1],) * 2, "after the last frame nothing is known: it is held"


def test_nothing_is_predicted_across_a_cut():
    made = values(range(6), 6, starts=[3], factor=4)
    assert made == [
        0,
        0.25,
        0.5,
        0.75,
        1,
        1.25,
        1.5,
        1.75,
        2,
        2,
        2,
        2,
        3,
        3.25,
        3.5,
        3.75,
        4,
        4.25,
        4.5,
        4.75,
        5,
        5,
        5,
        5,
    ]
    assert values(range(4), 4, starts=[1, 2, 3], factor=2) == [0, 0, 1, 1, 2, 2, 3, 3], "shots of one frame"


def test_a_variable_rate_is_predicted_at_its_true_times():
    assert values([0, 1, 1.5, 4], 6, factor=2) == [0, 0.5, 1, 1.5, 2, 2.5, 3, 3]
    assert values([0, 1, 1.5, 4], 5, factor=1, rate=Fraction(2)) == [0, 0.5, 1, 2, 2.2, 2.4, 2.6, 2.8, 3, 3]


def test_a_long_still_is_held():
    times = [0, 0.04, 0.08, 2.08, 2.12, 2.16]
    assert shots.find_stills(times) == [3]
    assert shots.find_stills(np.arange(9) / 2) == shots.find_stills([0, 0.03, 0.06, 0.12]) == []
    made = values(times, 2.2, starts=[3], factor=4)
    assert made[8:12] == [2, 2, 2, 2] and made[12:15] == [3, 3.25, 3.5]


def test_a_still_at_a_constant_rate_is_held_and_costs_nothing(tmp_path, monkeypatch):
    times = [Fraction(k, 25) for k in range(30)]
    assert shots.within_stills(times, [*range(6, 21), 25]) == list(range(6, 20))
    assert shots.within_stills(times, [1, 3, 5, *range(7, 12)]) == []
    frames = drawn(16)
    source, predicted = write(tmp_path / "a.mp4", [*frames[:8], *[frames[7]] * 20, *frames[8:]]), []
    predict = models.FramePredictor.__call__
    monkeypatch.setattr(models.FramePredictor, "__call__", lambda *a: predicted.append(1) or predict(*a))
    made = video.interpolate_video(source, tmp_path / "b.mp4", model="average")
    assert made.frames == 72 and len(predicted) < 20
    assert vfi.psnr(read(tmp_path / "b.mp4")[14:54], np.stack([frames[7]] * 40)).min() > 33


def test_without_repeated_frames_their_times_are_interpolated():
    assert values(range(6), 6, used=[0, 2, 4], factor=2)[:9] == [0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4]


def test_moments_within_a_millisecond_of_a_frame_are_that_frame():
    made = values([0, 0.033, 0.067], 0.1, near=1e-3, factor=1, rate=Fraction(60))
    assert np.round(made, 2).tolist() == [0, 0.51, 1, 1.5, 2, 2]


def test_frames_flow_through():
    taken = []

    def source():
        for t in range(1000):
            taken.append(t)
            yield np.zeros((36, 64, 3), np.uint8)

    times = list(range(1000))
    wanted = shots.list_shots(times, [Fraction(k, 8) for k in range(8000)], [500])
    model = models.load_model("average")
    stream = shots.interpolate_shots(
        source(), wanted, lambda *arguments: interpolation.interpolate_shot(model, *arguments)
    )
    for _ in range(80):
        next(stream)
    assert len(taken) < 20, "few frames ahead of what was asked for"


@pytest.mark.parametrize("start", [0, 1, 7, 8, 9, 20, 31, 47])
def test_going_on_needs_no_more_than_a_few_frames_before(start):
    times, moments = list(range(12)), [Fraction(k, 4) for k in range(48)]
    whole = shots.list_shots(times, moments, [2, 7])
    rest = shots.shots_from(whole, start, 4)
    assert sum(len(shot.moments) for shot in rest) == 48 - start
    first = rest[0].first
    assert first >= start / 4 - 6
    made = shots.interpolate_shots(
        (np.full((1, 1, 3), float(k)) for k in range(first, 12)), rest, lambda *a: ramp(None, *a), first
    )
    expected = values(range(12), 12, starts=[2, 7], factor=4)
    assert [round(float(frame.flat[0]), 6) for frame in made] == expected[start:]


# ---------------------------------------------------------------------------------------------------------------------
# Whole videos
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "rate", "frames"),
    [
        ({"factor": 3}, 75, 90),
        ({}, 50, 60),
        ({"factor": 5, "mode": "slow"}, 25, 150),
        ({"fps": "60000/1001"}, Fraction(60000, 1001), 72),
        ({"fps": 59.94}, Fraction(60000, 1001), 72),
        ({"fps": 40, "factor": 2, "mode": "slow"}, 40, 96),
    ],
)
def test_rates(tmp_path, options, rate, frames):
    source = write(tmp_path / "a.mp4", drawn(30))
    made = video.interpolate_video(source, tmp_path / "b.mp4", model="average", **options)
    assert made.frames == frames and made.rate == rate
    np.testing.assert_allclose(stamps(tmp_path / "b.mp4"), np.arange(frames) / float(rate), atol=2e-5)
    step = made.rate / 25 / made.stretch * made.stretch**2
    if step.denominator == 1:
        kept = read(tmp_path / "b.mp4")[:: int(step)]
        assert vfi.psnr(kept, read(source)).min() > 35, "the source's frames are there"


def test_a_variable_frame_rate_keeps_its_times(tmp_path, capsys):
    times = [0, 33, 66, 133, 150, 183, 216, 260, 300, 333]  # ms
    source = write(tmp_path / "a.mp4", drawn(10), times=times)
    assert np.allclose(stamps(source), np.array(times) / 1000)
    video.interpolate_video(source, tmp_path / "b.mp4", factor=3, model="average")
    assert "variable frame rate" in capsys.readouterr().out
    expected = np.interp(np.arange(30) / 3, range(11), [*times, 366]) / 1000
    np.testing.assert_allclose(stamps(tmp_path / "b.mp4"), expected, atol=2e-5)
    made, frames = read(tmp_path / "b.mp4"), read(source)
    assert vfi.psnr(made[::3], frames).min() > 35
    third = np.rint(frames[:-1] * (2 / 3) + frames[1:] / 3).astype(np.uint8)
    assert vfi.psnr(made[1:-2:3], third).min() > 33, "predicted at a third of each gap"
    video.interpolate_video(source, tmp_path / "c.mp4", fps=60, model="average")
    np.testing.assert_allclose(stamps(tmp_path / "c.mp4"), np.arange(22) / 60, atol=2e-5)


@pytest.mark.parametrize("name", ["b.mkv", "b.webm", "b.mov", "b.gif"])
def test_a_variable_frame_rate_in_other_containers(tmp_path, name):
    times = [0, 60, 120, 300, 360, 420]  # ms
    made = video.interpolate_video(
        write(tmp_path / "a.mp4", drawn(6), times=times), tmp_path / name, factor=2, model="average"
    )
    expected = [float(at) for at in made.times]
    np.testing.assert_allclose(stamps(tmp_path / name), expected, atol=0.006 if name == "b.gif" else 0.001)


def test_repeated_frames(tmp_path, capsys):
    frames = [frame for frame in drawn(12) for _ in range(2)]  # animation on twos
    source = write(tmp_path / "a.mp4", frames, 24)
    video.interpolate_video(source, tmp_path / "b.mp4", model="average")
    assert "repeat the one before: 12 (--dedupe" in capsys.readouterr().out
    video.interpolate_video(source, tmp_path / "c.mp4", model="average", dedupe=True)
    assert "repeat the one before: 12 (taken out" in capsys.readouterr().out
    plain, smooth = read(tmp_path / "b.mp4"), read(tmp_path / "c.mp4")
    assert len(plain) == len(smooth) == 48
    moving = [np.abs(np.diff(made[:40].astype(int), axis=0)).mean(axis=(1, 2, 3)) for made in (plain, smooth)]
    assert (moving[0] < 0.6).mean() > 0.4 and (moving[1] > 0.6).all(), "something moves in every step"


def test_cuts_are_printed_and_the_frame_before_is_held(tmp_path, capsys):
    source = write(tmp_path / "a.mp4", drawn(10) + drawn(10, seed=5))
    video.interpolate_video(source, tmp_path / "b.mp4", factor=3, model="average")
    assert "cuts: 0.40 s (" in capsys.readouterr().out
    made = read(tmp_path / "b.mp4")
    assert vfi.psnr(made[28:30], np.stack([read(source)[9]] * 2)).min() > 35
    video.interpolate_video(source, tmp_path / "c.mp4", model="average", scene_threshold=255)
    assert "cuts: none\n" in capsys.readouterr().out


def test_the_source_is_decoded_twice_and_not_again(tmp_path, monkeypatch):
    reads, read_frames = [], ffmpeg.read_frames
    monkeypatch.setattr(ffmpeg, "read_frames", lambda *a, **k: reads.append(a[0]) or read_frames(*a, **k))
    source = write(tmp_path / "a.mp4", drawn(60) + drawn(60, seed=2))
    video.interpolate_video(source, tmp_path / "b.mp4", model="average")
    assert reads == [source, source]


def test_large_sizes_are_kept_and_shrunk_on_demand(tmp_path):
    source = write(tmp_path / "a.mp4", drawn(2, (1920, 1080)))
    assert video.interpolate_video(source, tmp_path / "b.mp4", model="nearest").size == (1920, 1080)
    video.interpolate_video(source, tmp_path / "c.mp4", model="nearest", max_side=639)
    assert read(tmp_path / "b.mp4").shape[1:3] == (1080, 1920) and read(tmp_path / "c.mp4").shape[1:3] == (358, 638)


def test_a_model_that_knows_only_the_middle_says_so_before_it_starts(tmp_path):
    source = write(tmp_path / "a.mp4")
    with pytest.raises(ValueError, match="--model dncnn_residual cannot predict this video") as raised:
        video.interpolate_video(source, tmp_path / "b.mp4", factor=3, model="dncnn_residual")
    assert "\n" not in str(raised.value) and list(tmp_path.iterdir()) == [source]
    video.interpolate_video(source, tmp_path / "b.mp4", model="dncnn_residual")


def test_side_by_side(tmp_path):
    source = write(tmp_path / "a.mp4", drawn(10))
    video.interpolate_video(source, tmp_path / "b.mp4", model="average", compare=True)
    both, made = read(tmp_path / "b_compare.mp4"), read(tmp_path / "b.mp4")
    assert both.shape == (20, 36, 128, 3)
    assert vfi.psnr(both[:, :, 64:], made).min() > 35 and vfi.psnr(both[1::2, :, :64], read(source)).min() > 35


# ---------------------------------------------------------------------------------------------------------------------
# Interruptions
# ---------------------------------------------------------------------------------------------------------------------


def test_ctrl_c_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        interrupt_after(patch, 5)
        assert video.main([str(write(tmp_path / "a.mp4")), str(tmp_path / "b.mp4"), "--model", "average"]) == 130
    assert capsys.readouterr().err == "interrupted: the same command goes on after the last whole part\n"


def interrupt_after(monkeypatch, count: int) -> None:
    """Stop the next prediction of a video after `count` frames, as Ctrl-C does."""
    whole = shots.interpolate_shots

    def stop(*arguments):
        for number, frame in enumerate(whole(*arguments)):
            if number == count:
                raise KeyboardInterrupt
            yield frame

    monkeypatch.setattr(shots, "interpolate_shots", stop)


@pytest.mark.parametrize("options", [{"model": "path"}, {"fps": 77}, {"times": True, "factor": 3}])
def test_an_interrupted_video_goes_on_and_is_the_same(tmp_path, monkeypatch, capsys, options):
    monkeypatch.setattr(video, "PART", 9)
    options, frames = {"model": "average", **options}, drawn(6) + drawn(8, seed=3)
    times = [40 * k + k * k // 20 for k in range(14)] if options.pop("times", False) else None
    source = write(tmp_path / "a.mp4", frames, times=times)
    video.interpolate_video(source, tmp_path / "whole.mp4", **options)
    target, parts = tmp_path / "b.mp4", tmp_path / "b.mp4.parts"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_after(patch, 22)
        video.interpolate_video(source, target, **options)
    assert not target.exists() and len(list(parts.glob("*.json"))) >= 2
    (parts / "00001.mp4").write_bytes(b"broken")
    capsys.readouterr()
    video.interpolate_video(source, target, **options)
    printed = capsys.readouterr().out
    assert "00001 is broken" in printed and "going on after the " in printed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "b.mp4", "whole.mp4"]
    np.testing.assert_array_equal(read(target), read(tmp_path / "whole.mp4"))
    assert stamps(target) == stamps(tmp_path / "whole.mp4")


def test_parts_of_other_settings_or_another_input_are_not_used(tmp_path, monkeypatch, capsys):
    source, target, parts = write(tmp_path / "a.mp4"), tmp_path / "b.mp4", tmp_path / "b.mp4.parts"

    def interrupt(*arguments, **options):
        if not options:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(streams, "join_parts", interrupt)
        video.interpolate_video(source, target, model="nearest")
    shutil.copytree(parts, tmp_path / "kept")
    video.interpolate_video(source, target, model="average")
    assert "rebuilding" in (printed := capsys.readouterr().out) and "model: 'nearest' -> 'average'" in printed
    shutil.move(tmp_path / "kept", parts)
    os.utime(source, (1, 1))
    video.interpolate_video(source, target, model="nearest", overwrite=True)
    assert "source: " in capsys.readouterr().out


def test_a_finished_video_is_kept_and_another_is_not_overwritten(tmp_path, capsys):
    source, target = write(tmp_path / "a.mp4"), tmp_path / "b.mp4"
    first = video.interpolate_video(source, target, model="nearest")
    written = target.read_bytes()
    assert video.interpolate_video(source, target, model="nearest") == first
    assert "reusing" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"b\.mp4 is there already.*--overwrite"):
        video.interpolate_video(source, target, model="average")
    assert target.read_bytes() == written and not (tmp_path / "b.mp4.parts").exists()
    video.interpolate_video(source, target, model="average", overwrite=True)
    assert target.read_bytes() != written


def test_two_runs_on_one_output(tmp_path):
    source, target = write(tmp_path / "a.mp4"), tmp_path / "b.mp4"
    script = (
        "import time; from pathlib import Path; from stages import markers\n"
        f"with markers.locked(Path({str(target)!r})):\n    print('held', flush=True); time.sleep(3)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        output, started = io.StringIO(), time.monotonic()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdout", output)
            video.interpolate_video(source, target, model="nearest")
    assert f"waiting for process {other.pid} on " in output.getvalue() and time.monotonic() - started > 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "b.mp4"]


@pytest.mark.skipif(os.name == "nt", reason="needs signals")
def test_a_killed_command_goes_on(tmp_path):
    source, target = write(tmp_path / "a.mp4", drawn(100, (160, 90))), tmp_path / "b.mp4"
    parts = tmp_path / "b.mp4.parts"
    command = [sys.executable, "-m", "stages.video", source, target, "--model", "average", "--factor", "20"]
    process, until = subprocess.Popen(command, cwd=ROOT, env=clean_environment()), time.monotonic() + 120
    while not (parts / "00001.json").exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -9 and (parts / "00001.json").exists() and not target.exists()
    done = json.loads((parts / "00000.json").read_text())
    assert done["settings"]["model"] == "average" and video.main([str(a) for a in command[3:]]) == 0
    assert len(stamps(target)) == 2000 and not parts.exists()


# ---------------------------------------------------------------------------------------------------------------------
# The command line
# ---------------------------------------------------------------------------------------------------------------------


def test_help_names_every_setting(capsys):
    with pytest.raises(SystemExit) as stopped:
        video.main(["--help"])
    assert stopped.value.code == 0
    printed = capsys.readouterr().out
    names = [field.replace("_", "-") for field in planning.Settings.__dataclass_fields__]
    assert not [name for name in names if f"--{name}" not in printed and f"--no-{name}" not in printed]
    with pytest.raises(SystemExit) as stopped:
        video.main(["only-one.mp4"])
    assert stopped.value.code != 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--factor", "1"], "--factor 1: must be a whole number of at least 2"),
        (["--fps", "fast"], "--fps fast: must be a rate such as 60"),
        (["--fps", "1/0"], "--fps 1/0: must be a rate"),
        (["--fps", "20"], "--fps 20: must be above the 25.00 frames a second"),
        (["--factor", "2", "--fps", "60"], "choose one of them"),
        (["--mode", "fast"], "--mode fast: must be smooth or slow"),
        (["--max-side", "-1"], "--max-side -1: must be at least 0"),
        (["--codec", "divx"], "--codec divx: must be h264"),
        (["--codec", "prores"], "--codec prores: .mp4 may hold h264"),
        (["--quality", "99"], "--quality 99.0: must be 0 (best) to 63"),
        (["--factor", "1", "--mode", "x"], "2. --mode x: must"),
        (["--model", "nobody"], "No model 'nobody'"),
    ],
)
def test_bad_settings_are_named_as_they_were_typed(tmp_path, capsys, arguments, said):
    source = write(tmp_path / "a.mp4")
    assert video.main([str(source), str(tmp_path / "b.mp4"), "--model", "average", *arguments]) == 1
    printed = capsys.readouterr().err
    assert said in printed and printed.startswith("error: ") and printed.count("\n") == 1
    assert list(tmp_path.iterdir()) == [source]


def test_several_videos_one_of_them_broken(tmp_path, capsys):
    (tmp_path / "in" / "other").mkdir(parents=True)
    for name in ("clip.mp4", "clip.mov", "other/clip.mp4"):
        write(tmp_path / "in" / name, drawn(4))
    (tmp_path / "in" / "bad.mp4").write_text("no video")
    arguments = [str(tmp_path / "in"), str(tmp_path / "in" / "other" / "clip.mp4"), str(tmp_path / "out")]
    assert video.main([*arguments, "--model", "average"]) == 1
    printed = capsys.readouterr()
    assert "3 of 4 done" in printed.out and "bad.mp4 is not a video" in printed.err
    names = ["clip-2.mp4", "clip-mp4.mp4", "clip.mp4"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    assert video.main([*arguments, "--model", "average", "--part", "2/2"]) == 0
    assert "2 of 2 done" in capsys.readouterr().out
    assert video.main([*arguments[:-1], str(tmp_path / "one.mp4")]) == 1
    assert "name a folder" in capsys.readouterr().err


def test_progress_is_one_line_with_frames_rate_and_time_left(monkeypatch, capsys):
    clock = iter(range(0, 1000, 2))
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    list(video.report_progress(range(100), 100))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "  3 of 100 frames, 0.50 frames/s, 3 min left" and len(lines) < 10
