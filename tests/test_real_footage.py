"""Extra tests on real frames, where a folder with them lies beside the repository."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vfi_utils as vfi
from conftest import clean_environment
from definitions import NOTEBOOKS
from run_notebooks import run_notebook

MINI = Path(os.environ.get("VFI_TEST_FOOTAGE") or vfi.ROOT.parent / "shared" / "footage") / "mot17-mini"
pytestmark = pytest.mark.skipif(not MINI.is_dir(), reason="no real footage beside the repository")


def test_fast_decode_of_real_frames():
    for path in sorted(MINI.glob("train/*/img1/*.jpg"))[::4]:
        whole = np.asarray(Image.open(path).convert("RGB").resize(vfi.FRAME_SIZE, Image.Resampling.BOX))
        assert vfi.psnr(vfi.read_frame(path)[None], whole[None])[0] >= 50, path


@pytest.mark.runs
def test_short_sequences_are_reported_and_stop_nothing(tmp_path):
    env = clean_environment(VFI_WORK=str(tmp_path), VFI_DATASET=str(MINI))
    run_notebook(NOTEBOOKS / "01_download_mot17.ipynb", NOTEBOOKS, env)
    nb = run_notebook(NOTEBOOKS / "02_build_windows.ipynb", NOTEBOOKS, env)
    printed = "".join(output.get("text", "") for cell in nb.cells for output in cell.get("outputs", []))
    assert "MOT17-02: 4 of 600 frames" in printed and "MOT17-02: shorter than a window" in printed
    assert "windows: {'train': 1}" in printed
