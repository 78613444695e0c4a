"""Markers of what a stage has finished, with which settings, and locks on what it writes."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from pathlib import Path

import filelock

import vfi_utils as vfi


def changes(old: dict, new: dict) -> str:
    """Settings that differ: "seed: 0 -> 1; crop: 64 -> 48"."""
    pairs = {name: (old.get(name), new.get(name)) for name in {**old, **new}}
    return "; ".join(f"{name}: {before!r} -> {after!r}" for name, (before, after) in pairs.items() if before != after)


def read_json(path: Path, kinds: type | tuple = dict):
    """Content of a JSON file that a stage wrote; ValueError, with what to delete, if it is empty, cut or of no kind."""
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        content = NotImplemented
    if not isinstance(content, kinds):
        raise ValueError(
            f"{vfi.display_path(path)} is damaged: it is no whole JSON file. Delete it, and run this again."
        )
    return content


def is_finished(folder: Path, settings: dict) -> bool:
    """Whether the stage that fills `folder` (or `<name>.json`) is marked as finished with these settings, else why."""
    marker = folder if folder.suffix == ".json" and not folder.is_dir() else folder / "stage.json"
    settings = json.loads(json.dumps(settings))  # tuples become lists, as in the file
    try:
        made_with = read_json(marker)["settings"]
        why = "" if made_with == settings else changes(made_with, settings)
    except FileNotFoundError:
        return False
    except (ValueError, KeyError, TypeError, AttributeError):
        why = "its marker is damaged"
    if why:
        print(f"rebuilding {vfi.display_path(folder)}: {why}")
    return not why


def mark_finished(folder: Path, settings: dict, **facts) -> None:
    """Mark the stage that fills `folder` (or `<name>.json`) as finished, last of all; `facts` are kept with it."""
    marker = folder if folder.suffix == ".json" and not folder.is_dir() else folder / "stage.json"
    vfi.write_atomic(marker, json.dumps({"settings": settings, **facts}, indent=1))


@contextlib.contextmanager
def locked(path: Path, wait: bool = True):
    """Context in which this process alone writes `path`, a folder or a file; the lock is `.<name>.lock` beside it.

    Another process is waited for or, without `wait`, named in a RuntimeError. The operating system frees the lock of
    one that dies; one thread may hold a lock more than once.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(path.with_name(f".{path.name}.lock"), is_singleton=True)
    note, held = path.with_name(f".{path.name}.holder"), lock.is_locked
    holder = "another process"
    with contextlib.suppress(FileNotFoundError):
        holder = note.read_text()
    try:
        lock.acquire(timeout=0)
        if note.exists() and not held:
            print(f"{holder} ended without letting go of {vfi.display_path(path)}: taken over")
    except filelock.Timeout:
        if not wait:
            message = f"{vfi.display_path(path)} is in use by {holder}. Wait until it is done, or stop it."
            raise RuntimeError(message) from None
        print(f"waiting for {holder}, which writes {vfi.display_path(path)}", flush=True)
        lock.acquire(poll_interval=0.2)
    try:
        if not held:
            vfi.write_atomic(
                note, f"process {os.getpid()} on {socket.gethostname()} (since {time.strftime('%H:%M:%S')})"
            )
        yield
    finally:
        if not held:
            note.unlink(missing_ok=True)
        lock.release()
