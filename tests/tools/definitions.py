"""What several tests use: a notebook's definitions without the rest of it, and a Python without TensorFlow."""

import ast
from pathlib import Path

import nbformat

import vfi_utils as vfi

WITHOUT_TENSORFLOW = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "tensorflow":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
"""  # for a program that must do where only JAX is installed
MOTION = ("motion_network", "convolution", "unet", "refine")
NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"


def definitions(notebook: str, *names: str) -> dict:
    """Return what the notebook's imports, settings (names in upper case) and the named definitions define.

    Raises:
        KeyError: if the notebook does not define one of the names.
    """
    space: dict = {"vfi": vfi}
    for cell in nbformat.read(NOTEBOOKS / notebook, as_version=4).cells:
        if cell.cell_type != "code" or cell.source.startswith("# @title Setup"):
            continue
        for node in ast.parse(cell.source).body:
            name = getattr(node.targets[0], "id", "") if isinstance(node, ast.Assign) else getattr(node, "name", "")
            settings = isinstance(node, ast.Assign) and name.isupper()
            if isinstance(node, (ast.Import, ast.ImportFrom)) or settings or name in names:
                exec(compile(ast.Module([node], []), notebook, "exec"), space)  # the repository's own notebook
    return space | {name: space[name] for name in names}


def network(name: str, seed: int = 0, **other):
    """Return a network of the series, untrained, as its notebook builds it; `seed` is of a DnCNN's first weights.

    `other` is what the notebook's function is told otherwise than for the shipped one, such as `frames`.

    Raises:
        KeyError: if there is none of that name.
    """
    if name == "motion":
        return definitions("07_motion_aware.ipynb", *MOTION)["motion_network"](**other)
    variants = {"dncnn": {}, "dncnn_residual": {"residual": True}, "dncnn_2frames": {"frames": 2}}
    build = definitions("03_define_dncnn.ipynb", "dncnn", "he_normal")["dncnn"]
    build.__globals__["SEED"] += 1000 * seed
    return build(**variants[name] | other, name=name)


def refine(model):
    """Return the network of notebook 07 with what refines small frames, as that notebook adds it."""
    return definitions("07_motion_aware.ipynb", *MOTION)["refine"](model)
