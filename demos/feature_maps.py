"""Feature maps in a page: what looks alike to an encoder has one colour, across all pictures.

python demos/feature_maps.py IMAGE… FIGURE.png
"""

from __future__ import annotations

import sys
from pathlib import Path

import fewmatch


def main(images: list[Path], figure: Path) -> None:
    encoder = fewmatch.load("mini")  # or "dinov2_vits14", once its weights are on this machine
    store = fewmatch.encode_images(images, encoder, keep="patches", size=256)  # kept in the cache
    frames = [store.frame(i) for i in range(len(store))]
    print(f"{len(store)} images, {sum(rows * columns for rows, columns in (f.grid for f in frames))} patches")

    # One basis for all pictures; maps are read one at a time, so there may be thousands.
    # This small encoder says much of the image as a whole and of the place in it: that is taken out.
    basis = fewmatch.PatchPCA.fit(store.feature_map, frames, center="image+position")
    print("components 1 to 3 hold", ", ".join(f"{100 * share:.0f} %" for share in basis.explained), "of the variance")

    # The subject alone, where the pictures show one kind of thing: foreground=True. To colour other pictures the same: save and load.
    basis.save(figure.with_suffix(".npz"))
    again = fewmatch.PatchPCA.load(figure.with_suffix(".npz"))

    shown = [
        fewmatch.MappedImage(
            image=fewmatch.read_image(Path(row["root"]) / row["path"]).rgb,
            colours=again.colours(store.feature_map(i), frames[i]),
            frame=frames[i],
            name=row["path"],
        )
        for i, row in enumerate(store.images)
    ]
    print(f"wrote {fewmatch.save_figure(fewmatch.feature_map_figure(shown), figure)}")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main([Path(name) for name in sys.argv[1:-1]], Path(sys.argv[-1]))
