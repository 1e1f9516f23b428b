"""Few-shot classification in a page: images to features, features to episodes, and labels for new images.

    python demos/few_shot.py FOLDER

FOLDER holds one folder of images per class, 20 images or more each.
"""

from __future__ import annotations

import sys
from pathlib import Path

import fewmatch


def main(folder: Path) -> None:
    encoder = fewmatch.load("mini")  # or "dinov2_vits14", once its weights are on this machine
    store = fewmatch.encode_images([folder], encoder)  # kept in the cache: the second run computes nothing
    features, labels = store.global_repr(), [label or "" for label in store.labels]
    print(f"{len(store)} images in {len(set(labels))} classes, {features.shape[1]} numbers each")

    # How good is nearest class mean with 1 and with 5 examples? Every centring sees the same episodes.
    ways = min(5, len(set(labels)))
    for shots in (1, 5):
        episodes = fewmatch.sample_episodes(labels, ways=ways, shots=shots, queries=10, episodes=2000, seed=0)
        for center in ("none", "support", "support+query"):
            report = fewmatch.evaluate(features, labels, episodes, center=center)
            interval = f"{100 * report.accuracy:.1f} ± {100 * (report.ci95 or 0):.1f} %"
            print(f"{ways}-way {shots}-shot, centre {center:14} {interval}")

    # Five examples of each class label the rest.
    examples = [i for name in sorted(set(labels)) for i in [j for j, label in enumerate(labels) if label == name][:5]]
    rest = sorted(set(range(len(labels))) - set(examples))
    labeller = fewmatch.Labeller(features[examples], [labels[i] for i in examples])
    probabilities = labeller.probabilities(features[rest])
    right = [labeller.class_names[p.argmax()] == labels[i] for p, i in zip(probabilities, rest, strict=True)]
    print(f"from 5 examples a class, {sum(right)} of the other {len(rest)} images get the right label")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
