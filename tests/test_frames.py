"""Frames and windows: the article's counts, what a window holds, the fast decode, and interruptions."""

import json
import os
import re
import shutil
import subprocess
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import vfi_utils as vfi
from stages import markers, mot17, stored
from stages.footage import choose_dataset, dataset_name, get_footage, list_sequences
from stages.frames import LEFT_OUT, build_frames, fetch_frames, get_frames, pack_frames, unpack_frames, video_windows


def mot17_lengths(split, leave_out=LEFT_OUT):
    return {name: known[1] for name, known in mot17.MOT17.items() if known[0] == split and name not in leave_out}


def street_picture(width, height, seed=0):
    """A picture with the spectrum of a photograph: noise at every scale, the coarse stronger."""
    random, picture = np.random.default_rng(seed), np.zeros((height, width, 3))
    for scale in (4, 16, 64, 128):
        coarse = random.normal(size=(height // scale + 2, width // scale + 2, 3))
        coarse = np.clip(128 + 12 * np.log2(scale) * coarse, 0, 255).astype(np.uint8)
        picture += np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)) / 4
    return Image.fromarray(picture.astype(np.uint8))


def write_sequence(folder, frames=9, width=320, height=180, seed=0):
    (folder / "img1").mkdir(parents=True)
    for number in range(1, frames + 1):
        street_picture(width, height, seed + number).save(folder / "img1" / f"{number:06d}.jpg", quality=90)
    return folder


@pytest.fixture
def own_work(tmp_path, monkeypatch):
    monkeypatch.setenv("VFI_WORK", str(tmp_path / "work"))
    monkeypatch.delenv("VFI_DATASET", raising=False)
    monkeypatch.delenv("VFI_DRIVE", raising=False)
    return tmp_path / "work"


def test_the_article_counts():
    assert len(vfi.build_windows(mot17_lengths("train"))) == 1320
    assert len(vfi.build_windows(mot17_lengths("test"))) == 1285
    assert len(vfi.build_windows(mot17_lengths("test", leave_out=()))) == 1285 + 186


@pytest.mark.parametrize("stride", [1, 2, 3, 5, 6, 7])
def test_no_other_stride_gives_the_article_counts(stride):
    counts = [len(vfi.build_windows(mot17_lengths(split), stride=stride)) for split in ("train", "test")]
    assert counts != [1320, 1285]


def test_windows_stay_inside_their_sequence():
    lengths = {"a": 6, "b": 7, "c": 10, "d": 11, "e": 0}
    windows = vfi.build_windows(lengths)
    assert list(windows.columns) == ["sequence", "start", "middle"]
    assert windows.values.tolist() == [["b", 0, 3], ["c", 0, 3], ["d", 0, 3], ["d", 4, 7]]
    assert vfi.build_windows({}).empty


@pytest.mark.parametrize("settings", [{"window": 6}, {"window": 1}, {"stride": 0}])
def test_impossible_windows_are_refused(settings):
    with pytest.raises(ValueError, match="must be odd"):
        vfi.build_windows({"a": 20}, **settings)
    with pytest.raises(ValueError, match="fewer than 0"):
        vfi.build_windows({"a": -1})


def test_the_spacing_of_a_video():
    """Every second frame of eleven, and the middle one between them; the article's windows stay as they are."""
    assert vfi.window_times("article") == (-3, -2, -1, 1, 2, 3)
    assert vfi.window_times("video") == (-5, -3, -1, 1, 3, 5) and vfi.window_times("video", 2) == (-1, 1)
    windows = vfi.build_windows({"a": 10, "b": 19}, spacing="video")
    assert windows.values.tolist() == [["b", 0, 5, "video"], ["b", 4, 9, "video"], ["b", 8, 13, "video"]]
    frames = {"b": np.arange(19, dtype=np.uint8).reshape(-1, 1, 1, 1) * np.ones((1, 2, 2, 3), np.uint8)}
    neighbours, targets = vfi.take_windows(frames, windows)
    assert neighbours.shape == (3, 6, 2, 2, 3) and targets[:, 0, 0, 0].tolist() == [5, 9, 13]
    for row in range(3):
        times = neighbours[row, :, 0, 0, 0].astype(int) - targets[row, 0, 0, 0]
        assert tuple(times) == vfi.window_times("video")
    both = [vfi.build_windows({"b": 19}, spacing=spacing) for spacing in ("article", "video")]
    together = vfi.take_windows(frames, pd.concat(both))[0][..., 0, 0, 0]
    assert together.tolist()[0] == [0, 1, 2, 4, 5, 6] and together.tolist()[-1] == [8, 10, 12, 14, 16, 18]
    with pytest.raises(ValueError, match="neither 'article' nor 'video'"):
        vfi.build_windows({"a": 20}, spacing="films")


def test_windows_of_a_video_follow_from_the_article_s():
    """A break leaves out the same windows whichever way they are listed; the table on disk need not hold both."""
    lengths, at = {"a": 60, "b": 17, "c": 7}, 22
    whole = {spacing: vfi.build_windows(lengths, spacing=spacing) for spacing in ("article", "video")}
    pd.testing.assert_frame_equal(video_windows(whole["article"]), whole["video"])
    kept = {}
    for spacing, length in [("article", 7), ("video", 11)]:
        rows = whole[spacing]
        crosses = (rows.sequence == "a") & (rows.start < at) & (at < rows.start + length)
        kept[spacing] = rows[~crosses].reset_index(drop=True)
    pd.testing.assert_frame_equal(video_windows(kept["article"]), kept["video"])
    counts = [len(vfi.build_windows(mot17_lengths(split), spacing="video")) for split in ("train", "test")]
    assert counts == [len(video_windows(vfi.build_windows(mot17_lengths(split)))) for split in ("train", "test")]


@pytest.mark.parametrize("size", [(1920, 1080), (1280, 720), (640, 480), (321, 183)])
def test_fast_decode_agrees_with_full_decode(tmp_path, size):
    path = tmp_path / "a.jpg"
    street_picture(*size).save(path, quality=92)
    whole = np.asarray(Image.open(path).convert("RGB").resize(vfi.FRAME_SIZE, Image.Resampling.BOX))
    frame = vfi.read_frame(path)
    assert frame.shape == (90, 160, 3) and frame.dtype == np.uint8
    assert vfi.psnr(frame[None], whole[None])[0] >= 50


def test_frames_of_a_sequence_and_of_a_plain_folder(tmp_path):
    folder = write_sequence(tmp_path / "MOT17-99", frames=3)
    frames = vfi.load_frames(folder)
    assert frames.shape == (3, 90, 160, 3) and frames.dtype == np.uint8
    assert np.array_equal(frames, vfi.load_frames(folder / "img1"))
    assert np.array_equal(frames[1], vfi.read_frame(folder / "img1" / "000002.jpg"))
    assert vfi.load_frames(folder, size=(32, 18)).shape == (3, 18, 32, 3)


def test_unreadable_frames_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="Run notebook 01"):
        vfi.load_frames(tmp_path)
    (tmp_path / "a.jpg").write_bytes(b"not a jpeg")
    with pytest.raises(OSError, match=r"a\.jpg cannot be read"):
        vfi.load_frames(tmp_path)


def test_moving_pixels():
    before = np.full((1, 2, 3, 3), 100, np.uint8)
    after = before.copy()
    after[0, 0, 0] = [100, 109, 100]  # 9 in one channel: moves
    after[0, 1, 2] = [92, 92, 92]  # 8 in all: does not
    assert vfi.moving_pixels(before, after).tolist() == [[[True, False, False], [False, False, False]]]


def test_a_folder_of_sequences_becomes_frames_and_windows(tmp_path, own_work, capsys):
    """Three detectors' copies count once; a short sequence is reported; a second call reuses; a change rebuilds."""
    footage = tmp_path / "mini"
    for name in ("MOT17-02-DPM", "MOT17-02-FRCNN", "MOT17-04-SDP"):
        write_sequence(footage / "train" / name, frames=4 if "04" in name else 12)
    write_sequence(footage / "test" / "plaza", frames=11)
    assert get_footage(str(footage)) == footage
    table = build_frames(str(footage)).set_index("sequence")
    assert table.windows.to_dict() == {"MOT17-02": 2, "MOT17-04": 0, "plaza": 2}
    assert table.camera["MOT17-02"] == "fixed"
    printed = capsys.readouterr().out
    assert "MOT17-04: shorter than a window" in printed and "4 of 1050 frames" in printed

    frames, windows = get_frames(str(footage), "train")
    assert list(frames) == ["MOT17-02"] and frames["MOT17-02"].shape == (12, 90, 160, 3)
    assert windows.middle.tolist() == [3, 7]
    neighbours, targets = vfi.take_windows(frames, windows)
    assert np.array_equal(targets[1], frames["MOT17-02"][7])
    assert np.array_equal(neighbours[1], frames["MOT17-02"][[4, 5, 6, 8, 9, 10]])

    frames, windows = get_frames(str(footage), "train", spacing="video")
    assert windows.values.tolist() == [["train", "MOT17-02", "fixed", 0, 5, "video"]]
    with pytest.raises(ValueError, match="neither 'article' nor"):
        get_frames(str(footage), "train", spacing="mixed")

    built = {path: path.stat().st_mtime_ns for path in own_work.glob("frames/mini/*/*.npy")}
    build_frames(str(footage))
    assert built == {path: path.stat().st_mtime_ns for path in built}
    (footage / "test" / "plaza" / "img1" / "000011.jpg").unlink()
    build_frames(str(footage))
    changed = [path.name for path in built if path.stat().st_mtime_ns != built[path]]
    assert changed == ["plaza.npy"]


def test_no_window_crosses_a_missing_number_or_a_cut(tmp_path, own_work, capsys):
    footage = tmp_path / "mini"
    write_sequence(footage / "train" / "gap", frames=23)
    (footage / "train" / "gap" / "img1" / "000011.jpg").unlink()
    for number in range(40):  # a slow slide over one wall, then over another
        wall = street_picture(500, 180, seed=number // 20)
        (footage / "train" / "cut" / "img1").mkdir(parents=True, exist_ok=True)
        view = wall.crop((number, 0, number + 320, 180))
        view.save(footage / "train" / "cut" / "img1" / f"{number:06d}.jpg", quality=95)
    build_frames(str(footage))
    windows = get_frames(str(footage), "train")[1]
    assert windows[windows.sequence == "gap"].start.tolist() == [0, 12]
    assert windows[windows.sequence == "cut"].start.tolist() == [0, 4, 8, 12, 20, 24, 28, 32]
    printed = capsys.readouterr().out
    assert "train/gap: frames are missing before 000012.jpg" in printed and "train/cut: cuts at frames [20]" in printed


def test_odd_seqinfo_is_mended_or_named(tmp_path, capsys):
    facts = {
        "bom": b"\xef\xbb\xbf[Sequence]\nframeRate=29.97\nseqLength=3\n",
        "comma": b"[Sequence]\nframeRate=29,97\nseqLength=3\n",
        "none": b"frameRate=25\n",
        "words": b"[Sequence]\nframeRate=25\nseqLength=*\n",
        "utf16": "[Sequence]\nframeRate=25\n".encode("utf-16"),
    }
    for name, content in facts.items():
        write_sequence(tmp_path / "train" / name, frames=2, width=16, height=9)
        (tmp_path / "train" / name / "seqinfo.ini").write_bytes(content)
    table = list_sequences(tmp_path).set_index("sequence")
    assert table.fps["bom"] == table.fps["comma"] == 29.97 and table.promised["comma"] == 3
    assert set(table.index) == set(facts) and table.promised["words"] == 2
    printed = capsys.readouterr().out
    assert "words/seqinfo.ini: seqLength=* is not a number" in printed
    assert re.search(r"none/seqinfo.ini is no seqinfo.ini: .*line: 1", printed)
    assert "utf16/seqinfo.ini is no seqinfo.ini" in printed


def test_of_two_copies_the_most_complete_one_is_used(tmp_path):
    for detector, frames in [("DPM", 5), ("FRCNN", 8), ("SDP", 7)]:
        write_sequence(tmp_path / "train" / f"MOT17-02-{detector}", frames=frames, width=16, height=9)
    table = list_sequences(tmp_path)
    assert table.frames.tolist() == [8] and table.folder[0].name == "MOT17-02-FRCNN"


def test_two_folders_of_one_name_are_told_apart(tmp_path, own_work):
    for place, seed in [("here", 0), ("there", 90)]:
        write_sequence(tmp_path / place / "clips" / "test" / "a", frames=8, seed=seed)
    first = get_frames(str(tmp_path / "here" / "clips"), "test")[0]["a"].copy()
    second = get_frames(str(tmp_path / "there" / "clips"), "test")[0]["a"]
    assert not np.array_equal(first, second)


def test_only_the_chosen_sequences_of_mot17_are_used(tmp_path, own_work, monkeypatch):
    footage = tmp_path / "mot17"
    for name in ("MOT17-02", "MOT17-04"):
        write_sequence(footage / "train" / name, frames=8)
    vfi.write_atomic(footage / "chosen.json", '["MOT17-02"]')
    assert build_frames("mot17", footage).sequence.tolist() == ["MOT17-02"]


@pytest.mark.parametrize("content", ["", '["MOT17-02"', "{}"])
def test_a_damaged_choice_is_named(content, own_work):
    vfi.write_atomic(own_work / "footage" / "mot17" / "chosen.json", content)
    with pytest.raises(ValueError, match=r"chosen\.json is damaged.*Delete it"):
        get_footage("mot17")


def test_left_out_sequences_give_no_windows(tmp_path, own_work):
    footage = tmp_path / "mini"
    write_sequence(footage / "test" / "MOT17-14", frames=8)
    write_sequence(footage / "test" / "MOT17-01", frames=8)
    assert build_frames(str(footage)).set_index("sequence").windows.to_dict() == {"MOT17-01": 1, "MOT17-14": 0}
    assert build_frames(str(footage), leave_out=()).windows.tolist() == [1, 1]
    with pytest.raises(FileNotFoundError, match="No train window"):
        get_frames(str(footage), "train")


def test_half_written_frames_are_not_trusted(tmp_path, own_work, monkeypatch):
    footage = tmp_path / "mini"
    write_sequence(footage / "test" / "a", frames=8)
    write_sequence(footage / "test" / "b", frames=8, seed=50)
    load = vfi.load_frames

    def interrupted(folder):
        if folder.name == "b":
            raise KeyboardInterrupt
        return load(folder)

    monkeypatch.setattr(vfi, "load_frames", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build_frames(str(footage))
    assert not list(own_work.glob("frames/mini/windows.csv"))
    done = own_work / "frames" / "mini" / "test" / "a.npy"
    first = done.stat().st_mtime_ns
    monkeypatch.setattr(vfi, "load_frames", load)
    build_frames(str(footage))
    assert done.stat().st_mtime_ns == first, "what was whole is kept"
    assert set(get_frames(str(footage), "test")[0]) == {"a", "b"}


def flip(path, at=-1000):
    content = bytearray(path.read_bytes())
    content[at] ^= 255
    path.write_bytes(content)


def damage(kind, folder):
    """Harm what notebook 02 wrote in one way, and return the file harmed."""
    frames, marker, windows = folder / "test" / "a.npy", folder / "test" / "a.json", folder / "windows.csv"
    if kind == "cut":
        frames.write_bytes(frames.read_bytes()[:-5000])
    elif kind == "flipped":
        flip(frames)
    elif kind == "header":
        flip(frames, 20)
    elif kind == "empty":
        frames.write_bytes(b"")
    elif kind == "another dtype":  # as an older version, without a checksum, would not have noticed
        np.save(frames, np.load(frames).astype(np.float32))
        facts = markers.read_json(marker)
        facts.pop("file")
        marker.write_text(json.dumps(facts))
    elif kind == "gone":
        frames.unlink()
    elif kind == "marker":
        marker.write_text("null")
    else:
        windows.write_text("\n".join(windows.read_text().splitlines()[:-1]) + "\n")
        return windows
    return frames if kind != "marker" else marker


@pytest.mark.parametrize(
    "kind", ["cut", "flipped", "header", "empty", "another dtype", "gone", "marker", "windows cut at a line end"]
)
def test_what_is_damaged_is_named_and_built_again(kind, tmp_path, own_work, capsys):
    footage = tmp_path / "mini"
    for seed, name in enumerate("ab"):
        write_sequence(footage / "test" / name, frames=12, seed=50 * seed)
    build_frames(str(footage), leave_out=("b",))
    frames, windows = get_frames(str(footage), "test")
    whole, other = np.array(frames["a"]), (own_work / "frames" / "mini" / "test" / "b.npy").stat().st_mtime_ns
    harmed = damage(kind, own_work / "frames" / "mini")
    capsys.readouterr()
    again, windows_again = get_frames(str(footage), "test")
    assert np.array_equal(again["a"], whole) and again["a"].dtype == np.uint8
    pd.testing.assert_frame_equal(windows_again, windows)  # without the sequence that was left out
    assert harmed.name in (printed := capsys.readouterr().out) and "built again" in printed
    assert (own_work / "frames" / "mini" / "test" / "b.npy").stat().st_mtime_ns == other, "what is whole is kept"
    get_frames(str(footage), "test")
    assert "using the frames" in capsys.readouterr().out


def test_notebook_02_builds_again_what_is_damaged(tmp_path, own_work, capsys):
    footage = tmp_path / "mini"
    write_sequence(footage / "test" / "a", frames=8)
    build_frames(str(footage))
    path = own_work / "frames" / "mini" / "test" / "a.npy"
    whole = path.read_bytes()
    flip(path)
    build_frames(str(footage))
    assert path.read_bytes() == whole and "a.npy is damaged: crc32" in capsys.readouterr().out


def test_windows_of_an_older_version_are_read(tmp_path, own_work, capsys):
    footage = tmp_path / "mini"
    write_sequence(footage / "test" / "a", frames=12)
    build_frames(str(footage))
    folder = own_work / "frames" / "mini"
    for marker in (folder / "stage.json", folder / "test" / "a.json"):
        facts = markers.read_json(marker)
        marker.write_text(json.dumps({key: facts[key] for key in ("settings", "camera") if key in facts}))
    capsys.readouterr()
    assert len(get_frames(str(footage), "test", "video")[1]) == 1
    assert "using the frames" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["/etc/frames", "../../secret", "a/../../b", "C:\\frames", ""])
def test_names_that_lead_out_of_the_folder_are_refused(name, tmp_path):
    row = {"split": ["test"], "sequence": [name], "camera": ["fixed"], "start": [0], "middle": [3]}
    pd.DataFrame(row).to_csv(tmp_path / "windows.csv", index=False)
    markers.mark_finished(tmp_path, {"footage": "x"})
    with pytest.raises(ValueError, match="which is no sequence here"):
        stored.read_windows(tmp_path)


def test_disk_is_asked_before_frames_are_written(tmp_path, own_work, monkeypatch):
    write_sequence(tmp_path / "mini" / "test" / "a", frames=8)
    monkeypatch.setattr(vfi, "free_disk", lambda folder: 8 * 160 * 90 * 3 - 1)
    with pytest.raises(OSError, match="Shrinking 8 frames needs"):
        build_frames(str(tmp_path / "mini"))
    assert not list(own_work.rglob("*.npy*"))


BUILD = """
import sys
from stages.frames import build_frames
print(build_frames(sys.argv[1]).windows.sum())
"""


def test_two_of_notebook_02_at_once(tmp_path, own_work):
    for name in "abcd":
        write_sequence(tmp_path / "mini" / "test" / name, frames=12)
    command = [sys.executable, "-c", BUILD, str(tmp_path / "mini")]
    environment = {**os.environ, "VFI_WORK": str(own_work)}
    both = [subprocess.Popen(command, cwd=vfi.ROOT, env=environment, stdout=-1, stderr=-1, text=True) for _ in range(2)]
    for process in both:
        printed, errors = process.communicate(timeout=60)
        assert process.returncode == 0 and printed.endswith("8\n"), errors


def test_a_damaged_zip_of_frames_is_named_and_leaves_nothing(tmp_path, own_work, monkeypatch, capsys):
    footage, drive = tmp_path / "mini", tmp_path / "drive"
    write_sequence(footage / "test" / "a", frames=8)
    drive.mkdir()
    monkeypatch.setenv("VFI_DRIVE", str(drive))
    build_frames(str(footage))
    packed = pack_frames(str(footage))
    flip(packed, packed.stat().st_size // 2)
    shutil.rmtree(own_work / "frames" / "mini")
    with pytest.raises(ValueError, match=r"mini\.zip is not a zip of frames \(.*Delete it"):
        unpack_frames(packed, str(footage))
    assert not list((own_work / "frames").glob("mini*/*"))
    flip(drive / "frames" / "mini.zip", packed.stat().st_size // 2)
    assert len(get_frames(str(footage), "test")[1]) == 1, "built, as what came from Drive is damaged"
    assert "not a zip of frames" in capsys.readouterr().out
    unpack_frames(drive / "frames" / "mini.zip", str(footage))  # and a whole one is there again


def test_a_zip_of_frames_that_would_fill_the_disk_is_refused(tmp_path, own_work, monkeypatch):
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("windows.csv", "split")
        archive.writestr("train/a.npy", bytes(2**24))
        archive.writestr("../evil.npy", b"evil")
        archive.writestr("train/evil.py", b"evil")
    monkeypatch.setattr(vfi, "free_disk", lambda folder: 2**24)
    with pytest.raises(OSError, match="Unpacking bomb.zip needs"):
        unpack_frames(tmp_path / "bomb.zip", "sample")
    monkeypatch.undo()
    monkeypatch.setenv("VFI_WORK", str(own_work))
    unpack_frames(tmp_path / "bomb.zip", "sample")
    written = {path.relative_to(own_work).as_posix() for path in own_work.rglob("*") if path.is_file()}
    assert written == {"frames/sample/windows.csv", "frames/sample/train/a.npy"}


@pytest.mark.parametrize("name", ["my.clips", "x.json", "mot17", "sample", "a b"])
def test_data_sets_of_any_name_come_back_from_drive(name, tmp_path, own_work, monkeypatch):
    footage = tmp_path / "here" / name
    write_sequence(footage / "test" / "a.json", frames=8)
    (tmp_path / "drive").mkdir()
    monkeypatch.setenv("VFI_DRIVE", str(tmp_path / "drive"))
    before = np.array(get_frames(str(footage), "test")[0]["a.json"])
    kept = dataset_name(str(footage))
    assert kept == (f"{name}-folder" if name in ("mot17", "sample") else name)
    assert dataset_name("mot17") == "mot17" and dataset_name("sample") == "sample"
    assert sorted(path.name for path in (tmp_path / "drive" / "frames").iterdir()) == [f"{kept}.zip"]
    move_to_another_machine(tmp_path, monkeypatch)
    assert np.array_equal(get_frames(str(footage), "test")[0]["a.json"], before)


def move_to_another_machine(tmp_path, monkeypatch):
    """Work in an empty folder, where frames may be fetched but not built."""
    monkeypatch.setenv("VFI_WORK", str(tmp_path / "another_machine"))
    monkeypatch.setattr("stages.frames.build_frames", lambda *a, **k: pytest.fail("built again instead of fetched"))


def test_packed_frames_come_back_from_drive(tmp_path, own_work, monkeypatch):
    footage = tmp_path / "mini"
    write_sequence(footage / "test" / "a", frames=8)
    (tmp_path / "drive").mkdir()
    monkeypatch.setenv("VFI_DRIVE", str(tmp_path / "drive"))
    build_frames(str(footage))
    pack_frames(str(footage))
    before = get_frames(str(footage), "test")[0]["a"].copy()
    shutil.rmtree(own_work / "frames" / "mini")
    monkeypatch.setenv("VFI_DRIVE", "")
    assert not fetch_frames(str(footage)), "a zip that was packed to be shared does not bring deleted frames back"
    monkeypatch.setenv("VFI_DRIVE", str(tmp_path / "drive"))
    move_to_another_machine(tmp_path, monkeypatch)
    assert np.array_equal(get_frames(str(footage), "test")[0]["a"], before)


def test_frames_shared_by_drive_id(tmp_path, own_work, monkeypatch):
    import gdown

    footage = tmp_path / "mini"
    write_sequence(footage / "test" / "a", frames=8)
    build_frames(str(footage))
    packed = pack_frames(str(footage)).read_bytes()
    monkeypatch.setenv("VFI_WORK", str(tmp_path / "another_machine"))

    def download(id, output, resume):
        assert id == "the-id"
        Path(output).write_bytes(content)

    monkeypatch.setattr(gdown, "download", download)
    content = b"<html>Too many users have viewed this file</html>"
    with pytest.raises(ValueError, match="not a zip of frames"):
        fetch_frames(str(footage), "the-id")
    content = packed
    with pytest.raises(ValueError, match="neither the id"):
        fetch_frames(str(footage), "https://example.com/")
    assert fetch_frames(str(footage), "https://drive.google.com/file/d/the-id/view?usp=sharing"), (
        "what was no zip is fetched again"
    )
    assert len(get_frames(str(footage), "test")[1]) == 1


def test_mounting_drive(tmp_path, own_work, monkeypatch):
    with pytest.raises(RuntimeError, match="only Colab can"):
        vfi.use_drive()
    mounted = []
    colab = types.ModuleType("google.colab")
    colab.drive = types.SimpleNamespace(mount=mounted.append)
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    monkeypatch.setattr(vfi, "on_colab", lambda: True)
    monkeypatch.setenv("VFI_DRIVE", "")
    with pytest.raises(RuntimeError, match="Google Drive is not there"):  # and its folder is not made locally
        vfi.use_drive(str(tmp_path / "drive" / "series"))
    assert not (tmp_path / "drive").exists() and mounted.pop()
    (tmp_path / "drive").mkdir()
    vfi.use_drive(str(tmp_path / "drive" / "series"))
    assert mounted == ["/content/drive"]
    vfi.write_atomic(own_work / "runs" / "a" / "history.csv", "epoch\n1\n")
    vfi.to_drive(own_work / "runs" / "a")
    assert (tmp_path / "drive" / "series" / "runs" / "a" / "history.csv").read_text() == "epoch\n1\n"
    (own_work / "runs" / "a" / "history.csv").unlink()
    assert vfi.from_drive(own_work / "runs" / "a")
    assert (own_work / "runs" / "a" / "history.csv").exists()


def test_drive_that_drops_stops_nothing(tmp_path, own_work, monkeypatch, capsys):
    drive, run = tmp_path / "drive", own_work / "runs" / "a"
    monkeypatch.setenv("VFI_DRIVE", str(drive))
    vfi.write_atomic(run / "history.csv", "epoch\n")
    for _ in range(2):
        vfi.to_drive(run)
        assert not vfi.from_drive(run)
    assert capsys.readouterr().out.count("Drive does not answer") == 1 and not drive.exists(), "not made locally"

    drive.mkdir()  # mounted again
    (run / "history.csv.part").write_text("half")
    vfi.to_drive(run)
    assert [path.name for path in drive.rglob("*") if path.is_file()] == ["history.csv"]

    def fail(*_):
        raise OSError(107, "Transport endpoint is not connected")

    monkeypatch.setattr(vfi, "copy_atomic", fail)
    vfi.to_drive(run)
    assert not vfi.from_drive(run), "and the run goes on"
    assert capsys.readouterr().out.count("Transport endpoint") == 2


@pytest.mark.parametrize("content", ["", "null", "[1]", '{"settings": {"a"', '{"settings": null}', "\x00\x00"])
def test_a_damaged_marker_is_rebuilt_and_damaged_facts_are_named(content, tmp_path, capsys):
    folder = tmp_path / "runs" / "a"
    vfi.write_atomic(folder / "stage.json", content)
    assert not markers.is_finished(folder, {"a": 1})
    assert "a: its marker is damaged" in capsys.readouterr().out
    if "null}" not in content:
        with pytest.raises(ValueError, match=r"stage\.json is damaged.*Delete it"):
            markers.read_json(folder / "stage.json")
    markers.mark_finished(folder, {"a": 1}, report="b")
    assert markers.is_finished(folder, {"a": 1}) and markers.read_json(folder / "stage.json")["report"] == "b"


def test_a_folder_may_be_called_json(tmp_path):
    (tmp_path / "x.json").mkdir()
    markers.mark_finished(tmp_path / "x.json", {"a": 1})
    assert (tmp_path / "x.json" / "stage.json").exists() and markers.is_finished(tmp_path / "x.json", {"a": 1})


def test_images_come_in_natural_order(tmp_path):
    for number in (1, 2, 10, 11, 60):
        Image.new("RGB", (8, 6), (number, 0, 0)).save(tmp_path / f"frame_{number}.png")
    (tmp_path / "._frame_1.png").write_bytes(b"of another system")
    (tmp_path / "Thumbs.db").write_bytes(b"no picture")
    (tmp_path / "frame_12.png").mkdir()
    assert [path.stem for path in vfi.image_files(tmp_path)] == [f"frame_{n}" for n in (1, 2, 10, 11, 60)]
    assert vfi.load_frames(tmp_path, size=(4, 3))[:, 0, 0, 0].tolist() == [1, 2, 10, 11, 60]


def test_grey_pictures_of_16_bits_keep_their_brightness(tmp_path):
    grey = np.linspace(0, 65535, 64 * 36).reshape(36, 64).astype(np.uint16)
    Image.fromarray(grey).save(tmp_path / "a.png")
    frame = vfi.read_frame(tmp_path / "a.png", size=None)
    assert frame.shape == (36, 64, 3) and np.abs(frame[..., 1] - grey / 257.0).max() <= 0.5
    assert abs(vfi.read_frame(tmp_path / "a.png", size=(16, 9)).mean() - 127.5) < 1


HOLD = """
import sys, time
from pathlib import Path
from stages import markers
with markers.locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


@pytest.fixture
def hold():
    """Return a function that starts a process which holds a lock for some seconds."""
    holders = []

    def start(path, seconds):
        command = [sys.executable, "-c", HOLD, str(path), str(seconds)]
        holders.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=vfi.ROOT))
        assert holders[-1].stdout.readline() == "held\n"
        return holders[-1]

    yield start
    for holder in holders:
        holder.kill()
        holder.communicate()


def test_two_processes_do_not_write_one_folder(tmp_path, hold, capsys):
    folder = tmp_path / "runs" / "a"
    holder = hold(folder, 1)
    in_use = pytest.raises(RuntimeError, match=rf"a is in use by process {holder.pid} on .*stop it")
    with in_use, markers.locked(folder, wait=False):
        pytest.fail("both have it")
    with markers.locked(folder), markers.locked(folder, wait=False):  # once it is free; twice in one thread
        assert holder.wait(5) == 0
        assert str(os.getpid()) in (tmp_path / "runs" / ".a.holder").read_text()
    assert f"waiting for process {holder.pid} on" in capsys.readouterr().out
    assert not folder.exists() and not (tmp_path / "runs" / ".a.holder").exists()


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path, hold, capsys):
    holder = hold(tmp_path / "a", 60)
    holder.kill()
    holder.wait()
    with markers.locked(tmp_path / "a", wait=False):
        pass
    assert f"process {holder.pid} on" in (printed := capsys.readouterr().out) and "taken over" in printed


def test_unknown_dataset_is_refused(own_work):
    with pytest.raises(FileNotFoundError, match="neither 'mot17' nor 'sample'"):
        choose_dataset("mot18")


def test_default_dataset(own_work, monkeypatch):
    assert choose_dataset() == "sample"
    monkeypatch.setattr(vfi, "on_colab", lambda: True)
    assert choose_dataset() == "sample", "on Colab, too"
    assert choose_dataset("mot17") == "mot17"
    monkeypatch.setenv("VFI_DATASET", "sample")
    assert choose_dataset("mot17") == "sample"


def test_too_little_disk_is_said_first(tmp_path):
    with pytest.raises(OSError, match="needs 1048576.0 GiB"):
        vfi.check_disk(tmp_path / "not" / "there", 2**50, "Everything")
