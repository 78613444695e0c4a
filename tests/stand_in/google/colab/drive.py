from pathlib import Path


def mount(mountpoint, force_remount=False, timeout_ms=120000, readonly=False):
    """Make the folder; the real one asks for permission and mounts the user's Drive there."""
    Path(mountpoint, "MyDrive").mkdir(parents=True, exist_ok=True)


def flush_and_unmount(timeout_ms=24 * 60 * 60 * 1000):
    """Do nothing."""
