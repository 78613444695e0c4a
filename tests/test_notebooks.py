"""Notebooks: their form (quick), and that each of them runs, in order and alone (slower, marked `runs`)."""

from __future__ import annotations

import ast
import copy
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import imageio.v2
import nbformat
import pandas as pd
import pytest

import vfi_utils as vfi
from conftest import ROOT, clean_environment, commit_all, copy_working_tree, git
from run_notebooks import NATIVE_LOG, expected_minutes, run_notebook
from stages import sample_street as street
from stamp_badges import stamp

NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
NEED_GPU = ("04", "06", "07")
LIMIT = 300  # seconds one cell may take with VFI_FAST=1, on a machine with other work

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path: Path):
    return nbformat.read(path, as_version=4)


def sources(nb, kind: str) -> list[str]:
    return [cell.source for cell in nb.cells if cell.cell_type == kind and cell.source.strip()]


def bootstrap(path: Path) -> str:
    """Return the source of a notebook's bootstrap cell."""
    return next(source for source in sources(read(path), "code") if source.startswith("# @title Setup"))


def badge(path: Path, repository: str) -> str:
    url = f"https://colab.research.google.com/github/{repository}/blob/main/notebooks/{path.name}"
    return f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({url})"


def texts(nb) -> str:
    """Return all outputs of a notebook that are text."""
    parts = []
    for output in (output for cell in nb.cells for output in cell.get("outputs", [])):
        data = output.get("data", {})
        parts += [output.get("text", ""), *(str(data[kind]) for kind in data if kind.startswith("text/"))]
    return "\n".join(parts)


# ---------------------------------------------------------------------------------------------------------------------
# Form
# ---------------------------------------------------------------------------------------------------------------------


@every_notebook
def test_opening(path):
    lines = read(path).cells[0].source.splitlines()
    assert re.fullmatch(rf"# {path.name[:2]} · \S.*", lines[0])
    assert next(line for line in lines[1:] if line.strip()) == badge(path, vfi.REPOSITORY)
    headings = [line for source in sources(read(path), "markdown") for line in source.splitlines()]
    assert sum(line.startswith("# ") for line in headings) == 1, "one H1"


@every_notebook
def test_bootstrap_cell_is_the_same_everywhere(path):
    assert sum(source.startswith("# @title Setup") for source in sources(read(path), "code")) == 1
    assert bootstrap(path) == bootstrap(NOTEBOOKS[0])


@every_notebook
def test_size(path):
    nb = read(path)
    code = [[line for line in source.splitlines() if line.strip()] for source in sources(nb, "code")]
    lengths = [len(lines) for lines in code]
    prose = "\n".join(sources(nb, "markdown"))
    prose = re.sub(r"\]\([^)]*\)|<[^>]+>", " ", prose)  # not the addresses of links
    pictures = [out for cell in nb.cells for out in cell.get("outputs", []) if "image/png" in out.get("data", {})]
    assert 25 <= len(nb.cells) <= 45
    assert 10 <= len(code) <= 20
    assert statistics.median(lengths) <= 8
    assert max(lengths) <= 30
    assert 500 <= len(re.findall(r"\w[\w'’.-]*", prose)) <= 1200
    assert path.stat().st_size <= 2**20
    assert 1 <= len(pictures) <= 8


def refused_by_github(text: str) -> list[str]:
    """What makes GitHub show "Invalid Notebook" in place of a notebook of this text; nothing is repaired first."""
    faults = []
    try:
        nb = json.loads(text, parse_constant=lambda name: faults.append(f"{name} is no JSON"))
        nbformat.validate(copy.deepcopy(nb))  # it mends what it can
    except (ValueError, nbformat.ValidationError) as error:
        return [*faults, str(error).splitlines()[0]]
    if nb["nbformat"] != 4:
        faults.append("not of format 4")
    if "state" not in nb["metadata"].get("widgets", {}).get("application/vnd.jupyter.widget-state+json", {"state": 0}):
        faults.append("the state of widgets is missing")
    if "widgets" in nb["metadata"] and not nb["metadata"]["widgets"].get("application/vnd.jupyter.widget-state+json"):
        faults.append("widgets without their type")
    ids = [cell.get("id") for cell in nb["cells"] if "id" in cell]
    if len(set(ids)) < len(ids) or (ids and nb["nbformat_minor"] < 5):
        faults.append("cell ids twice, or in a format that has none")
    names = [nb["metadata"].get(key, {}).get("name") for key in ("kernelspec", "language_info")]
    if not all(names):
        faults.append("no kernel, or no language")
    return faults


@every_notebook
def test_github_shows_it(path):
    assert refused_by_github(path.read_text(encoding="utf-8")) == []


@pytest.mark.filterwarnings("ignore:Non-unique cell id")
@pytest.mark.parametrize(
    "spoil",
    [
        lambda nb: nb["metadata"].update(widgets={"application/vnd.jupyter.widget-state+json": {"version_major": 2}}),
        lambda nb: nb["metadata"].update(widgets={}),
        lambda nb: nb["metadata"].pop("language_info"),
        lambda nb: nb["cells"][3].pop("outputs"),
        lambda nb: nb["cells"][3].pop("metadata"),
        lambda nb: nb["cells"][1].update(id=nb["cells"][0].get("id", "a")),
        lambda nb: nb["cells"][3]["outputs"].append({"output_type": "display_data", "data": {}}),
        lambda nb: nb["metadata"].update(score=float("nan")),
    ],
)
def test_what_github_refuses_is_noticed(spoil):
    nb = json.loads(NOTEBOOKS[2].read_text(encoding="utf-8"))
    spoil(nb)
    assert refused_by_github(json.dumps(nb))


@every_notebook
def test_committed_outputs_are_of_one_clean_run(path):
    nb = read(path)
    code = [cell for cell in nb.cells if cell.cell_type == "code" and cell.source.strip()]
    outputs = [output for cell in code for output in cell.outputs]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not [output for output in outputs if output.output_type == "error"]
    assert "widgets" not in nb.metadata
    assert not [output for output in outputs if any("widget" in kind for kind in output.get("data", {}))]
    assert nb.metadata.kernelspec.name == "python3"
    assert not [cell for cell in nb.cells if "execution" in cell.metadata]
    assert not [out.text for out in outputs if out.output_type == "stream" and NATIVE_LOG.search(out.text)]


@every_notebook
@pytest.mark.parametrize(
    "pattern",
    [
        r"%cd\b",
        r"!\s*pip\b",
        r"%pip\b",
        r"pip install",
        r"\binput\(",
        r"except\s*:",
        r"tqdm\.auto",
        r"tqdm\.notebook",
        r"verbose=1\b",
    ],
)
def test_code_leaves_out(path, pattern):
    assert not re.search(pattern, "\n".join(sources(read(path), "code")))


def test_no_loss_is_taken_from_train_on_batch():
    """From Keras 3.10 to 3.13 it returns the mean of all losses so far, from 3.15 on the batch's."""
    doubtful = ("train_on_batch", "test_on_batch")
    code = {path.name: "\n".join(sources(read(path), "code")) for path in NOTEBOOKS}
    files = [*ROOT.glob("*.py"), *ROOT.glob("stages/*.py"), *ROOT.glob("tests/tools/*.py")]
    code |= {path.name: path.read_text(encoding="utf-8") for path in files}
    for name, source in code.items():
        nodes = list(ast.walk(ast.parse(source)))
        statements = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
        calls = [node for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
        taken = [c.lineno for c in calls if c.func.attr in doubtful and id(c) not in statements]
        assert not taken, f"{name} uses what train_on_batch returns: lines {taken}"


@every_notebook
def test_words(path):
    prose = "\n".join(sources(read(path), "markdown"))
    assert not re.findall(r"\b(?:simply|just|easily)\b", prose, re.IGNORECASE)


@every_notebook
def test_settings_are_form_fields(path):
    fields = re.findall(r"^(\w+) = .*# @param", "\n".join(sources(read(path), "code")), re.MULTILINE)
    assert 3 <= len(fields) <= 6
    assert fields == [field.upper() for field in fields]


@every_notebook
def test_links(path):
    prose = "\n".join(sources(read(path), "markdown"))
    targets = [target.split()[0] for target in re.findall(r"\]\(([^)]+)\)", prose)]
    targets += re.findall(r'(?:src|href)="([^"]+)"', prose)
    local = [unquote(target.split("#")[0]) for target in targets if not re.match(r"\w+:|#", target)]
    assert not [target for target in local if not (path.parent / target).exists()]
    own = rf"https://(?:colab.research.google.com/github/{vfi.REPOSITORY}/blob|raw.githubusercontent.com/{vfi.REPOSITORY})/main/"
    own_files = [re.sub(own, "", target) for target in targets if re.match(own, target)]
    assert len(own_files) >= 2, "the badge and the picture of the opening"
    assert not [target for target in own_files if not (ROOT / target).exists()]
    linked = {Path(target).name for target in targets}
    at = NOTEBOOKS.index(path)
    neighbours = NOTEBOOKS[max(at - 1, 0) : at] + NOTEBOOKS[at + 1 : at + 2]
    assert {neighbour.name for neighbour in neighbours} <= linked


@every_notebook
def test_no_path_of_the_machine_that_ran_it(path):
    nb = read(path)
    text = "\n".join([cell.source for cell in nb.cells] + [texts(nb), json.dumps(nb.metadata)])
    assert not re.findall(r"(?<![\w.~}-])/(?:root|home|tmp|work|Users|private/var)/[^\s'\"]*", text)


@every_notebook
def test_readme_lists_it_with_its_badge(path):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    url = badge(path, vfi.REPOSITORY).rpartition("(")[2].rstrip(")")
    rows = [line for line in readme.splitlines() if line.startswith("|")]
    assert [row for row in rows if url in row and "colab-badge.svg" in row]


@pytest.mark.parametrize("path", [p for p in NOTEBOOKS if p.name.startswith(NEED_GPU)], ids=lambda path: path.stem)
def test_training_notebooks_ask_for_a_gpu(path):
    assert read(path).metadata.get("accelerator") == "GPU"


# ---------------------------------------------------------------------------------------------------------------------
# The repository's name, in all its copies
# ---------------------------------------------------------------------------------------------------------------------


def links_to(folder: Path, repository: str) -> dict[str, int]:
    """Return how many links to a repository of this name each file has, once its owner is found right in all."""
    owner, name = repository.split("/")
    link = re.compile(rf"(?:github\.com|colab\.research\.google\.com/github|githubusercontent\.com)/([^/\s]+)/{name}\b")
    found = {}
    for path in (path for path in sorted(folder.rglob("*")) if path.suffix in (".md", ".ipynb", ".yml", ".py")):
        owners = link.findall(path.read_text(encoding="utf-8"))
        assert set(owners) <= {owner}, f"{path.name} links to {set(owners)}"
        found |= {str(path.relative_to(folder)): len(owners)} if owners else {}
    return found


def test_all_links_name_the_same_repository(tmp_path):
    assert all(f"notebooks/{path.name}" in links_to(copy_working_tree(tmp_path), vfi.REPOSITORY) for path in NOTEBOOKS)


def test_stamping_changes_all_links_and_nothing_else(tmp_path):
    before, after = copy_working_tree(tmp_path / "before"), copy_working_tree(tmp_path / "after")
    changed = stamp(after, "somebody/some.thing-else")
    names = {str(path.relative_to(after)) for path in changed}
    assert names == {*links_to(before, vfi.REPOSITORY), "vfi_utils.py"}
    assert links_to(after, "somebody/some.thing-else") == links_to(before, vfi.REPOSITORY)
    for name in (str(path.relative_to(before)) for path in before.rglob("*") if path.is_file()):
        stamped, original = (after / name).read_bytes(), (before / name).read_bytes()
        if name in names:
            stamped = stamped.replace(b"somebody/some.thing-else", vfi.REPOSITORY.encode())
        assert stamped == original, name
    assert stamp(after, "somebody/some.thing-else") == []
    stamp(after, vfi.REPOSITORY)
    assert all((after / name).read_bytes() == (before / name).read_bytes() for name in names)


@pytest.mark.parametrize("repository", ["", "owner", "https://github.com/owner/name", "owner/name/tree"])
def test_stamping_refuses_what_is_no_repository(tmp_path, repository):
    with pytest.raises(ValueError, match="owner/name"):
        stamp(tmp_path, repository)


def test_versions_agree():
    assert re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1] == vfi.VERSION


# ---------------------------------------------------------------------------------------------------------------------
# The bootstrap cell
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def source(tmp_path) -> Path:
    """A repository to clone that holds the helper, the package's first file, and nothing else."""
    if not shutil.which("git"):
        pytest.skip("needs git")
    folder = tmp_path / "source"
    (folder / "stages").mkdir(parents=True)
    shutil.copy(ROOT / "stages" / "__init__.py", folder / "stages")
    return release(folder, vfi.VERSION)


def release(folder: Path, version: str) -> Path:
    """The repository, with a commit more, in which the helper is of this version."""
    helper = (ROOT / "vfi_utils.py").read_text()
    (folder / "vfi_utils.py").write_text(helper.replace(f'VERSION = "{vfi.VERSION}"', f'VERSION = "{version}"'))
    return commit_all(folder)


def setup(cwd: Path, source: Path | str, saved_as: str = vfi.VERSION) -> subprocess.CompletedProcess:
    """The Setup cell as this version has it, executed in `cwd`; then it prints the module's version and folder."""
    cell = bootstrap(NOTEBOOKS[0]).replace(vfi.VERSION, saved_as) + "\nprint(vfi.VERSION, vfi.ROOT)\n"
    cwd.mkdir(parents=True, exist_ok=True)
    env = clean_environment(VFI_REPOSITORY=str(source), PYTHONDONTWRITEBYTECODE="1")
    return subprocess.run([sys.executable, "-c", cell], cwd=cwd, env=env, capture_output=True, text=True, timeout=60)


def test_setup_is_short_and_names_this_version():
    lines = [line for line in bootstrap(NOTEBOOKS[0]).splitlines() if line]
    assert lines[0] == "# @title Setup" and len(lines) <= 12
    assert lines[-1] == f'vfi.require_version("{vfi.VERSION}")'
    assert f" -b v{vfi.VERSION} " in "\n".join(lines)
    assert max(len(line) for line in lines if vfi.REPOSITORY in line) + 30 <= 120, "no room for a longer name"


def test_setup_hushes_tensorflow_before_keras_is_imported(tmp_path, source):
    cell = bootstrap(NOTEBOOKS[0]) + '\nassert "keras" not in sys.modules; print(os.environ["TF_CPP_MIN_LOG_LEVEL"])\n'
    env = clean_environment(VFI_REPOSITORY=str(source))
    env.pop("TF_CPP_MIN_LOG_LEVEL", None)
    done = subprocess.run([sys.executable, "-c", cell], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.stdout == "3\n", done.stderr


def test_setup_clones_once(tmp_path, source):
    first = setup(tmp_path / "here", source)
    assert first.stdout.split() == [vfi.VERSION, str(tmp_path / "here" / "vfi-dncnn")], first.stderr
    shutil.rmtree(source)  # from here on there is no network
    assert setup(tmp_path / "here", source).stdout == first.stdout


@pytest.mark.parametrize("version", [vfi.VERSION, "0.9"])
def test_setup_clones_the_tag_of_the_notebook_it_was_saved_in(tmp_path, source, version):
    for each in ("0.9", vfi.VERSION, "99.0"):
        git("tag", f"v{each}", cwd=release(source, each))
    done = setup(tmp_path / "here", source, saved_as=version)
    assert done.stdout.split() == [version, str(tmp_path / "here" / "vfi-dncnn")], done.stderr


def test_setup_alone_brings_everything_to_an_empty_folder_on_colab(tmp_path, snapshot):
    stages = "from stages import evaluation, footage, frames, layers, models, mot17, own_videos, training, video"
    cell = f"{bootstrap(NOTEBOOKS[0])}\n{stages}\nprint(vfi.on_colab(), models.load_model('dncnn').name)\n"
    env = clean_environment(VFI_REPOSITORY=str(snapshot), PYTHONPATH=str(ROOT / "tests" / "stand_in"))
    done = subprocess.run([sys.executable, "-c", cell], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "True dncnn", done.stderr
    assert git("status", "--porcelain", "--untracked-files=no", cwd=tmp_path / "vfi-dncnn") == ""
    assert git("ls-files", cwd=tmp_path / "vfi-dncnn") == git("ls-files", cwd=snapshot)


def test_setup_uses_the_repository_around_the_notebook(tmp_path):
    repository = copy_working_tree(tmp_path / "checkout")
    done = setup(repository / "notebooks", tmp_path / "nowhere")
    assert done.stdout.split() == [vfi.VERSION, str(repository)], done.stderr


def test_setup_keeps_what_stands_where_the_clone_would(tmp_path, source):
    (tmp_path / "here" / "vfi-dncnn").mkdir(parents=True)
    (tmp_path / "here" / "vfi-dncnn" / "precious.txt").touch()
    assert "already exists and is not an empty directory" in setup(tmp_path / "here", source).stderr.splitlines()[-1]
    assert [path.name for path in (tmp_path / "here" / "vfi-dncnn").iterdir()] == ["precious.txt"]


def test_setup_names_the_cure_for_an_older_clone(tmp_path, source):
    release(source, "0.9")
    error = setup(tmp_path / "here", source).stderr.splitlines()[-1]
    assert re.search(r"RuntimeError: This notebook needs .* has 0\.9: run `git pull` there", error)
    checkout = tmp_path / "checkout"
    git("clone", "--quiet", source.as_uri(), checkout, cwd=tmp_path)
    release(source, vfi.VERSION)
    assert "git pull" in setup(checkout / "notebooks", source).stderr.splitlines()[-1]
    assert '"0.9"' in (checkout / "vfi_utils.py").read_text(), "somebody's own checkout is theirs to update"


@pytest.mark.parametrize("version, older", [("1.10", "1.9"), ("2.0", "1.12")])
def test_versions_are_compared_number_by_number(monkeypatch, version, older):
    monkeypatch.setattr(vfi, "VERSION", version)
    vfi.require_version(older)
    vfi.require_version(version)
    monkeypatch.setattr(vfi, "VERSION", older)
    with pytest.raises(RuntimeError, match="git pull"):
        vfi.require_version(version)


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("nowhere", "missing, or no place"),
        ("OWNER/nowhere", "OWNER is no name"),
        ("http://127.0.0.1:9/a/b", "no connection"),
    ],
)
def test_setup_that_cannot_clone_says_why_and_leaves_nothing(tmp_path, address, why):
    address = address if "://" in address else str(tmp_path / address)
    error = setup(tmp_path / "here", address).stderr.splitlines()[-1]
    assert re.fullmatch(rf"OSError: Cannot clone {address} \({why}\): fatal: .+", error)
    assert not list((tmp_path / "here").iterdir())


# ---------------------------------------------------------------------------------------------------------------------
# The runner
# ---------------------------------------------------------------------------------------------------------------------


def run_in_place(folder: Path, *code: str) -> subprocess.CompletedProcess:
    """Write a notebook of these code cells, run it in place, and return what the runner did."""
    cells = [nbformat.v4.new_code_cell(source) for source in code]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / "a.ipynb")
    command = [
        sys.executable,
        ROOT / "tests" / "tools" / "run_notebooks.py",
        "--in-place",
        "--cwd",
        folder,
        folder / "a.ipynb",
    ]
    env = clean_environment(VFI_WORK=str(folder / "work"))
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=120)


def test_runner_keeps_what_a_terminal_shows_and_names_what_was_made(tmp_path):
    made = "import os; os.makedirs('work/figures'); open('work/figures/a.png', 'w').close()"
    log = "sys.stderr.write('2026-01-01 00:00:00.1 I file.cc:1] oneDNN\\n1 of 2\\r2 of 2\\n'); print('b')"
    done = run_in_place(tmp_path, f"print('a')\nimport sys\n{log}", "sys.executable", made)
    assert done.returncode == 0, done.stderr
    assert "a\n" in done.stdout
    assert re.search(r"=== a\.ipynb: \d+ s; 1 figure\n", done.stdout)
    assert done.stdout.endswith("Tables and figures:\n  work/figures/a.png\n")
    first, second, third = read(tmp_path / "a.ipynb").cells
    assert {output.name: output.text for output in first.outputs} == {"stdout": "a\nb\n", "stderr": "2 of 2\n"}
    assert second.outputs[0]["data"]["text/plain"] == repr(sys.executable), "the kernel is of this interpreter"
    assert [cell.execution_count for cell in (first, second, third)] == [1, 2, 3]


def test_runner_knows_how_long_each_notebook_takes():
    each = [expected_minutes([path]) for path in NOTEBOOKS]
    assert min(each) > 0 and sum(each) == expected_minutes(NOTEBOOKS)
    assert expected_minutes([Path("mine.ipynb")]) == 0


def test_runner_hides_nothing_from_a_test(tmp_path):
    log = "I0000 00:00:1.2 3 file.cc:1] oneDNN"
    code = f"import os, time; os.system('echo {log} >&2; echo native'); os.write(2, b'and this'); time.sleep(1)"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)]), tmp_path / "a.ipynb")
    nb = run_notebook(tmp_path / "a.ipynb", cwd=tmp_path, timeout=LIMIT)
    assert stderr_lines(nb) == [log, "and this"] and "native" in texts(nb)


def test_runner_shows_the_cell_that_failed_and_leaves_the_notebook_alone(tmp_path):
    done = run_in_place(tmp_path, "x = 1", "y = x / 0", "z = 2")
    assert done.returncode == 1
    assert "y = x / 0" in done.stderr
    assert "ZeroDivisionError" in done.stderr
    assert [cell.execution_count for cell in read(tmp_path / "a.ipynb").cells] == [None, None, None]
    assert [cell.execution_count for cell in read(tmp_path / "work" / "notebooks" / "a.ipynb").cells] == [1, 2, None]


# ---------------------------------------------------------------------------------------------------------------------
# Runs
# ---------------------------------------------------------------------------------------------------------------------

LEAVES = {  # by number: what a stage leaves under work/
    "01": ["footage/sample/*/*/img1/000001.jpg", "footage/sample/*/*/seqinfo.ini"],
    "02": ["frames/sample/*/*.npy", "frames/sample/**/windows.csv"],
    "03": ["models/*.keras"],
    "04": ["runs/*/history.csv", "runs/*/model.keras", "runs/*/run.json"],
    "05": ["results/**/*.csv", "figures/**/*.png"],
    "06": ["results/why_*.csv", "runs/why-*/model.keras", "figures/06_*.png"],
    "07": ["runs/motion-short/history.csv", "runs/motion-short/model.keras", "figures/07_*.png"],
    "08": ["videos/*_2x_smooth.mp4", "figures/08_*.png", "figures/08_side_by_side.gif"],
}


ALLOWED_NATIVE = re.compile(  # written before TensorFlow reads TF_CPP_MIN_LOG_LEVEL, or past it; none can be helped
    r"WARNING: All log messages before absl::InitializeLog\(\) is called are written to STDERR"
    r"|I0000 .*(?:oneDNN custom operations are on|Could not find cuda drivers on your machine)"  # TensorFlow 2.21
    r"|E0000 .*Unable to register cu(?:DNN|BLAS|FFT) factory"  # TensorFlow 2.19
    r"|W0000 .*computation placer already registered"  # TensorFlow 2.19
    r"|E0000 .*remapper failed: INVALID_ARGUMENT: .*LeakyReluGrad"  # all: it trains on, without that optimisation
)


def stderr_lines(nb) -> list[str]:
    """Lines in red that a reader of a run notebook sees."""
    outputs = [output for cell in nb.cells for output in cell.get("outputs", []) if output.output_type == "stream"]
    return [line for out in outputs if out.name == "stderr" for line in out.text.splitlines() if line.strip()]


def keep(nb, path: Path, way: str, request) -> None:
    """Write a run notebook to the folder that --keep-runs names, if it does, for `compare_runs.py`."""
    if folder := request.config.getoption("--keep-runs"):
        (folder / way).mkdir(parents=True, exist_ok=True)
        nbformat.write(nb, folder / way / path.name)


def check_run(nb, path: Path, work: Path):
    outputs = [output for cell in nb.cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.output_type == "error"]
    assert not re.findall(r".*\bNO$", texts(nb), re.MULTILINE), "a check of the notebook says NO"
    assert not [line for line in stderr_lines(nb) if not ALLOWED_NATIVE.match(line)], "lines in red"
    absent = [pattern for pattern in LEAVES.get(path.name[:2], []) if not list(work.glob(pattern))]
    assert not absent, f"{path.name} left no {absent} under work/"
    assert not list(work.rglob("*.part")), "unfinished files"


RUN_IN_ORDER: list[str] = []  # tests


@pytest.fixture(scope="session")
def series_work(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("series")


@pytest.mark.runs
@every_notebook
def test_runs_in_order(path, series_work, tmp_path, request):
    """Each goes on where the one before ended, so one process runs them all (`pytest_xdist_make_scheduler`)."""
    RUN_IN_ORDER.append(request.node.name)
    chosen = [item.name for item in request.session.items if item.name.startswith("test_runs_in_order")]
    assert chosen[: len(RUN_IN_ORDER)] == RUN_IN_ORDER, "other processes have run the ones before"
    if path.name.startswith("06"):  # all its runs; alone it makes the few that it makes for a reader
        whole = path.read_text(encoding="utf-8").replace("RERUN_ALL = False", "RERUN_ALL = True")
        (tmp_path / path.name).write_text(whole, encoding="utf-8")
        path = tmp_path / path.name
    env = clean_environment(VFI_FAST="1", VFI_WORK=str(series_work))
    nb = run_notebook(path, cwd=ROOT / "notebooks", env=env, timeout=LIMIT)
    keep(nb, path, "in_order", request)
    check_run(nb, path, series_work)


@pytest.mark.runs
@every_notebook
def test_runs_alone_as_on_colab(path, snapshot, tmp_path, request):
    """The notebook is the only file there is; the rest is cloned, as on Colab, from a copy of the working tree."""
    shutil.copy(path, tmp_path)
    env = clean_environment(
        VFI_FAST="1",
        VFI_REPOSITORY=str(snapshot),
        PYTHONPATH=os.pathsep.join([str(ROOT / "tests" / "stand_in"), os.environ.get("PYTHONPATH", "")]).rstrip(":"),
    )
    nb = run_notebook(tmp_path / path.name, cwd=tmp_path, env=env, timeout=LIMIT)
    keep(nb, path, "alone", request)
    check_run(nb, path, tmp_path / "vfi-dncnn" / "work")


@pytest.mark.runs
def test_series_runs_on_a_folder_of_videos(tmp_path):
    """What README promises: `VFI_DATASET=~/my_clips make run`."""
    clips = tmp_path / "my_clips"
    clips.mkdir()
    street.draw_sequence(tmp_path / "drawn", "street-03", 45)
    frames = vfi.load_frames(tmp_path / "drawn", size=(160, 90))
    imageio.v2.mimwrite(clips / "walk.mp4", list(frames), fps=29.97, macro_block_size=2)
    env = clean_environment(VFI_FAST="1", VFI_WORK=str(tmp_path / "work"), VFI_DATASET=str(clips))
    for path in NOTEBOOKS[:5]:
        nb = run_notebook(path, cwd=path.parent, env=env, timeout=LIMIT)
        assert not [out for cell in nb.cells for out in cell.get("outputs", []) if out.output_type == "error"]
    work = tmp_path / "work"
    assert (work / "runs" / "dncnn-my_clips" / "model.keras").exists(), "a run of its own name"
    models = set(pd.read_csv(work / "results" / "windows_my_clips.csv").model)
    assert models == {"average", "nearest", "path", "dncnn-my_clips", "dncnn_residual-my_clips", "motion"}
