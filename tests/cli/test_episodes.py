"""`fewmatch episodes` as a researcher runs it: methods in pairs, samplers, files, splits, calibration, open sets, reports."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fewmatch.cli.inputs.method_runs import method_runs
from fewmatch.cli.main import run
from fewmatch.encoders import encode_images, load
from fewmatch.errors import InputError
from fewmatch.fewshot import concatenate, evaluate, load_episodes, paired, read_npz, sample_episodes
from fewmatch.fewshot.calibration import fit_temperature, measure_calibration
from fewmatch.fewshot.mistakes import confusion
from fewmatch.fewshot.open_set import sample_open_episodes, unknown_detection

MINI = ("-e", "mini", "--device", "cpu", "--dtype", "float32", "--size", "64")


def fewmatch(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = run([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def asked(capsys: pytest.CaptureFixture[str], *arguments: object) -> Any:
    code, out, err = fewmatch(capsys, "episodes", *arguments, "--json")
    assert code == 0, err
    return json.loads(out)


def table_of(path: Path, seed: int, classes: int, first: int) -> Path:
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), 24)
    x = rng.normal(size=(classes, 10))[labels] + 1.3 * rng.normal(size=(24 * classes, 10)) + 2
    names = [f"c{first + i}" for i in range(classes)]
    np.savez(path, features=x.astype(np.float32), labels=labels, class_names=names)
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return table_of(tmp_path / "test.npz", 0, 7, 0)


@pytest.fixture
def validation(tmp_path: Path) -> Path:
    return table_of(tmp_path / "val.npz", 1, 6, 20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four classes of six textures, crops of real pictures; read only, so that they are encoded once."""
    import skimage.data

    root = tmp_path_factory.mktemp("textures") / "set"
    for name in ("brick", "grass", "gravel", "coffee"):
        picture = getattr(skimage.data, name)()
        (root / name).mkdir(parents=True)
        for i in range(6):
            crop = picture[30 * i : 30 * i + 90, 20 * i : 20 * i + 120]
            Image.fromarray(crop).save(root / name / f"{i}.png")
    return root


@pytest.fixture
def own_folder(folder: Path, tmp_path: Path) -> Path:
    """The same to be changed."""
    return Path(shutil.copytree(folder, tmp_path / "set"))


SMALL = ("--episodes", 60, "--queries", 4)


def test_methods_run_on_the_same_episodes_and_are_compared_in_pairs(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    got = asked(capsys, data, *SMALL, "--methods", "ncm,pt-map", "--shots", "1,3")
    table = read_npz(data)
    assert [(r["method"], r["center"], r["shots"], r["set"]) for r in got["results"]] == [
        ("ncm", "support", 1, 0),
        ("pt-map", "separate", 1, 0),
        ("ncm", "support", 3, 1),
        ("pt-map", "separate", 3, 1),
    ]
    assert [r["transductive"] for r in got["results"]] == [False, True, False, True]
    assert [r["assumes_balanced_queries"] for r in got["results"]] == [False, True, False, True]
    for number, shots in enumerate((1, 3)):
        episodes = sample_episodes(table.labels, ways=5, shots=shots, queries=4, episodes=60, seed=0)
        ncm, pt_map = (evaluate(table.features, table.labels, episodes, method=method) for method in ("ncm", "pt-map"))
        difference = got["differences"][number]
        assert difference["minus"] == {"method": "ncm", "center": "support"} and difference["set"] == number
        assert difference["difference"] == pytest.approx(paired(pt_map, ncm).mean)
        assert difference["ci95"] == pytest.approx(paired(pt_map, ncm).ci95)
        assert got["results"][2 * number]["accuracy"] == pytest.approx(ncm.accuracy)
    code, out, _ = fewmatch(capsys, "episodes", data, *SMALL, "--methods", "ncm,pt-map", "--shots", "1")
    assert code == 0 and "to the first" in out and "separate * †" in out and "as many queries" in out


def test_intervals_for_new_images_stand_beside_those_over_episodes(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = (data, "--episodes", 400, "--queries", 5, "--shots", 2, "--methods", "ncm,ridge")
    got = asked(capsys, *common, "-o", tmp_path / "out")
    table = read_npz(data)
    episodes = sample_episodes(table.labels, ways=5, shots=2, queries=5, episodes=400, seed=0)
    ncm, ridge = (evaluate(table.features, table.labels, episodes, method=method) for method in ("ncm", "ridge"))
    difference = paired(ridge, ncm, episodes, table.labels)
    assert ncm.ci95 is not None and ncm.ci95_new_images is not None and ncm.ci95_new_images > 2 * ncm.ci95
    for found, wanted in zip(got["results"], (ncm, ridge), strict=True):
        assert found["ci95_new_images"] == wanted.ci95_new_images and found["ci95_new_images_reason"] is None
    assert got["differences"][0]["ci95_new_images"] == difference.ci95_new_images
    assert got["differences"][0]["ci95_new_images_reason"] == difference.ci95_new_images_reason
    rows = list(csv.DictReader((tmp_path / "out" / "results.csv").read_text().splitlines()))
    assert float(rows[0]["ci95_new_images"]) == ncm.ci95_new_images
    assert rows[1]["difference_ci95_new_images"] == str(difference.ci95_new_images or "")
    _, out, _ = fewmatch(capsys, "episodes", *common)
    line = next(line for line in out.splitlines() if line.strip().startswith("ncm"))
    assert f"± {100 * ncm.ci95:.2f}" in line and f"± {100 * ncm.ci95_new_images:.2f}" in line
    assert "over episodes of these images" in out and "other images of the same classes" in out
    assert "neither covers other classes" in out


def test_few_images_are_said_once_and_are_in_the_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(7), 5)
    x = rng.normal(size=(7, 10))[labels] + rng.normal(size=(35, 10))
    np.savez(tmp_path / "few.npz", features=x, labels=labels, class_names=list("abcdefg"))
    common = (tmp_path / "few.npz", "--shots", 1, "--queries", 4, "--episodes", 1_000, "--methods", "ncm,soft-kmeans")
    code, out, err = fewmatch(capsys, "episodes", *common, "--json")
    got = json.loads(out)
    assert code == 0 and [r["few_images"] for r in got["results"]] == [True, True]
    assert got["results"][1]["ci95_new_images"] is None
    assert got["results"][1]["ci95_new_images_reason"].startswith("an episode uses all 5 images of a class")
    assert len(got["notes"]) == 1 and got["notes"][0].startswith("few images: soft-kmeans, support, 1 shot: an episode")
    assert f"note: {got['notes'][0]}\n" in err and "(and 1 more result)" in err
    _, out, _ = fewmatch(capsys, "episodes", *common)
    assert "no interval for new images (–): an episode uses all 5 images" in out
    alone = asked(capsys, *common[:-1], "ncm")
    half, new = (100 * alone["results"][0][name] for name in ("ci95", "ci95_new_images"))
    assert alone["notes"] == [
        f"few images: ncm, support, 1 shot: ± {half:.2f} points over episodes of these images, but ± {new:.2f} for new images of the same "
        "classes; add images, more episodes do not help"
    ]


def test_kept_episodes_have_the_interval_and_lists_of_paths_say_why_not(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = (folder, *MINI, "--ways", 3, "--shots", 1, "--queries", 2, "--episodes", 50)
    drawn = {}
    for kind in ("npz", "json"):
        drawn[kind] = asked(capsys, *common, "--save-episodes", tmp_path / f"kept.{kind}")["results"][0]
    kept = {
        kind: asked(capsys, folder, *MINI, "--episodes-file", tmp_path / f"kept.{kind}")["results"][0] for kind in drawn
    }
    assert kept["npz"]["ci95_new_images"] == drawn["npz"]["ci95_new_images"]
    assert kept["json"]["ci95_new_images"] is None
    assert "not known how the episodes were drawn" in kept["json"]["ci95_new_images_reason"]


def test_tim_is_not_centred_by_default_and_says_what_centring_does(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = ("--set", "tim.iterations=2", "--set", "alpha-tim.iterations=2")
    common = (data, "--episodes", 20, "--queries", 4, "--shots", 1, "--methods", "ncm,tim,alpha-tim,pt-map", *quick)
    got = asked(capsys, *common)
    assert [r["center"] for r in got["results"]] == ["support", "none", "none", "separate"]
    assert not any("τ" in note or "temperature" in note for note in got["notes"])
    code, out, err = fewmatch(capsys, "episodes", *common, "--center", "support", "--json")
    notes = json.loads(out)["notes"]
    assert code == 0 and [r["center"] for r in json.loads(out)["results"]] == ["support"] * 4
    for name in ("tim", "alpha-tim"):
        text = (
            f"{name}: the default temperature of 15 is its authors' choice for vectors that are not centred; with center support, "
            "try temperature=5, or use center none"
        )
        assert text in notes and f"note: {text}\n" in err
    own = ("--set", "tim.temperature=5", "--set", "alpha-tim.temperature=15")
    chosen = asked(capsys, *common, *own, "--center", "support")
    assert not any("temperature" in note for note in chosen["notes"])


def test_options_of_methods_are_set_and_named(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = (data, *SMALL, "--methods", "soft-kmeans", "--shots", 1)
    plain, warm = asked(capsys, *common), asked(capsys, *common, "--set", "soft-kmeans.temperature=0.1")
    assert plain["results"][0]["options"]["temperature"] == 20
    assert warm["results"][0]["options"]["temperature"] == 0.1
    assert plain["results"][0]["accuracy"] != warm["results"][0]["accuracy"]
    _, out, _ = fewmatch(capsys, "episodes", *common, "--set", "soft-kmeans.temperature=0.1")
    assert "soft-kmeans temperature=0.1" in out


def test_runs_are_methods_times_centrings() -> None:
    runs = method_runs("ncm,pt-map", ["pt-map.prior=[0.5, 0.5]", "pt-map.epochs=3"], "none,support", None, base=False)
    assert [(run.method, run.center) for run in runs] == [
        ("ncm", "none"), ("ncm", "support"), ("pt-map", "none"), ("pt-map", "support"),
    ]  # fmt: skip
    assert runs[0].options == {} and runs[2].options == {"prior": (0.5, 0.5), "epochs": 3}
    assert runs[0].label == "ncm, none" and "epochs 3" in runs[2].label
    own = method_runs("ncm,pt-map", [], None, "cosine", base=False)
    assert [run.center for run in own] == ["support", "separate"] and own[0].options == {"metric": "cosine"}
    everything = method_runs("all", [], None, None, base=False)
    assert len(everything) > 5 and "base" not in {run.center for run in everything}
    assert "base" in {run.center for run in method_runs("all", [], None, None, base=True)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ncm", ["ncm.k=1"], None, None), "ncm has no option k: it has metric"),
        (("ncm", ["knn.k=1"], None, None), "knn is not among the methods ncm"),
        (("ncm", ["ncm.metric"], None, None), "no setting ncm.metric: expected METHOD.OPTION=VALUE"),
        (("ncm", ["metric=cosine"], None, None), "no setting metric=cosine"),
        (("pt-map", [], None, "cosine"), "--metric is for methods that compare with class means"),
        (("nearest", [], None, None), "no method called nearest: expected one of ncm, "),
        (("ncm", [], "base", None), "--center base needs --base DATA"),
        (("simpleshot-cl2n", [], None, None), "simpleshot-cl2n needs --base DATA"),
    ],
)
def test_wrong_methods_are_named(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InputError) as caught:
        method_runs(*arguments, base=False)
    assert message in str(caught.value)


def test_every_way_to_draw_episodes_is_in_the_result(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def one(*arguments: object) -> Any:
        got = asked(capsys, data, "--episodes", 40, *arguments)
        assert len(got["results"]) == 1
        return got["results"][0], got["sampler"][0], got["episodes"]

    result, sampler, count = one("--ways", "2-6", "--shots", "1-4", "--queries", 3)
    assert result["ways"] == [2, 6] and result["shots"] == [1, 4] and sampler["kind"] == "unbalanced" and count == 40
    result, sampler, _ = one("--shots", 2, "--queries-total", 30)
    assert result["queries"] == 6 and sampler["queries_total"] == 30
    result, sampler, _ = one("--shots", 2, "--queries-total", 30, "--dirichlet", 2)
    assert result["queries"][0] < 6 < result["queries"][1] and sampler["dirichlet"] == 2
    result, sampler, count = one("--shots", 2, "--queries", 4, "--no-replacement")
    assert sampler["replacement"] is False and sampler["exhausted"] and 2 <= count <= 5
    result, sampler, _ = one("--sampler", "meta-dataset")
    assert sampler["kind"] == "variable" and result["shots"][0] < result["shots"][1]


def test_episodes_are_kept_and_read_again(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "episodes.npz"
    first = asked(capsys, data, *SMALL, "--shots", 2, "--seed", 5, "--save-episodes", file)
    again = asked(capsys, data, "--episodes-file", file)
    assert again["results"][0]["accuracy"] == first["results"][0]["accuracy"] and again["seed"] == 5
    assert len(load_episodes(file, read_npz(data))) == again["episodes"] == 60
    few = asked(capsys, data, "--episodes-file", file, "--episodes", 10)
    assert few["episodes"] == 10 and few["results"][0]["accuracy"] != first["results"][0]["accuracy"]
    code, _, err = fewmatch(capsys, "episodes", data, *SMALL, "--shots", 2, "--save-episodes", file)
    assert code == 5 and "exists" in err
    assert fewmatch(capsys, "episodes", data, *SMALL, "--shots", 2, "--save-episodes", file, "--overwrite")[0] == 0
    other = table_of(tmp_path / "other.npz", 9, 7, 0)
    code, _, err = fewmatch(capsys, "episodes", other, "--episodes-file", file)
    assert code == 2 and "drawn from" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--episodes-file", "e.npz", "--shots", 1), "--shots is not used with --episodes-file"),
        (("--episodes-file", "e.npz", "--sampler", "uniform"), "--sampler is not used with --episodes-file"),
        (("--sampler", "meta-dataset", "--ways", 5), "--ways is not used with --sampler meta-dataset"),
        (("--queries", 3, "--queries-total", 9), "give one of the two"),
        (("--dirichlet", 2), "give --queries-total, such as 75"),
        (("--save-episodes", "e.npz"), "give --save-episodes with one value of --shots, not 1,5"),
        (("--unknown-classes", 1, "--no-replacement"), "--no-replacement is not used with --unknown-classes"),
        (("--unknown-classes", 1, "--shots", "1-3"), "--unknown-classes needs fixed --ways and --shots"),
        (("--unknown-classes", 0), "expected 1 unknown class or more"),
        (("--ways", "8-3"), "no --ways 8-3: expected the smaller number first"),
        (("--ways", "many"), "no --ways many: expected a number such as 5, or a range"),
        (("--part", "test"), "give --split FILE with it"),
        (("--transform", "magic"), "magic"),
        (("--episodes-file", "nowhere.npz"), "nowhere.npz"),
    ],
)
def test_contradictions_are_one_line_and_exit_2(
    data: Path, arguments: tuple[object, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = fewmatch(capsys, "episodes", data, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1) and message in err and err.startswith("fewmatch: error: ")


def test_the_temperature_is_fitted_on_other_classes(
    data: Path, validation: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    got = asked(capsys, data, *SMALL, "--shots", "1,2", "--val", validation)
    table, held_out = read_npz(data), read_npz(validation)
    for number, shots in enumerate((1, 2)):
        drawn = [
            sample_episodes(part.labels, ways=5, shots=shots, queries=4, episodes=60, seed=0)
            for part in (table, held_out)
        ]
        ours, theirs = (
            evaluate(part.features, part.labels, episodes, keep_scores=True)
            for part, episodes in zip((table, held_out), drawn, strict=True)
        )
        tau = fit_temperature(theirs, drawn[1])
        found = got["results"][number]["calibration"]
        assert found["temperature"] == pytest.approx(tau, rel=1e-3)
        assert found["ece"] == pytest.approx(measure_calibration(ours, drawn[0], tau).ece, abs=1e-4)
        assert sum(part["count"] for part in found["bins"]) == 60 * 20
    assert got["validation"]["classes"] == 6
    code, _, err = fewmatch(capsys, "episodes", data, *SMALL, "--val", data)
    assert code == 2 and "has classes that are evaluated: c0, c1, c2, … (7 in all)" in err


def test_unknown_classes_are_reported(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    got = asked(capsys, data, *SMALL, "--ways", 4, "--shots", 2, "--unknown-classes", 2)
    table = read_npz(data)
    episodes, unknown = sample_open_episodes(
        table.labels, ways=4, unknown_classes=2, shots=2, queries=4, episodes=60, seed=0
    )
    report = evaluate(table.features, table.labels, episodes, unknown=unknown, keep_scores=True)
    wanted = [found.to_json() for found in unknown_detection(report, episodes)]
    for found, right in zip(got["results"][0]["open_set"], wanted, strict=True):
        assert found["measure"] == right["measure"] and found["auroc"] == pytest.approx(right["auroc"])
    _, out, _ = fewmatch(capsys, "episodes", data, *SMALL, "--ways", 4, "--shots", 2, "--unknown-classes", 2)
    assert "AUROC %" in out and "FPR95 %" in out and "2 unknown classes" in out


def test_transforms_come_before_centring(data: Path, capsys: pytest.CaptureFixture[str], validation: Path) -> None:
    common = (data, *SMALL, "--shots", 1)
    plain = asked(capsys, *common)["results"][0]["accuracy"]
    got = asked(capsys, *common, "--transform", "relu,power")
    assert got["transform"] is not None and got["results"][0]["accuracy"] != plain
    reduced = asked(capsys, *common, "--transform", "pca=2", "--base", validation)
    assert reduced["results"][0]["accuracy"] not in (plain, got["results"][0]["accuracy"])
    code, _, err = fewmatch(capsys, "episodes", *common, "--transform", "pca=2")
    assert code == 2 and "base" in err


def test_the_folder_holds_everything_and_is_not_replaced(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report"
    got = asked(capsys, data, *SMALL, "--methods", "ncm,soft-kmeans", "--shots", "1,3", "-o", out)
    assert sorted(path.name for path in out.iterdir()) == [
        "accuracy.png",
        "config.json",
        "confusion-ncm-support.png",
        "confusion-soft-kmeans-support.png",
        "metrics.json",
        "per_class.csv",
        "reliability.png",
        "results.csv",
    ]
    assert json.loads((out / "metrics.json").read_text()) == got
    config = json.loads((out / "config.json").read_text())
    assert [entry["method"] for entry in config["methods"]] == ["ncm", "soft-kmeans"]
    assert config["choices"]["shots"] == "1,3" and config["choices"]["seed"] == 0
    results = list(csv.DictReader((out / "results.csv").read_text().splitlines()))
    assert [float(row["accuracy"]) for row in results] == [r["accuracy"] for r in got["results"]]
    assert [row["difference_to_first"] == "" for row in results] == [True, False, True, False]
    table = read_npz(data)
    episodes = sample_episodes(table.labels, ways=5, shots=1, queries=4, episodes=60, seed=0)
    counted = confusion(evaluate(table.features, table.labels, episodes), episodes, 7)
    rows = [
        r
        for r in csv.DictReader((out / "per_class.csv").read_text().splitlines())
        if (r["method"], r["shots"]) == ("ncm", "1")
    ]
    assert [r["class"] for r in rows] == table.class_names
    np.testing.assert_allclose([float(r["accuracy"]) for r in rows], counted.recall)
    for r, counts in zip(rows, counted.counts, strict=True):
        counts[table.class_names.index(r["class"])] = 0
        assert r["most_taken_for"] == table.class_names[counts.argmax()] and int(r["times"]) == counts.max()
    for figure in out.glob("*.png"):
        with Image.open(figure) as image:
            assert min(image.size) > 300
    code, _, err = fewmatch(capsys, "episodes", data, *SMALL, "-o", out)
    assert code == 5 and "exists" in err
    assert fewmatch(capsys, "episodes", data, *SMALL, "-o", out, "--overwrite")[0] == 0


def test_splits_choose_classes_and_images(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ("--ways", 2, "--shots", 1, "--queries", 2, "--episodes", 20)
    (tmp_path / "test.txt").write_text("brick\ngrass\n")
    got = asked(capsys, folder, *MINI, *few, "--split", tmp_path / "test.txt")
    assert got["dataset"]["classes"] == 2 and got["dataset"]["images"] == 12 and got["split"]["kind"] == "classes"
    # A flat folder whose labels only the split file knows, as mini-ImageNet's.
    flat = tmp_path / "flat"
    flat.mkdir()
    lines = ["filename,label"]
    for path in sorted(folder.glob("*/*.png")):
        name = f"{path.parent.name}{path.name}"
        shutil.copy(path, flat / name)
        if path.stem != "5":
            lines.append(f"{name},{path.parent.name}")
    (tmp_path / "train.csv").write_text("\n".join(lines) + "\n")
    got = asked(capsys, flat, *MINI, *few, "--split", tmp_path / "train.csv")
    assert got["dataset"]["classes"] == 4 and got["dataset"]["images"] == 20 and got["split"]["kind"] == "images"
    for name in ("train", "val"):
        (tmp_path / "parts" / name).mkdir(parents=True)
    (tmp_path / "cu_birds_splits.json").write_text(
        json.dumps({"train": ["brick", "grass"], "valid": ["coffee"], "test": ["gravel", "coffee"]})
    )
    got = asked(capsys, folder, *MINI, *few, "--split", tmp_path / "cu_birds_splits.json", "--part", "test")
    assert got["split"]["part"] == "test" and got["dataset"]["classes"] == 2
    code, _, err = fewmatch(capsys, "episodes", folder, *MINI, *few, "--split", tmp_path / "cu_birds_splits.json")
    assert code == 2 and "train" in err and "test" in err


def test_several_encoders_are_put_side_by_side(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ("--ways", 3, "--shots", 1, "--queries", 3, "--episodes", 30)
    other = tmp_path / "other.safetensors"
    from importlib import resources

    shutil.copy(str(resources.files("fewmatch.encoders.weights").joinpath("mini.safetensors")), other)
    both = asked(capsys, folder, *MINI, "-e", other, *few)
    assert [part["name"] for part in both["encoder"]] == ["mini", "other"]
    stores = [
        encode_images([folder], load(name, device="cpu", dtype="float32"), size=64) for name in ("mini", str(other))
    ]
    features = concatenate([store.global_repr() for store in stores])
    episodes = sample_episodes(stores[0].labels, ways=3, shots=1, queries=3, episodes=30, seed=0)
    assert features.shape == (24, 512)
    assert both["results"][0]["accuracy"] == pytest.approx(evaluate(features, stores[0].labels, episodes).accuracy)
    code, _, err = fewmatch(capsys, "episodes", folder, *MINI, "-e", "mini", *few)
    assert code == 2 and "the same encoder twice" in err
    np.savez(tmp_path / "given.npz", features=np.eye(8, dtype=np.float32), labels=np.arange(8) // 2)
    code, _, err = fewmatch(capsys, "episodes", tmp_path / "given.npz", "-e", "mini", "-e", other)
    assert code == 2 and "holds features already: give one encoder or none, not 2" in err


def test_images_that_are_there_twice_are_told(own_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ("--ways", 2, "--shots", 1, "--queries", 2, "--episodes", 5)
    assert "byte for byte" not in fewmatch(capsys, "episodes", own_folder, *MINI, *few)[2]
    shutil.copy(own_folder / "brick" / "0.png", own_folder / "brick" / "copy.png")
    code, _, err = fewmatch(capsys, "episodes", own_folder, *MINI, *few)
    assert code == 0 and "2 images are byte for byte the same as another, such as brick/0.png" in err
