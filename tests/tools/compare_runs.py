"""Compare what two runs of the notebooks print, line by line and number by number.

python tests/tools/compare_runs.py work/colab/oldest/alone work/colab/newest/alone

Words must be the same. A number must be, too, unless its kind has a tolerance (TOLERANCES): versions compute the same,
but round differently, and training carries a rounding on. TensorFlow 2.19 and 2.20 agree in every digit printed; with
another Pillow the sample's JPEGs differ by a level here and there, and PSNR by up to 0.02 dB.
"""

from __future__ import annotations

import argparse
import html
import re
import sys
from dataclasses import dataclass
from pathlib import Path

TOLERANCES = {  # how far two numbers of a kind may lie apart: (absolute, relative); a digit is the last one printed
    "count": (0, 0),  # all without a decimal point: windows, steps, parameters, bytes, pixels
    "dB": (0.05, 0),
    "%": (1, 0),
    "size": (0.02, 0.05),  # MiB: pictures are packed differently, models hold Keras' version
    "value": (0, 0.005),  # losses, SSIM, mean squared errors, shares; and one digit
}
NEVER_ALIKE = re.compile(  # what no two runs share
    r"^(?:Python 3\.|GPU: |memory: ).*"  # what report_environment says of the machine
    r"|\d\d:\d\d\b"  # a time of day
    r"|.* left$"  # progress: a line now and then, the oftener the slower
    r"|\b\d[\d,.]*(?= ?(?:ms|s|a second|seconds?|min|minutes?|MiB/s|GiB)\b)"
)
TIMES = ("minutes", "seconds")  # columns of them
NUMBER = re.compile(r"(?<![\w.:/])[-+]?\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+]?\d+)?(?![\w:/]|\.\w)")
UNITS = (("dB", re.compile(r" ?dB\b")), ("%", re.compile(r" ?%")), ("size", re.compile(r" ?[KMG]i?B\b")))


@dataclass(frozen=True)
class Number:
    """A number as it was printed, and what it counts or measures."""

    text: str
    kind: str

    def is_near(self, other: Number) -> bool:
        mine, theirs = (float(number.text.replace(",", "")) for number in (self, other))
        decimals = len(self.text.partition(".")[2].partition("e")[0])
        digit = 0 if self.kind == "count" else 10**-decimals
        absolute, relative = TOLERANCES[self.kind]
        far = max(absolute, relative * max(abs(mine), abs(theirs)), digit)
        return mine == theirs or abs(mine - theirs) <= far * (1 + 1e-6)


@dataclass(frozen=True)
class Line:
    """A line of a notebook's output: where it stands, its words with # for each number, and the numbers."""

    place: str
    words: str
    numbers: tuple[Number, ...]


def kind_of(number: str, after: str, column: str = "") -> str:
    """Kind of a number from what is printed after it, or from the name of its column."""
    unit = next((kind for kind, pattern in UNITS if pattern.match(after)), "")
    if not unit and "psnr" in column and "." in number:
        return "dB"
    return unit or ("value" if re.search(r"[.e]", number) else "count")


def read_line(place: str, text: str, column: str = "") -> Line:
    """Line of this text."""
    text = "~" if set(column.split()) & set(TIMES) else NEVER_ALIKE.sub("~", re.sub(r"\x1b\[[\d;]*m", "", text)).strip()
    numbers = [Number(m[0], kind_of(m[0], text[m.end() :], column)) for m in NUMBER.finditer(text)]
    return Line(place, re.sub(r"\s+", " ", NUMBER.sub("#", text)), tuple(numbers))


def table_lines(place: str, page: str) -> list[Line]:
    """Lines of an HTML table, one for each cell, with the name of its column; of other HTML, the lines of its text."""
    if "<tr" not in page:
        return [read_line(place, line) for line in html.unescape(re.sub(r"<[^>]+>", "", page)).splitlines()]
    columns, lines = [], []
    for row in re.findall(r"<tr.*?</tr>", page, re.DOTALL):
        found = re.findall(r"<t[hd]([^>]*)>(.*?)</t[hd]>", row, re.DOTALL)
        cells = [html.unescape(re.sub(r"<[^>]+>", "", cell)).strip() for _, cell in found]
        if "<td" not in row:
            spans = [int((re.search(r'colspan="(\d+)"', attributes) or [0, 1])[1]) for attributes, _ in found]
            names = [cell for cell, span in zip(cells, spans, strict=True) for _ in range(span)]
            columns = [f"{a} {b}".strip() for a, b in zip(columns or [""] * len(names), names, strict=True)]
            lines.append(read_line(place, " ".join(cells)))
            continue
        names = columns[-len(cells) :] if len(columns) >= len(cells) else [""] * len(cells)
        lines += [read_line(f"{place}, {name}", cell, name) for name, cell in zip(names, cells, strict=True)]
    return lines


def printed(nb) -> list[Line]:
    """Lines that a notebook's cells print or draw as tables, without those that hold nothing to compare."""
    lines, code = [], [cell for cell in nb.cells if cell.cell_type == "code" and cell.source.strip()]
    for number, cell in enumerate(code, start=1):
        for output in cell.outputs:
            data, place = output.get("data", {}), f"cell {number}"
            if output.output_type == "stream" and output.name == "stdout":
                lines += [read_line(place, line) for line in output.text.splitlines()]
            elif "text/html" in data:
                lines += table_lines(place, data["text/html"])
            elif "text/plain" in data and not data["text/plain"].startswith("<"):
                lines += [read_line(place, line) for line in data["text/plain"].splitlines()]
    return [line for line in lines if line.words not in ("", "~")]


def differences(one, other) -> tuple[list[str], int]:
    """What two runs of a notebook print differently, and how many numbers were compared."""
    first, second, found, count = printed(one), printed(other), [], 0
    for mine, theirs in zip(first, second, strict=False):
        if mine.words != theirs.words:
            found.append(f"{mine.place}: {mine.words!r} / {theirs.words!r}")
            continue
        count += len(mine.numbers)
        for a, b in zip(mine.numbers, theirs.numbers, strict=True):
            if not a.is_near(b):
                found.append(f"{mine.place}: {a.text} / {b.text} ({a.kind}) in {mine.words!r}")
    if len(first) != len(second):
        found.append(f"{len(first)} lines / {len(second)} lines")
    return found, count


def compare_folders(one: Path, other: Path) -> int:
    """Number of differences between two folders of run notebooks, which are printed.

    Raises:
        FileNotFoundError: if the folders do not hold the same notebooks, or none.
    """
    import nbformat  # here, because drift.yml writes pins before anything is installed

    names = sorted({path.name for folder in (one, other) for path in folder.glob("[0-9][0-9]_*.ipynb")})
    absent = [str(folder / name) for folder in (one, other) for name in names if not (folder / name).exists()]
    if absent or not names:
        raise FileNotFoundError(f"no run notebook: {', '.join(absent) or one}")
    total = 0
    for name in names:
        found, count = differences(*(nbformat.read(folder / name, as_version=4) for folder in (one, other)))
        print(f"{name:32} {count:5} numbers compared, {len(found)} differences")
        print("".join(f"  {line}\n" for line in found), end="")
        total += len(found)
    return total


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("one", type=Path)
    parser.add_argument("other", type=Path)
    options = parser.parse_args()
    sys.exit(bool(compare_folders(options.one, options.other)))
