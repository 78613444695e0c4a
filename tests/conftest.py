"""What several test files use: an environment of their own, and a copy of the working tree that git can clone."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def clean_environment(**variables: str) -> dict[str, str]:
    """Return this process's environment without what would lead a run elsewhere, plus `variables`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("VFI_", "GIT_", "TF_CPP_"))}
    return {**kept, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", **variables}


def git(*arguments, cwd: Path) -> str:
    """Run git as nobody in particular and return what it printed."""
    command = ["git", "-c", "user.name=test", "-c", "user.email=test@localhost", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=clean_environment(), check=True, capture_output=True, text=True).stdout


def commit_all(folder: Path) -> Path:
    """Make `folder` a repository with everything in it committed (once more, if it is one already)."""
    git("init", "--quiet", "--initial-branch=main", cwd=folder)
    git("add", "--all", "--force", cwd=folder)
    git("commit", "--quiet", "--message", "Everything", cwd=folder)
    return folder


def copy_working_tree(folder: Path) -> Path:
    """Copy what git tracks or would add, as it is now, to `folder`; all but work/ and .venv where git knows nothing."""
    try:
        names = git("ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT).split("\0")[:-1]
    except (OSError, subprocess.CalledProcessError):  # downloaded as an archive
        paths = (path for path in ROOT.rglob("*") if path.is_file())
        names = [str(path.relative_to(ROOT)) for path in paths]
        names = [name for name in names if not name.startswith(("work/", ".venv/"))]
    for name in names:
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


TOGETHER = ("test_notebooks.py::test_runs_in_order", "test_sample.py")  # in one process, in order


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Hand tests to processes one by one, but for those that go on where another ended, or draw the same street.

    (pytest-xdist's own groups change names that pytest does not let them change since 9.2: they would be taken apart.)
    """
    from xdist.scheduler import LoadScopeScheduling

    class InGroups(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return next((name for name in TOGETHER if name in nodeid), nodeid)

    return InGroups(config, log)


def pytest_addoption(parser):
    parser.addoption("--keep-runs", type=Path, help="folder that gets the notebooks that are run, with their outputs")


@pytest.fixture(scope="session", autouse=True)
def _no_traces_in_work(tmp_path_factory):
    """Keep every test out of the user's work/, and the user's settings out of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("VFI_")]:
            patch.delenv(name)
        patch.setenv("VFI_WORK", str(tmp_path_factory.mktemp("work")))
        yield


@pytest.fixture(scope="session")
def snapshot(tmp_path_factory) -> Path:
    """Return a repository with the working tree as it is now, uncommitted changes included, as its one commit."""
    if not shutil.which("git"):
        pytest.skip("needs git")
    return commit_all(copy_working_tree(tmp_path_factory.mktemp("snapshot")))
