"""`fewmatch pca` as a user runs it: figure, maps, basis, JSON, every option, every error."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import skimage.data
from PIL import Image

import fewmatch
from fewmatch.cli.main import run
from fewmatch.encoders.identity import identity_at_any_size

Result = tuple[int, str, str]
MINI = ("-e", "mini", "--device", "cpu", "--dtype", "float32")
SMALL = (*MINI, "--size", 64)


def command(capsys: pytest.CaptureFixture[str], *arguments: object) -> Result:
    code = run([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def as_json(result: Result, code: int = 0) -> Any:
    assert result[0] == code, result[2]
    return json.loads(result[1])


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three photos, two of them of one name; read only, so that they are encoded once."""
    root = tmp_path_factory.mktemp("pca")
    for name, picture in (
        ("a/cat", skimage.data.chelsea()),
        ("b/cat", skimage.data.astronaut()),
        ("cup", skimage.data.coffee()),
    ):
        path = root / "photos" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture[:200, :280]).save(path)
    return root / "photos"


@pytest.fixture
def own_photos(photos: Path, tmp_path: Path) -> Path:
    """The same to be changed, and encoded by nobody yet."""
    return Path(shutil.copytree(photos, tmp_path / "photos"))


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def colours_of(folder: Path) -> bytes:
    return b"".join(pixels(path).tobytes() for path in sorted(folder.iterdir()))


@pytest.mark.parametrize("foreground", [False, True])
def test_json_and_maps_are_what_the_functions_give(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], foreground: bool
) -> None:
    maps, extra = tmp_path / "maps", ("--foreground",) * foreground
    got = as_json(command(capsys, "pca", photos, *SMALL, *extra, "--json", "--maps", maps))
    assert set(got) == {
        "schema", "version", "encoder", "images", "style", "center", "fitted", "explained_variance_ratio", "components", "foreground",
        "basis", "basis_differs", "figure", "pages", "skipped", "image_notes", "not_drawn",
        "not_written",
    }  # fmt: skip
    assert got["style"] == "fewmatch" and got["pages"] == []
    names = ["a/cat.png", "b/cat.png", "cup.png"]
    assert [image["path"] for image in got["images"]] == [f"{photos}/{name}" for name in names]
    assert [image["map"] for image in got["images"]] == [str(maps / n) for n in ("cat.png", "cat-2.png", "cup.png")]
    assert (got["schema"], got["basis"], got["figure"], got["skipped"]) == (1, None, None, [])
    encoder = fewmatch.load("mini", device="cpu", dtype="float32")
    store = fewmatch.encode_images([photos], encoder, keep="patches", size=64)
    assert store.names == names
    frames = [store.frame(i) for i in range(3)]
    center: Literal["all", "image+position"] = "all" if foreground else "image+position"
    basis = fewmatch.PatchPCA.fit(store.feature_map, frames, center=center, foreground=foreground)
    assert got["center"] == center and got["fitted"] == {"images": 3, "patches": basis.patches}
    assert got["explained_variance_ratio"] == basis.explained.tolist()
    assert [part["colour"] for part in got["components"]] == ["red", "green", "blue"]
    assert [[part["low"], part["high"]] for part in got["components"]] == np.stack([basis.low, basis.high], 1).tolist()
    rule = basis.foreground_rule
    if rule is None:
        assert got["foreground"] is None
    else:
        side = "above" if rule.above else "below"
        assert got["foreground"] == {"threshold": rule.threshold, "side": side, "share": rule.share}
    for i, (image, frame) in enumerate(zip(got["images"], frames, strict=True)):
        assert (image["width"], image["height"], tuple(image["grid"])) == (280, 200, frame.grid)
        shown = basis.foreground(store.feature_map(i), frame)
        assert image["foreground"] == (shown.mean() if foreground else None)
        written = pixels(Path(image["map"]))
        assert written.shape == (200, 280, 3)
        wanted = np.rint(255 * basis.colours(store.feature_map(i), frame))
        x, y = frame.to_pixels(*np.indices(frame.grid))
        assert np.array_equal(written[np.rint(y).astype(int), np.rint(x).astype(int)], wanted)


def test_the_figure_and_the_line(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figure = tmp_path / "new" / "pca.svg"
    code, out, err = command(capsys, "pca", photos, *SMALL, "-o", figure)
    assert code == 0 and err == f"wrote {figure}\n"
    assert out.startswith("3 images, 264 patches; mini at 64 px, float32; centre image+position; components 1, 2, 3: ")
    assert len(out.splitlines()) == 1
    words = figure.read_text()
    for part in ("cat.png", "cup.png", "principal components 1, 2, 3 of 264 patches of 3 images"):
        assert f"<!-- {part}" in words or part in words
    code, out, err = command(capsys, "pca", photos / "cup.png", *SMALL, "-o", tmp_path / "a.png", "--foreground")
    assert code == 0 and out.startswith("1 image, 88 patches;") and "foreground’s variance" in out
    assert pixels(tmp_path / "a.png").shape[1] == 1200
    code, out, err = command(capsys, "pca", photos, *SMALL, "-o", figure)
    assert code == 5 and out == "" and "--overwrite" in err
    assert command(capsys, "pca", photos, *SMALL, "-o", figure, "--overwrite", "--quiet")[2] == ""
    assert as_json(command(capsys, "pca", photos, *SMALL, "-o", figure, "--overwrite", "--json"))["figure"] == str(
        figure
    )


def test_by_default_maps_have_enough_patches_to_see_something(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    got = as_json(command(capsys, "pca", photos / "cup.png", *MINI, "--json"))
    assert got["encoder"]["size"] == 256 and got["images"][0]["grid"] == [32, 45]


@pytest.mark.parametrize(("patch", "dense", "wanted"), [(8, 128, 256), (14, 518, None), (16, 224, 512), (32, 224, 512)])
def test_the_default_size_for_other_encoders(patch: int, dense: int, wanted: int | None) -> None:
    from fewmatch.cli.commands.pca import _display_size
    from tests.patch_local import PatchLocalEncoder

    encoder = PatchLocalEncoder(patch_size=patch, size=dense)
    assert _display_size(encoder) == wanted  # type: ignore[arg-type]


@pytest.mark.parametrize("extra", [(), ("--foreground",), ("--center", "all"), ("--style", "dinov3")])
def test_a_basis_gives_the_same_bytes_again_and_the_same_colours_to_single_images(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], extra: tuple[str, ...]
) -> None:
    basis, first, again, single = (tmp_path / name for name in ("basis.npz", "first", "again", "single"))
    figures = [tmp_path / "1.png", tmp_path / "2.png"]
    new = as_json(
        command(
            capsys, "pca", photos, *SMALL, *extra, "--save-basis", basis, "--maps", first, "-o", figures[0], "--json"
        )
    )
    old = as_json(command(capsys, "pca", photos, *SMALL, "--basis", basis, "--maps", again, "-o", figures[1], "--json"))
    assert new["basis"] == old["basis"] == str(basis)
    assert figures[0].read_bytes() == figures[1].read_bytes() and colours_of(first) == colours_of(again)
    different = {"figure", "pages", "images"}
    assert {k: v for k, v in new.items() if k not in different} == {k: v for k, v in old.items() if k not in different}
    assert command(capsys, "pca", photos / "cup.png", *SMALL, "--basis", basis, "--maps", single)[0] == 0
    assert np.array_equal(pixels(single / "cup.png"), pixels(first / "cup.png"))
    alone = tmp_path / "alone"
    command(capsys, "pca", photos / "cup.png", *SMALL, *extra, "--maps", alone)
    assert not np.array_equal(pixels(alone / "cup.png"), pixels(first / "cup.png"))


def test_a_basis_is_held_to_what_it_was_fitted_with(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    basis = tmp_path / "basis.npz"
    assert command(capsys, "pca", photos, *SMALL, "--save-basis", basis)[0] == 0
    before = basis.read_bytes()
    assert command(capsys, "pca", photos, *SMALL, "--save-basis", basis, "--foreground")[0] == 5
    assert basis.read_bytes() == before
    other = command(capsys, "pca", photos, *MINI, "--size", 128, "--resize", "pad", "--basis", basis, "--json")
    assert as_json(other)["basis_differs"] == {"size": [64, 128], "resize": ["keep", "pad"]}
    assert f"note: {basis} was fitted with size 64, these maps have 128: colours mean the same only as far" in other[2]
    assert as_json(command(capsys, "pca", photos, *SMALL, "--basis", basis, "--json"))["basis_differs"] == {}
    for change, words in ((("--layer", "3"), "layer"), (("--stride", 4), "stride"), (("--dtype", "bfloat16"), "dtype")):
        code, _, err = command(capsys, "pca", photos, *SMALL, *change, "--basis", basis, "--json")
        assert code == 2 and "belongs to another encoder" in err and words in err
    for option, message in (
        (("--foreground",), "was fitted without --foreground"),
        (("--center", "all"), "was fitted with --center image+position, not all"),
        (("--style", "capi"), "was fitted with --style fewmatch, not capi"),
        (("--strips", 4, "-o", tmp_path / "s.png"), "has 3 components, fewer than --strips 4"),
        (("--save-basis", tmp_path / "x.npz"), "give one of them"),
    ):
        code, out, err = command(capsys, "pca", photos, *SMALL, "--basis", basis, *option, "--json")
        assert (code, out) == (2, "") and message in err and len(err.splitlines()) == 1
    arrays = dict(np.load(basis))
    facts = json.loads(str(arrays["encoder"]))
    assert facts["name"] == "mini" and facts["size"] == 64 and set(facts) >= {"digest", "dtype", "layer", "resize"}
    assert facts["identity"]
    old = {name: value for name, value in facts.items() if name != "identity"}  # as earlier versions wrote it
    np.savez(basis, **(arrays | {"encoder": np.str_(json.dumps(old))}))
    assert as_json(command(capsys, "pca", photos, *SMALL, "--basis", basis, "--json"))["basis_differs"] == {}
    np.savez(basis, **(arrays | {"encoder": np.str_(json.dumps(facts | {"identity": "other"}))}))
    code, out, err = command(capsys, "pca", photos, *SMALL, "--basis", basis, "--json")
    assert (code, out) == (2, "") and "belongs to another encoder: expected mini, identity other" in err
    np.savez(basis, **(arrays | {"encoder": np.str_(json.dumps(facts | {"digest": "other", "identity": "other"}))}))
    code, out, err = command(capsys, "pca", photos, *SMALL, "--basis", basis, "--json")
    assert (code, out) == (2, "") and "belongs to another encoder: expected mini, digest other" in err
    assert command(capsys, "pca", photos, *SMALL, "--save-basis", basis, "--overwrite")[0] == 0
    assert basis.read_bytes() == before  # the same work, the same bytes


def test_the_identity_of_a_basis_is_all_that_features_depend_on() -> None:
    key: dict[str, Any] = {
        "encoder": {"name": "a", "family": "dino", "digest": "d", "architecture": {"heads": 4}, "dtype": "float32"},
        "layer": "last",
        "preprocessing": {"mean": [0.5] * 3, "std": [0.2] * 3, "interpolation": "bicubic", "dense": 64, "rule": "keep"},
        "decoder": 1,
    }

    def changed(part: str | None, **more: object) -> str | None:
        return identity_at_any_size({**key, part: {**key[part], **more}} if part else {**key, **more})

    others = [
        changed("encoder", family="clip"),
        changed("encoder", digest="e"),
        changed("encoder", architecture={"heads": 8}),
        changed("encoder", dtype="bfloat16"),
        changed("encoder", stride=4),
        changed(None, layer="key 7"),
        changed("preprocessing", mean=[0.4] * 3),
        changed("preprocessing", std=[0.4] * 3),
        changed("preprocessing", interpolation="lanczos"),
        changed("preprocessing", mirror=True),
    ]
    assert len({identity_at_any_size(key), *others}) == len(others) + 1
    same = changed("encoder", name="b"), changed("preprocessing", dense=128, rule="pad"), changed(None, decoder=2)
    assert all(one == identity_at_any_size(key) for one in same)
    assert identity_at_any_size({**key, "encoder": {"name": "a", "digest": "d"}}) is None


def test_every_option_changes_what_it_should(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = as_json(command(capsys, "pca", photos, *SMALL, "--json"))
    ratios = [plain["explained_variance_ratio"]]
    for center in ("all", "image", "position"):
        got = as_json(command(capsys, "pca", photos, *SMALL, "--center", center, "--json"))
        assert got["center"] == center
        ratios.append(got["explained_variance_ratio"])
    front = as_json(command(capsys, "pca", photos, *SMALL, "--json", "--foreground"))
    ratios.append(front["explained_variance_ratio"])
    for rule in ("crop", "pad", "squash"):
        got = as_json(command(capsys, "pca", photos, *SMALL, "--json", "--resize", rule, "--maps", tmp_path / rule))
        assert got["images"][0]["grid"] == [8, 8] and got["encoder"]["resize"] == rule
        ratios.append(got["explained_variance_ratio"])
    cropped, padded = pixels(tmp_path / "crop" / "cup.png"), pixels(tmp_path / "pad" / "cup.png")
    # 280 px become 89, of which 12 to 75 are kept: the originals with centres from 37.75 to 239.1.
    assert np.flatnonzero((cropped != 255).any(axis=(0, 2))).tolist() == list(range(38, 239))
    assert (padded != 255).any(axis=(0, 2)).all()  # the padding is outside the image
    half = as_json(command(capsys, "pca", photos, "-e", "mini", "--size", 64, "--dtype", "bfloat16", "--json"))
    ratios.append(half["explained_variance_ratio"])
    assert len({json.dumps(ratio) for ratio in ratios}) == len(ratios)
    assert as_json(command(capsys, "pca", photos, *SMALL, "--json", "--no-cache")) == plain
    for extra in ((), ("--smooth",)):
        command(capsys, "pca", photos, *SMALL, *extra, "-o", tmp_path / f"smooth{len(extra)}.png")
    assert (tmp_path / "smooth0.png").read_bytes() != (tmp_path / "smooth1.png").read_bytes()


def test_a_folder_with_something_in_it_is_not_written_to(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    maps = tmp_path / "maps"
    maps.mkdir()
    assert command(capsys, "pca", photos / "cup.png", *SMALL, "--maps", maps)[0] == 0
    assert [path.name for path in maps.iterdir()] == ["cup.png"]
    code, out, err = command(capsys, "pca", photos, *SMALL, "--maps", maps)
    assert (code, out) == (5, "") and "holds files already" in err
    assert command(capsys, "pca", photos, *SMALL, "--maps", maps, "--overwrite")[0] == 0
    assert len(list(maps.iterdir())) == 3


def test_a_store_gives_the_same(own_photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = tmp_path / "store"
    command(capsys, "encode", own_photos, "-o", store, *SMALL, "--keep", "patches")
    plain = as_json(command(capsys, "pca", own_photos, *SMALL, "--json"))
    got = as_json(command(capsys, "pca", store, "--json"))
    assert got["explained_variance_ratio"] == plain["explained_variance_ratio"] and got["encoder"] == plain["encoder"]
    (own_photos / "cup.png").unlink()
    code, out, err = command(capsys, "pca", store, "-o", tmp_path / "two.png", "--maps", tmp_path / "maps")
    assert code == 0 and out.startswith("3 images") and "not drawn" in err
    assert len(list((tmp_path / "maps").iterdir())) == 3  # a map needs no image
    for image in ("a", "b"):
        (own_photos / image / "cat.png").unlink()
    code, _, err = command(capsys, "pca", store, "-o", tmp_path / "none.png")
    assert code == 1 and "none.png is not written" in err
    code, _, err = command(capsys, "pca", store, "--size", 128, "--json")
    assert code == 2 and "was made with --size 64" in err


def test_above_sixty_images_there_are_more_pages(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from fewmatch.cli.results.pca import figure_pages

    counts = [len(figure_pages(tmp_path / "x.svg", n, strips)) for n, strips in ((60, False), (61, False), (62, True))]
    assert counts == [1, 2, 4]
    # Drawn are pages of six and three, since those of sixty take long.
    monkeypatch.setattr("fewmatch.figures.feature_maps.MOST_IMAGES", 6)
    monkeypatch.setattr("fewmatch.figures.component_strips.MOST_STRIPS", 3)
    folder = tmp_path / "many"
    folder.mkdir()
    for i in range(8):
        Image.fromarray(skimage.data.chelsea()[i : i + 32, i : i + 32]).save(folder / f"{i:02}.png")
    call = ("pca", folder, *MINI, "--size", 16, "-o", tmp_path / "many.svg")
    got = as_json(command(capsys, *call, "--json"))
    pages = [tmp_path / "many.svg", tmp_path / "many-2.svg"]
    assert got["pages"] == [str(page) for page in pages] and got["figure"] == str(pages[0])
    first, second = (page.read_text() for page in pages)
    assert "Page 1 of 2." in first and "05.png" in first and "06.png" not in first
    assert "Page 2 of 2." in second and "06.png" in second and "07.png" in second and "05.png" not in second
    pages[0].unlink()
    code, _, err = command(capsys, *call)
    assert code == 5 and "many-2.svg exists" in err and not pages[0].exists()
    code, _, err = command(capsys, *call, "--strips", 2, "--overwrite")
    assert code == 0 and [line for line in err.splitlines() if "wrote" in line] == [
        f"wrote {tmp_path / name}" for name in ("many.svg", "many-2.svg", "many-3.svg")
    ]
    assert "07.png" in (tmp_path / "many-3.svg").read_text()


def test_styles_are_those_of_the_functions_and_are_named(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = fewmatch.load("mini", device="cpu", dtype="float32")
    store = fewmatch.encode_images([photos], encoder, keep="patches", size=64)
    frames = [store.frame(i) for i in range(3)]
    words = {"dinov2": "the least and the largest", "dinov3": "sigmoid(2 · score)", "capi": "−2.3 to 2.3"}
    for style in ("dinov2", "dinov3", "capi"):
        figure, maps, kept = tmp_path / f"{style}.svg", tmp_path / style, tmp_path / f"{style}.npz"
        call = ("pca", photos, *SMALL, "--style", style, "-o", figure, "--maps", maps, "--save-basis", kept)
        got = as_json(command(capsys, *call, "--json"))
        basis = fewmatch.PatchPCA.fit(store.feature_map, frames, style=style)  # type: ignore[arg-type]
        assert (got["style"], got["center"]) == (style, "all")
        assert [part["low"] for part in got["components"]] == basis.low.tolist()
        assert (got["foreground"] is None) == (style == "capi")
        wanted = np.rint(255 * basis.colours(store.feature_map(2), frames[2]))
        x, y = frames[2].to_pixels(*np.indices(frames[2].grid))
        assert np.array_equal(pixels(maps / "cup.png")[np.rint(y).astype(int), np.rint(x).astype(int)], wanted)
        assert words[style] in " ".join(figure.read_text().split())
        again = as_json(command(capsys, "pca", photos, *SMALL, "--basis", kept, "--json"))
        assert (again["style"], again["components"]) == (style, got["components"])
        code, out, _ = command(capsys, "pca", photos, *SMALL, "--style", style, "--maps", tmp_path / f"{style}-2")
        assert code == 0 and f"style {style}; centre all" in out
        assert colours_of(tmp_path / f"{style}-2") == colours_of(maps)


def test_strips_are_drawn_and_kept(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept, plain = tmp_path / "five.npz", tmp_path / "plain.svg"
    call = ("pca", photos, *SMALL, "--strips", 5, "-o", tmp_path / "five.svg", "--save-basis", kept, "--json")
    got = as_json(command(capsys, *call))
    assert len(got["explained_variance_ratio"]) == 5
    assert [part["colour"] for part in got["components"]] == ["red", "green", "blue", None, None]
    assert fewmatch.PatchPCA.load(kept).components.shape[0] == 5
    three = as_json(command(capsys, "pca", photos, *SMALL, "-o", plain, "--json"))
    assert three["components"] == got["components"][:3]
    for name, count in (("five", 5), ("two", 2)):
        drawn = tmp_path / f"{name}.svg"
        assert (
            command(capsys, "pca", photos, *SMALL, "--basis", kept, "--strips", count, "-o", drawn, "--overwrite")[0]
            == 0
        )
        pictures = drawn.read_text().count("<image ")
        assert pictures == 3 * (count + 2) > plain.read_text().count("<image ") == 6


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 2, "nothing to write: give -o FILE"),
        (("--strips", "3", "--json"), 2, "--strips are drawn in the figure: give -o FILE"),
        (("--strips", "3", "--smooth", "-o", "x.png"), 2, "leave --smooth out"),
        (("--style", "capi", "--foreground", "--json"), 2, "--style capi has no foreground"),
        (("-o", "x.jpg"), 2, "no figure of type .jpg: expected a name ending in .png, .svg, .pdf"),
        (("--save-basis", "x.txt"), 2, "no basis of type .txt: expected a name ending in .npz"),
        (("--basis", "nowhere.npz", "--json"), 2, "nowhere.npz does not exist"),
        (("--maps", __file__), 2, "is a file: expected a folder"),
        (("--size", "100", "--json"), 2, "not a multiple of the patch size 8"),
        (("--size", "0", "--json"), 2, "not a multiple of the patch size 8"),
        (("-e", "dinov2_vits14", "--json"), 4, "-e mini"),
    ],
)
def test_wrong_use_is_refused_before_anything_is_encoded(
    own_photos: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    from fewmatch.encoders.loading import FrozenEncoder

    def call(*_: Any, **__: Any) -> None:
        raise AssertionError("encoded")

    monkeypatch.setattr(FrozenEncoder, "__call__", call)
    got = command(capsys, "pca", own_photos, *(() if "-e" in arguments else MINI), *arguments)
    assert got[0] == code and got[1] == "" and message in got[2] and "Traceback" not in got[2]
    assert code != 2 or len(got[2].splitlines()) == 1


def test_images_that_cannot_be_used_are_listed(
    own_photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (own_photos / "bad.png").write_text("no image")
    got = as_json(command(capsys, "pca", own_photos, *SMALL, "--json"), code=3)
    assert len(got["images"]) == 3 and got["skipped"][0]["path"] == f"{own_photos}/bad.png"
    code, out, err = command(capsys, "pca", own_photos, *SMALL, "-o", tmp_path / "x.png")
    assert code == 3 and f"skipped {own_photos}/bad.png" in err and out.startswith("3 images")
    code, out, err = command(capsys, "pca", own_photos / "bad.png", *SMALL, "-o", tmp_path / "y.png")
    assert code == 2 and out == "" and "got none that can be used" in err and not (tmp_path / "y.png").exists()


def test_names_that_are_no_text_pass(own_photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = tmp_path / "caf\udce9 $x_1$.png"
    (own_photos / "cup.png").rename(odd)
    got = as_json(command(capsys, "pca", odd, *SMALL, "--json", "-o", tmp_path / "o.png", "--maps", tmp_path / "m"))
    assert got["images"][0]["path"] == odd.as_posix() and Path(got["images"][0]["map"]).is_file()


def test_real_photos_of_one_class_share_their_colours(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Sketches are lines on white: the foreground is the lines, which touch the border of hardly any image."""
    sketches = sorted((shared_data / "pacs" / "sketch" / "horse").iterdir())[:6]
    got = as_json(command(capsys, "pca", *sketches, *MINI, "--foreground", "--json", "--maps", tmp_path / "maps"))
    assert 0.05 < got["foreground"]["share"] < 0.4
    for image in got["images"]:
        lines = pixels(Path(image["path"])).min(axis=2) < 128
        shown = pixels(Path(image["map"])).any(axis=2)
        assert shown[lines].mean() > 0.9 > 0.4 > shown.mean()
