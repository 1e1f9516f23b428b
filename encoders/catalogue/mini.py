"""The bundled encoder."""

from fewmatch.encoders.catalogue import Checkpoint
from fewmatch.encoders.preprocessing import Preprocessing

RECORDS = (
    Checkpoint(
        name="mini",
        family="dinov2_reg",
        filename="mini.safetensors",
        preprocessing=Preprocessing(resize=128, crop=128, dense=128),
        architecture={"embed_dim": 256, "depth": 8, "heads": 4, "patch_size": 8, "registers": 4, "position_grid": 8},
        licence="Apache-2.0",
        source="encoders/weights/MODEL_CARD.md",
        sha256="1f8a37fd5aa884bf6f0215d799d83e1dea0a08b9472dcae1041f0fe5b357394b",
        digest_trust="published",
        bytes=12_790_944,
        parameters=6_390_016,
        bundled=True,
        notes="trained by this project on Tiny-ImageNet; for demos, tests, teaching and machines without network",
    ),
)
