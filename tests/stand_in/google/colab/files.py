def upload(target_dir=""):
    """Refuse: the real one opens a dialog and waits, which would stop *Run all*."""
    raise RuntimeError("Run all must not open an upload dialog")


def download(filename):
    """Do nothing; the real one hands the file to the browser."""
