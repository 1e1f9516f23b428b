"""`fewmatch plane` as a user runs it: the picture, the JSON, every option, what is refused."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fewmatch.cli.main import run
from fewmatch.fewshot import episode_plane, evaluate, read_npz, sample_episodes

MINI = ("-e", "mini", "--device", "cpu", "--dtype", "float32", "--size", "64")
SMALL = ("--ways", 3, "--shots", 2, "--queries", 2)
Result = tuple[int, str, str]


def fewmatch(capsys: pytest.CaptureFixture[str], *arguments: object) -> Result:
    code = run([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def as_json(result: Result, code: int = 0) -> Any:
    assert result[0] == code, result[2]
    return json.loads(result[1])


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


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


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(6), 20)
    x = rng.normal(size=(6, 8))[labels] + 1.5 * rng.normal(size=(120, 8)) + 2
    names = ["ant", "bee", "cat", "dog", "eel", "fox"]
    np.savez(tmp_path / "set.npz", features=x.astype(np.float32), labels=labels, class_names=names)
    np.savez(tmp_path / "base.npz", features=(x + rng.normal(size=8)).astype(np.float32), labels=labels)
    return tmp_path / "set.npz"


def test_the_picture_of_class_folders(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "plane.png"
    got = as_json(fewmatch(capsys, "plane", folder, *MINI, *SMALL, "-o", out, "--seed", 4, "--json"))
    assert pixels(out).shape[1] == 1200
    assert (got["schema"], got["figure"], got["skipped"]) == (1, str(out), [])
    assert (got["encoder"]["name"], got["encoder"]["size"]) == ("mini", 64)
    assert {k: v for k, v in got["dataset"].items() if k != "digest"} == {
        "name": "set",
        "images": 24,
        "classes": 4,
        "notes": [],
    }
    facts = ("seed", "center", "transductive", "metric", "ways", "shots", "queries_per_class", "exact", "temperature")
    assert [got[key] for key in facts] == [4, "support", False, "euclidean", 3, 2, 2, True, 10.0]
    assert got["shown"] == pytest.approx(1)
    assert got["classes"] == sorted(got["classes"]) and len(got["classes"]) == 3
    assert [mean["label"] for mean in got["means"]] == got["classes"]
    assert len(got["supports"]) == len(got["queries"]) == 6
    assert len({image["path"] for image in got["supports"] + got["queries"]}) == 12
    for image in got["supports"] + got["queries"]:
        assert (folder / image["path"]).is_file() and image["path"].split("/")[0] == image["label"]
    for query in got["queries"]:
        assert set(query) == {"path", "row", "label", "predicted", "x", "y", "distances", "probabilities"}
        assert list(query["distances"]) == got["classes"] and sum(query["probabilities"].values()) == pytest.approx(1)
        assert query["predicted"] == min(query["distances"], key=query["distances"].get)
        off = {m["label"]: (m["x"] - query["x"]) ** 2 + (m["y"] - query["y"]) ** 2 for m in got["means"]}
        assert query["predicted"] == min(off, key=lambda name: off[name])
    assert got["accuracy"] == np.mean([query["predicted"] == query["label"] for query in got["queries"]])


def test_the_table_says_what_the_picture_shows(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "plane.svg"
    code, text, err = fewmatch(capsys, "plane", folder, *MINI, *SMALL, "-o", out)
    assert code == 0 and f"wrote {out}" in err
    got = as_json(fewmatch(capsys, "plane", folder, *MINI, *SMALL, "--json"))
    assert got["figure"] is None
    right = sum(query["predicted"] == query["label"] for query in got["queries"])
    assert "set: 24 images, 4 classes; mini at 64 px, float32" in text and f"{right} of 6 queries right. Exact" in text
    for name in got["classes"]:
        own = [query["predicted"] for query in got["queries"] if query["label"] == name]
        assert any(line.split()[:4] == [name, str(own.count(name)), "of", "2"] for line in text.splitlines())


def test_folder_store_list_and_npz_agree(own_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fewmatch(capsys, "encode", own_folder, "-o", tmp_path / "store", *MINI)[0] == 0
    from fewmatch.encoders import FeatureStore

    store = FeatureStore.open(tmp_path / "store")
    np.savez(tmp_path / "set.npz", features=store.global_repr(), labels=np.array([str(name) for name in store.labels]))
    listed = "path,label\n" + "".join(f"set/{name},{name.split('/')[0]}\n" for name in store.names)
    (tmp_path / "list.csv").write_text(listed)
    documents = [
        as_json(fewmatch(capsys, "plane", data, *chosen, *SMALL, "--json"))
        for data, chosen in (
            (own_folder, MINI),
            (tmp_path / "store", ()),
            (tmp_path / "list.csv", MINI),
            (tmp_path / "set.npz", ()),
        )
    ]
    for document in documents[1:]:
        assert document["means"] == documents[0]["means"] and document["accuracy"] == documents[0]["accuracy"]
        assert [q["row"] for q in document["queries"]] == [q["row"] for q in documents[0]["queries"]]
    paths = [[image["path"] for image in d["supports"] + d["queries"]] for d in documents]
    assert paths[1] == paths[0] and paths[2] == [f"set/{path}" for path in paths[0]] and set(paths[3]) == {None}
    assert documents[3]["encoder"] is None


def test_a_store_without_its_images_is_drawn_without_thumbnails(
    own_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fewmatch(capsys, "encode", own_folder, "-o", tmp_path / "store", *MINI)[0] == 0
    common = ("plane", tmp_path / "store", *SMALL, "-o")
    assert fewmatch(capsys, *common, tmp_path / "with.png")[0] == 0
    code, _, err = fewmatch(capsys, *common, tmp_path / "none.png", "--no-thumbnails")
    assert code == 0 and "not drawn" not in err
    for path in own_folder.rglob("*.png"):  # the same name, another picture
        Image.new("RGB", (20, 20), (255, 0, 255)).save(path)
    code, _, err = fewmatch(capsys, *common, tmp_path / "changed.png")
    assert code == 0 and "changed since it was encoded" in err
    shutil.rmtree(own_folder)
    code, _, err = fewmatch(capsys, *common, tmp_path / "gone.png")
    assert code == 0 and err.count("not drawn: ") == 1 and "(and " in err
    code, _, err = fewmatch(capsys, *common, tmp_path / "quiet.png", "--quiet")
    assert (code, err) == (0, "")
    with_pictures, none, changed, gone = (pixels(tmp_path / f"{n}.png") for n in ("with", "none", "changed", "gone"))
    assert np.array_equal(gone, none) and np.array_equal(changed, none)
    assert with_pictures.shape != none.shape or (with_pictures != none).any()


def test_the_plane_is_the_one_of_the_library(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    got = as_json(fewmatch(capsys, "plane", table, "--ways", 4, "--shots", 3, "--queries", 6, "--seed", 7, "--json"))
    data = read_npz(table)
    drawn = sample_episodes(data.labels, ways=4, shots=3, queries=6, episodes=1, seed=7)
    plane = episode_plane(data.features, data.labels, drawn)
    assert got["accuracy"] == plane.accuracy == evaluate(data.features, data.labels, drawn).accuracy
    assert (got["exact"], got["shown"]) == (False, plane.shown)
    assert [[m["x"], m["y"]] for m in got["means"]] == plane.means.tolist()
    assert [[m["x"], m["y"]] for m in got["supports"]] == plane.support.reshape(-1, 2).tolist()
    assert [[m["x"], m["y"]] for m in got["queries"]] == plane.query.reshape(-1, 2).tolist()
    assert [m["row"] for m in got["queries"]] == drawn.query.reshape(-1).tolist()
    assert [list(m["distances"].values()) for m in got["queries"]] == plane.distances.reshape(-1, 4).tolist()


def test_every_option_changes_what_it_should(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def plane(*arguments: object) -> Any:
        return as_json(fewmatch(capsys, "plane", table, *arguments, "--json"))

    default = plane()
    assert (default["ways"], default["shots"], default["queries_per_class"], default["seed"]) == (3, 5, 5, 0)
    seen = [(default["means"], default["queries"])]
    for change, facts in (
        (("--seed", 1), {"seed": 1}),
        (("--ways", 2), {"ways": 2}),
        (("--shots", 3), {"shots": 3}),
        (("--center", "none"), {"center": "none"}),
        (("--center", "separate"), {"center": "separate", "transductive": True}),
        (("--center", "base", "--base", table.parent / "base.npz"), {"center": "base"}),
        (("--metric", "cosine"), {"metric": "cosine"}),
        (("--prenormalize",), {"prenormalize": True}),
        (("--classes", "ant,dog"), {"ways": 2, "classes": ["ant", "dog"]}),
        (("--classes", "fox, dog, bee"), {"ways": 3, "classes": ["bee", "dog", "fox"]}),
    ):
        got = plane(*change)
        assert {key: got[key] for key in facts} == facts
        assert (got["means"], got["queries"]) not in seen
        seen.append((got["means"], got["queries"]))
    assert len(plane("--queries", 9)["queries"]) == 27
    assert plane() == default


def test_chosen_classes_are_drawn_from_their_own_images(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    got = as_json(fewmatch(capsys, "plane", table, "--classes", "fox,bee", "--ways", 2, "--json"))
    labels = read_npz(table).labels
    for image in got["supports"] + got["queries"]:
        assert labels[image["row"]] == {"bee": 1, "fox": 5}[image["label"]]
    assert got["dataset"]["classes"] == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give -o FILE for the picture, or --json"),
        (("-o", "plane.htm"), "no figure of type .htm: expected a name ending in .png, .svg, .pdf, .html"),
        (("-o", "plane"), "no figure of type plane"),
        (("--json", "--classes", "ant,bea"), "no class called bea in set: the nearest are bee"),
        (("--json", "--classes", "ant,ant"), "names ant twice"),
        (("--json", "--classes", "ant"), "expected two classes or more"),
        (("--json", "--classes", "ant,bee", "--ways", "3"), "--ways 3 contradicts the 2 classes"),
        (("--json", "--center", "base"), "needs that set"),
        (("--json", "--base", "x"), "with center base only"),
        (("--json", "--center", "middle"), "no centring called middle"),
        (("--json", "--ways", "7"), "expected at least 7 classes"),
        (("--json", "--shots", "16"), "class ant has 20 images"),
        (("--json", "--queries", "0"), "expected queries of 1 or more"),
    ],
)
def test_wrong_usage(
    table: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    code, out, err = fewmatch(capsys, "plane", table, *arguments)
    assert (code, out) == (2, "") and message in err and len(err.strip().splitlines()) == 1


def test_nothing_is_encoded_for_a_picture_that_cannot_be_written(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def encode(*_: object) -> None:
        raise AssertionError("encoded")

    monkeypatch.setattr("fewmatch.cli.commands.plane.read_table", encode)
    there = tmp_path / "plane.png"
    there.write_bytes(b"mine")
    assert fewmatch(capsys, "plane", folder, *MINI, "-o", tmp_path / "plane.gif")[0] == 2
    assert fewmatch(capsys, "plane", folder, *MINI, "--center", "base", "--json")[0] == 2
    assert fewmatch(capsys, "plane", folder, *MINI, "--classes", "brick", "--json")[0] == 2
    code, _, err = fewmatch(capsys, "plane", folder, *MINI, "-o", there)
    assert code == 5 and "--overwrite" in err and there.read_bytes() == b"mine"


def test_overwrite_replaces(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "plane.pdf"
    out.write_bytes(b"mine")
    assert fewmatch(capsys, "plane", table, "-o", out, "--overwrite")[0] == 0
    assert out.read_bytes().startswith(b"%PDF")


def embedded(path: Path) -> Any:
    """The data of a page."""
    (found,) = re.findall(r'id="data">(.*?)</script>', path.read_text(encoding="utf-8"), flags=re.DOTALL)
    return json.loads(found)


def test_the_page_of_class_folders(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "plane.html"
    code, text, err = fewmatch(capsys, "plane", folder, *MINI, *SMALL, "-o", out, "--seed", 4)
    assert code == 0 and "of 6 queries right. Exact" in text
    assert f"wrote {out} ({out.stat().st_size / 1000:.1f} kB)" in err
    got = as_json(fewmatch(capsys, "plane", folder, *MINI, *SMALL, "--seed", 4, "--json"))
    data = embedded(out)
    assert data["start"] == {"shots": 2, "center": "support"} and data["shots"] == [1, 2]
    assert [entry["name"] for entry in data["classes"]] == got["classes"]
    assert [image["name"] for image in data["images"]] == [i["path"] for i in got["supports"] + got["queries"]]
    assert {(image["width"], image["height"]) for image in data["images"]} == {(120, 90)}
    (here,) = (s for s in data["settings"] if s["shots"] == 2 and s["center"] == "support")
    for i, query in enumerate(got["queries"], start=6):
        assert here["places"][i] == pytest.approx([query["x"], query["y"]], abs=1e-4)
        for key in ("distances", "probabilities"):
            assert [f"{v:.3f}" for v in here[key][i]] == [f"{v:.3f}" for v in query[key].values()]
    page = out.read_text(encoding="utf-8")
    assert "<h1>set: one episode, 3 ways, 2 queries per class</h1>" in page
    assert "mini at 64 px, float32; euclidean; seed 4; probabilities: softmax of −10·distance²." in page


def test_every_option_changes_the_page(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def page(*arguments: object) -> Any:
        out = tmp_path / "plane.html"
        assert fewmatch(capsys, "plane", table, *arguments, "-o", out, "--overwrite")[0] == 0
        return embedded(out)

    default = page()
    assert all("picture" not in image and image["name"].startswith("row ") for image in default["images"])
    assert default["shots"] == [1, 2, 3, 5] and "base" not in default["centers"]
    base = ("--center", "base", "--base", table.parent / "base.npz")
    for change in (
        ("--seed", 1),
        ("--ways", 4),
        ("--queries", 3),
        ("--metric", "cosine"),
        ("--prenormalize",),
        ("--classes", "ant,dog,fox"),
        base,
    ):
        assert page(*change)["settings"] != default["settings"], change
    assert page("--center", "none")["start"] == {"shots": 5, "center": "none"}
    assert page("--shots", 12)["shots"] == [1, 2, 3, 5, 10, 12] and page("--shots", 4)["start"]["shots"] == 4
    based = page(*base)
    assert based["centers"] == ["none", "base", "support", "support+query", "separate", "feature"]
    of_base = [s for s in based["settings"] if s["center"] == "base"]
    assert [s["shots"] for s in of_base] == [1, 2, 3, 5] and of_base[3] != based["settings"][3]
    assert [s for s in based["settings"] if s["center"] != "base"] == default["settings"]
    wanted = as_json(fewmatch(capsys, "plane", table, *base, "--json"))
    assert [q["x"] for q in wanted["queries"]] == pytest.approx([x for x, _ in of_base[3]["places"][15:]], abs=1e-4)


def test_the_page_says_where_pictures_are_not_at_hand(
    own_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fewmatch(capsys, "encode", own_folder, "-o", tmp_path / "store", *MINI)[0] == 0
    common = ("plane", tmp_path / "store", *SMALL, "-o")
    assert fewmatch(capsys, *common, tmp_path / "with.html")[0] == 0
    code, _, err = fewmatch(capsys, *common, tmp_path / "none.html", "--no-thumbnails")
    assert code == 0 and "not drawn" not in err
    shutil.rmtree(own_folder)
    code, _, err = fewmatch(capsys, *common, tmp_path / "gone.html")
    assert code == 0 and "not drawn: 12 images: " in err
    code, out, err = fewmatch(capsys, *common, tmp_path / "quiet.html", "--quiet", "--json")
    assert (code, err) == (0, "") and json.loads(out)["figure"] == str(tmp_path / "quiet.html")
    assert len(json.loads(out)["not_drawn"]) == 12 and json.loads(out)["not_written"] == []
    assert all("picture" in image for image in embedded(tmp_path / "with.html")["images"])
    none, gone = (tmp_path / name for name in ("none.html", "gone.html"))
    assert not any("picture" in image for image in embedded(none)["images"])
    assert gone.read_bytes() == none.read_bytes() == (tmp_path / "quiet.html").read_bytes()


def test_a_page_is_not_replaced_unasked(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "Plane.HTML"
    out.write_bytes(b"mine")
    code, _, err = fewmatch(capsys, "plane", table, "-o", out)
    assert code == 5 and "--overwrite" in err and out.read_bytes() == b"mine"
    assert fewmatch(capsys, "plane", table, "-o", out, "--overwrite")[0] == 0
    first = out.read_bytes()
    assert first.startswith(b"<!doctype html>")
    assert fewmatch(capsys, "plane", table, "-o", out, "--overwrite")[0] == 0 and out.read_bytes() == first


def test_a_hostile_file_name_is_text_in_the_page(
    own_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for i, name in enumerate([b"</script><script>.png", b"\xff&quot;.png", "‮gnp.png".encode(), b"a\nb.png"]):
        (own_folder / "brick" / f"{i}.png").rename(
            os.fsdecode(os.fsencode(own_folder / "brick") + b"/" + name.replace(b"/", b":"))
        )
    out = tmp_path / "plane.html"
    assert (
        fewmatch(
            capsys, "plane", own_folder, *MINI, "--shots", 3, "--queries", 3, "--classes", "brick,grass", "-o", out
        )[0]
        == 0
    )
    names = {image["name"] for image in embedded(out)["images"]}
    assert {"brick/<:script><script>.png", "brick/\\xff&quot;.png", "brick/\\u202egnp.png", "brick/a\\nb.png"} <= names
    assert out.read_text(encoding="utf-8").count("<script") == 2


def test_images_that_cannot_be_used_are_listed(own_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (own_folder / "brick" / "9.png").write_bytes(b"no picture")
    got = as_json(fewmatch(capsys, "plane", own_folder, *MINI, *SMALL, "--json"), code=3)
    assert [row["path"] for row in got["skipped"]] == ["brick/9.png"] and len(got["queries"]) == 6
    code, out, err = fewmatch(capsys, "plane", own_folder, *MINI, *SMALL, "-o", own_folder.parent / "plane.png")
    assert code == 3 and "skipped brick/9.png" in err and "queries right" in out


def test_copies_are_a_clear_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "set.npz", features=np.ones((12, 4), np.float32), labels=np.repeat(np.arange(3), 4))
    code, _, err = fewmatch(capsys, "plane", tmp_path / "set.npz", *SMALL, "-o", tmp_path / "plane.png")
    assert code == 2 and "is zero, so it has no direction" in err and len(err.strip().splitlines()) == 1
    code, out, _ = fewmatch(
        capsys, "plane", tmp_path / "set.npz", *SMALL, "--center", "none", "-o", tmp_path / "plane.png"
    )
    assert code == 0 and "The class means coincide" in out


def test_help_shows_the_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = fewmatch(capsys, "plane", "--help")
    assert code == 0 and "by default 3" in out and "--no-thumbnails" in out
