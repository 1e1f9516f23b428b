"""Folders, lists and files to one ordered list of images: nothing twice, nothing hidden, every name unique and resolvable."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fewmatch.encoders.listing import EXTENSIONS, ListedImage, list_images
from fewmatch.errors import InputError


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return folder


def names(*inputs: str | Path) -> list[str]:
    return [image.name for image in checked(*inputs)]


def checked(*inputs: str | Path) -> list[ListedImage]:
    """What is listed, after what must hold for every listing."""
    images = list_images(inputs)
    assert len({image.name for image in images}) == len(images)
    assert len({os.path.normpath(image.path) for image in images}) == len(images)
    for image in images:
        assert os.path.join(image.root, image.name) == os.fspath(image.path)
        assert image.path.is_absolute() and not image.name.startswith("/")
    return images


def labelled(*inputs: str | Path) -> dict[str, str | None]:
    return {image.name: image.label for image in checked(*inputs)}


# ----------------------------------------------------------------------------------------------------------------------
# Folders


def test_the_first_level_of_folders_gives_the_label(tmp_path: Path) -> None:
    fill(tmp_path, "cat/1.jpg", "cat/deep/er/2.jpg", "dog/1.jpg", "loose.jpg")
    assert labelled(tmp_path) == {
        "cat/1.jpg": "cat",
        "cat/deep/er/2.jpg": "cat",
        "dog/1.jpg": "dog",
        "loose.jpg": None,
    }


def test_a_flat_folder_has_no_labels(tmp_path: Path) -> None:
    assert labelled(fill(tmp_path, "b.png", "a.png")) == {"a.png": None, "b.png": None}


@pytest.mark.parametrize("extension", sorted(EXTENSIONS))
def test_extensions_count_in_any_case(tmp_path: Path, extension: str) -> None:
    fill(tmp_path, f"a{extension}", f"b{extension.upper()}", f"c{extension.title()}")
    assert len(names(tmp_path)) == 3


@pytest.mark.parametrize(
    "name",
    [
        ".hidden.jpg",
        "._resource.jpg",
        ".jpg",
        ".ipynb_checkpoints/a.jpg",
        ".git/a.jpg",
        "__MACOSX/a.jpg",
        "__MACOSX/cat/._a.jpg",
        "cat/.ipynb_checkpoints/a-checkpoint.jpg",
        "cat/.DS_Store",
        "Thumbs.db",
        "notes.txt",
        "archive.jpg.zip",
        "noextension",
        "jpg",
    ],
)
def test_what_is_hidden_or_no_image_is_left_out(tmp_path: Path, name: str) -> None:
    assert names(fill(tmp_path, "cat/kept.jpg", name)) == ["cat/kept.jpg"]


def test_an_input_may_itself_be_hidden(tmp_path: Path) -> None:
    assert names(fill(tmp_path / ".secret", "a.jpg")) == ["a.jpg"]


def test_names_are_in_the_order_of_their_bytes(tmp_path: Path) -> None:
    wanted = [
        "B.jpg",
        "Z/a.jpg",
        "a-b.jpg",
        "a/b.jpg",
        "a0.jpg",
        "a10.jpg",
        "a9.jpg",
        "b.jpg",
        "é.jpg",
        "漢.jpg",
        "🦊.jpg",
    ]
    assert names(fill(tmp_path, *reversed(wanted))) == wanted


def test_a_name_that_is_not_utf_8_is_listed_in_the_order_of_its_bytes(tmp_path: Path) -> None:
    try:
        fill(tmp_path, os.fsdecode(b"caf\xe9.jpg"), "cafz.jpg", "café.jpg")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert [os.fsencode(name) for name in names(tmp_path)] == [b"cafz.jpg", "café.jpg".encode(), b"caf\xe9.jpg"]


@settings(
    deadline=None,
    database=None,
    max_examples=30,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.sets(
        st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=8), max_size=6
    )
)
def test_any_name_is_listed_once(tmp_path_factory: pytest.TempPathFactory, stems: set[str]) -> None:
    folder = fill(tmp_path_factory.mktemp("any"), "class/one.jpg", *(f"class/x{stem}.jpg" for stem in stems))
    wanted = sorted(os.fsencode(f"class/{name}") for name in os.listdir(folder / "class"))
    assert [os.fsencode(name) for name in names(folder)] == wanted


def test_a_folder_called_like_an_image_is_a_folder(tmp_path: Path) -> None:
    assert labelled(fill(tmp_path, "x.jpg/inside.png")) == {"x.jpg/inside.png": "x.jpg"}


def test_a_folder_called_like_a_list_is_a_folder(tmp_path: Path) -> None:
    assert names(fill(tmp_path / "data.csv", "a.png")) == ["a.png"]


def test_links_to_folders_and_files_are_followed(tmp_path: Path) -> None:
    fill(tmp_path / "elsewhere", "1.jpg", "2.jpg")
    fill(tmp_path / "data", "dog/1.jpg")
    (tmp_path / "data" / "cat").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "dog" / "2.jpg").symlink_to(tmp_path / "elsewhere" / "2.jpg")
    assert labelled(tmp_path / "data") == {
        "cat/1.jpg": "cat",
        "cat/2.jpg": "cat",
        "dog/1.jpg": "dog",
        "dog/2.jpg": "dog",
    }


def test_a_circle_of_links_ends(tmp_path: Path) -> None:
    fill(tmp_path, "cat/1.jpg")
    (tmp_path / "cat" / "self").symlink_to(".")
    (tmp_path / "cat" / "up").symlink_to("..")
    (tmp_path / "up.jpg").symlink_to("up.jpg")
    assert names(tmp_path) == ["cat/1.jpg", "up.jpg"]


def test_two_folders_that_link_to_each_other_end(tmp_path: Path) -> None:
    fill(tmp_path, "a/1.jpg", "b/2.jpg")
    (tmp_path / "a" / "b").symlink_to("../b")
    (tmp_path / "b" / "a").symlink_to("../a")
    assert names(tmp_path) == ["a/1.jpg", "a/b/2.jpg", "b/2.jpg", "b/a/1.jpg"]


def test_a_broken_link_is_listed_so_that_reading_can_say_why(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").symlink_to("nowhere.jpg")
    assert names(tmp_path) == ["x.jpg"]


def test_a_folder_that_is_closed_to_us_is_named_and_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, "closed/1.jpg", "open/1.jpg")
    scan = os.scandir

    def closed(path: Path) -> object:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", closed)
    for folder in (tmp_path, tmp_path / "closed"):
        with pytest.raises(InputError, match="closed cannot be listed: Permission denied"):
            list_images([folder])


@pytest.mark.parametrize("content", [[], ["notes.txt"], [".a.jpg"], ["__MACOSX/a.jpg"], ["sub/readme.md"]])
def test_a_folder_without_images_is_a_wrong_input(tmp_path: Path, content: list[str]) -> None:
    with pytest.raises(InputError, match=r"no images in .*: expected files such as"):
        list_images([fill(tmp_path, *content)])


def test_no_input_at_all_is_a_wrong_input() -> None:
    with pytest.raises(InputError, match="no images"):
        list_images([])


@pytest.mark.parametrize(
    "name", ["gone", "gone.jpg", "gone.txt", "gone.csv", "nowhere/gone.jpg", "nul\0.jpg", "nul\0.txt"]
)
def test_a_missing_input_is_named(tmp_path: Path, name: str) -> None:
    fill(tmp_path, "a.jpg")
    with pytest.raises(InputError, match=r"gone|nul"):
        list_images([tmp_path / "a.jpg", tmp_path / name])


# ----------------------------------------------------------------------------------------------------------------------
# Files


@pytest.mark.parametrize("name", ["a.jpg", "no extension", ".hidden.png", "a.unknown", "x.jpg.part"])
def test_a_file_named_on_its_own_is_listed_whatever_its_name(tmp_path: Path, name: str) -> None:
    assert labelled(fill(tmp_path, name) / name) == {name: None}


def test_files_keep_the_order_in_which_they_were_named(tmp_path: Path) -> None:
    fill(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    assert names(tmp_path / "c.jpg", tmp_path / "a.jpg", tmp_path / "b.jpg") == ["c.jpg", "a.jpg", "b.jpg"]


def test_relative_inputs_are_relative_to_where_we_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, "data/cat/1.jpg", "b.jpg")
    monkeypatch.chdir(tmp_path)
    assert [image.path for image in checked("data", "./b.jpg")] == [tmp_path / "data/cat/1.jpg", tmp_path / "b.jpg"]


# ----------------------------------------------------------------------------------------------------------------------
# Lists


@pytest.mark.parametrize("extension", [".txt", ".lst", ".TXT"])
@pytest.mark.parametrize(
    "content",
    [
        b"b.jpg\nsub/a.jpg\n",
        b"b.jpg\r\nsub/a.jpg\r\n",
        b"b.jpg\rsub/a.jpg",
        b"\xef\xbb\xbfb.jpg\nsub/a.jpg",
        b"\n\n  b.jpg  \n\n\t\nsub/a.jpg\n\n",
        b"./b.jpg\nsub/../sub//a.jpg\n",
        b"b.jpg\nsub/a.jpg\nb.jpg\n./sub/a.jpg\n",
    ],
    ids=["plain", "CRLF", "CR", "BOM", "blank lines", "detours", "duplicates"],
)
def test_a_list_has_a_path_a_line(tmp_path: Path, content: bytes, extension: str) -> None:
    source = tmp_path / f"list{extension}"
    source.write_bytes(content)
    assert labelled(source) == {"b.jpg": None, "sub/a.jpg": None}


def test_a_list_keeps_its_order(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("z.jpg\na.jpg\nm.jpg\n")
    assert names(tmp_path / "list.txt") == ["z.jpg", "a.jpg", "m.jpg"]


@pytest.mark.parametrize("name", [b"caf\xe9.jpg", b"\xff\xfe.jpg", "é.jpg".encode(), b"a\x85b.jpg", b"a b  c.jpg"])
def test_a_list_names_files_by_their_bytes(tmp_path: Path, name: bytes) -> None:
    (tmp_path / "list.txt").write_bytes(b"first.jpg\n" + name + b"\n")
    assert [os.fsencode(image) for image in names(tmp_path / "list.txt")] == [b"first.jpg", name]


@pytest.mark.parametrize("character", ["\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029"])
@pytest.mark.parametrize("form", ["list.txt", "list.csv"])
def test_only_line_ends_end_a_line(tmp_path: Path, form: str, character: str) -> None:
    name = f"a{character}b.jpg"
    (tmp_path / form).write_text(("path\n" if form.endswith("csv") else "") + f"{name}\nc.jpg\n", encoding="utf-8")
    assert names(tmp_path / form) == [name, "c.jpg"]


@pytest.mark.parametrize(
    "content",
    [
        "path,label\na.jpg,cat\nb.jpg,dog\n",
        "\ufeffpath,label\r\na.jpg,cat\r\nb.jpg,dog\r\n",
        "label,path\ncat,a.jpg\ndog,b.jpg\n",
        "path, label\na.jpg, cat\nb.jpg, dog\n",
        "path ,label \na.jpg,cat \nb.jpg,dog\n",
        'id,path,split,label\n1,a.jpg,train,cat\n2,"b.jpg",test,"dog"\n',
        "path,label\n\na.jpg,cat\n,\n\nb.jpg,dog",
        "path,label\na.jpg,cat\na.jpg,cat\nb.jpg,dog\n./b.jpg,\n",
    ],
    ids=[
        "plain",
        "BOM and CRLF",
        "other order",
        "spaces",
        "spaces behind",
        "more columns",
        "blank lines",
        "duplicates",
    ],
)
def test_a_csv_has_paths_and_labels(tmp_path: Path, content: str) -> None:
    (tmp_path / "list.csv").write_bytes(content.encode())
    assert labelled(tmp_path / "list.csv") == {"a.jpg": "cat", "b.jpg": "dog"}


@pytest.mark.parametrize(
    "content", ["path\na.jpg\n", "path,label\na.jpg,\n", "path,label\na.jpg\n", "path,other\na.jpg,x\n"]
)
def test_a_csv_may_do_without_labels(tmp_path: Path, content: str) -> None:
    (tmp_path / "list.csv").write_text(content)
    assert labelled(tmp_path / "list.csv") == {"a.jpg": None}


@pytest.mark.parametrize("name", ["a, b.jpg", 'a "b".jpg', "line\nbreak.jpg", "line\r\nbreak.jpg", "é.jpg"])
def test_quotes_in_a_csv_hold_any_name(tmp_path: Path, name: str) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    (tmp_path / "list.csv").write_bytes(f"path,label\n{quoted},cat\nz.jpg,dog\n".encode())
    assert labelled(tmp_path / "list.csv") == {name: "cat", "z.jpg": "dog"}


@pytest.mark.parametrize(
    ("content", "got"),
    [
        ("file,label\na.jpg,cat\n", "got file, label"),
        ("a.jpg,cat\nb.jpg,dog\n", "got a.jpg, cat"),
        ("path;label\na.jpg;cat\n", "got path;label"),
        ("Path,label\na.jpg,cat\n", "got Path, label"),
        ("", "got nothing"),
    ],
)
def test_a_csv_without_the_column_path_is_refused(tmp_path: Path, content: str, got: str) -> None:
    (tmp_path / "list.csv").write_text(content)
    with pytest.raises(InputError, match=f"expected the header path or path,label, {got}"):
        list_images([tmp_path / "list.csv"])


def test_a_csv_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("path\n" + "x" * 200_000)
    with pytest.raises(InputError, match="cannot be read as CSV: field larger"):
        list_images([tmp_path / "list.csv"])


@pytest.mark.parametrize("content", ["", "\n \n", "\ufeff"])
def test_an_empty_list_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "list.txt").write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match="names no image"):
        list_images([tmp_path / "list.txt"])


def test_a_list_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("path,label\na.jpg,cat\nsub/../a.jpg,dog\n")
    with pytest.raises(InputError, match="two labels: cat and dog"):
        list_images([tmp_path / "list.csv"])


def test_a_list_may_name_what_lies_outside_its_folder(tmp_path: Path) -> None:
    fill(tmp_path, "lists/in.jpg", "pictures/out.jpg", "up.jpg")
    source = tmp_path / "lists" / "list.txt"
    source.write_text("in.jpg\n../pictures/out.jpg\n../up.jpg\n../lists/in.jpg\n")
    images = checked(source)
    assert [image.name for image in images] == ["in.jpg", "../pictures/out.jpg", "../up.jpg"]
    assert {image.root for image in images} == {os.fspath(tmp_path / "lists")}
    assert all(image.path.is_file() for image in images)


def test_absolute_paths_in_a_list_become_relative(tmp_path: Path) -> None:
    fill(tmp_path, "lists/in.jpg", "pictures/out.jpg")
    source = tmp_path / "lists" / "list.txt"
    source.write_text(f"{tmp_path}/lists/in.jpg\n{tmp_path}/pictures/out.jpg\n")
    assert names(source) == ["in.jpg", "../pictures/out.jpg"]


def test_beyond_a_linked_folder_the_list_means_where_the_link_leads(tmp_path: Path) -> None:
    fill(tmp_path, "real/deep/lists/in.jpg", "real/deep/out.jpg", "far.jpg")
    (tmp_path / "link").symlink_to("real/deep/lists")
    (tmp_path / "link" / "list.txt").write_text(f"in.jpg\n../out.jpg\n{tmp_path}/far.jpg\n{tmp_path}/link/in.jpg\n")
    images = checked(tmp_path / "link" / "list.txt")
    assert [image.name for image in images] == ["in.jpg", "../out.jpg", "../../../far.jpg"]
    assert all(image.path.is_file() for image in images)


def test_a_list_names_missing_files_too_so_that_reading_can_say_why(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("gone.jpg\n")
    assert names(tmp_path / "list.txt") == ["gone.jpg"]


# ----------------------------------------------------------------------------------------------------------------------
# Several inputs


def test_inputs_follow_each_other_in_the_order_given(tmp_path: Path) -> None:
    fill(tmp_path, "b/cat/1.jpg", "a/dog/2.jpg", "c.jpg")
    assert labelled(tmp_path / "b", tmp_path / "c.jpg", tmp_path / "a") == {
        "cat/1.jpg": "cat",
        "c.jpg": None,
        "dog/2.jpg": "dog",
    }


def test_a_file_named_by_two_inputs_counts_once(tmp_path: Path) -> None:
    fill(tmp_path, "data/cat/1.jpg", "data/cat/2.jpg")
    (tmp_path / "list.txt").write_text("data/cat/2.jpg\n")
    (tmp_path / "data" / "list.txt").write_text("../data/cat/1.jpg\n")
    inputs = [
        tmp_path / "data",
        tmp_path / "list.txt",
        tmp_path / "data" / "list.txt",
        tmp_path / "data" / "cat" / "1.jpg",
    ]
    assert labelled(*inputs, tmp_path / "data") == {"cat/1.jpg": "cat", "cat/2.jpg": "cat"}


def test_a_file_outside_a_lists_folder_and_in_another_input_counts_once(tmp_path: Path) -> None:
    fill(tmp_path, "data/1.jpg", "lists/2.jpg")
    (tmp_path / "lists" / "list.txt").write_text("../data/1.jpg\n2.jpg\n")
    assert names(tmp_path / "data", tmp_path / "lists" / "list.txt") == ["1.jpg", "2.jpg"]


def clash_of_folders(tmp_path: Path) -> tuple[list[Path], list[str]]:
    fill(tmp_path, "train/cat/1.jpg", "test/cat/1.jpg", "test/cat/2.jpg")
    return [tmp_path / "train", tmp_path / "test"], ["train/cat/1.jpg", "test/cat/1.jpg", "test/cat/2.jpg"]


def clash_of_files(tmp_path: Path) -> tuple[list[Path], list[str]]:
    fill(tmp_path, "a/x.jpg", "b/x.jpg", "c/y.jpg")
    return [tmp_path / "a/x.jpg", tmp_path / "b/x.jpg", tmp_path / "c/y.jpg"], ["a/x.jpg", "b/x.jpg", "c/y.jpg"]


def clash_of_a_list(tmp_path: Path) -> tuple[list[Path], list[str]]:
    fill(tmp_path, "a/sub/x.jpg", "b/sub/x.jpg", "out.jpg")
    (tmp_path / "b" / "list.txt").write_text("sub/x.jpg\n../out.jpg\n")
    return [tmp_path / "a", tmp_path / "b" / "list.txt"], ["a/sub/x.jpg", "b/sub/x.jpg", "b/../out.jpg"]


def clash_of_three_kinds(tmp_path: Path) -> tuple[list[Path], list[str]]:
    fill(tmp_path, "a/x.jpg", "b/x.jpg", "c/x.jpg")
    (tmp_path / "c" / "list.csv").write_text("path,label\nx.jpg,cat\n")
    return [tmp_path / "a", tmp_path / "b/x.jpg", tmp_path / "c/list.csv"], ["a/x.jpg", "b/x.jpg", "c/x.jpg"]


@pytest.mark.parametrize("make", [clash_of_folders, clash_of_files, clash_of_a_list, clash_of_three_kinds])
def test_names_that_would_clash_start_with_their_folder(
    tmp_path: Path, make: Callable[[Path], tuple[list[Path], list[str]]]
) -> None:
    inputs, wanted = make(tmp_path)
    assert names(*inputs) == wanted


def test_labels_survive_a_clash(tmp_path: Path) -> None:
    inputs, _ = clash_of_folders(tmp_path)
    assert set(labelled(*inputs).values()) == {"cat"}
    inputs, _ = clash_of_three_kinds(tmp_path)
    assert labelled(*inputs) == {"a/x.jpg": None, "b/x.jpg": None, "c/x.jpg": "cat"}


def test_names_that_still_clash_are_refused(tmp_path: Path) -> None:
    fill(tmp_path, "one/images/x.jpg", "two/images/x.jpg")
    with pytest.raises(InputError, match=r"both be called images/x\.jpg: give their common parent"):
        list_images([tmp_path / "one" / "images", tmp_path / "two" / "images"])
    assert names(tmp_path) == ["one/images/x.jpg", "two/images/x.jpg"]


@pytest.mark.parametrize(
    ("path", "name", "root"),
    [
        ("/data/cat/1.jpg", "cat/1.jpg", "/data"),
        ("/data/cat/1.jpg", "data/cat/1.jpg", "/"),
        ("/1.jpg", "1.jpg", "/"),
        ("/data/lists/../1.jpg", "../1.jpg", "/data/lists"),
        ("/data/cat/11.jpg", "1.jpg", "/data/cat"),
        ("/data/cat/1.jpg", "renamed.jpg", "/data/cat"),
    ],
)
def test_the_root_is_what_the_name_is_relative_to(path: str, name: str, root: str) -> None:
    assert ListedImage(Path(path), name).root == root
