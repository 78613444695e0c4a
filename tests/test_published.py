"""What is committed agrees with itself: the README's tables, the results, the shipped models and their cards."""

import re
import shutil

import numpy as np
import pandas as pd
import pytest

import publish
import vfi_utils as vfi
from peers import CLIPS, PEERS

ELSEWHERE = vfi.ASSETS / "results_elsewhere.csv"  # in columns of its own
WHY = set(vfi.ASSETS.glob("results_why_*.csv"))  # of notebook 06, a row a run
MOMENTS = vfi.ASSETS / "results_moments.csv"  # a row a clip, moment and model
HINDSIGHT = vfi.ASSETS / "results_hindsight.csv"  # a row a clip and path
PAIRS = vfi.ASSETS / "results_pairs.csv"  # a row a benchmark and model
ABLATION = vfi.ASSETS / "results_ablation.csv"  # a row a clip, spacing and change
RESULTS = sorted(set(vfi.ASSETS.glob("results_*.csv")) - {ELSEWHERE, MOMENTS, HINDSIGHT, ABLATION, PAIRS} - WHY)
BASELINES = {"average", "nearest", "path"}


@pytest.mark.parametrize("page", ["README.md", "assets/RESULTS.md"])
def test_the_pages_show_what_the_results_say(page, tmp_path):
    copy = tmp_path / page
    copy.parent.mkdir(exist_ok=True)
    shutil.copy(vfi.ROOT / page, copy)
    publish.publish_readme(copy)
    assert copy.read_text() == (vfi.ROOT / page).read_text(), "run: .venv/bin/python tests/tools/publish.py readme"
    assert "<!-- results_" not in copy.read_text(), "the kind of a table stands before its file"


def test_the_readme_is_short():
    lines = (vfi.ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 120


def test_a_changed_result_changes_the_readme(tmp_path, monkeypatch):
    name = "results_sample.csv"
    (tmp_path / "assets").mkdir()
    table = pd.read_csv(vfi.ASSETS / name)
    table.loc[table.footage == "all windows", "psnr"] = 12.34
    table.to_csv(tmp_path / "assets" / name, index=False)
    (tmp_path / "README.md").write_text(f"<!-- results: {name} -->\nold\n<!-- end -->\n")
    monkeypatch.setattr(publish, "ROOT", tmp_path)
    publish.publish_readme(tmp_path / "README.md")
    page = (tmp_path / "README.md").read_text()
    assert "12.34" in page and "old" not in page


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_results_are_complete_and_consistent(path):
    table = pd.read_csv(path)
    assert table.data.nunique() == 1 and set(table.model) >= BASELINES
    assert set(table.spacing) <= {"article", "video"}
    for _, part in table.groupby("spacing"):
        assert (part.groupby("footage").model.nunique() == part.model.nunique()).all()
    trained = table[~table.model.isin(BASELINES | set(PEERS) | (set(CLIPS) - {"motion"}))]
    assert (trained.steps > 0).all() and (trained.minutes > 0).all() and trained.machine.notna().all()
    assert re.fullmatch(r"[0-9a-f]{7,}(-dirty)?", str(table.commit.iloc[0]))
    sequences = table[~table.footage.str.endswith((" cameras", " windows"))]
    for (model, spacing), part in sequences.groupby(["model", "spacing"]):
        rows = table[(table.model == model) & (table.spacing == spacing)]
        overall = rows[rows.footage == "all windows"].iloc[0]
        assert part.windows.sum() == overall.windows
        assert abs((part.psnr * part.windows).sum() / part.windows.sum() - overall.psnr) < 2e-3


def test_every_moment_is_measured_on_every_clip():
    table = pd.read_csv(MOMENTS)
    assert set(zip(table.factor, table.moment)) == {(3, "1/3"), (4, "1/4"), (4, "1/2")}
    counts = table.groupby(["factor", "moment", "model"]).footage.nunique()
    assert counts.nunique() == 1 and counts.iloc[0] == 8
    beside = table.groupby(["footage", "factor", "moment"]).frames.nunique()
    assert (beside == 1).all(), "all are measured on the same frames"
    quarters, halves = (table[table.moment == moment].frames.sum() for moment in ("1/4", "1/2"))
    assert quarters == 2 * halves, "two quarters for each half"


def test_what_six_frames_bring_is_the_camera_as_the_pages_say():
    table = pd.read_csv(HINDSIGHT)
    assert (table.groupby("footage").model.nunique() == 4).all() and table.footage.nunique() == 8
    means = table.groupby("model").mean(numeric_only=True)
    two, six = means.loc["straight, the rules of 6"], means.loc["path, 6 frames"]
    assert six["as predicted"] > two["as predicted"] + 1.3
    before, after = (f"{(six - two)[name]:.2f} dB" for name in ("as predicted", "moved, turned, stretched"))
    clips = table.pivot(index="footage", columns="model", values="moved, turned, stretched")
    left = (clips["path, 6 frames"] - clips["straight, the rules of 6"]).sort_values(ascending=False)
    assert abs(left.iloc[2:].mean()) < 0.1 and left.iloc[2:].max() < 0.1, "nothing on the six others"
    said = f"of {before} that six places bring {after} are left: {left.iloc[0]:.1f} on `{left.index[0]}`, whose waves"
    said += f" move by themselves, {left.iloc[1]:.1f} on `{left.index[1]}`, and nothing on the six others"
    assert said in " ".join((vfi.ASSETS / "RESULTS.md").read_text(encoding="utf-8").split())
    assert 0.9 < six["moved, turned, stretched"] - six["as predicted"] < 1.3, "about a dB"
    video = pd.read_csv(vfi.ASSETS / "results_video.csv").query("spacing == 'video' and model == 'path, 2 frames'")
    same = table[table.model == "path, 2 frames"].set_index("footage")["as predicted"]
    assert (video.set_index("footage").psnr.reindex(same.index) - same).abs().max() < 0.01, "the same windows"


def test_what_the_parts_of_motion_are_worth_is_what_the_page_says():
    table = pd.read_csv(ABLATION)
    assert (table.groupby(["footage", "spacing"]).model.nunique() == 11).all() and table.footage.nunique() == 8
    means = table.groupby(["spacing", "model"]).mean(numeric_only=True)
    own, page = means.loc["video"], " ".join((vfi.ASSETS / "RESULTS.md").read_text(encoding="utf-8").split())
    less, more = own.loc["sharpened by 0.1 less"], own.loc["sharpened by 0.1 more"]
    said = f"*detail* would be {less.detail:.2f} and PSNR {less.psnr - own.psnr['motion']:.2f} dB higher; a tenth more"
    assert f"{said} brings {more.detail:.2f} for {own.psnr['motion'] - more.psnr:.2f} dB" in page
    assert less.psnr > own.psnr["motion"] > more.psnr
    plain = own.psnr["not sharpened"]
    said = (
        f"would be {plain - own.psnr['motion']:.2f} dB better, and {plain - own.psnr['the rules alone']:.2f} dB above"
    )
    assert f"{said} the rules alone" in page
    coarser = own.psnr["motion"] - own.psnr["finds motion on the grid of path"]
    assert f"**A finer grid is worth {coarser:.2f} dB.**" in page
    rules = [own.loc[name] for name in ("the rules alone", "the rules alone, rounded")]
    assert f"costs {rules[0].psnr - rules[1].psnr:.2f} dB" in page
    outer = own.loc["not refined"] - own.loc["no outer frames, not refined"]
    assert f"The outer four frames are worth {outer.psnr:.2f} dB" in page
    half = means.loc["video, half the size"]
    refined, blended = half.loc["motion"], half.loc["not refined"]
    said = f"**A DnCNN refines small frames, for {refined.psnr - blended.psnr:.2f} dB at half the size.**"
    assert said in page and f"*detail* falls from {blended.detail:.2f} to {refined.detail:.2f}" in page
    assert (own.loc["motion"] == own.loc["not refined"]).all(), "these frames are large"
    losing = table[(table.spacing == "video, half the size")].pivot(index="footage", columns="model", values="psnr")
    assert losing.index[losing["motion"] < losing["not refined"]].tolist() == ["shore-aerial"]
    street = pd.read_csv(vfi.ASSETS / "results_street.csv").query("footage == 'all windows' and spacing == 'article'")
    ahead = f"{street.set_index('model').psnr[['motion', 'path']].diff(-1).iloc[0]:.1f} dB"
    assert f"With it `motion` is {ahead} above `path` on the street at 160x90" in page
    readme = (vfi.ROOT / "README.md").read_text(encoding="utf-8")
    assert f"its blend adds {refined.psnr - blended.psnr:.2f} dB to `motion` on the clips at half their size" in readme
    times = pd.read_csv(vfi.ASSETS / "bench.csv").query("part == 'parts'").set_index("what").ratio
    assert f"at 320x180 it takes {times['320x180, motion, refine']:.1f} times all of `path`'s time" in page
    closer = (means.loc[("video", "looks at four times the area")] - own.loc["motion"]).psnr
    assert abs(closer) < 0.025 and "On copies of four times the area it is no better" in page
    video = pd.read_csv(vfi.ASSETS / "results_video.csv").query("model == 'motion' and footage != 'all windows'")
    both = table.query("model == 'motion'").merge(video, on=["footage", "spacing"])
    assert len(both) == 16 and (both.psnr_x - both.psnr_y).abs().max() < 0.01, "the same windows"


def clips_at_their_own_spacing() -> pd.DataFrame:
    """PSNR in dB, a line a clip and a column a model."""
    table = pd.read_csv(vfi.ASSETS / "results_video.csv").query("spacing == 'video' and footage != 'all windows'")
    return table.pivot(index="footage", columns="model", values="psnr")


def test_the_readme_says_what_the_network_gains_and_costs():
    clips = clips_at_their_own_spacing()
    speed = pd.read_csv(vfi.ASSETS / "bench.csv").query("part == 'video'").set_index("what").value
    sizes = [f"a video of {size} doubled" for size in ("1280x720", "640x360")]
    slower = " to ".join(f"{speed[f'{what}, path'] / speed[f'{what}, motion']:.1f}" for what in sizes)
    gain, finer = ((clips[name] - clips.path).mean() for name in ("motion", "path, finer grid"))
    readme = " ".join((vfi.ROOT / "README.md").read_text(encoding="utf-8").split())
    assert f"`motion` adds {gain:.2f} dB to `path`, {finer:.2f} of it by the finer grid" in readme
    assert f"and a video takes {slower} times as long" in readme
    ahead = clips["OpenCV dense inverse search"] - clips.motion
    assert [name for name in ahead.index if ahead[name] > 0.005] == ["gopro-walk"]
    assert f"On `gopro-walk` the straight way at full resolution, OpenCV's, is {ahead.max():.1f} dB ahead" in readme


def test_what_the_finer_grid_and_pairs_bring_is_what_the_page_says():
    clips, page = clips_at_their_own_spacing(), (vfi.ASSETS / "RESULTS.md").read_text(encoding="utf-8")
    page = " ".join(page.split())
    finer = publish.interval((clips["path, finer grid"] - clips.path).to_numpy())
    mean, interval = finer.split(" ", 1)
    assert f"That is {mean[1:]} dB to `path` itself (95% of clips: {interval[1:-1]})" in page
    assert (clips["path, finer grid"] - clips.path).idxmax() == "shore-aerial"
    find = pd.read_csv(vfi.ASSETS / "bench.csv").query("part == 'parts'").set_index("what").value
    ratio = find["640x360, motion, find (two flows)"] / find["640x360, path, find (two flows)"]
    assert f"{ratio:.1f} times the time" in page
    pairs = pd.read_csv(PAIRS).set_index(["benchmark", "model"])
    assert pairs.pairs["Middlebury OTHER"].eq(12).all() and pairs.pairs["UCF101"].eq(379).all()
    assert f"In {pairs.repeats['UCF101', 'path']} of UCF101's pairs" in page
    sharp, psnr = pairs.psnr["Middlebury OTHER"], pairs.psnr["UCF101"]
    assert f"`motion` is {sharp['path'] - sharp['motion']:.2f} dB below `path`: it sharpens" in page
    errors = pairs.error["Middlebury OTHER"]
    assert errors["OpenCV dense inverse search"] < errors["path"] < errors["motion"] < errors["average"]
    assert sharp["motion, not sharpened"] > sharp["path"] > sharp["motion"] > sharp["average"] + 7
    lowest, highest = pairs.against_path["Middlebury OTHER", "OpenCV dense inverse search"].split("(")[1].split(" to ")
    assert lowest[0] == "-" and highest[0] == "+", "now one is ahead, now the other"
    above = psnr["motion"] - psnr[["path", "OpenCV dense inverse search"]]
    assert "so refined, `motion` is {:.2f} dB above `path`, and {:.2f} above that flow".format(*above) in page


def test_the_models_of_others_stand_beside_ours_best_first():
    page = publish.results_table(vfi.ASSETS / "results_street.csv")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines()[2:] if line[:1] == "|"]
    scores = [float(row[4]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert set(PEERS) | {"average", "dncnn"} <= {row[0] for row in rows}
    assert sum("measured elsewhere" in row[0] for row in rows) == 3
    assert "ffmpeg" not in publish.results_table(vfi.ASSETS / "results_sample.csv")


@pytest.mark.parametrize("name", ["results_peers", "results_elsewhere"])
def test_the_models_of_others_saw_the_same_windows(name):
    ours, theirs = (pd.read_csv(vfi.ASSETS / f"{other}.csv") for other in ("results_street", name))
    theirs = theirs.rename(columns={"sequence": "footage"})
    ours = ours[ours.spacing == "article"]
    ours, theirs = (table[table.model == "average"].set_index("footage") for table in (ours, theirs))
    for measure in ("psnr", "psnr_moving"):
        assert (theirs[measure] - ours.loc[theirs.index, measure]).abs().max() < 0.01


def test_the_sample_is_as_hard_as_the_committed_result_says():
    table = (
        pd.read_csv(vfi.ASSETS / "results_sample.csv")
        .query("model == 'average' and spacing == 'article'")
        .set_index("footage")
        .psnr
    )
    assert table["fixed cameras"] > 38 and 25 < table["moving cameras"] < 35


def test_shipped_models_have_cards_that_say_how_they_were_made():
    models = sorted(vfi.ASSETS.glob("models/*.keras"))
    assert {"dncnn", "dncnn_residual"} <= {path.stem for path in models}
    for path in models:
        history, card = pd.read_csv(path.with_suffix(".csv")), path.with_suffix(".md").read_text()
        assert f"{int(history.step.iloc[-1]):,} of" in card and f"test {history.test_psnr.iloc[-1]:.2f} dB" in card
        assert path.stat().st_size < 10e6
        assert "| spacing |" in card


def test_intervals_are_of_means_over_clips():
    assert publish.interval(np.full(8, 1.5)) == "+1.50 (+1.50 to +1.50)"
    mean, low, high = map(float, re.findall(r"[+-]\d+\.\d+", publish.interval(np.array([-3.0, 0, 0, 0, 0, 0, 0, 1]))))
    assert mean == -0.25 and -1.5 <= low < -0.9 and 0.2 <= high <= 0.5
