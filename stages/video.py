"""Interpolate videos: notebook 08, and the command `python -m stages.video input.mp4 output.mp4 --factor 2`."""

from __future__ import annotations

import argparse
import contextlib
import functools
import itertools
import json
import math
import re
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

import vfi_utils as vfi
from stages import ffmpeg, interpolation, markers, models, shots, streams
from stages.planning import SUFFIXES, Plan, Settings, describe, find_source, find_sources, name_targets, plan_video

PART = 48  # frames in a part, at least; an interrupted video goes on after the last whole part
CONTEXT = 4  # source frames before a gap that may matter to what is predicted in it
DAMAGED = 3  # exit code: the readable part has been written


def finished_parts(folder: Path, settings: dict) -> int:
    """Number of parts in a row that are there, whole, and made with these settings; the others are deleted."""
    done = 0
    while markers.is_finished(marker := folder / f"{done:05d}.json", settings):
        files = json.loads(marker.read_text())["files"]
        if any(streams.file_digest(folder / name) != digest for name, digest in files.items()):
            print(f"{vfi.display_path(marker.with_suffix(''))} is broken: it is made again")
            break
        done += 1
    for path in folder.glob("[0-9]*.*"):
        if int(path.name[:5]) >= done:
            path.unlink()
    return done


def report_progress(frames: Iterable, total: int) -> Iterator:
    """Frames, passed on; how many, how fast and how long still is printed after 5 s, and then ever less often.

    A terminal shows it on one line, which is written anew every second.
    """
    started, terminal = time.perf_counter(), sys.stdout.isatty()
    due = 1.0 if terminal else 5.0
    for count, frame in enumerate(frames, start=1):
        yield frame
        passed = time.perf_counter() - started
        if passed >= due and count < total:
            left = passed / count * (total - count)
            left = f"{left:.0f} s" if left < 120 else f"{left / 60:.0f} min"
            line = f"  {count} of {total} frames, {count / passed:.2f} frames/s, {left} left"
            print(f"\r{line:<70}" if terminal else line, end="" if terminal else "\n", flush=True)
            due = passed + (1 if terminal else min(passed, 60))
    if terminal and due > 1:
        print()


def load_for(plan: Plan, name: str):
    """Model that has shown that it can predict the moments that are wanted, on frames of a few pixels.

    Raises:
        FileNotFoundError, ValueError: with one sentence that says why it cannot.
    """
    phases = set()
    for shot in plan.shots:
        gaps = np.searchsorted(shot.times, shot.moments, side="right") - 1
        for moment, gap in zip(shot.moments, gaps):
            if len(phases) < 2 and moment > shot.times[gap]:
                step = shot.times[gap + 1] - shot.times[gap]
                phases.add(round((moment - shot.times[gap]) / step, 3))
    six, times = np.zeros((1, 6, 48, 64, 3), np.uint8), np.arange(6.0)
    try:
        model = models.load_model(name)
        trials = [models.predict_between(model, six, times, 2 + phase) for phase in sorted(phases)]
    except FileNotFoundError:
        raise
    except Exception as error:  # a model of somebody else may fail in any way
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(f"--model {name} cannot predict this video: {reason[0]}") from error
    for made in trials:
        if made.shape != (1, 48, 64, 3) or made.dtype != np.uint8:
            raise ValueError(
                f"--model {name} makes {list(made.shape[1:])} of frames [48, 64, 3]: it is no model for this."
            )
    if name not in models.BASELINES and not models.follows_paths(model):
        print(f"{name} was trained at the article's spacing, and a video's steps are even: path may well do better")
    return model


def frames_from(plan: Plan, first: int) -> Iterator[np.ndarray]:
    """Frames of the source that are used, from number `first` of them on, in the new video's size but for its edge."""
    source = plan.source
    size = tuple(made - (made - side == 1) for made, side in zip(plan.size, source.size))
    how, used = {"files": source.files, "transparent": plan.transparent}, set(plan.used[first:])
    with contextlib.closing(ffmpeg.read_frames(source.path, size, source.reading, **how)) as frames:
        yield from (frame for index, frame in enumerate(frames) if index in used)


def part_bounds(total: int) -> list[int]:
    """Numbers of the frames with which parts begin, and the end: no part is so short that its times are special."""
    count = max(1, total // PART)
    return [total * k // count for k in range(count + 1)]


def write_part(path: Path, frames: Iterable, plan: Plan, settings: Settings, first: int, end: int) -> dict[str, str]:
    """Files of one part of a video, each with its digest; it holds the frames with numbers from `first` to `end`."""
    files, scale, count = [], plan.timescale, 0
    if plan.codec == "png":
        for count, frame in enumerate(frames, start=1):
            files.append(path.with_name(f"{path.stem}.{first + count:06d}.png"))
            Image.fromarray(frame).save(files[-1], compress_level=1)
    else:
        files = [path.with_suffix(".mov" if plan.codec == "prores" else ".mp4")]
        until = [*plan.times, plan.seconds][first : end + 1]
        times = [round((moment - until[0]) * scale) for moment in until] if scale else None
        encoder, filters = ffmpeg.encoder_options(plan.codec, settings.quality), plan.source.writing
        count = ffmpeg.write_frames(files[0], frames, scale or plan.rate, encoder, filters, times, plan.pixels)
    if count < end - first:
        raise OSError(f"{plan.source.path} had more frames when it was read first: run again.")
    return {file.name: streams.file_digest(file) for file in files}


def write_parts(parts: Path, marks: dict, plan: Plan, settings: Settings) -> None:
    """Write the parts of a video that are not there yet."""
    number, bounds = finished_parts(parts, marks), part_bounds(plan.frames)
    if done := bounds[number]:
        print(f"going on after the {done} frames that are in {vfi.display_path(parts)}")
    if done == plan.frames:
        return
    model = load_for(plan, settings.model)
    rest = shots.shots_from(plan.shots, done, CONTEXT)
    first = rest[0].first
    with contextlib.closing(frames_from(plan, first)) as read:
        predict = functools.partial(interpolation.interpolate_shot, model)
        stream = report_progress(shots.interpolate_shots(read, rest, predict, first), plan.frames - done)
        for start, end in itertools.pairwise(bounds[number:]):
            path, frames = parts / f"{bounds.index(start):05d}", itertools.islice(stream, end - start)
            files = write_part(path, frames, plan, settings, start, end)
            markers.mark_finished(path.with_suffix(".json"), marks, files=files)


def try_output(parts: Path, plan: Plan, settings: Settings, key: str) -> tuple[streams.Output, dict]:
    """How the parts become a file, tried for a second with all tracks; and what became of each track of the source.

    Raises:
        OSError: if ffmpeg cannot write such a file.
    """
    source, codecs, trial = plan.source, {}, parts / "trial"
    shutil.rmtree(trial, ignore_errors=True)
    trial.mkdir()
    keeps = plan.stretch == 1 and not source.files and plan.codec != "gif"
    for track in source.tracks:
        wanted = keeps and (settings.sound or track.kind != "audio")
        codecs[track] = streams.choose_codec(source.path, track, plan.path.suffix.lower(), trial) if wanted else ""
    output = streams.Output(
        target=plan.path,
        key=key,
        source=source.path if keeps else None,
        tracks=tuple((track, codec) for track, codec in codecs.items() if codec),
        base=source.base,
        start=source.start,
        comment=source.comment,
        timescale=plan.timescale,
    )
    width, height = (min(made, side) for made, side in zip(plan.size, source.size))
    grey = np.full((height, width, 3 + plan.transparent), 128, np.uint8)
    write_part(trial / "00000", [grey, grey], plan, settings, 0, 2)
    try:
        streams.join_parts(trial, [Fraction(1)], output, seconds=1)
    except OSError as error:
        raise OSError(f"{plan.path.name} cannot be written like this ({error}): --no-sound may help.") from error
    shutil.rmtree(trial)
    return output, codecs


def finish(parts: Path, plan: Plan, output: streams.Output, key: str) -> None:
    """Make of the parts what was asked for; it appears under its name when it is whole."""
    if plan.codec != "png":
        starts = [*plan.times, plan.seconds]
        lengths = [starts[end] - starts[start] for start, end in itertools.pairwise(part_bounds(plan.frames))]
        return streams.join_parts(parts, lengths, output)
    plan.path.mkdir(parents=True, exist_ok=True)
    for old in plan.path.glob("[0-9]*.png"):
        old.unlink()
    for file in sorted(parts.glob("*.png")):
        file.replace(plan.path / file.name[6:])
    vfi.write_atomic(plan.path / "made_by.txt", f"{key}\n")


def made_before(target: Path) -> str:
    """What made a video or a folder of pictures that is there; "" if it was not made here."""
    if target.is_dir():
        return (target / "made_by.txt").read_text().strip() if (target / "made_by.txt").exists() else ""
    return streams.comment_of(target)


def interpolate_video(source: str | Path | Sequence[Path], target: str | Path, **options) -> Plan:
    """Plan of a video with frames predicted between its own, carried out; an interrupted call, made again, goes on.

    Parts are kept in `<target>.parts/` until the video is whole, and it goes on after the last whole one. Then the
    video appears under its name.

    Args:
        source: a video, a folder of pictures, or a list of pictures.
        target: .mp4, .mov, .mkv, .webm or .gif; a name without an ending is a folder of pictures.
        **options: see `Settings`.

    Raises:
        FileNotFoundError, ValueError, OSError: with one sentence that says why it cannot be done.
    """
    settings, target = Settings(**options), Path(target).expanduser().resolve()
    source = find_source(source)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with markers.locked(target):
            return make_video(source, target, settings)
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise OSError(f"{target.parent} cannot be written to ({error.strerror}): choose another folder.") from error
    finally:
        with contextlib.suppress(OSError):
            target.with_name(f".{target.name}.lock").unlink(missing_ok=True)


def settings_of(plan: Plan, settings: Settings) -> dict:
    """Settings that decide what is in the frames of a video: parts with other ones are not used."""
    files = plan.source.files or [plan.source.path]
    stats = [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    model = settings.model
    return {
        "source": stats[0] if len(stats) == 1 else vfi.digest(json.dumps(stats)),
        "model": model if model in models.BASELINES else streams.file_digest(models.model_file(model)),
        "moments": [plan.frames, vfi.digest(repr([plan.shots, plan.times, plan.rate]))],
        "size": plan.size,
        "written": [plan.path.suffix.lower(), plan.codec, settings.quality, plan.pixels, PART],
    }


def make_video(source: Path | Sequence[Path], target: Path, settings: Settings) -> Plan:
    """Plan of `interpolate_video`, carried out; this process alone does so."""
    plan = plan_video(source, target, settings)
    marks = settings_of(plan, settings)
    key = f"interpolated by vfi-dncnn, {vfi.digest(json.dumps([marks, plan.sound]))}"
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        if made_before(target).endswith(key):
            print(f"reusing {vfi.display_path(target)}")
            return plan
        if not settings.overwrite:
            raise ValueError(f"{target} is there already, made in another way: --overwrite replaces it.")
    parts = target.with_name(target.name + ".parts")
    parts.mkdir(exist_ok=True)
    try:
        needed = plan.frames * math.prod(plan.size) // (1 if plan.codec in ("gif", "png") else 10)  # bytes, roughly
        vfi.check_disk(parts, needed, target.name, "Free some space, or set --max-side.")
        output, codecs = (None, {}) if plan.codec == "png" else try_output(parts, plan, settings, key)
        describe(plan, settings, codecs)
        write_parts(parts, marks, plan, settings)
        finish(parts, plan, output, key)
        shutil.rmtree(parts)
    finally:
        with contextlib.suppress(OSError):
            parts.rmdir()  # if nothing is in it
    print(f"{vfi.display_path(target)}: {'written' if target.is_dir() else f'{target.stat().st_size / 2**20:.2f} MiB'}")
    if settings.compare and target.is_file() and not plan.source.files:
        beside = target.with_name(f"{target.stem}_compare.mp4")
        streams.write_comparison(plan.source.path, target, beside, plan.size, plan.stretch, plan.rate or 60)
        print(f"{vfi.display_path(beside)}: the source on the left")
    return plan


def interpolate_videos(sources: Sequence, targets: Sequence[Path], **options) -> list[Plan | str]:
    """Plans of the videos that were made, in order; for one that could not be, the reason, which is printed as well."""
    made = []
    for source, target in zip(sources, targets):
        try:
            made.append(interpolate_video(source, target, **options))
        except (ValueError, OSError) as error:
            made.append(str(error))
            print(f"error: {error}", file=sys.stderr, flush=True)
    return made


def parse_part(text: str) -> slice:
    """Slice of a list that "3/10" means: every tenth, from the third on."""
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise argparse.ArgumentTypeError(f"must be like 3/10, not {text}")
    return slice(int(found[1]) - 1, None, int(found[2]))


def main(arguments: list[str] | None = None) -> int:
    """Exit code of the command line; `python -m stages.video --help` describes it."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a name that cannot be printed stops nothing
    about = "Predict the frames between a video's frames."
    parser = argparse.ArgumentParser("python -m stages.video", description=about)
    add = functools.partial(parser.add_argument, default=argparse.SUPPRESS)
    parser.add_argument("input", nargs="+", help="videos, or pictures: paths, folders, patterns")
    parser.add_argument("output", help=f"the video to write ({', '.join(filter(None, SUFFIXES))}), or a folder")
    add("--factor", type=int, help="frames for each one, any whole number of at least 2 (default: 2)")
    add("--fps", help="instead of --factor: frames a second, such as 60 or 60000/1001; of pictures: their own rate")
    add("--mode", help="smooth: more frames a second (default); slow: --factor times the seconds, without sound")
    add("--model", help="path (default; nothing trained), motion, a run of yours, a .keras file, average or nearest")
    add("--max-side", type=int, help="shrink a larger video to so many px (default: 0, never)")
    add("--scene-threshold", type=float, help="levels of 255 that make a cut (default: 10)")
    add("--dedupe", action="store_true", help="take out frames that repeat the one before, interpolate their times")
    add("--no-sound", dest="sound", action="store_false", help="leave the sound out")
    add("--codec", help="h264 (default), h265, av1, vp9 (default for .webm) or prores, as the output's ending allows")
    add("--quality", type=float, help="the encoder's own number, lower is better (default: 14 for h264)")
    add("--pixels", help="yuv420p (default), or yuv444p: odd sizes are kept, but few players show it")
    add("--bits", type=int, help="8: write a video of 10 bits with 8, and high dynamic range as the standard one")
    add("--compare", action="store_true", help="write <output>_compare.mp4 as well: the source on the left")
    add("--overwrite", action="store_true", help="replace an output that is there")
    tenth = "3/10: of many inputs, every tenth from the third on"
    parser.add_argument("--part", type=parse_part, default=slice(None), help=tenth)
    options = vars(parser.parse_args(arguments))
    names, output, part = options.pop("input"), Path(options.pop("output")), options.pop("part")
    try:
        if re.match(r"\w{2,}:/", str(output)):
            raise ValueError(f"{output} is an address: name a file.")
        sources, problems = find_sources(names), Settings(**options).problems(pictures=True)
        if problems:
            raise ValueError(". ".join(problems) + ".")
        many = len(sources) > 1 or part != slice(None)
        if many and output.suffix.lower() in filter(None, SUFFIXES):
            raise ValueError(f"{output} is one file, and there are {len(sources)} inputs: name a folder.")
        targets = name_targets(sources, output) if many else [output]
        made = interpolate_videos(sources[part], targets[part], **options)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: the same command goes on after the last whole part", file=sys.stderr)
        return 130
    failed = [one for one in made if isinstance(one, str)]
    if many:
        print(f"{len(made) - len(failed)} of {len(made)} done")
    return 1 if failed else DAMAGED if any(one.source.damage for one in made) else 0


if __name__ == "__main__":
    sys.exit(main())
