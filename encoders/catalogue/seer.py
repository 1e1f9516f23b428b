"""SEER (Goyal et al. 2021, 2022), as released by Meta: RegNetY trained on uncurated images."""

from fewmatch.encoders.catalogue import Checkpoint
from fewmatch.encoders.preprocessing import Preprocessing

_SWAV = "swav_ig1b_"


def _record(
    size: str,
    path: str,
    widths: tuple[int, ...],
    depths: tuple[int, ...],
    group_width: int,
    parameters: int,
    notes: str,
    linear: float | None = None,
) -> Checkpoint:
    name = f"seer_regnety{size}"
    return Checkpoint(
        name=name,
        family="seer",
        # Several released files have the same name; in a cache each needs its own.
        filename=f"{name}.torch",
        url=f"https://dl.fbaipublicfiles.com/vissl/model_zoo/{path}",
        preprocessing=Preprocessing(resize=256, crop=224, dense=224),
        architecture={
            "embed_dim": widths[-1],
            "widths": widths,
            "depths": depths,
            "group_width": group_width,
            "heads": 0,
            "patch_size": 32,
        },
        licence="Meta SEER",
        non_commercial=True,
        source="facebookresearch/vissl @ 09270ed, model zoo" + ("; DINOv2 paper, table 4 (linear)" if linear else ""),
        parameters=parameters,
        linear=linear,
        notes="a training checkpoint, larger than the network; " + notes,
    )


RECORDS = (
    _record(
        "32gf",
        "seer_regnet32d/seer_regnet32gf_model_iteration244000.torch",
        (232, 696, 1392, 3712),
        (2, 5, 12, 1),
        232,
        141_333_770,
        "published as 156 M parameters",
    ),
    _record(
        "64gf",
        "seer_regnet64/seer_regnet64gf_model_final_checkpoint_phase0.torch",
        (328, 984, 1968, 4920),
        (2, 5, 12, 1),
        328,
        276_457_786,
        "published as 250 M parameters",
    ),
    _record(
        "128gf",
        f"{_SWAV}regnet128Gf_cnstant_bs32_node16_sinkhorn10_proto16k_syncBN64_warmup8k/model_final_checkpoint_phase0.torch",
        (528, 1056, 2904, 7392),
        (2, 7, 17, 1),
        264,
        637_419_894,
        "published as 693 M parameters",
    ),
    _record(
        "256gf",
        f"{_SWAV}cosine_rg256gf_noBNhead_wd1e5_fairstore_bs16_node64_sinkhorn10_proto16k_apex_syncBN64_warmup8k"
        "/model_final_checkpoint_phase0.torch",
        (746, 1492, 4103, 10444),
        (2, 7, 17, 1),
        373,
        1_272_156_138,
        "published as 1.5 B parameters; widths computed from the configuration, others report that the file differs (unverified)",
    ),
    _record(
        "10b",
        "seer_regnet10B/model_iteration124500_conso.torch",
        (2020, 4040, 11110, 28280),
        (2, 7, 17, 1),
        1010,
        9_323_934_872,
        "published as 10 B parameters; the file has 36 to 40 GB",
        79.8,
    ),
)
