"""The floors of the house: imports run downward only, plainly, and no file outgrows its job."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ALLOWED = {  # what each file may import of ours
    "vfi_utils": set(),
    "stages": set(),
    "diagram": set(),
    "shots": set(),
    "ffmpeg": set(),
    "markers": {"vfi_utils"},
    "motion": set(),
    "layers": {"motion"},
    "blending": {"motion"},
    "seqinfo": {"vfi_utils"},
    "download": {"vfi_utils"},
    "archives": {"download"},
    "mot17": {"markers", "vfi_utils", "seqinfo", "download", "archives"},
    "sample_street": {"seqinfo"},
    "own_videos": {"markers", "vfi_utils", "seqinfo", "shots", "ffmpeg"},
    "footage": {"markers", "vfi_utils", "seqinfo", "mot17", "sample_street", "own_videos"},
    "stored": {"markers", "vfi_utils", "download"},
    "frames": {"markers", "vfi_utils", "download", "footage", "shots", "stored"},
    "tiles": set(),
    "evidence": {"blending", "motion"},
    "models": {"vfi_utils", "blending", "evidence", "layers", "motion", "tiles"},
    "interpolation": {"models", "motion"},
    "runs": {"markers", "vfi_utils", "models"},
    "training": {"vfi_utils", "models", "runs"},
    "path_crops": {"markers", "vfi_utils", "blending", "evidence", "models", "motion"},
    "evaluation": {"vfi_utils", "models"},
    "streams": {"ffmpeg"},
    "planning": {"ffmpeg", "shots", "streams"},
    "video": {"markers", "vfi_utils", "models", "interpolation", "ffmpeg", "shots", "streams", "planning"},
}
LIMITS = {"vfi_utils": 430, "sample_street": 600}  # lines
LIMIT = 350
HEAVY = {"keras", "tensorflow", "jax", "matplotlib", "imageio", "gdown", "google"}  # may wait inside functions
LOADS_KERAS = "stages.layers"  # so it may wait, too, until a model is read
FILES = {"vfi_utils": ROOT / "vfi_utils.py"}
FILES |= {"stages" if path.stem == "__init__" else path.stem: path for path in sorted((ROOT / "stages").glob("*.py"))}


def imports(tree: ast.AST) -> list[tuple[str, ast.AST]]:
    """Full names of what a file imports, each with its statement."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [("." * node.level + (node.module or "") + "." + alias.name, node) for alias in node.names]
    return found


def ours(tree: ast.AST) -> set[str]:
    """Names of our files that a file imports: "vfi_utils", "models" (of `stages`)."""
    parts = [name.split(".") for name, _ in imports(tree)]
    return {names[0] for names in parts if names[0] == "vfi_utils"} | {n[1] for n in parts if n[0] == "stages"}


every_file = pytest.mark.parametrize("name", FILES)


def parse(name: str) -> ast.Module:
    return ast.parse(FILES[name].read_text(encoding="utf-8"))


@every_file
def test_imports_run_downward(name):
    assert name in ALLOWED, f"{name}.py has no floor: say in ALLOWED what it may import"
    assert ours(parse(name)) <= ALLOWED[name]


def test_the_floors_have_no_circle():
    standing = set()
    while above := set(ALLOWED) - standing:
        ready = {name for name in above if ALLOWED[name] <= standing}
        assert ready, f"a circle among {above}"
        standing |= ready


@every_file
def test_imports_are_plain_and_at_the_top(name):
    tree = parse(name)
    for module, node in imports(tree):
        top, heavy = node in tree.body, module.split(".")[0] in HEAVY or module == LOADS_KERAS
        assert not module.startswith("."), f"{module} is a relative import"
        assert not module.startswith("importlib") or module.startswith("importlib.metadata"), module
        assert top or heavy or module.startswith("importlib.metadata"), f"{module} is imported inside a function"
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert not names & {"__import__", "exec", "eval"}
    attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not attributes & {"modules", "path_hooks", "meta_path"}


@every_file
def test_files_stay_short(name):
    lines = len(FILES[name].read_text(encoding="utf-8").splitlines())
    assert lines <= LIMITS.get(name, LIMIT)


def test_no_code_lies_among_the_pictures():
    assert not list((ROOT / "assets").rglob("*.py"))
    assert {path.parent.name for path in ROOT.glob("*/*.py")} - {".venv", "work"} <= {"stages", "tests"}
