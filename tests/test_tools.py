"""What `make` calls beside the notebooks: the comparison of runs, Colab's lists of versions, addresses, badges."""

from __future__ import annotations

import http.server
import re
import shutil
import subprocess
import sys
import threading

import cv2
import keras
import nbformat
import numpy as np
import pandas as pd
import pytest

import check_downloads
import colab
import compare_runs
import long_runs
import publish
import tries
import vfi_utils as vfi
from conftest import ROOT, clean_environment, commit_all, copy_working_tree, git
from stages import evidence, mot17, path_crops, seqinfo


def notebook(*texts: str, page: str = ""):
    """A run notebook whose cells print these texts; the last shows this page."""
    v4 = nbformat.v4
    cells = [v4.new_code_cell("print()", outputs=[v4.new_output("stream", name="stdout", text=text)]) for text in texts]
    data = {"text/html": page, "text/plain": "not read"}
    if page:
        cells.append(v4.new_code_cell("table", outputs=[v4.new_output("display_data", data=data)]))
    return v4.new_notebook(cells=cells)


def differ(one: str, other: str) -> bool:
    return bool(compare_runs.differences(notebook(one), notebook(other))[0])


@pytest.mark.parametrize(
    "one, other",
    [
        ("beats it by 1.30 dB", "beats it by 1.34 dB"),
        ("loss 0.02050", "loss 0.02052"),
        ("after 1,320 steps took 5 s", "after 1,320 steps took 61 s"),
        ("2 of 12 frames, 1.03 frames/s, 2 min left\n8 of 12 frames, 1.05 frames/s, 1 min left\na", "a"),
        ("expected to finish after 17:20", "expected to finish after 09:01"),
        ("Python 3.12.1; keras 3.10.0", "Python 3.13.0; keras 3.13.2"),
        ("2.50 MiB  work/models/dncnn.keras", "2.51 MiB  work/models/dncnn.keras"),
        ("better in 42% of 28 windows", "better in 43% of 28 windows"),
    ],
)
def test_rounding_and_time_make_no_difference(one, other):
    assert not differ(one, other)


@pytest.mark.parametrize(
    "one, other",
    [
        ("after 150 steps 0.02659", "after 150 steps 0.00034"),
        ("beats it by 1.30 dB", "beats it by 1.36 dB"),
        ("better in 42% of 28 windows", "better in 42% of 27 windows"),
        ("1,320 windows", "1,321 windows"),
        ("it is learned: ok", "it is learned: NO"),
        ("+0.30 dB", "-0.30 dB"),
        ("one line", "one line\nand another"),
    ],
)
def test_what_a_reader_would_notice_is_a_difference(one, other):
    assert differ(one, other)


def test_tables_are_compared_cell_by_cell_and_know_their_columns():
    page = "<table><tr><th></th><th>model</th><th>psnr</th><th>minutes</th></tr>{}</table>"
    row = "<tr><th>0</th><td>average</td><td>{}</td><td>{}</td></tr>"
    pages = [page.format(row.format(*values)) for values in [(39.28, 1.5), (39.31, 9.5), (39.40, 1.5)]]
    one, near, far = (notebook(page=page) for page in pages)
    assert compare_runs.differences(one, near) == ([], 2)
    assert compare_runs.differences(one, far)[0] == ["cell 1, psnr: 39.28 / 39.4 (dB) in '#'"]


def test_a_name_above_several_columns_is_theirs():
    page = '<tr><th></th><th colspan="2">psnr</th></tr><tr><th></th><th>mean</th><th>max</th></tr>'
    page += "<tr><th>a</th><td>1.00</td><td>{}</td></tr>"
    found, _ = compare_runs.differences(notebook(page=page.format("2.00")), notebook(page=page.format("2.10")))
    assert found == ["cell 1, psnr max: 2.00 / 2.10 (dB) in '#'"]


def test_folders_without_the_same_notebooks_are_not_compared(tmp_path):
    (tmp_path / "one").mkdir()
    with pytest.raises(FileNotFoundError, match="no run notebook"):
        compare_runs.compare_folders(tmp_path / "one", tmp_path / "other")
    nbformat.write(notebook("1"), tmp_path / "one" / "01_a.ipynb")
    with pytest.raises(FileNotFoundError, match="other/01_a.ipynb"):
        compare_runs.compare_folders(tmp_path / "one", tmp_path / "other")


@pytest.mark.parametrize("end", ["oldest", "newest"])
def test_an_end_satisfies_what_the_series_requires(end):
    """Whatever requirements.txt asks for is in Colab's runtime, and no older."""
    assert colab.python_of(end) in ("3.12", "3.13")
    pinned = dict(re.findall(r"^([\w-]+)==(\S+)", colab.pins(end).read_text(), re.MULTILINE))
    required = re.findall(r"^([\w-]+)(?:\[\w+\])?>=(\S+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    for name, least in required:
        if name in pinned:
            numbers = [[int(part) for part in version.split(".")] for version in (pinned[name], least)]
            assert numbers[0] >= numbers[1], name
    assert {name for name, _ in required} - set(pinned) <= {"opencv-python-headless", "filelock"}


def test_pins_follow_colabs_lists():
    old = "# Python 3.13: of a day\nkeras==3.13.2\njax==0.7.2\n# a note\n"
    freeze = "absl-py==1.4.0\nJAX==0.9.0\nkeras==3.14.0\ntorch @ https://nowhere\n"
    assert colab.write_pins(freeze, "Ubuntu\nPython 3.14.1\n", old) == (
        "# Python 3.14: of a day\nkeras==3.14.0\njax==0.9.0\n# a note\n"
    )
    with pytest.raises(ValueError, match="no jax"):
        colab.write_pins("keras==3.14.0\n", "Python 3.14.1\n", old)
    with pytest.raises(ValueError, match="no Python"):
        colab.write_pins(freeze, "<html>", old)


class Host(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.send_response(200 if self.path == "/there.zip" else 404)
        self.send_header("Content-Length", "1234")
        self.end_headers()

    def log_message(self, *arguments):
        pass


def test_downloads_are_asked_for_by_head(capsys):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Host)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    there, gone = (f"http://127.0.0.1:{server.server_port}/{name}.zip" for name in ("there", "gone"))
    assert check_downloads.check([(there, 1234, ""), (there, 0, "")]) == 0
    assert check_downloads.check([(there, 99, ""), (gone, 0, ""), ("http://127.0.0.1:9/x", 0, "")]) == 3
    server.shutdown()
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].endswith("1,234 bytes, not 99") and "404" in lines[3] and "URLError" in lines[4]
    assert all(address.startswith("https://") for address, _, _ in mot17.SOURCES)


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
def test_the_badges_workflow_stamps_a_copy_and_has_nothing_to_do_the_second_time(tmp_path):
    workflow = (ROOT / ".github" / "workflows" / "badges.yml").read_text(encoding="utf-8")
    command = re.search(r"run: (make badges .*)", workflow)[1].replace("${{ github.repository }}", "a-fork/of.it")
    copy = commit_all(copy_working_tree(tmp_path))
    (copy / ".venv" / "bin").mkdir(parents=True)
    (copy / ".venv" / "bin" / "python").symlink_to(sys.executable)
    for changed in (True, False):
        subprocess.run(command.split(), cwd=copy, env=clean_environment(), check=True, capture_output=True)
        assert bool(git("status", "--porcelain", "--untracked-files=no", cwd=copy)) == changed
        git("commit", "--all", "--allow-empty", "--quiet", "--message", "Name it", cwd=copy)
    readme = (copy / "README.md").read_text(encoding="utf-8")
    assert "github/a-fork/of.it/blob/main/notebooks/01" in readme and "OWNER/" not in readme
    lint = [sys.executable, "-m", "ruff", "check", "--quiet", "."]
    if shutil.which("ruff", path=str(ROOT / ".venv" / "bin")):
        assert not subprocess.run(lint, cwd=copy, capture_output=True, text=True).stdout, "the longer name still fits"


def kernels(head: str, control: str) -> list[np.ndarray]:
    layers = long_runs.build(head, 6, control, seed=0).layers
    return [layer.get_weights()[0] for layer in layers if isinstance(layer, keras.layers.Conv2D)]


CONTROLS = [("direct", "small", "residual"), ("residual", "he", "direct"), ("direct", "full-small", "residual")]


@pytest.mark.parametrize(("head", "control", "donor"), CONTROLS)
def test_a_control_differs_in_the_last_layer_alone(head, control, donor):
    size = "full" if "full" in control else ""
    made, usual, other = kernels(head, control), kernels(head, size), kernels(donor, size)
    assert all(np.array_equal(one, another) for one, another in zip(made[:-1], usual[:-1], strict=True))
    assert np.array_equal(made[-1], other[-1]) and not np.array_equal(made[-1], usual[-1])
    assert (made[-1].std() < 1e-3) == control.endswith("small")


def test_the_series_network_has_other_first_weights_with_another_seed():
    first, second = (long_runs.build("direct", 6, "full", seed) for seed in (0, 1))
    assert first.count_params() == 623_955  # the article's: 15 layers of 72 channels
    assert all(np.any(a != b) for a, b in zip(first.get_weights(), second.get_weights()) if a.ndim == 4)


def test_frames_that_are_moved_first_are_the_middle_one():
    noise = np.random.default_rng(0).integers(0, 256, (30, 60, 3), dtype=np.uint8)
    large = cv2.resize(noise, (240, 90), interpolation=cv2.INTER_CUBIC)
    frames = np.stack([large[:, 40 + 4 * k : 200 + 4 * k] for k in range(7)])
    made, table = long_runs.move_all({"a": frames}, vfi.build_windows({"a": 7}))
    assert table.to_dict("records") == [{"sequence": "0000", "start": 0, "middle": 4}]
    moved, truth = vfi.split_middle(made["0000"][None, :, 8:-8, 24:-24])
    assert np.array_equal(made["0000"][4], frames[3]) and np.array_equal(moved[0, 3], moved[0, 4])
    assert vfi.psnr(moved[0], truth.repeat(8, axis=0)).min() > 35
    assert vfi.psnr(frames[[2, 4], 8:-8, 24:-24], truth.repeat(2, axis=0)).max() < 25


def test_the_series_network_on_moved_frames_begins_as_path_and_sees_the_six_alone():
    moved = np.random.default_rng(0).integers(0, 256, (1, 16, 16, 24), np.uint8)
    model = long_runs.build("residual", 8, "full", seed=0)
    assert model.count_params() == 623_955  # the article's
    assert np.allclose(model.predict_on_batch(moved), moved[..., 9:12] / 255, atol=1e-6)
    last = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)][-1]
    last.set_weights([np.random.default_rng(1).normal(0, 0.1, weight.shape) for weight in last.get_weights()])
    other = moved.copy()
    other[..., 9:15] = 255 - other[..., 9:15]
    added = [model.predict_on_batch(each) - each[..., 9:12] / 255 for each in (moved, other)]
    assert np.allclose(*added, atol=1e-5) and np.abs(added[0]).max() > 0.01


def test_the_command_that_trains_motion_trains_it(tmp_path, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)
    large = cv2.resize(noise, (160, 96), interpolation=cv2.INTER_CUBIC)
    for split in ("train", "test"):
        (folder := tmp_path / "clips" / split / "pan" / "img1").mkdir(parents=True)
        for k in range(12):
            cv2.imwrite(str(folder / f"{k + 1:06}.jpg"), large[:, 3 * k : 3 * k + 112])
        seqinfo.write_seqinfo(folder.parent, rate=25, frames=12, size=(112, 96))
    monkeypatch.setenv("VFI_WORK", str(tmp_path / "work"))
    monkeypatch.setenv("VFI_DATASET", str(tmp_path / "clips"))
    monkeypatch.setattr(evidence, "REFINED", 5000)
    seen, test_on = [], path_crops.test_on

    def seeing(frames, *rest):
        seen.append(frames["pan"].shape)
        return test_on(frames, *rest)

    monkeypatch.setattr(path_crops, "test_on", seeing)
    budget = {"windows": 2, "epochs": 1, "steps_per_epoch": 2, "batch_size": 1, "crop": 64}
    publish.train_motion(**budget)
    assert (tmp_path / "work" / "runs" / "motion" / "model.keras").exists()
    assert [path.name.split("-")[0] for path in (tmp_path / "work" / "paths").iterdir() if path.is_dir()] == ["clips"]

    monkeypatch.setattr(publish, "ROOT", tmp_path)
    made, weights = tmp_path / "assets" / "models" / "motion", []
    for end, loss in (("", "log_error"), (publish.FURTHER, "log_error_and_detail"), (publish.REFINED, "log_error")):
        if end:
            publish.train_motion(end, loss=loss, **budget)
        publish.publish_model("motion" + end, "clips")
        card = made.with_suffix(".md").read_text()
        assert f"publish.py {publish.COMMANDS[end]} motion --budget" in card and f'"loss": "{loss}"' in card
        weights.append(publish.load_model(made.with_suffix(".keras")).get_weights())
    assert "| steps | 6 of 1 crops of 64x64" in card and f"| {publish.FIRST} | 4 of 1" in card
    assert "| loss | log_error; before: log_error_and_detail; before: log_error |" in card
    assert "| the others | what refines alone, on frames of at most 5,000 px |" in card
    assert seen == [(12, 96, 112, 3), (12, 96, 112, 3), (12, 65, 76, 3)], "the curve of what refines is of small frames"
    history = pd.read_csv(made.with_suffix(".csv"))
    assert history.step.tolist() == [2, 4, 6]
    assert all(0 < np.abs(one - other).max() < 0.01 for one, other in zip(*weights[:2], strict=True)), "it began there"
    assert all(np.array_equal(one, other) for one, other in zip(*weights[1:])) and len(weights[2]) > len(weights[1])
    with pytest.raises(ValueError, match="motion.keras is refined. Begin with train"):
        publish.begin("motion", publish.FURTHER)
    again = publish.begin("motion", publish.REFINED)[0].get_weights()
    assert all(np.array_equal(one, other) for one, other in zip(again, weights[2], strict=True)), "it goes on"


# Things to try -------------------------------------------------------------------------------------------------


def test_what_came_out_of_the_checks_is_what_is_written(capsys):
    tries.try_06()
    lines = [line.rpartition(": ") for line in capsys.readouterr().out.splitlines()]
    numbers = {what.removeprefix("checks of 16 px, panned by "): dB.removesuffix(" dB") for what, _, dB in lines}
    answer = re.search(r"\*\*\[06\].*?\n\n", (vfi.ASSETS / "TRY.md").read_text(encoding="utf-8"), re.DOTALL)[0]
    written = set(re.findall(r"\d+\.\d", answer.replace("60 dB", "60.0 dB")))
    said = ["1 px, path", "1 px, average", "1 px, through two", "1 px, all places trusted", "2 px, path", "4 px, path"]
    assert written == {numbers[name] for name in (*said, "4 px, average")}


def test_a_commit_is_never_taken_for_a_number(monkeypatch):
    def answer(command, **_):
        digits = int(next(part for part in command if "--abbrev" in part).partition("=")[2])
        return subprocess.CompletedProcess(command, 0, "8990674451105a50fa"[:digits] + "\n")

    monkeypatch.setattr(publish.subprocess, "run", answer)
    assert publish.commit.__wrapped__() == "8990674451105a"


def test_long_runs_are_compared_with_runs_that_there_are():
    made = {
        "-".join(filter(None, (head, str(frames), data, control))) for head, frames, data, control in long_runs.RUNS
    }
    named = {*long_runs.INSTEAD_OF, *long_runs.INSTEAD_OF.values()} - {"path"}
    assert {re.sub(r"-\d{3,}$", "", name) for name in named} <= made
    published = pd.read_csv(vfi.ASSETS / "results_why_street_long.csv")
    assert published.change.map(long_runs.INSTEAD_OF).equals(published.instead_of)
    assert set(published.instead_of.dropna()) <= set(published.change)


def test_06_says_how_long_its_published_runs_were():
    source = (ROOT / "notebooks" / "06_why_it_ghosts.ipynb").read_text()
    assert r"\"street, 1,200 steps\": \"street\"" in source
    assert set(pd.read_csv(vfi.ASSETS / "results_why_street.csv").steps) == {0, 1200}


def test_a_leaky_control_is_the_same_network_but_for_what_its_relus_let_through():
    usual, leaky = (long_runs.build("residual", 6, control, seed=0) for control in ("", "leaky"))
    assert all((a == b).all() for a, b in zip(usual.get_weights(), leaky.get_weights(), strict=True))
    kinds = [[layer.__class__.__name__ for layer in model.layers] for model in (usual, leaky)]
    assert [kind.replace("ReLU", "LeakyReLU") for kind in kinds[0]] == kinds[1]


def test_channels_that_are_never_above_zero_are_not_open():
    frames = {"a": np.random.default_rng(0).integers(0, 256, (7, 16, 16, 3), np.uint8)}
    model = long_runs.build("direct", 6, "", seed=0)
    last = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)][-2]
    kernel, bias = last.get_weights()
    bias[:] = 1e3
    bias[:5] = -1e3
    last.set_weights([kernel, bias])
    assert long_runs.open_channels(model, frames, vfi.build_windows({"a": 7})) == 27


def test_results_say_of_open_channels_what_the_runs_say():
    runs = pd.read_csv(vfi.ASSETS / "results_why_street_long.csv")
    average = runs.test_psnr[runs["head"] == "average"].item()
    small = runs[~runs.change.str.contains("full|moved|leaky")]
    residual = small[small["head"] == "residual"]
    closed, opened = residual[residual.open_channels <= 14], residual[residual.open_channels >= 20]
    assert len(closed) + len(opened) == len(residual)
    assert (abs(closed.test_psnr - average) < 0.01).all()
    assert (opened.test_psnr <= average).sum() == 1
    assert small.open_channels[small["head"] == "direct"].min() == 25


def test_texts_say_what_the_series_network_gains_on_moved_frames():
    runs = pd.read_csv(vfi.ASSETS / "results_why_street_long.csv").groupby("change").mean(numeric_only=True)
    shipped = pd.read_csv(vfi.ASSETS / "results_street.csv").query("footage == 'all windows' and spacing == 'article'")
    psnr, changes = shipped.set_index("model").psnr, [f"residual-6-every-moved-full-{n}" for n in (15700, 6000)]
    long, short = (runs.test_psnr[change] - runs.test_psnr["path"] for change in changes)
    moving = runs.psnr_moving[changes[0]] - runs.psnr_moving["path"]
    paths = (vfi.ASSETS / "RESULTS.md", ROOT / "README.md", ROOT / "notebooks" / "06_why_it_ghosts.ipynb")
    results, readme, lesson = (" ".join(path.read_text("utf-8").split()) for path in paths)
    end, gain = runs.test_psnr[changes[0]], f"gain {long:.2f} dB in 15,700 steps, {moving:.2f} where things move"
    assert f"{gain}, and end {psnr['motion'] - end:.1f} dB below `motion`: one run" in results
    assert f"In 6,000 steps they gain {short:.2f}." in results
    assert f"(`dncnn_residual`), {end - psnr['dncnn_residual']:.1f} lower" in results
    assert f"add {long:.2f} dB to `path` (one run)" in readme and f"add {long:.2f} dB to it (one run)" in lesson
