"""`fewmatch demo`: the main job from beginning to end, on pictures that come with the installed packages."""

from __future__ import annotations

import contextlib
import io
import json
import shlex
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fewmatch.cli import options, output

if TYPE_CHECKING:
    import numpy as np

    from fewmatch.cli.inputs.demo_pictures import Pictures
    from fewmatch.figures.page.report import Section

#: A folder with this file in it is ours to refresh.
MARKER = ".fewmatch-demo"
PAGE = "index.html"
_OURS = ("images", "features", "results")


def demo(
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Folder for pictures and results.")] = Path(
        "demo-output"
    ),
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Run the main job on real pictures with the bundled encoder, offline, and show the commands.

    Few-shot episodes on textures (as in the hands-on lab that this grew from) and handwritten digits, labels for new pictures, the
    picture of an episode, matches of a stereo pair, of two portraits and of a photo with a drawing, and feature maps. A page, index.html,
    shows all of it.
    """
    from fewmatch.cli.inputs.demo_pictures import write_pictures
    from fewmatch.figures.page.report import report_page
    from fewmatch.writing import write_atomically

    started = time.perf_counter()
    _clear(out)
    steps = _Steps(out, ["--quiet"] * quiet + ["--debug"] * debug)
    pictures = write_pictures(out / "images")
    print("Each step is a command that you can repeat.\n")
    sections = [
        _few_shot(steps, pictures),
        _labels(steps, pictures),
        _plane(steps),
        _stereo(steps, pictures),
        _portraits(steps, pictures),
        _drawing(steps, pictures),
        _maps(steps, pictures),
    ]
    page = report_page(
        "fewmatch: a demo",
        "Every result on this page was computed on this machine, by the commands shown, with the bundled encoder mini and without a "
        "network. The pictures come with the installed packages (scikit-image, scikit-learn, matplotlib).",
        sections,
    )
    write_atomically(out / PAGE, page.encode())
    print(f"All of it took {time.perf_counter() - started:.0f} s. To see it, open {output.printable(out / PAGE)}")


class _Steps:
    """Runs commands in this process, shows them, and remembers what they said."""

    def __init__(self, out: Path, flags: Sequence[str]) -> None:
        self.results = out / "results"
        self.features = out / "features"
        self._flags = flags
        self.said: list[tuple[str, str]] = []

    def run(self, *command: str | Path) -> None:
        """Show a command, run it, and print what it printed."""
        words = [str(word) for word in command]
        line = "fewmatch " + output.printable(shlex.join(words))
        print("$ " + line, flush=True)
        text = self._captured(words)
        print(text, flush=True)
        self.said.append((line, text.strip("\n")))

    def save_json(self, name: str, *command: str | Path) -> Path:
        """The same again for machines; nothing is encoded a second time."""
        path = self.results / name
        path.write_text(self._captured([*map(str, command), "--json"]))
        return path

    def say(self, lines: Sequence[str]) -> None:
        """Add lines to what the last command printed."""
        print(*lines, "", sep="\n", flush=True)
        command, text = self.said[-1]
        self.said[-1] = command, "\n".join([text, "", *lines])

    def section(self, title: str, text: str, pages: dict[str, str] | None = None, **figures: str) -> Section:
        """What was run since the last section. `pages` are words for links, `figures` descriptions, both by file name without ending."""
        from fewmatch.figures.page.report import Section

        commands, self.said = self.said, []
        links = [(f"{self.results.name}/{name}.html", words) for name, words in (pages or {}).items()]
        shown = [(f"{self.results.name}/{name}.png", description) for name, description in figures.items()]
        return Section(title, text, commands, shown, links)

    def _captured(self, words: list[str]) -> str:
        from fewmatch.cli.main import run

        text = io.StringIO()
        with contextlib.redirect_stdout(text):
            code = run([*words, *self._flags])
        if code:
            raise typer.Exit(code)
        return text.getvalue()


def _few_shot(steps: _Steps, pictures: Pictures) -> Section:
    ways = {"textures": "--ways 3 --center none,support", "digits": "--ways 5 --center none,support,support+query"}
    for name, folder in (("textures", pictures.textures), ("digits", pictures.digits)):
        steps.run("encode", folder, "-o", steps.features / name, "-e", "mini")
    for name, choices in ways.items():
        command: list[str | Path] = [
            "episodes",
            steps.features / name,
            *choices.split(),
            "--shots",
            "1,5",
            "--episodes",
            "2000",
        ]
        steps.run(*command)
        steps.save_json(f"episodes-{name}.json", *command)
    return steps.section(
        "Few-shot accuracy",
        "How good are one and five examples per class? 2,000 random tasks each, nearest class mean, with the 95 % interval.",
    )


def _labels(steps: _Steps, pictures: Pictures) -> Section:
    command: list[str | Path] = ["classify", "--support", steps.features / "digits", "--query", pictures.unlabelled]
    steps.run(*command, "--out", steps.results / "labels.csv", "--figure", steps.results / "labels.png")
    steps.save_json("labels.json", *command)
    return steps.section(
        "Labels for new pictures",
        "Twenty digits that were not among the examples; their file names tell what they show.",
        labels="The label and its probability under each picture, least certain first.",
    )


def _plane(steps: _Steps) -> Section:
    command: list[str | Path] = ["plane", steps.features / "digits", *["--ways", "3", "--shots", "5", "--queries", "6"]]
    steps.run(*command, "-o", steps.results / "plane.png")
    steps.save_json("plane.json", *command, "-o", steps.results / "plane.html")
    return steps.section(
        "The plane of an episode",
        "For three classes the span of the class means is a plane, and the decision in it is exactly the decision in all dimensions.",
        pages={
            "plane": "The same as a page (-o plane.html): every image at the pointer, other shots and centrings at a click."
        },
        plane="One task: supports, class means, queries, and the region of each class.",
    )


def _stereo(steps: _Steps, pictures: Pictures) -> Section:
    import skimage.data

    from fewmatch.encoders import read_image
    from fewmatch.matching import disparity_error, share_within, sift_matches

    xy_a, xy_b, patch = _match(steps, "stereo", pictures.stereo)
    left, right = (read_image(path).rgb for path in pictures.stereo)
    disparity = skimage.data.stereo_motorcycle()[2]
    lines = []
    for name, (a, b) in (("mini", (xy_a, xy_b)), ("SIFT", sift_matches(left, right))):
        share, known = share_within(disparity_error(a, b, disparity), patch)
        lines.append(
            f"{name}: {100 * share:.0f} % of {known:,} matches with known truth are within one patch ({patch:.0f} px)"
        )
    steps.say(lines)
    return steps.section(
        "Matches of a stereo pair",
        "Two views of one scene, whose true correspondences are known. SIFT, which was made for this, matches mutual nearest keypoints "
        "in the full pictures; mini sees them at 128 px.",
        stereo="Mutual nearest patches. A line has the colour of its place in the left picture.",
    )


def _portraits(steps: _Steps, pictures: Pictures) -> Section:
    _match(steps, "portraits", pictures.portraits)
    return steps.section(
        "Matches of two portraits",
        "Different people, light and background: what corresponds is what the parts mean. A small encoder finds some of it.",
        portraits="Mutual nearest patches of two portraits.",
    )


def _drawing(steps: _Steps, pictures: Pictures) -> Section:
    import numpy as np

    from fewmatch.encoders import read_image
    from fewmatch.matching import share_within, sift_matches

    pair = pictures.drawing
    xy_a, xy_b, patch = _match(steps, "drawing", pair)
    sift = sift_matches(*(read_image(path).rgb for path in pair))
    lines = []
    for name, (a, b) in (("mini", (xy_a, xy_b)), ("SIFT", sift)):
        share, count = share_within(np.hypot(*(a - b).T), patch)
        lines.append(f"{name}: {100 * share:.0f} % of {count:,} matches are within one patch ({patch:.0f} px)")
    steps.say(lines)
    return steps.section(
        "A photo and a drawing",
        "The drawing was made from the photo, so each point belongs to the point at the same place.",
        drawing="Mutual nearest patches of a photo and a pencil drawing of it.",
    )


def _match(steps: _Steps, name: str, pair: tuple[Path, Path]) -> tuple[np.ndarray, np.ndarray, float]:
    """Run `match`; the matched points in pixels of both pictures, and the side of a patch in pixels of the first."""
    import numpy as np

    command: list[str | Path] = ["match", *pair, "-e", "mini"]
    steps.run(*command, "-o", steps.results / f"{name}.png")
    found = json.loads(steps.save_json(f"{name}.json", *command).read_text())
    image, matches = found["images"][0], found["pairs"][0]["matches"]
    points = np.array([[m["xa"], m["ya"], m["xb"], m["yb"]] for m in matches]).reshape(-1, 4)
    return points[:, :2], points[:, 2:], image["height"] / image["grid"][0]


def _maps(steps: _Steps, pictures: Pictures) -> Section:
    command: list[str | Path] = ["pca", *pictures.photos, "-e", "mini"]
    steps.run(*command, "-o", steps.results / "pca.png")
    steps.save_json("pca.json", *command)
    return steps.section(
        "Feature maps",
        "The first three principal components of all patches of all pictures as red, green and blue: what has one colour looks alike "
        "to the encoder, also across pictures.",
        pca="Each picture and its feature map.",
    )


def _clear(out: Path) -> None:
    from fewmatch.errors import OutputExistsError

    if out.exists() and not (out / MARKER).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise OutputExistsError(f"{out} exists and is no demo's: choose another folder with -o")
    for name in _OURS:
        shutil.rmtree(out / name, ignore_errors=True)
    (out / PAGE).unlink(missing_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    (out / MARKER).touch()
    (out / "results").mkdir()
