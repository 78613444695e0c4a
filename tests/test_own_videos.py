"""Your own videos: what is read from them, where they are cut and split, and what a second call does."""

from __future__ import annotations

import configparser
import itertools
import shutil
import subprocess
from pathlib import Path

import imageio.v3 as iio
import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

import vfi_utils as vfi
from stages import own_videos, shots
from stages.footage import list_sequences

GIF, AVI, WEBM = {"duration": 40, "loop": 0}, {"codec": "mpeg4"}, {"codec": "libvpx-vp9", "pixelformat": "yuv444p"}


def scene(seed: int, frames: int = 60, size: tuple = (96, 54), speed: float = 2) -> np.ndarray:
    """Draw a camera that moves over a smooth random picture at `speed` px a frame; uint8 `[T, H, W, 3]`."""
    width, height = size
    picture = np.random.default_rng(seed).integers(0, 256, (7, 40, 3), dtype=np.uint8)
    picture = np.asarray(Image.fromarray(picture).resize((width * 6, height), Image.Resampling.BICUBIC))
    return np.stack([np.roll(picture, -round(speed * t), axis=1)[:, :width] for t in range(frames)])


def write(path, frames: np.ndarray, fps: float = 25, **options):
    """Write a video; without options H.264 that keeps odd sizes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gif":
        iio.imwrite(path, frames, **options)
    else:
        options = {"pixelformat": "yuv420p" if "codec" in options else "yuv444p", "quality": 9, **options}
        iio.imwrite(path, frames, plugin="FFMPEG", fps=fps, macro_block_size=1, **options)
    return path


def ffmpeg(*arguments) -> None:
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *map(str, arguments)], check=True)


def found(folder) -> dict[str, np.ndarray]:
    """Return the frames of every sequence, by "split/name"; checks that files are numbered from 1 without a gap."""
    sequences = {}
    for images in sorted(folder.glob("t*/*/img1")):
        files = sorted(images.iterdir())
        assert [file.name for file in files] == [f"{number:06d}.jpg" for number in range(1, len(files) + 1)]
        frames = np.stack([np.asarray(Image.open(file)) for file in files])
        sequences[str(images.parent.relative_to(folder).as_posix())] = frames
    return sequences


def numbers(frames: np.ndarray, originals: np.ndarray) -> list[int]:
    """Return which original each frame is nearest to."""
    originals = originals.astype(np.int16)
    return [int(np.abs(originals - frame).mean((1, 2, 3)).argmin()) for frame in frames]


def info(folder, sequence: str):
    parser = configparser.ConfigParser()
    assert parser.read(folder / sequence / "seqinfo.ini")
    return parser["Sequence"]


@pytest.fixture
def source(tmp_path):
    return tmp_path / "videos"


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "footage"


# What is read


@pytest.mark.parametrize(
    ("name", "options", "fps"),
    [
        ("clip.mp4", {}, 29.97),
        ("clip.mov", {}, 23.98),
        ("clip.MKV", {}, 59.94),
        ("clip.avi", AVI, 25),
        ("clip.webm", WEBM, 30),
        ("clip.gif", GIF, 25),
    ],
)
def test_every_frame_is_read_once_in_order_and_split_with_a_gap(source, folder, name, options, fps):
    originals = scene(1, frames=50, size=(101, 57))
    write(source / name, originals, fps, **options)
    own_videos.import_videos(source, folder)
    sequences = found(folder)
    assert set(sequences) == {"train/clip", "test/clip"}
    assert sequences["train/clip"].shape[1:] == (57, 101, 3)
    train, test = (numbers(sequences[f"{split}/clip"], originals) for split in ("train", "test"))
    assert train == list(range(34)) and test == list(range(41, 50))  # 80% of the 43 frames that are not in the gap
    facts = info(folder, "test/clip")
    assert (facts["name"], facts["imDir"], facts["imExt"], facts["seqLength"]) == ("clip", "img1", ".jpg", "9")
    assert (facts["imWidth"], facts["imHeight"], float(facts["frameRate"])) == ("101", "57", fps)
    assert not list(folder.glob("clips/*/decoded"))


def test_a_variable_rate_neither_repeats_nor_drops_frames(source, folder):
    originals = scene(2, frames=100, speed=1)
    whole = write(source.parent / "whole.mp4", originals)
    source.mkdir()
    ffmpeg("-i", whole, "-vf", "select='mod(n,10)-4'", "-fps_mode", "passthrough", source / "phone.mp4")
    own_videos.import_videos(source, folder)
    kept = [t for t in range(100) if t % 10 != 4]
    assert numbers(found(folder)["train/phone"], originals) == kept[:66]
    assert numbers(found(folder)["test/phone"], originals) == kept[73:]


def test_a_phone_held_upright_is_not_sheared(source, folder):
    originals = scene(3)
    lying = write(source.parent / "lying.mp4", originals)
    source.mkdir()
    ffmpeg("-display_rotation", 90, "-i", lying, "-c", "copy", source / "upright.mp4")
    own_videos.import_videos(source, folder)
    frames = found(folder)["train/upright"]
    assert frames.shape[1:] == (96, 54, 3)
    assert np.abs(np.rot90(originals[0]).astype(int) - frames[0]).mean() < 6


@pytest.mark.parametrize(("width", "shrunk"), [(959, 959), (960, 480), (1450, 484)])
def test_wide_frames_are_shrunk_by_a_whole_factor(source, folder, width, shrunk):
    originals = scene(4, frames=40, size=(width, 31))
    write(source / "wide.mp4", originals)
    own_videos.import_videos(source, folder)
    frames = found(folder)["train/wide"]
    assert frames.shape[2] == shrunk == int(info(folder, "train/wide")["imWidth"])
    assert frames.shape[1] == int(info(folder, "train/wide")["imHeight"])
    wanted = np.asarray(Image.fromarray(originals[0]).reduce(-(-width // shrunk)), int)
    assert np.abs(wanted - frames[0]).mean() < 4


def test_sequences_of_images_without_a_split_are_imported_too(source, folder):
    """In natural order, whatever a seqinfo.ini looks like that a person wrote."""
    originals = scene(5, frames=50)
    for name, picture, rate in (("MOT17-02-FRCNN", "{:06d}.jpg", "14.5"), ("drawn", "frame_{}.png", "14,5")):
        (source / name / "img1").mkdir(parents=True)
        (source / name / "seqinfo.ini").write_text(f"\ufeff[Sequence]\nframeRate={rate}\n", encoding="utf-8")
        for number, frame in enumerate(originals, start=1):
            Image.fromarray(frame).save(source / name / "img1" / picture.format(number))
    own_videos.import_videos(source, folder)
    for name in ("MOT17-02-FRCNN", "drawn"):
        assert numbers(found(folder)[f"train/{name}"], originals) == list(range(34))
        assert float(info(folder, f"test/{name}")["frameRate"]) == 14.5
    assert list(list_sequences(folder)["frames"]) == [34, 34, 9, 9]


def test_a_file_called_like_an_address_is_a_file(source, folder, monkeypatch):
    originals = scene(6, frames=40)
    write(source / "a.mp4", originals).rename(source / "http:x.mp4")
    monkeypatch.chdir(source)
    own_videos.import_videos(Path("."), folder)
    assert numbers(found(folder)["train/http-x"], originals) == list(range(26))


# Cuts and repeated frames


def test_cuts_are_found_at_their_frames():
    frames = np.concatenate([scene(1, 20, speed=0), scene(2, 33, speed=3), scene(3, 8, speed=1), scene(4, 25, speed=6)])
    assert shots.find_cuts(frames) == [20, 53, 61]
    assert shots.find_cuts(frame for frame in frames) == [20, 53, 61]
    assert shots.find_cuts(shots.frame_changes(frames)) == [20, 53, 61]


@pytest.mark.parametrize("speed", [5, 20, 48, 96])
def test_a_fast_pan_is_no_cut(speed):
    still = scene(1, 10, speed=0)
    pan = scene(1, 20, speed=speed)
    assert shots.find_cuts(pan) == []
    assert shots.find_cuts(np.concatenate([still, pan[1:], pan[-1:].repeat(10, axis=0)])) == []


def test_a_flash_and_a_passing_lorry_are_no_cuts():
    frames = scene(1, 40, speed=1)
    frames[12] = 255 - (255 - frames[12]) // 4
    for t in range(22, 30):
        frames[t, 10:, max(0, 15 * (t - 24)) : 15 * (t - 21)] = (200, 30, 30)
    assert shots.find_cuts(frames) == []


def test_one_wild_step_among_others_is_no_cut_and_one_small_step_alone_no_repeat():
    shaken = np.array([(0, 0), (42, 90), (44, 90), (56, 90), (43, 90), (45, 90)], np.float32)
    assert shots.find_cuts(shaken) == []
    shaken[3, 0] = 80
    assert shots.find_cuts(shaken) == [3]
    assert shots.find_duplicates(np.array([(0, 0), (1, 10)], np.float32)) == []


def test_a_cut_is_found_where_every_frame_is_shown_twice():
    frames = np.concatenate([scene(1, 12, speed=4), scene(2, 12, speed=4)]).repeat(2, axis=0)
    assert shots.find_cuts(frames) == [24]
    assert shots.find_duplicates(frames) == list(range(1, 48, 2))


@pytest.mark.parametrize("quality", [9, 4])
@pytest.mark.parametrize("repeats", [(1, 1, 1, 2), (2,), (3,), (1,)], ids=["24 in 30", "15 in 30", "10 in 30", "none"])
def test_repeated_frames_are_counted_exactly_after_compression(tmp_path, repeats, quality):
    frames, index = scene(1, 40, size=(160, 90), speed=3), []
    for t, times in zip(range(40), itertools.cycle(repeats), strict=False):
        index += [t] * times
    path = write(tmp_path / "film.mp4", frames[index], 30, quality=quality, pixelformat="yuv420p")
    clip = own_videos.read_clip(path)
    next(clip)
    wanted = [k for k in range(1, len(index)) if index[k] == index[k - 1]]
    if repeats == (3,):  # at the very ends of such a film there is no step to compare with on one side
        assert set(shots.find_duplicates(clip)) ^ set(wanted) <= {1, 2, len(index) - 2, len(index) - 1}
    else:
        assert shots.find_duplicates(clip) == wanted


def test_a_small_thing_that_moves_is_no_repeated_frame():
    frames = scene(1, 30, size=(480, 270), speed=0)
    for t in range(30):
        frames[t, 100:110, 10 * t : 10 * t + 10] = 255
    assert shots.find_duplicates(frames) == []
    assert shots.find_duplicates(frames[:1]) == shots.find_duplicates(frames[:0]) == shots.find_cuts(frames[:1]) == []


def test_no_sequence_crosses_a_cut(source, folder, capsys):
    originals = np.concatenate([scene(1, 30), scene(2, 5), scene(3, 65)])
    write(source / "film.mp4", originals)
    own_videos.import_videos(source, folder)
    sequences = {name: numbers(frames, originals) for name, frames in found(folder).items()}
    assert sequences == {
        "train/film-shot1": list(range(30)),  # the second shot is too short
        "train/film-shot3": list(range(35, 74)),
        "test/film-shot3": list(range(81, 100)),
    }
    printed = capsys.readouterr().out
    assert "100 frames, 96x54, 25 fps; cuts: 1.20 s, 1.40 s; repeated frames: 0;" in printed
    assert "train/film-shot1 30, train/film-shot3 39, test/film-shot3 19, left out 12" in printed


# What a second call does


def test_a_second_call_decodes_nothing(source, folder, capsys, monkeypatch):
    write(source / "clip.mp4", scene(1))
    own_videos.import_videos(source, folder)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    report = capsys.readouterr().out.splitlines()[-1]

    def decoded(path):
        raise AssertionError(f"{path} is read again")

    monkeypatch.setattr(own_videos, "read_clip", decoded)
    own_videos.import_videos(source, folder)
    assert f"reusing {report}" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.parametrize("when", ["decoding", "moving", "marking"])
def test_an_interrupted_import_is_done_again(source, folder, monkeypatch, when):
    originals = np.concatenate([scene(1, 30), scene(2, 70)])
    write(source / "a.mp4", scene(3))
    write(source / "b.mp4", originals)
    read_clip, write_atomic = own_videos.read_clip, vfi.write_atomic

    def stop_reading(path):
        yield from itertools.islice(read_clip(path), 40 if path.stem == "b" else None)
        if path.stem == "b":
            raise KeyboardInterrupt

    def stop_writing(path, content):
        if "b" in path.parts[-2] and path.name == {"moving": "seqinfo.ini", "marking": "stage.json"}[when]:
            raise KeyboardInterrupt
        write_atomic(path, content)

    with monkeypatch.context() as patch:
        if when == "decoding":
            patch.setattr(own_videos, "read_clip", stop_reading)
        else:
            patch.setattr(vfi, "write_atomic", stop_writing)
        with pytest.raises(KeyboardInterrupt):
            own_videos.import_videos(source, folder)
    assert (folder / "clips" / "a" / "stage.json").exists() and not (folder / "clips" / "b" / "stage.json").exists()
    own_videos.import_videos(source, folder)
    assert {name: numbers(frames, originals) for name, frames in found(folder).items() if "b" in name} == {
        "train/b-shot1": list(range(30)),
        "train/b-shot2": list(range(30, 74)),
        "test/b-shot2": list(range(81, 100)),
    }
    assert not list(folder.glob("clips/*/decoded"))


def test_a_changed_clip_is_imported_again_and_a_removed_one_is_removed(source, folder, capsys):
    write(source / "clip.mp4", np.concatenate([scene(1, 40), scene(2, 60)]))
    write(source / "clip-b.mp4", scene(3))
    write(source / "other.mp4", scene(4))
    own_videos.import_videos(source, folder)
    assert {"train/clip-shot1", "train/clip-shot2", "train/clip-b", "train/other"} <= set(found(folder))
    write(source / "clip.mp4", scene(5, 70))
    (source / "other.mp4").unlink()
    capsys.readouterr()
    own_videos.import_videos(source, folder)
    assert set(found(folder)) == {"train/clip", "test/clip", "train/clip-b", "test/clip-b"}
    assert numbers(found(folder)["train/clip"], scene(5, 70)) == list(range(50))
    printed = capsys.readouterr().out
    assert "other is no longer there" in printed and "reusing clip-b.mp4" in printed


# What cannot be used


def test_an_unreadable_video_is_named_and_the_others_go_on(source, folder, capsys):
    write(source / "good.mp4", scene(1))
    (source / "broken.mp4").write_bytes(b"no video at all" * 99)
    (source / "empty.mkv").touch()
    (source / ".hidden.mp4").touch()
    (source / "notes.txt").write_text("not footage")
    ffmpeg("-f", "lavfi", "-i", "sine=d=1", source / "song.mp4")
    (source / "no-rate" / "img1").mkdir(parents=True)
    Image.new("RGB", (32, 18)).save(source / "no-rate" / "img1" / "000001.jpg")
    shutil.copytree(source / "no-rate", source / "zero-rate")
    (source / "zero-rate" / "seqinfo.ini").write_text("[Sequence]\nframeRate=0\n")
    shutil.copytree(source / "no-rate", source / "word-rate")
    (source / "word-rate" / "seqinfo.ini").write_text("[Sequence]\nframeRate=fast\n")
    shutil.copytree(source / "no-rate", source / "two-sizes")
    (source / "two-sizes" / "seqinfo.ini").write_text("[Sequence]\nframeRate=25\n")
    Image.new("RGB", (18, 32)).save(source / "two-sizes" / "img1" / "000002.jpg")
    own_videos.import_videos(source, folder)
    assert set(found(folder)) == {"train/good", "test/good"}
    printed = capsys.readouterr().out
    for name in ("broken.mp4", "empty.mkv", "song.mp4", "no-rate", "zero-rate", "word-rate", "two-sizes"):
        assert f"left out: {name} cannot be read: " in printed
    assert "frameRate=fast is not a number" in printed and "000002.jpg is 18x32 px, the first 32x18" in printed
    assert "hidden" not in printed and "notes" not in printed
    assert [path.name for path in folder.glob("clips/*")] == ["good"]


def test_nothing_readable_or_nothing_there_is_an_error(source, folder):
    source.mkdir()
    with pytest.raises(FileNotFoundError, match=r"videos \(.mp4, .mov, .mkv, .webm, .gif, .avi, "):
        own_videos.import_videos(source, folder)
    (source / "broken.mp4").write_bytes(b"no video at all")
    with pytest.raises(ValueError, match="gave no train sequence"):
        own_videos.import_videos(source, folder)


@pytest.mark.parametrize(("frames", "sequences"), [(5, 0), (39, 1), (40, 2)])
def test_too_short_a_clip_is_told_and_forty_frames_are_enough(source, folder, capsys, frames, sequences):
    write(source / "short.mp4", scene(1, frames))
    if sequences < 2:
        with pytest.raises(ValueError, match="A clip needs 40 frames"):
            own_videos.import_videos(source, folder)
    else:
        own_videos.import_videos(source, folder)
    assert f"short.mp4: {frames} frames" in capsys.readouterr().out
    assert len(found(folder)) == sequences


def test_names_never_collide(source, folder):
    names = ("a.mov", "a.mp4", "A.mkv", "a-mp4.mp4", "a-shot1.mp4", "my film (1)%.mp4", "???.mp4")
    for seed, name in enumerate(names):
        write(source / name, scene(seed, 40))
    clips = own_videos.find_clips(source)
    assert sorted(path.name for path in clips.values()) == sorted(names)
    assert len({name.lower() for name in clips}) == len(names) and {"a_shot1", "my-film-1", "clip"} <= set(clips)
    own_videos.import_videos(source, folder)
    for name, path in clips.items():
        assert numbers(found(folder)[f"train/{name}"], scene(names.index(path.name), 40)) == list(range(26))


def test_a_full_disk_is_told_before_anything_is_decoded(source, folder, monkeypatch):
    write(source / "clip.mp4", scene(1))
    monkeypatch.setattr(shutil, "disk_usage", lambda place: type("usage", (), {"free": 1000}))
    with pytest.raises(OSError, match="Importing clip.mp4 needs"):
        own_videos.import_videos(source, folder)
    assert found(folder) == {}
