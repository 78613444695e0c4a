"""Run the notebooks on the two ends of Colab's runtimes, alone and in order, and compare all they print.

python tests/tools/colab.py                                          # what `make test-colab` does
python tests/tools/colab.py --ends here newest --only 03 05          # what .ci/run does
python tests/tools/colab.py --write-pins pip-freeze.txt os-info.txt  # the newest end, from Colab's own lists

An end is a list of versions, tests/colab-<end>.txt, or "here": the interpreter that runs this file. The environment of
an end is kept in work/colab/<end>/ and made again when the list changes.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from compare_runs import compare_folders

ROOT = Path(__file__).resolve().parents[2]
PLACE = ROOT / "work" / "colab"
ENDS = ("oldest", "newest", "here")
TOOLS = ROOT / "tests" / "requirements-notebooks.txt"


def pins(end: str) -> Path:
    """List of an end's versions."""
    return ROOT / "tests" / f"colab-{end}.txt"


def python_of(end: str) -> str:
    """Version of Python that an end's list names in its first line: "3.13"."""
    return re.match(r"# Python (3\.\d+)", pins(end).read_text())[1]


def find_python(wanted: str) -> str:
    """Interpreter of the version wanted, from PATH or pyenv, or else of another that the pins can be installed for.

    Raises:
        FileNotFoundError: if there is none.
    """
    for version in (wanted, "3.13", "3.12", "3.11"):
        on_path = shutil.which(f"python{version}")
        pyenv = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}"))
        for found in [path for path in (on_path, *pyenv) if path]:
            if subprocess.run([found, "-c", "import venv"], capture_output=True).returncode == 0:
                if version != wanted:
                    print(f"No Python {wanted} here: taking {version}, with the same packages.", flush=True)
                return str(found)
    raise FileNotFoundError(f"No Python {wanted}, nor 3.11 to 3.13. Install one from https://www.python.org/downloads.")


def build(end: str) -> Path:
    """Interpreter of an end's environment, which is made unless it is there already."""
    if end == "here":
        return Path(sys.executable)
    folder, base = PLACE / end / "env", find_python(python_of(end))
    made_of = pins(end).read_text() + TOOLS.read_text() + base
    stamp, digest = folder / "made-of", hashlib.sha256(made_of.encode()).hexdigest()
    python = folder / "bin" / "python"
    if not (stamp.exists() and stamp.read_text() == digest):
        begun = time.monotonic()
        print(f"installing tests/{pins(end).name} into {folder.relative_to(ROOT)}", flush=True)
        subprocess.run([base, "-m", "venv", "--clear", folder], check=True)
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, "-r", pins(end), "-r", TOOLS, "pytest>=8"], check=True)
        stamp.write_text(digest)
        print(f"installed in {(time.monotonic() - begun) / 60:.1f} minutes", flush=True)
    return python


def run(end: str, python: Path, only: list[str]) -> None:
    """Run the notebooks with an end's interpreter; what they print goes to work/colab/<end>/alone and .../in_order.

    Notebooks named in `only` are run alone; without it, all are, and in order, too.

    Raises:
        subprocess.CalledProcessError: if a notebook fails, or what it leaves is not as it should be.
    """
    tests = f"alone and ({' or '.join(f'{number}_' for number in only)})" if only else "alone or in_order"
    begun = time.monotonic()
    command = [python, "-m", "pytest", "-q", "-x", "tests/test_notebooks.py", "-m", "runs", "-k", tests]
    subprocess.run([*command, "--keep-runs", PLACE / end], cwd=ROOT, check=True)
    print(f"{end}: {(time.monotonic() - begun) / 60:.1f} minutes\n", flush=True)


def write_pins(freeze: str, system: str, old: str) -> str:
    """List of the newest end, renewed: the packages it names, in the versions that Colab's own lists have.

    Args:
        freeze, system: pip-freeze.txt and os-info.txt of github.com/googlecolab/backend-info.
        old: the list as it is.

    Raises:
        ValueError: if Colab's lists have no Python, or lack a package.
    """
    python = re.search(r"^Python (3\.\d+)", system, re.MULTILINE)
    there = {name.lower(): version for name, version in re.findall(r"^([\w.-]+)==(\S+)", freeze, re.MULTILINE)}
    wanted = re.findall(r"^([\w.-]+)==", old, re.MULTILINE)
    absent = [name for name in wanted if name not in there]
    if not python or absent:
        raise ValueError(f"Colab's lists have no {', '.join(absent) or 'Python'}: look whether the files have moved.")
    new = re.sub(r"^# Python 3\.\d+", f"# Python {python[1]}", old)
    return re.sub(r"^([\w.-]+)==\S+", lambda match: f"{match[1]}=={there[match[1]]}", new, flags=re.MULTILINE)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ends", nargs=2, choices=ENDS, default=ENDS[:2])
    parser.add_argument("--only", nargs="+", default=[], help="numbers of notebooks, run alone: 03 05")
    parser.add_argument("--write-pins", nargs=2, type=Path, metavar=("FREEZE", "SYSTEM"))
    options = parser.parse_args()
    if options.write_pins:
        renewed = write_pins(*(path.read_text() for path in options.write_pins), pins("newest").read_text())
        pins("newest").write_text(renewed)
        return 0
    begun = time.monotonic()
    pythons = {end: build(end) for end in options.ends}
    for end, way in itertools.product(pythons, ("alone", "in_order")):
        shutil.rmtree(PLACE / end / way, ignore_errors=True)
    with ThreadPoolExecutor(2 if options.only else 1) as pool:  # a few at once; all, one end after the other
        list(pool.map(lambda end: run(end, pythons[end], options.only), pythons))
    one, other = (PLACE / end for end in options.ends)
    total = 0
    for way in ("alone",) if options.only else ("alone", "in_order"):
        print(f"{way.replace('_', ' ')}, {one.name} / {other.name}:")
        total += compare_folders(one / way, other / way)
    print(f"{total} differences; {(time.monotonic() - begun) / 60:.1f} minutes in all")
    return bool(total)


if __name__ == "__main__":
    sys.exit(main())
