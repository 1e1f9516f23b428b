"""The records of all released checkpoints: against the official layouts at full size, the families that read them, and docs/encoders.md.

With `FEWMATCH_TEST_WRITE_DOCS=1` the table of docs/encoders.md is written anew.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path

import pytest
import torch
from official_layouts import layout, network_of
from safetensors.torch import save_file

from fewmatch.encoders import catalogue, from_state_dict, load
from fewmatch.encoders.catalogue import Checkpoint
from fewmatch.encoders.families import Family, families, without_heads
from fewmatch.encoders.weights.checkpoint import require_match
from fewmatch.errors import InputError

RECORDS = catalogue.checkpoints()
RELEASED = [record for record in RECORDS if not record.bundled]
#: Those that DESIGN.md names in section 4.
FAMILIES = [
    "dinov2", "dinov2_reg", "capi", "dino", "ibot", "mugs", "msn", "mae", "clip", "open_clip", "eva_clip", "swag", "beit",
    "data2vec2", "esvit", "seer", "sam", "dinov3",
]  # fmt: skip
each = pytest.mark.parametrize("record", RELEASED, ids=lambda record: record.name)

#: What files hold besides the parameters of the network that gives the features.
BESIDES = re.compile(
    r".*(mask_token|bias_mask|periods|relative_position_index|running_|num_batches|lm_head|relation_blocks"
    r"|module\.fc\.|heads\.head|module\.head|token_embedding|logit_scale|input_resolution|prompt_encoder|mask_decoder|IMAGE\.decoder"
    r"|backbone\.decoder\.blocks\.([1-9]|1\d)\.)"
)


def family_of(record: Checkpoint) -> Family:
    if record.family not in families():
        pytest.skip(f"the family {record.family} has no module in encoders/families yet")
    return families()[record.family]


# --- what a record says


def test_names_files_and_urls_are_unique() -> None:
    for field in ("name", "filename"):
        values = Counter(getattr(record, field) for record in RECORDS)
        assert not [value for value, count in values.items() if count > 1]
    urls = Counter(record.url for record in RELEASED)
    assert max(urls.values()) == 1


def test_every_family_has_records_and_every_record_a_family() -> None:
    assert {record.family for record in RECORDS} == set(FAMILIES)
    assert {*families()} <= {record.family for record in RECORDS}


def test_the_names_that_users_know() -> None:
    names = {record.name for record in RECORDS}
    hub = [f"dino_vit{size}" for size in ("s16", "s8", "b16", "b8")]
    hub += [f"dinov2_vit{size}14{suffix}" for size in "sbLg".lower() for suffix in ("", "_reg")]
    hub += [f"capi_vitl14_{data}" for data in ("p205", "lvd", "in22k", "in1k")]
    hub += [f"dinov3_{size}" for size in ("vits16", "vits16plus", "vitb16", "vitl16", "vith16plus", "vit7b16")]
    hub += ["mini", "ibot_vitb16_in22k", "mae_vith14", "clip_vitl14_336", "openclip_vith14_laion2b", "sam_vitb16"]
    assert set(hub) <= names
    assert Counter(record.family for record in RECORDS) == {
        "dinov2": 4, "dinov2_reg": 5, "capi": 4, "dino": 4, "ibot": 7, "mugs": 3, "msn": 5, "mae": 3, "clip": 4,
        "open_clip": 4, "eva_clip": 1, "swag": 3, "beit": 2, "data2vec2": 3, "esvit": 5, "seer": 5, "sam": 3, "dinov3": 8,
    }  # fmt: skip


@each
def test_addresses_and_digests(record: Checkpoint) -> None:
    assert record.url and re.fullmatch(r"https://[\w.-]+/[\w./%-]+", record.url)
    assert re.fullmatch(r"[\w.-]+\.(pth|pt|bin|torch|tar)", record.filename)
    assert record.source and record.licence
    assert record.sha256 is None or re.fullmatch(r"[0-9a-f]{8,64}", record.sha256)
    assert record.md5 is None or re.fullmatch(r"[0-9a-f]{6,32}", record.md5)
    assert (record.digest_trust == "none") == (record.sha256 is None and record.md5 is None)
    assert record.bytes is None or record.parameters
    # What file names and addresses say about digests, they have to say about these.
    stem = record.filename.rsplit(".", 1)[0]
    match record.family:
        case "dinov3":
            assert record.sha256 and stem.endswith(f"-{record.sha256}") and record.digest_trust == "published"
        case "clip":
            assert record.sha256 and len(record.sha256) == 64 and f"/{record.sha256}/" in record.url
        case "sam":
            assert record.md5 and len(record.md5) == 32 and stem.endswith(f"_{record.md5[:6]}")


def test_licences_that_restrict_and_publishers_that_ask() -> None:
    restricted = {record.family for record in RECORDS if record.non_commercial}
    assert restricted == {"mae", "msn", "swag", "data2vec2", "seer"}
    assert all(record.non_commercial == (record.family in restricted) for record in RECORDS)
    assert all(record.non_commercial for record in RECORDS if "NC" in record.licence)
    assert {record.family for record in RECORDS if record.gated} == {"dinov3"}
    assert all(record.gated for record in RECORDS if record.family == "dinov3")


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.name)
def test_preprocessing_fits_the_patches(record: Checkpoint) -> None:
    p, a = record.preprocessing, record.architecture
    assert p.crop % a["patch_size"] == 0 == p.dense % a["patch_size"]
    assert 0 < p.crop <= p.resize and p.dense >= p.crop
    assert all(0 < value < 1 for value in (*p.mean, *p.std))
    if "position_grid" in a and not record.bundled:  # the table as it is stored is used at one of the two sizes
        assert a["position_grid"] * a["patch_size"] in (p.crop, p.dense)


def test_preprocessing_is_the_publishers() -> None:
    imagenet = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    openai = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
    half = ((0.5,) * 3, (0.5,) * 3)
    other = {
        "clip": openai, "open_clip": openai, "eva_clip": openai, "beit": half, "openclip_vitl14_laion2b": half,
        "dinov3_vitl16_sat493m": ((0.430, 0.411, 0.296), (0.213, 0.156, 0.143)),
        "dinov3_vit7b16_sat493m": ((0.430, 0.411, 0.296), (0.213, 0.156, 0.143)),
    }  # fmt: skip
    sizes = {
        "clip": (224, 224),
        "open_clip": (224, 224),
        "eva_clip": (224, 224),
        "swag": (224, 224),
        "sam": (1024, 1024),
    }
    for record in RELEASED:
        p = record.preprocessing
        assert (p.mean, p.std) == other.get(record.name, other.get(record.family, imagenet)), record.name
        expected = (336, 336) if record.name == "clip_vitl14_336" else sizes.get(record.family, (256, 224))
        assert (p.resize, p.crop) == expected, record.name


def test_published_accuracies() -> None:
    """The table 4 of the DINOv2 paper, which measured most of them in one way; the publishers' own numbers differ by 0.6 at most."""
    table = {
        "clip_vitl14": (79.8, 84.3), "clip_vitl14_336": (80.5, 85.3), "swag_vith14": (82.6, 85.7),
        "openclip_vith14_laion2b": (81.7, 84.4), "openclip_vitbigg14_laion2b": (83.2, 86.2),
        "evaclip_vitg14": (83.5, 86.4), "mae_vith14": (49.4, 76.6), "dino_vits8": (78.6, 79.2),
        "seer_regnety10b": (None, 79.8), "msn_vitl7": (79.2, 80.7), "esvit_swinb_w14": (79.4, 81.3),
        "mugs_vitl16": (80.2, 82.1), "ibot_vitl16_in22k": (72.9, 82.3), "dinov2_vits14": (79.0, 81.1),
        "dinov2_vitb14": (82.1, 84.5), "dinov2_vitl14": (83.5, 86.3), "dinov2_vitg14": (83.5, 86.5),
    }  # fmt: skip
    for name, (knn, linear) in table.items():
        record = catalogue.find(name)
        assert record.knn == (None if knn is None else pytest.approx(knn, abs=0.61)), name
        assert record.linear == pytest.approx(linear, abs=0.61), name
    assert all(40 < value < 90 for r in RECORDS for value in (r.knn, r.linear) if value is not None)


# --- against the official files at full size


def test_layouts_have_the_published_size() -> None:
    """Bytes and entries of the official classes (reference/encoders.md); this tests the layouts that the other tests rest on."""
    published = {
        "dino_vits16": (86_662_656, 150), "dino_vits8": (86_681_088, 150), "dino_vitb16": (343_194_624, 150),
        "dino_vitb8": (343_231_488, 150), "mae_vitl16": (1_213_206_528, 294), "dinov2_vits14": (88_226_304, 175),
        "dinov2_vitb14": (346_321_920, 175), "dinov2_vitl14": (1_217_474_560, 343), "dinov2_vitg14": (4_545_923_072, 567),
        "dinov2_vits14_reg": (88_232_448, 176), "dinov2_vitg14_reg": (4_545_947_648, 568),
        "capi_vitl14_lvd": (1_814_734_848, 328),
        "dinov3_vits16": (86_459_968, 188), "dinov3_vits16plus": (114_845_248, 212), "dinov3_vitb16": (342_789_184, 188),
        "dinov3_vitl16": (1_212_911_680, 368), "dinov3_vith16plus": (3_363_025_984, 552),
    }  # fmt: skip
    for name, (size, entries) in published.items():
        state = layout(catalogue.find(name).family, catalogue.find(name).architecture)
        assert (4 * sum(value.numel() for value in state.values()), len(state)) == (size, entries), name
    towers = {
        "clip_vitb32": (351_396_864, 152), "clip_vitb16": (344_770_560, 152), "clip_vitl14": (1_215_864_832, 296),
        "clip_vitl14_336": (1_217_175_552, 296), "evaclip_vitg14": (4 * 1_012_588_928, 528),
        "sam_vitb16": (358_683_648, 177), "sam_vitl16": (1_233_113_088, 345), "sam_vith16": (2_548_104_192, 457),
        "swag_vitb16": (343_194_624, 150), "swag_vith14": (2_523_059_200, 390),
    }  # fmt: skip
    for name, (size, entries) in towers.items():
        state = layout(catalogue.find(name).family, catalogue.find(name).architecture)
        of_tower = ("visual.", "image_encoder.", "class_token", "conv_proj.", "encoder.")
        tower = [value.numel() for key, value in state.items() if key.startswith(of_tower)]
        assert (4 * sum(tower), len(tower)) == (size, entries), name


@each
def test_parameters_are_those_of_the_official_file(record: Checkpoint) -> None:
    state = layout(record.family, record.architecture)
    count = sum(value.numel() for key, value in state.items() if not BESIDES.match(key))
    if record.family.startswith("dinov2") or record.family == "capi":
        count += state[next(key for key in state if key.endswith("mask_token"))].numel()  # see the next test
    assert count == record.parameters
    if record.bytes:  # a PyTorch file is a little larger than its tensors
        assert 0 < record.bytes - 4 * record.parameters < 0.005 * record.bytes + 100_000


@each
def test_official_files_build_the_network_that_the_record_describes(record: Checkpoint) -> None:
    family = family_of(record)
    given = network_of(layout(record.family, record.architecture))
    entries = family.official(given)
    model = family.model(entries, **record.untold(family.options))
    require_match(without_heads(entries, model.state_dict())[0], model.state_dict(), record.name)
    a = record.architecture
    dim = a["embed_dim"]
    # Zeros in our network where the official one has no parameter; and the mask token of the released DINOv2 files, which is counted
    # in their published parameters.
    zeros = {
        "clip": dim + a.get("projection_dim", 0),  # biases of the patches and of the projection
        "open_clip": dim + a.get("projection_dim", 0),
        "eva_clip": a.get("depth", 0) * dim,  # biases of the keys
        "beit": a.get("depth", 0) * dim,
        "data2vec2": dim,  # the position of CLS
        "dinov3": 3 * dim * a["depth"] if record.name.startswith("dinov3_vit7b16") else 0,  # biases of the attention
        "dinov2": -dim,
        "dinov2_reg": -dim,
    }
    assert sum(p.numel() for p in model.parameters()) == record.parameters + zeros.get(record.family, 0)
    assert (model.embed_dim, model.patch_size) == (a["embed_dim"], a["patch_size"])
    assert model.depth == a.get("depth", model.depth)


@each
def test_official_files_are_taken_for_no_other_family(record: Checkpoint) -> None:
    family_of(record)
    given = network_of(layout(record.family, record.architecture))
    # What tells iBOT's student files and MAE from DINO are an entry and the values of positions, which are not here.
    plain = ["dino", "ibot", "mugs", "msn", "mae"]
    shared = {
        "dino": plain,
        "ibot": plain,
        "mae": plain,
        "open_clip": ["clip", "open_clip"],
        "swag": ["swag"],  # torchvision's classifiers have its layout
    }
    recognised = [family.name for family in families().values() if family.recognises(given)]
    assert recognised == ([] if record.family in shared else [record.family])
    assert [family.name for family in families().values() if family.possible(given)] == shared.get(record.family, [])


@each
def test_preprocessing_agrees_with_the_family(record: Checkpoint) -> None:
    """A file of the same family that has no name is prepared in the same way, unless the checkpoint itself is a special case."""
    family = family_of(record)
    if record.name in ("openclip_vitl14_laion2b", "dinov3_vitl16_sat493m", "dinov3_vit7b16_sat493m", "clip_vitl14_336"):
        assert record.preprocessing != family.preprocessing
    else:
        assert record.preprocessing == family.preprocessing


# --- finding records


def test_search_by_parts_shell_patterns_and_several() -> None:
    def names(*patterns: str) -> list[str]:
        return [record.name for record in catalogue.search(*patterns)]

    assert sorted(names()) == sorted(record.name for record in RECORDS)
    assert names("dino_*") == ["dino_vitb8", "dino_vitb16", "dino_vits8", "dino_vits16"]
    assert names("capi_vitl14_l") == ["capi_vitl14_lvd"] == names("CAPI*LVD") == names("capi_vitl14_[l]*")
    assert names("dinov2_reg") == [f"dinov2_vit{size}14_reg" for size in "bgls"] + ["mini"]  # by family, too
    assert names("mini", "capi_vitl14_l", "mini", "*_lvd") == ["capi_vitl14_lvd", "mini"]
    assert names("evaclip") == ["evaclip_vitg14"] == names("eva_clip")
    assert names("nothing") == []
    assert names("dino_vit?8") == ["dino_vitb8", "dino_vits8"]
    assert names("dino_vit") == names("dino_*") and names("vit_dino*") == []


def test_search_orders_numbers_as_numbers_within_families() -> None:
    found = catalogue.search()
    assert [record.family for record in found] == sorted(record.family for record in found)
    seer = [record.name.removeprefix("seer_regnety") for record in found if record.family == "seer"]
    assert seer == ["10b", "32gf", "64gf", "128gf", "256gf"]


def test_find_names_what_is_nearest() -> None:
    assert catalogue.find("mae_vith14").parameters == 630_764_800
    with pytest.raises(InputError, match=r"no encoder called dino_vits-16.*did you mean dino_vits16"):
        catalogue.find("dino_vits-16")
    with pytest.raises(InputError, match="`fewmatch encoders` lists them"):
        catalogue.find("###")
    assert catalogue.nearest("*dinov4*").startswith("did you mean dinov3 or")


# --- where the weights are


def test_where_the_weights_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEWMATCH_HOME", str(tmp_path))
    assert {record.where() for record in RECORDS} == {"bundled", "gated", "downloadable"}
    assert [record.name for record in RECORDS if record.where() == "bundled"] == ["mini"]
    assert all(record.where() == "gated" for record in RECORDS if record.gated)
    gated = catalogue.find("dinov3_vits16")
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / gated.filename).touch()
    assert gated.where() == gated.to_json()["where"] == "cached"
    assert gated.to_json()["path"] == str(tmp_path / "weights" / gated.filename)
    nowhere = Checkpoint(
        name="x",
        family="dino",
        filename="x.pth",
        preprocessing=gated.preprocessing,
        architecture={},
        licence="",
        source="",
    )
    assert nowhere.where() == "absent" and nowhere.to_json()["path"] is None


def small_state(record: Checkpoint) -> dict[str, torch.Tensor]:
    """Made-up weights in the family's official layout with the heads of a checkpoint, and otherwise small."""
    heads = record.architecture["heads"]
    sizes = {
        "embed_dim": 3 * heads,
        "depth": 1,
        "heads": heads,
        "patch_size": 4,
        "position_grid": 2,
        "projection_dim": 5,
    }
    generator = torch.Generator().manual_seed(0)
    return {key: torch.randn(t.shape, generator=generator) for key, t in layout(record.family, sizes).items()}


@pytest.mark.parametrize("name", ["msn_vitl7", "openclip_vitg14_laion2b", "ibot_vitl16"])
def test_loading_passes_on_what_shapes_cannot_tell(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small weights under a large checkpoint's name: the heads are the record's, all else is the file's."""
    record = catalogue.find(name)
    family_of(record)
    monkeypatch.setenv("FEWMATCH_HOME", str(tmp_path))
    (tmp_path / "weights").mkdir()
    torch.save(small_state(record), tmp_path / "weights" / record.filename)
    encoder = load(name, device="cpu", dtype="float32")
    heads = record.architecture["heads"]
    assert f"{heads} heads" in encoder.model.describe() and encoder.embed_dim == 3 * heads
    assert (encoder.name, encoder.preprocessing) == (name, record.preprocessing)


def test_what_needs_to_be_told() -> None:
    clip = catalogue.find("clip_vitl14")
    assert clip.untold(["heads", "depth", "embed_dim", "nothing"]) == {"heads": 16}
    assert catalogue.find("esvit_swint_w14").untold(["heads", "image_size"]) == {
        "heads": (3, 6, 12, 24),
        "image_size": 224,
    }
    assert clip.untold([]) == {}
    for record in RECORDS:
        assert "heads" not in family_of(record).options or "heads" in record.architecture, record.name


def in_hugging_face_layout(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The names of ViTModel on disk (reference/encoders.md 5)."""
    out = {}
    names = (
        ("cls_token", "embeddings.cls_token"),
        ("pos_embed", "embeddings.position_embeddings"),
        ("patch_embed.proj", "embeddings.patch_embeddings.projection"),
        ("blocks.", "encoder.layer."),
        (".norm1", ".layernorm_before"),
        (".norm2", ".layernorm_after"),
        (".attn.proj", ".attention.output.dense"),
        (".mlp.fc1", ".intermediate.dense"),
        (".mlp.fc2", ".output.dense"),
    )
    for key, value in state.items():
        new = re.sub(r"^norm\.", "layernorm.", key)
        for ours, theirs in names:
            new = new.replace(ours, theirs)
        if ".attn.qkv." in new:
            for part, rows in zip(("query", "key", "value"), value.chunk(3), strict=True):
                out[new.replace(".attn.qkv.", f".attention.attention.{part}.")] = rows.clone()
        else:
            out[new] = value
    return out


@pytest.mark.parametrize("name", ["dino_vits16", "msn_vitb4"])
def test_hugging_face_repositories_hold_the_same_weights(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = catalogue.find(name)
    family_of(record)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    state = {key.removeprefix("module."): value for key, value in small_state(record).items() if ".fc.fc1" not in key}
    assert record.hf_repo
    snapshot = tmp_path / "hub" / f"models--{record.hf_repo.replace('/', '--')}" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    save_file(in_hugging_face_layout(state), snapshot / "model.safetensors")
    assert record.where() == "cached"
    images = torch.randn(2, 3, 12, 8, generator=torch.Generator().manual_seed(1))
    got = load(name, device="cpu", dtype="float32")(images)
    wanted = from_state_dict(state, record.family, heads=record.architecture["heads"])(images)
    torch.testing.assert_close(got.feature_map, wanted.feature_map, rtol=0, atol=0)
    torch.testing.assert_close(got.global_repr, wanted.global_repr, rtol=0, atol=0)


def test_repositories_are_named_only_where_their_layout_is_read() -> None:
    named = {record.family for record in RECORDS if record.hf_repo}
    assert named == {"dinov2", "dinov2_reg", "dinov3", "dino", "msn", "clip", "open_clip", "sam"}


# --- docs/encoders.md

DOCS = Path(__file__).parent.parent.parent / "docs" / "encoders.md"
BEGIN, END = "<!-- table of checkpoints: written by tests/encoders/test_catalogue.py -->\n", "<!-- end of the table -->"


def markdown_table() -> str:
    """All records as docs/encoders.md shows them."""
    lines = [
        "| name | family | parameters | dim | patch | classification, dense px | k-NN | linear | licence | weights | notes |",
        "|---|---|--:|--:|--:|---|--:|--:|---|---|---|",
    ]
    for record in catalogue.search():
        p = record.preprocessing
        licence = record.licence + (" (non-commercial)" if record.non_commercial else "")
        weights = f"[{record.filename}]({record.url})" if record.url else "bundled"
        digest = "SHA-256" if record.sha256 else "MD5" if record.md5 else ""
        trust = f"{digest} {record.digest_trust}" if digest else "no digest known"
        asked = "; gated" if record.gated else ""
        cells = (
            f"`{record.name}`",
            record.family,
            f"{record.parameters:,}",
            record.architecture["embed_dim"],
            record.architecture["patch_size"],
            f"{p.resize}→{p.crop}, {p.dense}",
            "–" if record.knn is None else f"{record.knn:.1f}",
            "–" if record.linear is None else f"{record.linear:.1f}",
            licence,
            f"{weights}; {trust}{asked}",
            record.notes,
        )
        lines.append(f"| {' | '.join(str(cell) for cell in cells)} |")
    return "\n".join(lines) + "\n"


def test_the_table_in_the_docs_is_in_step() -> None:
    before, begin, rest = DOCS.read_text().partition(BEGIN)
    table, end, after = rest.partition(END)
    assert begin and end
    if os.environ.get("FEWMATCH_TEST_WRITE_DOCS"):
        DOCS.write_text(before + begin + markdown_table() + end + after)
    else:
        assert table == markdown_table(), "run this test with FEWMATCH_TEST_WRITE_DOCS=1 to write it anew"


def test_the_docs_say_of_every_family_what_its_features_are() -> None:
    text = DOCS.read_text().partition(BEGIN)[0]
    assert [name for name in FAMILIES if f"`{name}`" not in text] == []
