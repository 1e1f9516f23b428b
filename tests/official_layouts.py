"""Names and shapes of the entries in every family's official files at full size, written out from reference/encoders.md.

Only what belongs to the image encoder, together with the entries that a loader has to ignore; without values, so that seven billion
parameters cost nothing. `layout` gives a state dict of them on the meta device.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from fewmatch.encoders.families import anchors
from fewmatch.encoders.weights.checkpoint import find_networks

Shape = tuple[int, ...]
Entries = Iterator[tuple[str, Shape]]


def _affine(name: str, *shape: int) -> Entries:
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[:1]


def _mlp(name: str, dim: int, hidden: int, one: str = "fc1", two: str = "fc2") -> Entries:
    yield from _affine(f"{name}.{one}", hidden, dim)
    yield from _affine(f"{name}.{two}", dim, hidden)


def _block(name: str, dim: int, hidden: int, one: str = "fc1", two: str = "fc2") -> Entries:
    yield from _affine(f"{name}.norm1", dim)
    yield from _affine(f"{name}.attn.qkv", 3 * dim, dim)
    yield from _affine(f"{name}.attn.proj", dim, dim)
    yield from _affine(f"{name}.norm2", dim)
    yield from _mlp(f"{name}.mlp", dim, hidden, one, two)


def _dino_style(a: Mapping[str, Any], hidden: int | None = None) -> Entries:
    """Section 2: DINO, iBOT, MSN, Mugs and the MAE encoder."""
    dim = a["embed_dim"]
    yield "cls_token", (1, 1, dim)
    yield "pos_embed", (1, 1 + a["position_grid"] ** 2, dim)
    yield from _affine("patch_embed.proj", dim, 3, a["patch_size"], a["patch_size"])
    for i in range(a["depth"]):
        yield from _block(f"blocks.{i}", dim, hidden or 4 * dim)
    yield from _affine("norm", dim)


def _mugs(a: Mapping[str, Any]) -> Entries:
    yield from _dino_style(a)
    yield from _block("relation_blocks.0", a["embed_dim"], 4 * a["embed_dim"])


def _msn(a: Mapping[str, Any]) -> Entries:
    for key, shape in _dino_style(a):
        yield f"module.{key}", shape
    yield from _affine("module.fc.fc1", 1024, a["embed_dim"])


def _dinov2(a: Mapping[str, Any]) -> Entries:
    dim = a["embed_dim"]
    for key, shape in _dino_style(a):
        if ".mlp." not in key or a["ffn"] == "mlp":
            yield key, shape
    for i in range(a["depth"]):
        yield f"blocks.{i}.ls1.gamma", (dim,)
        yield f"blocks.{i}.ls2.gamma", (dim,)
        if a["ffn"] == "swiglu":
            hidden = (int(4 * dim * 2 / 3) + 7) // 8 * 8
            yield from _affine(f"blocks.{i}.mlp.w12", 2 * hidden, dim)
            yield from _affine(f"blocks.{i}.mlp.w3", dim, hidden)
    yield "mask_token", (1, dim)
    if a["registers"]:
        yield "register_tokens", (1, a["registers"], dim)


def _dinov3(a: Mapping[str, Any]) -> Entries:
    dim, heads = a["embed_dim"], a["heads"]
    biased = dim != 4096
    yield "cls_token", (1, 1, dim)
    yield "storage_tokens", (1, 4, dim)
    yield "mask_token", (1, dim)
    yield from _affine("patch_embed.proj", dim, 3, 16, 16)
    yield "rope_embed.periods", (dim // heads // 4,)
    for i in range(a["depth"]):
        for key, shape in _block(f"blocks.{i}", dim, a["hidden_dim"]):
            if key.endswith("qkv.bias") and not biased:
                continue
            if ".mlp." not in key or a["ffn"] == "mlp":
                yield key, shape
        if biased:
            yield f"blocks.{i}.attn.qkv.bias_mask", (3 * dim,)
        yield f"blocks.{i}.ls1.gamma", (dim,)
        yield f"blocks.{i}.ls2.gamma", (dim,)
        if a["ffn"] == "swiglu":
            yield from _affine(f"blocks.{i}.mlp.w1", a["hidden_dim"], dim)
            yield from _affine(f"blocks.{i}.mlp.w2", a["hidden_dim"], dim)
            yield from _affine(f"blocks.{i}.mlp.w3", dim, a["hidden_dim"])
    yield from _affine("norm", dim)


def _capi(a: Mapping[str, Any]) -> Entries:
    dim = a["embed_dim"]
    yield "backbone.mask_token", (1, dim)
    yield "backbone.registers", (1, 16, dim)
    yield from _affine("backbone.patch_embed", dim, 3, 14, 14)
    for part, depth in (("encoder", 24), ("decoder", 12)):
        for i in range(depth):
            name = f"backbone.{part}.blocks.{i}"
            yield f"{name}.residual1.norm.weight", (dim,)
            for projection in ("q_proj", "k_proj", "v_proj", "proj"):
                yield f"{name}.residual1.fn.{projection}.weight", (dim, dim)
            yield f"{name}.residual1.fn.rope.freqs", (2, dim // a["heads"])
            yield f"{name}.residual2.norm.weight", (dim,)
            yield f"{name}.residual2.fn.fc1.weight", (4 * dim, dim)
            yield f"{name}.residual2.fn.fc2.weight", (dim, 4 * dim)


def _clip(a: Mapping[str, Any]) -> Entries:
    dim = a["embed_dim"]
    yield "visual.class_embedding", (dim,)
    yield "visual.positional_embedding", (1 + a["position_grid"] ** 2, dim)
    yield "visual.proj", (dim, a["projection_dim"])
    yield "visual.conv1.weight", (dim, 3, a["patch_size"], a["patch_size"])
    for name in ("ln_pre", "ln_post"):
        yield from _affine(f"visual.{name}", dim)
    for i in range(a["depth"]):
        name = f"visual.transformer.resblocks.{i}"
        yield f"{name}.attn.in_proj_weight", (3 * dim, dim)
        yield f"{name}.attn.in_proj_bias", (3 * dim,)
        yield from _affine(f"{name}.attn.out_proj", dim, dim)
        yield from _affine(f"{name}.ln_1", dim)
        yield from _mlp(f"{name}.mlp", dim, a.get("hidden_dim", 4 * dim), "c_fc", "c_proj")
        yield from _affine(f"{name}.ln_2", dim)
    yield "token_embedding.weight", (49408, 512)
    yield "logit_scale", ()


def _openai_clip(a: Mapping[str, Any]) -> Entries:
    yield from _clip(a)
    yield "input_resolution", ()


def _eva_clip(a: Mapping[str, Any]) -> Entries:
    dim = a["embed_dim"]
    for key, shape in _dino_style(a, a["hidden_dim"]):
        if key.endswith("qkv.bias"):
            yield f"visual.{key.removesuffix('qkv.bias')}q_bias", (dim,)
            yield f"visual.{key.removesuffix('qkv.bias')}v_bias", (dim,)
        else:
            yield f"visual.{key}", shape
    yield from _affine("visual.head", a["projection_dim"], dim)
    yield "text.logit_scale", ()


def _swag(a: Mapping[str, Any]) -> Entries:
    """Section 11, as torchvision's files of the frozen trunks with a linear head have it."""
    dim = a["embed_dim"]
    yield "class_token", (1, 1, dim)
    yield from _affine("conv_proj", dim, 3, a["patch_size"], a["patch_size"])
    yield "encoder.pos_embedding", (1, 1 + a["position_grid"] ** 2, dim)
    for i in range(a["depth"]):
        name = f"encoder.layers.encoder_layer_{i}"
        yield from _affine(f"{name}.ln_1", dim)
        yield f"{name}.self_attention.in_proj_weight", (3 * dim, dim)
        yield f"{name}.self_attention.in_proj_bias", (3 * dim,)
        yield from _affine(f"{name}.self_attention.out_proj", dim, dim)
        yield from _affine(f"{name}.ln_2", dim)
        yield from _mlp(f"{name}.mlp", dim, 4 * dim, "0", "3")
    yield from _affine("encoder.ln", dim)
    yield from _affine("heads.head", 1000, dim)


def _beit(a: Mapping[str, Any]) -> Entries:
    dim, side = a["embed_dim"], a["position_grid"]
    for key, shape in _dino_style(a):
        if key.endswith("qkv.bias"):
            yield key.replace("qkv.bias", "q_bias"), (dim,)
            yield key.replace("qkv.bias", "v_bias"), (dim,)
        elif key != "pos_embed":
            yield key, shape
    for i in range(a["depth"]):
        yield f"blocks.{i}.gamma_1", (dim,)
        yield f"blocks.{i}.gamma_2", (dim,)
    yield "rel_pos_bias.relative_position_bias_table", ((2 * side - 1) ** 2 + 3, a["heads"])
    yield "rel_pos_bias.relative_position_index", (side**2 + 1, side**2 + 1)
    yield "mask_token", (1, 1, dim)
    yield from _affine("lm_head", 8192, dim)


def _data2vec2(a: Mapping[str, Any]) -> Entries:
    dim, image = a["embed_dim"], "modality_encoders.IMAGE"
    yield f"{image}.extra_tokens", (1, 1, dim)
    yield f"{image}.fixed_positional_encoder.positions", (1, a["position_grid"] ** 2, dim)
    yield from _affine(f"{image}.local_encoder.proj", dim, 3, a["patch_size"], a["patch_size"])
    yield from _affine(f"{image}.context_encoder.norm", dim)
    for i in range(a["depth"]):
        yield from _block(f"blocks.{i}", dim, 4 * dim)
    yield from _affine(f"{image}.decoder.proj", dim, 384)


def _esvit(a: Mapping[str, Any]) -> Entries:
    dims = [a["embed_dim"] // 8 * 2**stage for stage in range(4)]
    yield from _affine("module.patch_embed.proj", dims[0], 3, 4, 4)
    yield from _affine("module.patch_embed.norm", dims[0])
    for stage, (dim, depth, heads) in enumerate(zip(dims, a["depths"], a["heads"], strict=True)):
        window = min(a["window"], 56 // 2**stage)
        for i in range(depth):
            name = f"module.layers.{stage}.blocks.{i}"
            yield from _block(name, dim, 4 * dim)
            yield f"{name}.attn.relative_position_bias_table", ((2 * window - 1) ** 2, heads)
            yield f"{name}.attn.relative_position_index", (window**2, window**2)
        if stage < 3:
            yield from _affine(f"module.layers.{stage}.downsample.norm", 4 * dim)
            yield f"module.layers.{stage}.downsample.reduction.weight", (2 * dim, 4 * dim)
    yield from _affine("module.norm", dims[-1])
    yield from _affine("module.head.mlp.0", 2048, dims[-1])
    yield from _affine("module.head_dense.mlp.0", 2048, dims[-1])


def _norm2d(name: str, dim: int) -> Entries:
    yield from _affine(name, dim)
    yield f"{name}.running_mean", (dim,)
    yield f"{name}.running_var", (dim,)
    yield f"{name}.num_batches_tracked", ()


def _seer(a: Mapping[str, Any]) -> Entries:
    trunk, before = "_feature_blocks", 32
    yield f"{trunk}.conv1.stem.0.weight", (before, 3, 3, 3)
    yield from _norm2d(f"{trunk}.conv1.stem.1", before)
    for stage, (width, depth) in enumerate(zip(a["widths"], a["depths"], strict=True)):
        for j in range(depth):
            name = f"{trunk}.res{stage + 2}.block{stage + 1}-{j}"
            if j == 0:
                yield f"{name}.proj.weight", (width, before, 1, 1)
                yield from _norm2d(f"{name}.bn", width)
            # The squeeze has a quarter of the channels that enter the block.
            squeeze = round(before / 4)
            yield f"{name}.f.a.0.weight", (width, before, 1, 1)
            yield from _norm2d(f"{name}.f.a.1", width)
            yield f"{name}.f.b.0.weight", (width, a["group_width"], 3, 3)
            yield from _norm2d(f"{name}.f.b.1", width)
            yield f"{name}.f.se.excitation.0.weight", (squeeze, width, 1, 1)
            yield f"{name}.f.se.excitation.0.bias", (squeeze,)
            yield f"{name}.f.se.excitation.2.weight", (width, squeeze, 1, 1)
            yield f"{name}.f.se.excitation.2.bias", (width,)
            yield f"{name}.f.c.weight", (width, width, 1, 1)
            yield from _norm2d(f"{name}.f.final_bn", width)
            before = width


def _sam(a: Mapping[str, Any]) -> Entries:
    dim, depth = a["width"], a["depth"]
    yield "image_encoder.pos_embed", (1, 64, 64, dim)
    yield from _affine("image_encoder.patch_embed.proj", dim, 3, 16, 16)
    for i in range(depth):
        name = f"image_encoder.blocks.{i}"
        reach = 127 if (i + 1) % (depth // 4) == 0 else 27
        yield from _block(name, dim, 4 * dim, "lin1", "lin2")
        yield f"{name}.attn.rel_pos_h", (reach, dim // a["heads"])
        yield f"{name}.attn.rel_pos_w", (reach, dim // a["heads"])
    yield "image_encoder.neck.0.weight", (256, dim, 1, 1)
    yield from _affine("image_encoder.neck.1", 256)
    yield "image_encoder.neck.2.weight", (256, 256, 3, 3)
    yield from _affine("image_encoder.neck.3", 256)
    yield "prompt_encoder.no_mask_embed.weight", (1, 256)
    yield "mask_decoder.iou_token.weight", (1, 256)


_LAYOUTS = {
    "dino": _dino_style,
    "ibot": _dino_style,
    "mugs": _mugs,
    "msn": _msn,
    "mae": _dino_style,
    "dinov2": _dinov2,
    "dinov2_reg": _dinov2,
    "dinov3": _dinov3,
    "capi": _capi,
    "clip": _openai_clip,
    "open_clip": _clip,
    "eva_clip": _eva_clip,
    "swag": _swag,
    "beit": _beit,
    "data2vec2": _data2vec2,
    "esvit": _esvit,
    "seer": _seer,
    "sam": _sam,
}


def network_of(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The entries of the one network in a state dict, without what stands in front of them."""
    (network,) = find_networks(state, anchors())
    return network.entries


def layout(family: str, architecture: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The official state dict of a checkpoint, on the meta device. Indices and counters are int64, the rest float32."""
    whole = ("relative_position_index", "num_batches_tracked")
    return {
        key: torch.empty(shape, device="meta", dtype=torch.int64 if key.endswith(whole) else torch.float32)
        for key, shape in _LAYOUTS[family](architecture)
    }


State = dict[str, torch.Tensor]


def hugging_face_vit(state: State, prefix: str = "") -> State:
    """The plain layout under the names of `ViTModel`."""
    names = {
        "cls_token": "embeddings.cls_token",
        "pos_embed": "embeddings.position_embeddings",
        "patch_embed.proj": "embeddings.patch_embeddings.projection",
        "norm": "layernorm",
    }
    inside = {
        "norm1": "layernorm_before",
        "norm2": "layernorm_after",
        "attn.proj": "attention.output.dense",
        "mlp.fc1": "intermediate.dense",
        "mlp.fc2": "output.dense",
    }
    out = {}
    for key, value in state.items():
        stem, _, end = key.rpartition(".") if key.endswith((".weight", ".bias")) else (key, "", "")
        if stem.startswith("blocks."):
            _, number, part = stem.split(".", 2)
            if part == "attn.qkv":
                for name, third in zip(("query", "key", "value"), value.chunk(3), strict=True):
                    out[f"{prefix}encoder.layer.{number}.attention.attention.{name}.{end}"] = third
                continue
            name = f"encoder.layer.{number}.{inside[part]}"
        else:
            name = names[stem]
        out[f"{prefix}{name}.{end}" if end else prefix + name] = value
    return out


def hugging_face_clip(state: State) -> State:
    out = {"logit_scale": torch.zeros(()), "text_model.final_layer_norm.bias": torch.zeros(4)}
    inside = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn.out_proj": "self_attn.out_proj", "mlp.c_fc": "mlp.fc1",
              "mlp.c_proj": "mlp.fc2"}  # fmt: skip
    for key, value in state.items():
        match = re.fullmatch(r"visual\.transformer\.resblocks\.(\d+)\.(.*?)[._](weight|bias)", key)
        if match and match[2] == "attn.in_proj":
            for name, third in zip("qkv", value.chunk(3), strict=True):
                out[f"vision_model.encoder.layers.{match[1]}.self_attn.{name}_proj.{match[3]}"] = third
        elif match:
            out[f"vision_model.encoder.layers.{match[1]}.{inside[match[2]]}.{match[3]}"] = value
    embeddings = "vision_model.embeddings"
    out[f"{embeddings}.class_embedding"] = state["visual.class_embedding"]
    out[f"{embeddings}.position_embedding.weight"] = state["visual.positional_embedding"]
    out[f"{embeddings}.position_ids"] = torch.arange(10)[None]
    out[f"{embeddings}.patch_embedding.weight"] = state["visual.conv1.weight"]
    out["visual_projection.weight"] = state["visual.proj"].T.contiguous()
    for name, other in (("ln_pre", "pre_layrnorm"), ("ln_post", "post_layernorm")):
        for end in ("weight", "bias"):
            out[f"vision_model.{other}.{end}"] = state[f"visual.{name}.{end}"]
    return out
