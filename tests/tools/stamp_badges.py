"""Write the repository's name into every link to it: python tests/tools/stamp_badges.py owner/name

The name in use stands in `vfi_utils.py` (REPOSITORY). It is changed last, so an interrupted run can be repeated.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PLACES = ("*.md", "assets/*.md", "notebooks/*.ipynb", ".github/**/*.yml", "pyproject.toml", "vfi_utils.py")
BEFORE = r"(github\.com/|/github/|githubusercontent\.com/|^REPOSITORY = \")"


def stamp(root: Path, repository: str) -> list[Path]:
    """Replace the name in use by `repository` ("owner/name") under `root`; return the files that changed.

    Raises:
        ValueError: if `repository` is not of the form owner/name.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise ValueError(f"REPO = {repository!r} is not of the form owner/name. Try: make badges REPO=owner/name")
    module = (root / "vfi_utils.py").read_text(encoding="utf-8")
    old = re.search(r'^REPOSITORY = "(.+?)"', module, re.MULTILINE)[1]
    link = re.compile(rf"{BEFORE}{re.escape(old)}(?![\w-]|\.(?!git\b)\w)", re.MULTILINE)
    changed = []
    for path in (path for place in PLACES for path in sorted(root.glob(place))):
        text = path.read_bytes().decode()
        stamped = link.sub(lambda match: match[1] + repository, text)
        if stamped != text:
            path.write_bytes(stamped.encode())
            changed.append(path)
    return changed


if __name__ == "__main__":
    try:
        files = stamp(ROOT, sys.argv[1] if len(sys.argv) > 1 else "")
    except ValueError as error:
        sys.exit(str(error))
    for file in files:
        print(file.relative_to(ROOT))
    print(f"{len(files)} files changed")
