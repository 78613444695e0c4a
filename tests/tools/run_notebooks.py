"""Run notebooks in order, each in a fresh kernel of this interpreter, and name the tables and figures they leave.

python tests/tools/run_notebooks.py                      # all of them; executed copies go to work/notebooks/
python tests/tools/run_notebooks.py notebooks/05_*.ipynb # one
python tests/tools/run_notebooks.py --in-place           # all of them, in notebooks/ itself
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import nbformat
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

ROOT = Path(__file__).resolve().parents[2]
KERNELSPEC = {"display_name": "Python 3", "language": "python", "name": "python3"}
NATIVE_LOG = re.compile(  # what TensorFlow's C++ code logs: dates and addresses that differ in every run
    r"^(?:[IWE]\d{4} \S+ +\d+ |\d{4}-\d\d-\d\d \d\d:\d\d:\S+ [IWE] |WARNING: All log messages before absl"
    r"|To enable the following instructions: ).*\n?",
    re.MULTILINE,
)
FAILURES = (CellExecutionError, CellTimeoutError, DeadKernelError)


class KernelHere(AsyncKernelManager):
    """A kernel of this very interpreter, whichever kernels are installed on the machine."""

    @property
    def kernel_spec(self) -> KernelSpec:
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=CRITICAL"]
        return KernelSpec(argv=argv, **{k: v for k, v in KERNELSPEC.items() if k != "name"})


class Client(NotebookClient):
    """A notebook client that shows on the terminal which cell runs and what it prints, as it does so."""

    def __init__(self, nb, name: str, **options):
        super().__init__(nb, kernel_manager_class=KernelHere, kernel_name="python3", record_timing=False, **options)
        self.on_cell_execute = self.print_start
        self.on_cell_executed = self.print_end
        self.name = name
        self.code_cells = [i for i, cell in enumerate(nb.cells) if is_code(cell)]
        self.cell_started = 0.0

    def print_start(self, cell, cell_index):
        self.cell_started = time.monotonic()
        first_line = next((line for line in cell.source.splitlines() if not line.startswith("#")), cell.source)
        print(f"[{self.place(cell_index)}] {first_line}", flush=True)

    def print_end(self, cell, cell_index, execute_reply):
        seconds = time.monotonic() - self.cell_started
        if seconds >= 1:
            print(f"[{self.place(cell_index)}] took {seconds:.0f} s", flush=True)

    def place(self, cell_index):
        return f"{self.name} {self.code_cells.index(cell_index) + 1}/{len(self.code_cells)}"

    def output(self, outs, msg, display_id, cell_index):
        if msg["msg_type"] == "stream" and msg["content"]["name"] == "stdout":
            print(msg["content"]["text"], end="", flush=True)
        return super().output(outs, msg, display_id, cell_index)


def is_code(cell) -> bool:
    return cell.cell_type == "code" and bool(cell.source.strip())


def run_notebook(path: Path, cwd: Path, env: dict[str, str] | None = None, timeout: int | None = None):
    """Execute a notebook and return it, with all that a reader would see, as a new object; the file stays as it is.

    Args:
        path: the notebook.
        cwd: the kernel's working directory.
        env: the kernel's whole environment; this process's if None.
        timeout: seconds one cell may take; None for no limit.

    Raises:
        CellExecutionError, CellTimeoutError, DeadKernelError: with the executed part as the attribute `notebook`.
    """
    nb = nbformat.read(path, as_version=4)
    for cell in nb.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    client = Client(nb, path.stem, timeout=timeout, resources={"metadata": {"path": str(cwd)}})
    env = dict(os.environ if env is None else env)
    env.pop("PYTEST_CURRENT_TEST", None)  # under pytest a kernel would not pass on what native code writes
    try:
        client.execute(env=env, stderr=subprocess.DEVNULL)  # a second copy: the kernel sends its own as output
    except FAILURES as error:
        error.notebook = nb
        raise
    finally:
        normalise(nb)
    return nb


def normalise(nb) -> None:
    """Make an executed notebook one clean run: counts from 1, streams joined, no state of widgets."""
    nb.metadata["kernelspec"] = dict(KERNELSPEC)
    nb.metadata["language_info"] = {"name": "python"}
    nb.metadata.pop("widgets", None)
    for cell in nb.cells:
        cell.metadata.pop("execution", None)
    code = [cell for cell in nb.cells if cell.cell_type == "code"]
    for count, cell in enumerate((cell for cell in code if cell.source.strip()), start=1):
        if cell.execution_count is not None:  # a cell after the one that failed has none
            cell.execution_count = count
    for cell in code:
        cell.outputs = join_streams(cell.outputs)
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = cell.execution_count
            output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)


def join_streams(outputs: list) -> list:
    """Join what is printed between two other outputs: one text for stdout, one for stderr, as a terminal shows them."""
    joined, open_streams = [], {}
    for output in outputs:
        if output.output_type != "stream":
            open_streams = {}
        elif output.name in open_streams:
            open_streams[output.name].text += output.text
            continue
        else:
            open_streams[output.name] = output
        joined.append(output)
    for output in joined:
        if output.output_type == "stream":
            output.text = re.sub(r"[^\n]*\r(?=[^\n])", "", output.text)  # of a progress bar, only the last state
    return [output for output in joined if output.output_type != "stream" or output.text.strip()]


def drop_native_log(nb) -> None:
    """Make an executed notebook fit for a commit: without the lines that native code stamps with time and process."""
    for cell in (cell for cell in nb.cells if cell.cell_type == "code"):
        for output in (output for output in cell.outputs if output.output_type == "stream"):
            output.text = NATIVE_LOG.sub("", output.text)
        cell.outputs = [out for out in cell.outputs if out.output_type != "stream" or out.text.strip()]


def results() -> list[Path]:
    """Return the tables and figures under `work/`, or under the folder that `VFI_WORK` names."""
    work = Path(os.environ.get("VFI_WORK") or ROOT / "work").expanduser()
    found = [*work.glob("results/**/*.csv"), *work.glob("figures/**/*.*")]
    return sorted(path for path in found if path.is_file() and not path.name.endswith(".part"))


def expected_minutes(paths: list[Path]) -> int:
    """Return the minutes that README's table says the notebooks take together on two CPU cores; 0 if it says none."""
    rows = re.findall(r"\(notebooks/(\w+\.ipynb)\) \| .+ \| (\d+)", (ROOT / "README.md").read_text(encoding="utf-8"))
    minutes = {name: int(number) for name, number in rows}
    return sum(minutes.get(path.name, 0) for path in paths)


def made_since(moment: float) -> str:
    """Return how many tables and figures were written since a time of the clock."""
    new = [path for path in results() if path.stat().st_mtime >= moment]
    counts = {what: sum((path.suffix == ".csv") == (what == "table") for path in new) for what in ("table", "figure")}
    return " and ".join(f"{count} {what}{'s' * (count > 1)}" for what, count in counts.items() if count)


def relative(path: Path) -> str:
    """Return the path as a person in the current folder would type it."""
    path = path.resolve()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all in notebooks/, in order")
    parser.add_argument("--in-place", action="store_true", help="replace the notebooks by the executed ones")
    parser.add_argument("--cwd", type=Path, default=ROOT / "notebooks", help="the kernels' working directory")
    parser.add_argument("--timeout", type=int, help="seconds one cell may take")
    options = parser.parse_args()
    for name in ("VFI_WORK", "VFI_DATASET"):  # the kernels run in another folder
        value = Path(os.environ.get(name) or os.devnull).expanduser()
        if name == "VFI_WORK" and os.environ.get(name) or value.is_dir():
            os.environ[name] = str(value.resolve())
    paths = options.notebooks or sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    missing = [str(path) for path in paths if not path.is_file()]
    if missing or not paths:
        parser.error(f"no such notebook: {', '.join(missing) or 'notebooks/NN_*.ipynb'}")

    copies = Path(os.environ.get("VFI_WORK") or ROOT / "work").expanduser() / "notebooks"
    started, minutes = time.monotonic(), expected_minutes(paths)
    if minutes:
        print(f"{len(paths)} notebooks: about {minutes} minutes on two CPU cores, less what is reused")
    for path in paths:
        print(f"\n=== {path.name}", flush=True)
        begun, clock = time.monotonic(), time.time()
        try:
            nb, failure = run_notebook(path, options.cwd, timeout=options.timeout), None
        except FAILURES as error:
            nb, failure = error.notebook, error
        executed = path if options.in_place and not failure else copies / path.name
        if executed == path:
            drop_native_log(nb)
        executed.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(nb, executed)
        made = made_since(clock) or "no table or figure"
        print(f"=== {path.name}: {time.monotonic() - begun:.0f} s; {made}", flush=True)
        if failure:
            message = str(failure) if sys.stderr.isatty() else re.sub(r"\x1b\[[\d;]*m", "", str(failure))
            print(f"\n{message}\n{path.name} failed; what it did until then: {relative(executed)}", file=sys.stderr)
            return 1

    print(f"\n{len(paths)} notebooks ran in {(time.monotonic() - started) / 60:.1f} minutes.")
    print("With their outputs:", relative(options.cwd if options.in_place else copies))
    print("Tables and figures:")
    for path in results():
        print(f"  {relative(path)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
