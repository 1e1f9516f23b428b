"""How fast encoders run: DINOv2 by fewmatch and by transformers on the same weights, the matrix product alone, and photos from disk.

    python benchmarks/encoder_speed.py
    python benchmarks/encoder_speed.py --parts encoders --models vitb14 --sizes 224 --batches 8

Weights are random, in the layouts of the real ones: speed does not depend on their values. Outputs that differ by more than rounding
end the run with exit code 1.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import safetensors.torch
import torch
from machine import add_numbers, machine, options_parser, parse_numbers, version
from numpy.typing import NDArray
from torch import Tensor

from fewmatch import encoders
from fewmatch.encoders.devices import batch_patches, choose_device, multiplies_bfloat16
from fewmatch.encoders.frame import resample
from fewmatch.encoders.images import decode_reduced, read_bytes
from fewmatch.encoders.store.plan import EncodingPlan, plan_encoding

#: Width, blocks, heads (Dosovitskiy et al. 2021; DINOv2 in patches of 14).
MODELS = {"vits14": (384, 12, 6), "vitb14": (768, 12, 12), "vitl14": (1024, 24, 16)}
PATCH = 14

#: The one size at which both have the same positions: elsewhere each resizes the table by another rule.
TABLE = 37 * PATCH

#: Largest difference to largest value, of what both give for the same pixels.
TOLERANCE = {"float32": 2e-5, "bfloat16": 5e-2}

OURS, THEIRS, PRODUCT = "fewmatch", "transformers", "the matrix product alone"
COMPILED = "fewmatch, compiled"

#: From normalised pixels (B, 3, H, W) to all tokens that stand for something: (B, 1 + patches, D), CLS first.
Forward = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Case:
    """One line of the table: a model at a size in pixels, a batch of images, and what it is computed in."""

    model: str
    size: int
    batch: int
    dtype: str


@dataclass
class Rates:
    """One entry per round: images/s of fewmatch, plain and compiled, and of transformers; FLOP/s of the matrix product."""

    ours: list[float] = field(default_factory=list)
    compiled: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)
    product: list[float] = field(default_factory=list)


def flops(width: int, depth: int, hidden: int, patches: int, patch: int = PATCH, others: int = 1) -> int:
    """Floating-point operations of one image through a vision transformer, a product and its sum being two.

    N = patches + others tokens (CLS, registers). A block has the projections q, k, v and out, 8·N·D²; queries on keys and weights on
    values, 4·N²·D; and a feed-forward layer of H, 4·N·D·H. The patches are embedded by 2·patches·3·patch²·D. Norms, activations, softmax
    and sums are not counted.
    """
    tokens = patches + others
    block = 8 * tokens * width**2 + 4 * tokens**2 * width + 4 * tokens * width * hidden
    return depth * block + 2 * patches * 3 * patch**2 * width


# The two encoders


def random_weights(model: str, seed: int) -> dict[str, Tensor]:
    """A state dict in the official layout, scaled so that activations neither vanish nor explode."""
    width, depth, _ = MODELS[model]
    generator = torch.Generator().manual_seed(seed)

    def around(center: float, *shape: int) -> Tensor:
        return center + 0.02 * torch.randn(shape, generator=generator)

    def matrix(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) / float(np.prod(shape[1:])) ** 0.5

    state = {
        "cls_token": around(0, 1, 1, width),
        "mask_token": around(0, 1, width),
        "pos_embed": around(0, 1, 1 + (TABLE // PATCH) ** 2, width),
        "patch_embed.proj.weight": matrix(width, 3, PATCH, PATCH),
        "patch_embed.proj.bias": around(0, width),
        "norm.weight": around(1, width),
        "norm.bias": around(0, width),
    }
    linear = {"attn.qkv": (3, 1), "attn.proj": (1, 1), "mlp.fc1": (4, 1), "mlp.fc2": (1, 4)}
    for block in (f"blocks.{index}." for index in range(depth)):
        for norm in ("norm1", "norm2"):
            state |= {f"{block}{norm}.weight": around(1, width), f"{block}{norm}.bias": around(0, width)}
        for layer, (rows, columns) in linear.items():
            state[f"{block}{layer}.weight"] = matrix(rows * width, columns * width)
            state[f"{block}{layer}.bias"] = around(0, rows * width)
        state |= {f"{block}{scale}.gamma": around(0.5, width) for scale in ("ls1", "ls2")}
    return state


def in_hugging_face_layout(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under the names, and with the split q, k, v, of the published `model.safetensors`."""
    rules = (
        (r"(cls_token|mask_token)", r"embeddings.\1"),
        (r"pos_embed", r"embeddings.position_embeddings"),
        (r"patch_embed\.proj\.(.*)", r"embeddings.patch_embeddings.projection.\1"),
        (r"norm\.(.*)", r"layernorm.\1"),
        (r"blocks\.(\d+)\.attn\.proj\.(.*)", r"encoder.layer.\1.attention.output.dense.\2"),
        (r"blocks\.(\d+)\.ls([12])\.gamma", r"encoder.layer.\1.layer_scale\2.lambda1"),
        (r"blocks\.(\d+)\.((?:norm|mlp).*)", r"encoder.layer.\1.\2"),
    )
    out: dict[str, Tensor] = {}
    for key, value in state.items():
        fused = re.fullmatch(r"blocks\.(\d+)\.attn\.qkv\.(.*)", key)
        if fused:
            for name, part in zip(("query", "key", "value"), value.chunk(3), strict=True):
                out[f"encoder.layer.{fused[1]}.attention.attention.{name}.{fused[2]}"] = part.clone()
            continue
        (name,) = (re.sub(rule, to, key) for rule, to in rules if re.fullmatch(rule, key))
        out[name] = value
    return out


def our_forward(model: str, state: dict[str, Tensor], dtype: str, device: torch.device, compiled: bool) -> Forward:
    encoder = encoders.from_state_dict(state, "dinov2", heads=MODELS[model][2], dtype=dtype, device=device)
    if compiled:
        encoder.compile()

    def forward(images: Tensor) -> Tensor:
        features = encoder(images)
        return torch.cat([features.global_repr[:, None], features.feature_map.flatten(1, 2)], dim=1)

    return forward


def their_forward(model: str, state: dict[str, Tensor], dtype: str, device: torch.device) -> Forward:
    """`Dinov2Model.from_pretrained` of a folder, with the attention that it chooses itself."""
    # Its usual build does not import beside a CPU build of torch, and nothing here needs it.
    sys.modules.setdefault("torchvision", None)  # type: ignore[arg-type]
    from transformers import Dinov2Config, Dinov2Model
    from transformers.utils import logging

    logging.disable_progress_bar()
    width, depth, heads = MODELS[model]
    with tempfile.TemporaryDirectory() as folder:
        Dinov2Config(
            hidden_size=width, num_hidden_layers=depth, num_attention_heads=heads, patch_size=PATCH, image_size=TABLE
        ).save_pretrained(folder)
        tensors = in_hugging_face_layout(state)
        safetensors.torch.save_file(tensors, f"{folder}/model.safetensors", metadata={"format": "pt"})
        network = Dinov2Model.from_pretrained(folder, dtype=getattr(torch, dtype), local_files_only=True)
    network = network.to(device).eval()

    @torch.inference_mode()
    def forward(images: Tensor) -> Tensor:
        tokens: Tensor = network(pixel_values=images).last_hidden_state
        return tokens

    return forward


def difference(a: Tensor, b: Tensor) -> float:
    """Largest difference to largest value; infinite where the shapes differ."""
    if a.shape != b.shape:
        return float("inf")
    return float((a.double() - b.double()).abs().max() / b.double().abs().max())


# Time


def per_second(work: Callable[[], object], seconds: float, device: torch.device) -> float:
    """Calls per second, over as many calls as take this long, but one at least."""

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    calls, started = 0, now()
    while True:
        work()
        calls += 1
        elapsed = now() - started
        if elapsed >= seconds:
            return calls / elapsed


def run_cases(
    cases: Sequence[Case], forwards: dict[str, Forward], options: argparse.Namespace, device: torch.device
) -> dict[Case, Rates]:
    """Cases of one model and dtype. All are run once per round, and the two encoders and the product one after the other, so that
    what else the machine does falls on all of them."""
    results = {case: Rates() for case in cases}
    dtype = getattr(torch, cases[0].dtype)
    native = cases[0].dtype == "float32" or multiplies_bfloat16(device)
    rounds, side = (options.rounds, options.matrix) if native else (min(options.rounds, 3), min(options.matrix, 1024))
    a, b, out = (torch.randn(side, side, device=device).to(dtype) for _ in range(3))
    generator = torch.Generator().manual_seed(options.seed)
    images = {case: torch.randn(case.batch, 3, case.size, case.size, generator=generator).to(device) for case in cases}
    # As in a linear layer: torch has a fast way to multiply bfloat16 in this layout on machines where it has none in the other.
    torch.mm(a, b.T, out=out)
    for case in cases:
        for forward in forwards.values():
            forward(images[case])
    for number in range(rounds):
        for case, rates in results.items():
            print(f"round {number + 1}: {case.model} {case.size} px × {case.batch}, {case.dtype}", file=sys.stderr)

            def product() -> None:
                torch.mm(a, b.T, out=out)

            rates.product.append(2 * side**3 * per_second(product, options.seconds, device))
            # Whoever runs first finds the caches as the matrix product left them: they take turns.
            for who in sorted(forwards, reverse=bool(number % 2)):
                forward, x = forwards[who], images[case]
                rate = case.batch * per_second(lambda run=forward, x=x: run(x), options.seconds, device)
                {OURS: rates.ours, COMPILED: rates.compiled, THEIRS: rates.theirs}[who].append(rate)
    return results


def run_encoders(options: argparse.Namespace, device: torch.device) -> tuple[dict[Case, Rates], int]:
    """The rates of all cases, and how many comparisons of outputs failed."""
    results: dict[Case, Rates] = {}
    failed = 0
    for model in options.models:
        state = random_weights(model, options.seed)
        pixels = torch.randn(1, 3, TABLE, TABLE, generator=torch.Generator().manual_seed(options.seed)).to(device)
        for dtype in options.dtypes:
            print(f"loading {model}, {dtype}", file=sys.stderr)
            forwards = {OURS: our_forward(model, state, dtype, device, compiled=False)}
            if options.compile:
                forwards[COMPILED] = our_forward(model, state, dtype, device, compiled=True)
            if version("transformers") is not None:
                forwards[THEIRS] = their_forward(model, state, dtype, device)
            for who in set(forwards) - {OURS}:
                unlike = difference(forwards[who](pixels), forwards[OURS](pixels))
                within = unlike <= TOLERANCE[dtype]
                failed += not within
                print(
                    f"{model}, {dtype}, {TABLE} px: largest difference of {who} to the largest value {unlike:.1e}, "
                    f"{'within' if within else 'ABOVE'} {TOLERANCE[dtype]:g}"
                )
            slow = dtype == "bfloat16" and not multiplies_bfloat16(device)
            batches, sizes = (
                (options.batches, options.sizes) if not slow else ([min(options.batches)], [min(options.sizes)])
            )
            cases = [Case(model, size, batch, dtype) for size in sizes for batch in batches]
            results |= run_cases(cases, forwards, options, device)
    return results, failed


# Photos


def write_photos(folder: Path, count: int, width: int, height: int, seed: int) -> None:
    """JPEG files with detail at every scale, as photos have: noise of 4, 16, 64, … pixels, the coarser the stronger."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        picture = np.full((height, width, 3), 128, np.float32)
        for level in range(1, 5):
            cells = rng.standard_normal((max(2, height >> 2 * level), max(2, width >> 2 * level), 3), np.float32)
            picture += 9 * level * cv2.resize(cells, (width, height), interpolation=cv2.INTER_CUBIC)
        done, data = cv2.imencode(".jpg", picture.clip(0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 90])
        assert done
        (folder / f"{number:05d}.jpg").write_bytes(data.tobytes())


def pixels_of(plan: EncodingPlan, path: Path) -> NDArray[np.uint8]:
    """What `encode_images` does with one file before the encoder has it."""
    data = read_bytes(path)
    hashlib.sha256(data).digest()
    decoded = decode_reduced(data, plan.reduction)
    frame = plan.frame(decoded.width, decoded.height)
    return resample(
        decoded.rgb,
        frame,
        plan.fill,
        reduction=decoded.reduction,
        overhang=decoded.overhang,
        interpolation=plan.preprocessing.interpolation,
    )


def encoded(encoder: encoders.FrozenEncoder, pixels: Iterable[NDArray[np.uint8]]) -> Tensor:
    """(N, D) in batches as `encode_images` has them."""
    stacked = torch.from_numpy(np.stack(list(pixels)))
    batch = -(-batch_patches(encoder) // int(np.prod(encoder.model.grid(*stacked.shape[1:3]))))
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (encoder.preprocessing.mean, encoder.preprocessing.std))
    vectors = []
    for part in stacked.split(batch):
        images = (part.to(encoder.device).permute(0, 3, 1, 2).float().div(255) - mean.to(encoder.device)) / std.to(
            encoder.device
        )
        vectors.append(encoder(images).global_repr.float().cpu())
    return torch.cat(vectors)


def run_photos(options: argparse.Namespace, device: torch.device) -> int:
    """Prints the table of photos from disk, and returns how many comparisons failed."""
    if options.encoder in MODELS:
        state, heads = random_weights(options.encoder, options.seed), MODELS[options.encoder][2]
        encoder = encoders.from_state_dict(state, "dinov2", name=options.encoder, heads=heads, device=device)
    else:
        encoder = encoders.load(options.encoder, device=device, dtype="float32")
    whole, decoding, encoding = [], [], []
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.threads) as pool:
        photos = Path(folder) / "photos"
        photos.mkdir()
        width, height = options.photo_size
        write_photos(photos, options.photos, width, height, options.seed)
        paths = sorted(photos.iterdir())
        plan = plan_encoding([photos], encoder, size=options.photo_input, fast_decode=options.fast_decode)
        few = [pixels_of(plan, path) for path in paths[:8]]
        encoded(encoder, few)
        for number in range(options.rounds):
            print(f"round {number + 1}: photos", file=sys.stderr)
            started = time.perf_counter()
            store = encoders.encode_images(
                [photos],
                encoder,
                out=Path(folder) / f"store{number}",
                size=options.photo_input,
                fast_decode=options.fast_decode,
                workers=options.threads,
            )
            between = time.perf_counter()
            pixels = list(pool.map(lambda path: pixels_of(plan, path), paths))
            prepared = time.perf_counter()
            vectors = encoded(encoder, pixels)
            ended = time.perf_counter()
            whole.append(between - started)
            decoding.append(prepared - between)
            encoding.append(ended - prepared)
        unlike = difference(torch.from_numpy(np.asarray(store.global_repr())), vectors)
        kilobytes = sum(path.stat().st_size for path in paths) / len(paths) / 1e3
    print(
        f"{options.photos} JPEG files of {width}×{height} px, {kilobytes:.0f} kB each; {options.encoder} at "
        f"{plan.preprocessing.crop} px, float32{', fast decode' * options.fast_decode}; {options.rounds} rounds, files in the system's cache\n"
    )
    print(f"{'':42}{'images/s':>10}{'from':>9}{'to':>9}")
    added = [a + b for a, b in zip(decoding, encoding, strict=True)]
    for name, seconds in (
        ("encode_images", whole),
        ("reading, decoding, resizing alone", decoding),
        ("encoding alone", encoding),
        ("one after the other, 1/(1/decode+1/encode)", added),
    ):
        rates = [options.photos / s for s in seconds]
        print(f"{name:42}{statistics.median(rates):10.1f}{min(rates):9.1f}{max(rates):9.1f}")
    shares = [b / a for a, b in zip(whole, added, strict=True)]
    print(
        f"\nencode_images to one after the other, of the same round: {statistics.median(shares):.0%} "
        f"({min(shares):.0%} to {max(shares):.0%})\n"
        f"largest difference of its features to those of encoding alone: {unlike:.1e}"
    )
    return int(not unlike <= TOLERANCE["float32"])


# The table


def print_table(results: dict[Case, Rates], device: torch.device) -> None:
    print(
        f"\n{'':40}{OURS:>10}{THEIRS:>14}{'ratio':>8}{'from':>8}{'to':>8}{'product':>10}{'share':>8}{'from':>6}{'to':>6}"
        f"{'theirs':>8}"
    )
    print(f"{'':40}{'images/s':>10}{'images/s':>14}{'':24}{'GFLOP/s':>10}")
    for case, rates in results.items():
        width, depth, _ = MODELS[case.model]
        work = flops(width, depth, 4 * width, (case.size // PATCH) ** 2)
        mark = " *" if case.dtype == "bfloat16" and not multiplies_bfloat16(device) else ""
        name = f"{case.model}, {case.size} px, batch {case.batch}, {case.dtype}{mark}"
        shares = [rate * work / product for rate, product in zip(rates.ours, rates.product, strict=True)]
        compared, theirs = f"{'–':>14}{'':24}", "–"
        if rates.theirs:
            ratios = [a / b for a, b in zip(rates.ours, rates.theirs, strict=True)]
            compared = f"{statistics.median(rates.theirs):14.2f}{statistics.median(ratios):7.2f}×{min(ratios):7.2f}×{max(ratios):7.2f}×"
            their_shares = [rate * work / product for rate, product in zip(rates.theirs, rates.product, strict=True)]
            theirs = f"{statistics.median(their_shares):.0%}"
        print(
            f"{name:40}{statistics.median(rates.ours):10.2f}{compared}{statistics.median(rates.product) / 1e9:10.1f}"
            f"{statistics.median(shares):8.0%}{min(shares):6.0%}{max(shares):6.0%}{theirs:>8}"
        )
        if rates.compiled:
            gains = [a / b for a, b in zip(rates.compiled, rates.ours, strict=True)]
            print(
                f"{'  ' + COMPILED:40}{statistics.median(rates.compiled):10.2f}, {statistics.median(gains):.2f}× "
                f"({min(gains):.2f}× to {max(gains):.2f}×) of {OURS} not compiled"
            )
    if version("transformers") is None:
        print(f"{THEIRS} is not installed: pip install --target DIR -c constraints.txt transformers; PYTHONPATH=DIR")
    print(
        "\nratio: fewmatch's images/s to those of transformers in the same round; the median of the rounds, the lowest and the highest.\n"
        f"product: {PRODUCT}, x·yᵀ of square matrices of this dtype, by torch, into memory that is there already.\n"
        "share: fewmatch's FLOP/s (see `flops`) to the product's of the same round; theirs: that of transformers, the median.\n"
        "compiled: to fewmatch without it in the same round; compiling is not counted.\n"
        "* bfloat16 is not multiplied natively here: three rounds at most, the smallest size and batch, products of 1024 at most."
    )


def parse() -> argparse.Namespace:
    parser = options_parser(__doc__)
    both = ["encoders", "photos"]
    parser.add_argument("--parts", nargs="+", choices=both, default=both, help="what to run")
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=["vits14"], help="sizes of DINOv2")
    parser.add_argument("--dtypes", nargs="+", choices=list(TOLERANCE), default=list(TOLERANCE), help="to compute in")
    parser.add_argument("--sizes", nargs="+", type=int, default=[224, TABLE], help="sides of the images in pixels")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8], help="images at once")
    parser.add_argument("--photo-size", nargs=2, type=int, default=[640, 480], help="width and height of a photo")
    parser.add_argument(
        "--encoder", default="mini", help="of the photos: a name, or one of --models with random weights"
    )
    parser.add_argument("--compile", action="store_true", help="fewmatch by torch.compile as well")
    parser.add_argument(
        "--fast-decode", action="store_true", help="photos at a part of their size, as with --fast-decode"
    )
    parser.add_argument("--device", default="cpu", help="of the encoders")
    numbers = (
        ("--photos", 200, "files on disk"),
        ("--photo-input", 128, "side of the crop that the photos' encoder gets"),
        ("--matrix", 4096, "side of the matrices of the product"),
        ("--rounds", 5, "times that every row runs"),
        ("--seconds", 1.0, "that one measurement takes at least"),
        ("--seed", 0, "of weights and images"),
        ("--threads", os.cpu_count() or 1, "for every row"),
    )
    add_numbers(parser, numbers)
    options = parse_numbers(parser, ("photos", "matrix", "rounds", "threads", "photo_input"))
    if min(options.batches) < 1:
        parser.error(f"expected --batches of 1 or more, got {min(options.batches)}")
    for size in options.sizes:
        if size < PATCH or size % PATCH:
            parser.error(f"expected --sizes that are multiples of the patch size {PATCH}, got {size}")
    return options


def main() -> int:
    options = parse()
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    device = choose_device(options.device)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    native = "multiplies" if multiplies_bfloat16(device) else "does not multiply"
    print(machine(options.threads, "opencv-python", "transformers"))
    print(f"encoders on {where}, which {native} bfloat16 natively\n")
    failed = 0
    if "encoders" in options.parts:
        results, failed = run_encoders(options, device)
        print_table(results, device)
    if "photos" in options.parts:
        print()
        failed += run_photos(options, device)
    if failed:
        print(f"\n{failed} comparisons of outputs failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
