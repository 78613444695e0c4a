"""What is done with each kind of video: each test shows a row of the table in assets/VIDEO.md.

PYTHONPATH=.:tests/tools python tests/test_video_files.py writes the table there.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image
from test_video import convert, drawn, interrupt_after, read, stamps, write

import vfi_utils as vfi
from conftest import ROOT, clean_environment
from stages import ffmpeg, models, planning, streams, video

PAGE = ROOT / "assets" / "VIDEO.md"
ROWS = []  # (what comes in, what is done with it), in the order of the tests
AVERAGE = {"model": "average"}


def row(what: str, done: str):
    """Decorator of a test that shows a row of the page's table."""
    ROWS.append((what, done))
    return lambda test: test


def table() -> str:
    return "\n".join(["| your video | what comes out |", "|---|---|", *(f"| {what} | {done} |" for what, done in ROWS)])


def probe(path) -> dict:
    """What a second tool sees in a file: facts of the picture, and of each other track."""
    with av.open(str(path)) as container:
        picture, others = container.streams.video[0], [s for s in container.streams if s.type != "video"]
        frame = next(container.decode(video=0))
        chapters = [chapter["metadata"].get("title") for chapter in container.chapters()]
        tags = {name.lower(): value for name, value in container.metadata.items()}
        tracks = [(s.type, s.codec_context.name if s.codec_context else "", s.metadata.get("language")) for s in others]
        starts = {s.type: float((s.start_time or 0) * s.time_base) for s in container.streams}
        facts = {"codec": picture.codec_context.name, "pixels": frame.format.name, "size": (frame.width, frame.height)}
        facts |= {"aspect": picture.sample_aspect_ratio, "space": int(frame.colorspace), "chapters": chapters}
    return facts | {"tags": tags, "tracks": tracks, "starts": starts, "interlaced": frame.interlaced_frame}


def run(tmp_path, capsys, *arguments, code: int = 0) -> str:
    """What the command prints, on both streams, once it has ended with this code."""
    if "--model" not in arguments:
        arguments = (*arguments, "--model", "average")
    ended, printed = video.main(list(map(str, arguments))), capsys.readouterr()
    assert ended == code, printed
    assert code == 0 or printed.err.count("\n") <= 1, "an error is one line"
    return printed.out + printed.err


def sound(seconds: float = 0.5, frequency: int = 440) -> list:
    return ["-f", "lavfi", "-i", f"sine=f={frequency}:d={seconds}"]


def packets(path, kind: str = "audio") -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(**{kind: 0}) if packet.size]


# ---------------------------------------------------------------------------------------------------------------------
# Tracks
# ---------------------------------------------------------------------------------------------------------------------


@row("several sound tracks, subtitles, chapters, title, place and date", "all kept, in `.mp4`, `.mov` and `.mkv`")
@pytest.mark.parametrize("name", ["b.mp4", "b.mov", "b.mkv"])
def test_tracks_and_descriptions_are_kept(tmp_path, capsys, name):
    write(tmp_path / "silent.mp4")
    (tmp_path / "words.srt").write_text("1\n00:00:00,000 --> 00:00:00,300\nHello\n")
    (tmp_path / "tags.txt").write_text(
        ";FFMETADATA1\ntitle=A corrupt walk\ncomment=mine\\; and\\\nyours\nlocation=+48.1000+011.5000/\n"
        "creation_time=2020-01-02T03:04:05.000000Z\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=200\ntitle=One\n"
        "[CHAPTER]\nTIMEBASE=1/1000\nSTART=200\nEND=480\ntitle=Two\n"
    )
    inputs = ["-i", tmp_path / "silent.mp4", *sound(), *sound(0.5, 880), "-i", tmp_path / "words.srt"]
    maps = ["-i", tmp_path / "tags.txt", "-map", 0, "-map", 1, "-map", 2, "-map", 3, "-map_metadata", 4]
    codecs = ["-c:v", "copy", "-c:a:0", "aac", "-c:a:1", "ac3", "-c:s", "mov_text"]
    languages = [
        "-metadata:s:a:0",
        "language=spa",
        "-metadata:s:a:1",
        "language=eng",
        "-metadata:s:s:0",
        "language=fra",
    ]
    convert(*inputs, *maps, *codecs, *languages, tmp_path / "a.mp4")
    out = run(tmp_path, capsys, tmp_path / "a.mp4", tmp_path / name)
    assert "sound: copied" in out
    facts = probe(tmp_path / name)
    assert [track[::2] for track in facts["tracks"] if track[0] != "data"] == [
        ("audio", "spa"),
        ("audio", "eng"),
        ("subtitle", "fra"),
    ]
    assert facts["chapters"] == ["One", "Two"]
    assert facts["tags"]["title"] == "A corrupt walk" and facts["tags"]["comment"].startswith(
        "mine; and\nyours; interpolated"
    )
    assert facts["tags"]["location"].startswith("+48.1") and facts["tags"]["creation_time"].startswith("2020-01-02T03")
    assert packets(tmp_path / name) == packets(tmp_path / "a.mp4"), "the sound is copied"
    assert "reusing" in run(tmp_path, capsys, tmp_path / "a.mp4", tmp_path / name)
    assert "--overwrite" in run(tmp_path, capsys, tmp_path / name, tmp_path / "a.mp4", code=1)


def with_sound(path, codec):
    """Write a small video with a sound track in the codec."""
    write(path.with_name("silent.mp4"))
    convert("-i", path.with_name("silent.mp4"), *sound(), "-c:v", "copy", "-c:a", codec, path)


@row("sound in a codec that `.webm` does not know", "converted to Opus, and said; subtitles to WebVTT")
def test_sound_is_converted_for_webm(tmp_path, capsys):
    with_sound(tmp_path / "a.mp4", "aac")
    assert "converting to opus: audio track 1 (aac)" in run(tmp_path, capsys, tmp_path / "a.mp4", tmp_path / "b.webm")
    assert probe(tmp_path / "b.webm")["tracks"][0][:2] == ("audio", "opus")
    assert probe(tmp_path / "b.webm")["codec"].endswith("vp9")


@row("24-bit sound without compression (a camera's `.mov`)", "copied to `.mov` and `.mkv`; AAC in `.mp4`")
def test_sound_without_compression(tmp_path, capsys):
    with_sound(tmp_path / "a.mov", "pcm_s24le")
    assert "converting to aac" in run(tmp_path, capsys, tmp_path / "a.mov", tmp_path / "b.mp4")
    assert probe(tmp_path / "b.mp4")["tracks"][0][:2] == ("audio", "aac")
    run(tmp_path, capsys, tmp_path / "a.mov", tmp_path / "c.mov")
    assert probe(tmp_path / "c.mov")["tracks"][0][:2] == ("audio", "pcm_s24le")


@row(
    "a sound track that ffmpeg does not know (a phone's `apac`)",
    "left out before the first frame is predicted, and said",
)
def test_an_unknown_track_is_left_out_before_anything_is_predicted(tmp_path, capsys, monkeypatch):
    write(tmp_path / "silent.mp4")
    tracks = ["-map", 0, "-map", 1, "-map", 2, "-c:v", "copy", "-c:a:0", "aac", "-c:a:1", "ac3"]
    convert("-i", tmp_path / "silent.mp4", *sound(), *sound(), *tracks, tmp_path / "a.mp4")
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.count(b"ac-3") == 1
    (tmp_path / "a.mp4").write_bytes(data.replace(b"ac-3", b"apac"))
    order, write_parts = [], video.write_parts
    choose, join = streams.choose_codec, streams.join_parts
    monkeypatch.setattr(streams, "choose_codec", lambda *a: order.append("track") or choose(*a))
    monkeypatch.setattr(streams, "join_parts", lambda *a, **k: order.append("join") or join(*a, **k))
    monkeypatch.setattr(video, "write_parts", lambda *a: order.append("predict") or write_parts(*a))
    assert "apac)" in run(tmp_path, capsys, tmp_path / "a.mp4", tmp_path / "b.mp4")
    assert order == ["track", "track", "join", "predict", "join"]
    assert [track[:2] for track in probe(tmp_path / "b.mp4")["tracks"]] == [("audio", "aac")]


@row("`--no-sound`, or slow motion", "no sound, and said")
def test_no_sound(tmp_path, capsys):
    write(tmp_path / "silent.mp4")
    convert("-i", tmp_path / "silent.mp4", *sound(), "-c:v", "copy", "-c:a", "aac", tmp_path / "a.mp4")
    assert "sound: left out" in run(tmp_path, capsys, tmp_path / "a.mp4", tmp_path / "b.mp4", "--no-sound")
    assert "sound: left out" in run(tmp_path, capsys, tmp_path / "a.mp4", tmp_path / "c.mp4", "--mode", "slow")
    assert probe(tmp_path / "b.mp4")["tracks"] == probe(tmp_path / "c.mp4")["tracks"] == []
    assert "sound: none" in run(tmp_path, capsys, tmp_path / "silent.mp4", tmp_path / "d.mp4")


@row("MPEG-TS and MPEG-PS, or a picture that starts late", "sound and picture stay in step to 2 ms")
@pytest.mark.parametrize("name", ["a.ts", "a.mpg", "late.mp4", "late.mkv"])
def test_sound_stays_in_step(tmp_path, capsys, name):
    late = ["-itsoffset", 0.3] if "late" in name else []
    write(tmp_path / "silent.mp4", drawn(20))
    picture = (
        ["-c:v", "mpeg2video", "-q:v", 2, "-c:a", "mp2"] if name.endswith("mpg") else ["-c:v", "copy", "-c:a", "aac"]
    )
    convert(*late, "-i", tmp_path / "silent.mp4", *sound(1), "-map", 0, "-map", 1, *picture, tmp_path / name)
    run(tmp_path, capsys, tmp_path / name, tmp_path / "b.mp4")
    before, after = (probe(path)["starts"] for path in (tmp_path / name, tmp_path / "b.mp4"))
    assert after["video"] - after["audio"] == pytest.approx(before["video"] - before["audio"], abs=0.002)


# ---------------------------------------------------------------------------------------------------------------------
# Pictures' shape and colours
# ---------------------------------------------------------------------------------------------------------------------


@row("pixels that are not square", "the same shape, exactly")
@pytest.mark.parametrize("aspect", ["64/45", "4320/4739"])
def test_pixel_shape(tmp_path, capsys, aspect):
    source = write(tmp_path / "a.mp4", filters=f"setsar=r={aspect}:max=65535")
    run(tmp_path, capsys, source, tmp_path / "b.mp4")
    assert probe(source)["aspect"] == probe(tmp_path / "b.mp4")["aspect"] == Fraction(aspect)


@row(
    "BT.601, BT.709, BT.2020, SMPTE 240M colours",
    "the same tag, the same colours to 3 levels of 255; a matrix that ffmpeg cannot write becomes BT.709",
)
@pytest.mark.parametrize(
    ("tag", "matrix", "kept"),
    [
        ("smpte170m", "bt601", 6),
        ("bt709", "bt709", 1),
        ("bt2020nc", "bt2020", 9),
        ("smpte240m", "smpte240m", 7),
        ("unknown", "bt601", 2),
        ("ycgco", "", 1),
    ],
)
def test_colours(tmp_path, capsys, tag, matrix, kept):
    flat = [np.full((36, 64, 3), colour, np.uint8) for colour in ((200, 40, 60), (40, 180, 90), (60, 70, 220))]
    scale = f"scale=out_color_matrix={matrix}:out_range=tv," if matrix else "scale=out_color_matrix=bt709,"
    source = write(tmp_path / "a.mkv", flat, filters=f"{scale}setparams=colorspace={tag}:range=tv")
    out = run(tmp_path, capsys, source, tmp_path / "b.mkv", "--scene-threshold", 255)
    assert probe(tmp_path / "b.mkv")["space"] == kept
    if matrix:
        assert np.abs(read(tmp_path / "b.mkv")[::2].astype(int) - np.stack(flat)).max() <= 3
    else:
        assert "converted to BT.709" in out


@row(
    "10 bits a colour, HDR (HLG, PQ)",
    "refused in one sentence; `--bits 8` writes it with 8, HDR as standard range (BT.709)",
)
@pytest.mark.parametrize("transfer", ["bt709", "arib-std-b67", "smpte2084"])
def test_more_than_8_bits(tmp_path, capsys, transfer):
    hdr = transfer != "bt709"
    colours = ["bt2020nc", "bt2020"] if hdr else ["bt709", "bt709"]
    filters = f"format=yuv420p10le,setparams=colorspace={colours[0]}:color_primaries={colours[1]}:color_trc={transfer}"
    filters += ":range=tv"
    encoder = ["-c:v", "libx265", "-crf", "10", "-x265-params", "log-level=error"]
    source = write(tmp_path / "a.mp4", filters=filters, pixels="yuv420p10le", encoder=encoder)
    said = run(tmp_path, capsys, source, tmp_path / "b.mp4", code=1)
    assert "a.mp4 has 10 bits a colour" in said and "--bits 8" in said and ("high dynamic range" in said) == hdr
    assert list(tmp_path.iterdir()) == [source]
    said = run(tmp_path, capsys, source, tmp_path / "b.mp4", "--bits", 8)
    facts = probe(tmp_path / "b.mp4")
    assert facts["pixels"] == "yuv420p" and facts["space"] == 1
    with av.open(str(tmp_path / "b.mp4")) as container:
        assert next(container.decode(video=0)).color_trc == 1, "no tag of HDR over 8 bits"
    assert ("brought to the standard one" in said) == hdr


def see_through(times, width=96, height=64) -> list[np.ndarray]:
    """Pictures, uint8 `[H, W, 4]`: a disc of checks that moves 4 px a frame, and is all that can be seen."""
    y, x = np.mgrid[:height, :width]
    pictures = []
    for time in times:
        disc = np.hypot(x - 24 - 4 * time, y - height / 2) < 14
        checks = 128 + 80 * np.sin((x - 4 * time) / 5) * np.sin(y / 4)
        pictures.append(np.stack([checks, 255 - checks, 90 + 0 * y, 255 * disc], axis=-1).astype(np.uint8))
    return pictures


@row("transparency", "kept by a folder of pictures and by `--codec prores` in a .mov or .mkv; else left out, and said")
def test_transparency(tmp_path, capsys):
    half_seen = ["-f", "lavfi", "-i", "color=red@0.5:s=64x36:d=0.4,format=yuva420p"]
    for name, encoder in {"a.mov": ["-c:v", "qtrle"], "a.webm": ["-c:v", "libvpx-vp9", "-auto-alt-ref", 0]}.items():
        convert(*half_seen, *encoder, tmp_path / name)
        printed = run(tmp_path, capsys, tmp_path / name, tmp_path / f"{name}.mp4")
        assert printed.count("its transparency is left out") == 1
    write(tmp_path / "opaque.webm", drawn(6, (64, 48)), encoder=["-c:v", "libvpx-vp9"])
    assert "its transparency" not in run(tmp_path, capsys, tmp_path / "opaque.webm", tmp_path / "c.mp4")
    (tmp_path / "disc").mkdir()
    for number, picture in enumerate(see_through(range(0, 12, 2))):
        Image.fromarray(picture).save(tmp_path / "disc" / f"{number:02}.png")
    assert "its transparency" not in run(tmp_path, capsys, tmp_path / "disc", tmp_path / "twice", "--model", "path")
    truth = see_through(range(11))
    made = [np.asarray(Image.open(path)) for path in sorted((tmp_path / "twice").glob("*.png"))]
    assert len(made) == 11 and all(np.array_equal(one, other) for one, other in zip(made[::2], truth[::2]))
    wrong = [np.abs(one[..., 3].astype(int) - other[..., 3]).mean() for one, other in zip(made, truth)]
    beside = np.mean([np.abs(truth[k][..., 3].astype(int) - truth[k + 1][..., 3]).mean() for k in range(10)])
    assert max(wrong[3:-3]) < beside / 4, "the disc's outline moves with its checks"
    assert "its transparency" not in run(
        tmp_path, capsys, tmp_path / "disc", tmp_path / "c.mov", "--codec", "prores", "--fps", 10
    )
    assert probe(tmp_path / "c.mov")["pixels"].startswith("yuva444p")
    convert("-i", tmp_path / "c.mov", "-pix_fmt", "rgba", tmp_path / "from-c-%02d.png")
    kept = [np.asarray(Image.open(path)) for path in sorted(tmp_path.glob("from-c-*.png"))]
    assert max(np.abs(one[..., 3].astype(int) - other[..., 3]).mean() for one, other in zip(kept[::2], truth[::2])) < 1
    assert "its transparency" not in run(
        tmp_path, capsys, tmp_path / "c.mov", tmp_path / "d.mov", "--codec", "prores", "--bits", 8
    )
    assert probe(tmp_path / "d.mov")["pixels"].startswith("yuva444p") and len(stamps(tmp_path / "d.mov")) == 22


@row("interlaced video", "made progressive first (`bwdif`), and said")
def test_interlaced(tmp_path, capsys):
    encoder = [*ffmpeg.H264, "-flags", "+ildct+ilme", "-x264-params", "tff=1"]
    source = write(tmp_path / "a.mp4", drawn(20, (64, 48)), filters="setfield=tff", encoder=encoder)
    assert probe(source)["interlaced"]
    assert "interlaced: made progressive" in run(tmp_path, capsys, source, tmp_path / "b.mp4")
    assert not probe(tmp_path / "b.mp4")["interlaced"] and len(stamps(tmp_path / "b.mp4")) == 40


@row(
    "an odd size",
    "an edge pixel more, which all players show, and said; `--pixels yuv444p` and `.webm` keep the size",
)
def test_odd_sizes(tmp_path, capsys):
    frames = drawn(6, (65, 37))
    source = write(tmp_path / "a.mp4", frames)
    assert "an edge pixel is repeated" in run(tmp_path, capsys, source, tmp_path / "b.mp4")
    assert (probe(tmp_path / "b.mp4")["pixels"], probe(tmp_path / "b.mp4")["size"]) == ("yuv420p", (66, 38))
    made = read(tmp_path / "b.mp4")[::2]
    assert vfi.psnr(made[:, :37, :65], np.stack(frames)).min() > 33
    assert np.abs(made[:, :, 65].astype(int) - made[:, :, 64]).mean() < 4
    run(tmp_path, capsys, source, tmp_path / "c.mp4", "--pixels", "yuv444p")
    assert (probe(tmp_path / "c.mp4")["pixels"], probe(tmp_path / "c.mp4")["size"]) == ("yuv444p", (65, 37))
    run(tmp_path, capsys, source, tmp_path / "d.webm")
    assert (probe(tmp_path / "d.webm")["pixels"], probe(tmp_path / "d.webm")["size"]) == ("yuv420p", (65, 37))


@row("a rotation tag", "upright")
def test_a_turned_video_comes_out_upright(tmp_path, capsys):
    write(tmp_path / "a.mp4")
    convert("-display_rotation", 90, "-i", tmp_path / "a.mp4", "-c", "copy", tmp_path / "turned.mp4")
    run(tmp_path, capsys, tmp_path / "turned.mp4", tmp_path / "b.mp4")
    assert vfi.psnr(read(tmp_path / "b.mp4")[:1], np.rot90(drawn(1)[0], 1)[None])[0] > 33


@row(
    "a picture whose size changes in the middle",
    "all frames get the first one's size, and said; interrupted, it goes on",
)
def test_a_size_that_changes(tmp_path, capsys, monkeypatch):
    for name, size in (("x", (64, 36)), ("y", (32, 18)), ("z", (64, 36))):
        part = write(tmp_path / f"{name}.mp4", drawn(12, size))
        convert("-i", part, "-c", "copy", part.with_suffix(".h264"))
    source = tmp_path / "a.h264"
    source.write_bytes(b"".join((tmp_path / f"{name}.h264").read_bytes() for name in "xyz"))
    assert "change their size; all become 64x36" in run(tmp_path, capsys, source, tmp_path / "whole.mp4")
    monkeypatch.setattr(video, "PART", 10)
    with monkeypatch.context() as patch:
        interrupt_after(patch, 45)
        run(tmp_path, capsys, source, tmp_path / "b.mp4", code=130)
    assert "going on after the" in run(tmp_path, capsys, source, tmp_path / "b.mp4")
    made, whole = read(tmp_path / "b.mp4"), read(tmp_path / "whole.mp4")
    assert made.shape == whole.shape and vfi.psnr(made, whole).min() > 30


# ---------------------------------------------------------------------------------------------------------------------
# Containers, codecs, damage
# ---------------------------------------------------------------------------------------------------------------------


@row(
    "`--codec h265`, `av1`, `vp9`, `prores`, and `--quality`",
    "what the output's ending may hold; else a sentence that lists it",
)
@pytest.mark.parametrize(
    ("codec", "name", "seen"),
    [("h265", "b.mp4", "hevc"), ("prores", "b.mov", "prores"), ("vp9", "b.mkv", "vp9"), ("av1", "b.mp4", "av1")],
)
def test_codecs(tmp_path, capsys, codec, name, seen):
    source = write(tmp_path / "a.mp4", drawn(4))
    run(tmp_path, capsys, source, tmp_path / name, "--codec", codec)
    assert seen in probe(tmp_path / name)["codec"].replace("libdav1d", "av1") and len(stamps(tmp_path / name)) == 8


def test_quality(tmp_path, capsys):
    source = write(tmp_path / "a.mp4")
    for quality in (1, 40):
        run(tmp_path, capsys, source, tmp_path / f"{quality}.mp4", "--quality", quality)
    assert (tmp_path / "1.mp4").stat().st_size > 2 * (tmp_path / "40.mp4").stat().st_size


@row("a GIF, also with uneven times", "times kept; as output at most 50 frames a second")
def test_gif(tmp_path, capsys):
    palette = ["-lavfi", "split[a][b];[a]palettegen[c];[b][c]paletteuse"]
    times = [0, 100, 200, 500, 600]  # ms
    convert("-i", write(tmp_path / "a.mp4", drawn(5), times=times), *palette, tmp_path / "a.gif")
    run(tmp_path, capsys, tmp_path / "a.gif", tmp_path / "b.gif")
    assert stamps(tmp_path / "b.gif") == pytest.approx([0, 0.05, 0.1, 0.15, 0.2, 0.35, 0.5, 0.55, 0.6, 0.65], abs=0.006)
    said = run(tmp_path, capsys, tmp_path / "a.gif", tmp_path / "c.gif", "--fps", 60, code=1)
    assert "at most 50 frames a second" in said


@row("a bare `.h264` stream, a container that rounds its rate", "the exact rate, as a fraction")
def test_rates_of_containers(tmp_path, capsys):
    for name, rate in (("a.mkv", "60000/1001"), ("b.mkv", "24000/1001"), ("c.mkv", "30"), ("d.mkv", "100/3")):
        assert planning.read_facts(write(tmp_path / name, drawn(40), rate))[0].rate == Fraction(rate)
    convert("-i", write(tmp_path / "a.mp4"), "-c", "copy", tmp_path / "a.h264")
    run(tmp_path, capsys, tmp_path / "a.h264", tmp_path / "b.mp4")
    assert len(stamps(tmp_path / "b.mp4")) == 24


@row("a file that is cut off or damaged in the middle", "the readable part, the loss in a line, and exit code 3")
@pytest.mark.parametrize("kind", ["cut off", "damaged"])
def test_damage(tmp_path, capsys, kind):
    convert(
        "-i",
        write(tmp_path / "whole.mp4", drawn(60, (160, 90))),
        "-c",
        "copy",
        "-movflags",
        "+faststart",
        tmp_path / "a.mp4",
    )
    data = bytearray((tmp_path / "a.mp4").read_bytes())
    if kind == "cut off":
        del data[len(data) * 2 // 3 :]
    else:
        data[len(data) // 2 : len(data) // 2 + 3000] = b"\xa5" * 3000
    (tmp_path / "a.mp4").write_bytes(data)
    assert "DAMAGED: what can be read is" in run(tmp_path, capsys, tmp_path / "a.mp4", tmp_path / "b.mp4", code=3)
    assert 20 <= len(stamps(tmp_path / "b.mp4")) <= 120


def sound_only(folder):
    convert(*sound(), folder / "sound.mp4")
    return folder / "sound.mp4"


def text(folder):
    (folder / "text.mp4").write_text("no video\n" * 100)
    return folder / "text.mp4"


def cut_to_the_head(folder):
    (folder / "cut.mp4").write_bytes(write(folder / "whole.mp4").read_bytes()[:1000])
    return folder / "cut.mp4"


@row(
    "not a video, without a picture, of one frame, not there, an address",
    "one sentence, exit code 1, nothing left behind",
)
@pytest.mark.parametrize(
    ("source", "said"),
    [
        (lambda folder: folder / "nothing.mp4", r"nothing\.mp4 is not there"),
        (lambda folder: "https://example.com/a.mp4", "is an address: download it first"),
        (text, r"text\.mp4 is not a video that ffmpeg can read"),
        (cut_to_the_head, r"cut\.mp4 is not a video that ffmpeg can read"),
        (sound_only, r"sound\.mp4 is not a video .*no picture"),
        (lambda folder: write(folder / "one.mp4", drawn(1)), r"one\.mp4 has 1 frame, of two needed"),
    ],
)
def test_bad_input(tmp_path, capsys, source, said):
    assert re.search(said, run(tmp_path, capsys, source(tmp_path), tmp_path / "out" / "b.mp4", code=1))
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


# ---------------------------------------------------------------------------------------------------------------------
# Pictures
# ---------------------------------------------------------------------------------------------------------------------


def pictures(folder: Path, count: int, size=(64, 36), names="{}.png") -> Path:
    folder.mkdir()
    for number, frame in enumerate(drawn(count, size), start=1):
        Image.fromarray(frame).save(folder / names.format(number))
    return folder


@row(
    "a folder or a pattern of pictures, with `--fps` for their rate", "a video, or a folder of PNGs; 2 comes before 10"
)
def test_folders_of_pictures(tmp_path, capsys):
    folder = pictures(tmp_path / "in", 12)
    run(tmp_path, capsys, folder, tmp_path / "b.mp4", "--fps", 10)
    np.testing.assert_allclose(stamps(tmp_path / "b.mp4"), np.arange(23) / 20, atol=1e-4)
    run(tmp_path, capsys, folder, tmp_path / "out", "--factor", 3)
    names = [f"{number:06d}.png" for number in range(1, 35)]
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == names
    made = np.stack([np.asarray(Image.open(tmp_path / "out" / name)) for name in names[::3]])
    np.testing.assert_array_equal(made, np.stack(drawn(12)))
    assert "reusing" in run(tmp_path, capsys, folder, tmp_path / "out", "--factor", 3)
    assert "--overwrite" in run(tmp_path, capsys, folder, tmp_path / "out", code=1)
    run(tmp_path, capsys, tmp_path / "in" / "1*.png", tmp_path / "c.mp4")
    assert len(stamps(tmp_path / "c.mp4")) == 7, "1, 10, 11 and 12"


@row(
    "two or more photographs",
    "a clip of `--factor` frames from each to the next; they must have one size; two alone: motion found more finely",
)
def test_two_photographs(tmp_path, capsys):
    folder = pictures(tmp_path / "in", 2, names="{}.jpg")
    run(tmp_path, capsys, folder / "1.jpg", folder / "2.jpg", tmp_path / "b.mp4", "--factor", 24)
    assert len(stamps(tmp_path / "b.mp4")) == 25 and stamps(tmp_path / "b.mp4")[-1] == pytest.approx(1)
    run(tmp_path, capsys, folder / "1.jpg", folder / "2.jpg", tmp_path / "c.mp4", "--model", "path", "--factor", 3)
    Image.fromarray(drawn(1, (32, 18))[0]).save(folder / "3.jpg")
    assert "3.jpg has 32x18 px and 1.jpg 64x36" in run(tmp_path, capsys, folder, tmp_path / "d.mp4", code=1)
    assert "of two needed" in run(tmp_path, capsys, folder / "1.jpg", tmp_path / "d.mp4", code=1)
    Image.fromarray(np.zeros((36, 64), np.uint16)).save(tmp_path / "16.png")
    assert "more than 8 bits" in run(
        tmp_path, capsys, tmp_path / "16.png", folder / "1.jpg", tmp_path / "d.mp4", code=1
    )


@row("a video, with a folder as output", "a folder of PNGs")
def test_a_video_becomes_pictures(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(video, "PART", 10)
    source = write(tmp_path / "a.mp4")
    with monkeypatch.context() as patch:
        interrupt_after(patch, 15)
        run(tmp_path, capsys, source, tmp_path / "out", code=130)
    assert "going on after the 12" in run(tmp_path, capsys, source, tmp_path / "out")
    assert len(list((tmp_path / "out").glob("*.png"))) == 24 and not (tmp_path / "out.parts").exists()


# ---------------------------------------------------------------------------------------------------------------------
# Names and surroundings
# ---------------------------------------------------------------------------------------------------------------------

NAMES = [
    "My holiday [id].mp4",
    "100%d.mp4",
    'it\'s "a" clip.mp4',
    "two\nlines.mp4",
    "動画.mp4",
    "-dash.mp4",
    "a;b,c:d=e.mp4",
]


@row(
    "names with brackets, quotes, `%`, a leading dash, a new line, other scripts",
    "taken as they are, as input and as output",
)
@pytest.mark.parametrize("name", NAMES)
def test_names(tmp_path, capsys, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.mp4", drawn(4)).rename(tmp_path / name)
    (tmp_path / "o ut[1]%d'").mkdir()
    run(tmp_path, capsys, "--model", "average", "--", name, tmp_path / "o ut[1]%d'" / name)
    assert [path.name for path in (tmp_path / "o ut[1]%d'").iterdir()] == [name]
    assert len(stamps(tmp_path / "o ut[1]%d'" / name)) == 8


def test_an_address_is_no_output(tmp_path, capsys):
    assert "is an address" in run(tmp_path, capsys, write(tmp_path / "a.mp4"), "https://example.com/b.mp4", code=1)
    assert "another file than the input" in run(tmp_path, capsys, tmp_path / "a.mp4", tmp_path / "a.mp4", code=1)
    assert "end in .mp4" in run(tmp_path, capsys, tmp_path / "a.mp4", tmp_path / "b.avi", code=1)


@row("a name that the terminal cannot print", "printed as far as possible; the run goes on")
def test_a_name_that_cannot_be_printed(tmp_path, monkeypatch):
    source = write(tmp_path / "動画.mp4", drawn(4))
    output, errors = (io.TextIOWrapper(io.BytesIO(), "cp1252") for _ in range(2))
    monkeypatch.setattr(sys, "stdout", output)
    monkeypatch.setattr(sys, "stderr", errors)
    assert video.main([str(source), str(tmp_path / "b.mp4"), "--model", "average"]) == 0
    assert video.main([str(source), str(tmp_path / "c.mp4"), "--factor", "1"]) == 1
    output.flush()
    assert rb"\u52d5\u753b.mp4: 4 frames" in output.buffer.getvalue()


@row("an ffmpeg that is missing or too old", "said with the program's name, its version and the one needed")
def test_the_program_is_asked_before_the_video_is_blamed(tmp_path, capsys, monkeypatch):
    source, old = write(tmp_path / "a.mp4"), tmp_path / "ffmpeg"
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(tmp_path / "missing"))
    said = run(tmp_path, capsys, source, tmp_path / "b.mp4", code=1)
    assert "cannot be started" in said and "missing" in said and "a.mp4" not in said
    if os.name != "nt":
        old.write_text("#!/bin/sh\necho 'ffmpeg version 4.4.2-0ubuntu0.22.04.1 Copyright'\n")
        old.chmod(0o755)
        monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(old))
        said = run(tmp_path, capsys, source, tmp_path / "b.mp4", code=1)
        assert f"{old} is version 4.4.2-0ubuntu0.22.04.1; at least 5.1 is needed" in said


@row("a `.keras` file that is no model for this", "refused in one sentence before the first frame")
@pytest.mark.parametrize("kind", ["two inputs", "half the size", "no file of keras"])
def test_foreign_models(tmp_path, capsys, kind):
    import keras

    inputs = [keras.Input((None, None, 18), dtype="uint8") for _ in range(2)]
    scaled = [keras.layers.Rescaling(1 / 255)(tensor) for tensor in inputs]
    if kind == "two inputs":
        foreign = keras.Model(inputs, keras.layers.Conv2D(3, 1)(keras.layers.Add()(scaled)))
    else:
        foreign = keras.Model(inputs[0], keras.layers.Conv2D(3, 3, strides=2, padding="same")(scaled[0]))
    foreign.save(tmp_path / "foreign.keras")
    if kind == "no file of keras":
        (tmp_path / "foreign.keras").write_text("no model")
    source = write(tmp_path / "a.mp4")
    said = run(tmp_path, capsys, source, tmp_path / "b.mp4", "--model", tmp_path / "foreign.keras", code=1)
    assert "--model" in said and "foreign.keras" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "foreign.keras"]


@row("a `keras.json` that says `channels_first`", "the same frames")
def test_settings_of_keras_do_not_leak_in(tmp_path):
    settings = {"image_data_format": "channels_first", "floatx": "float64", "epsilon": 1e-7, "backend": "tensorflow"}
    (tmp_path / "keras.json").write_text(json.dumps(settings))
    np.save(tmp_path / "six.npy", np.stack(drawn(6))[None])
    script = (
        "import sys, numpy as np; from stages import models\n"
        "made = models.predict_middle(models.load_model('motion'), np.load(sys.argv[1]))\n"
        "np.save(sys.argv[2], made)"
    )
    command = [sys.executable, "-c", script, tmp_path / "six.npy", tmp_path / "made.npy"]
    subprocess.run(command, cwd=ROOT, env=clean_environment(KERAS_HOME=str(tmp_path)), check=True, capture_output=True)
    expected = models.predict_middle(models.load_model("motion"), np.load(tmp_path / "six.npy"))
    np.testing.assert_array_equal(np.load(tmp_path / "made.npy"), expected)


@row("a disk that is full, or a folder that cannot be written to", "said before or when it happens; parts are kept")
def test_no_space_and_no_permission(tmp_path, capsys, monkeypatch):
    source, out = write(tmp_path / "a.mp4"), tmp_path / "out"
    out.touch()
    assert "cannot be written to" in run(tmp_path, capsys, source, out / "b.mp4", code=1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1000, 999, 1))
    assert re.search("needs .* GiB, and", run(tmp_path, capsys, source, tmp_path / "b.mp4", code=1))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "out"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_no_space_while_writing(tmp_path):
    (tmp_path / "a.part.mkv").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        ffmpeg.write_frames(tmp_path / "a.mkv", drawn(60, (640, 360)), Fraction(25))
    assert not list(tmp_path.iterdir())


def test_the_page_has_the_rows_that_these_tests_show():
    assert table() in PAGE.read_text(encoding="utf-8"), "python tests/test_video_files.py writes it"


if __name__ == "__main__":
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(re.sub(r"\| your video \|.*\n(\|.*\n)+", lambda found: table() + "\n", page), encoding="utf-8")
