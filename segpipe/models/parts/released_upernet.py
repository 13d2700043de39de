"""UPerNet's weights as transformers released them, on Swin and ConvNeXt, under the names of `upernet.py`.

Of the Swin Transformer, transformers keeps queries, keys and values apart, which torchvision has in one layer; of
ConvNeXt it has the scale of a layer as a vector.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor
from torchvision.models.swin_transformer import ShiftedWindowAttention

from segpipe.errors import InputError

# Theirs and ours; a stage of torchvision's `features` is every second of its parts, with what goes before it between.
PLACES = (
    (r"^decode_head\.psp_modules\.(\d)\.1\.", "decoder.pooling.features.{}.", 1, 0),
    (r"^decode_head\.lateral_convs\.(\d)\.", "decoder.laterals.{}.", 1, 0),
    (r"^decode_head\.fpn_convs\.(\d)\.", "decoder.levels.{}.", 1, 0),
    (r"^auxiliary_head\.convs\.(\d)\.", "aux_classifier.{}.", 1, 0),
    (r"^backbone\.encoder\.layers\.(\d)\.blocks\.", "backbone.{}.", 2, 1),
    (r"^backbone\.encoder\.layers\.(\d)\.downsample\.", "backbone.{}.", 2, 2),
    (r"^backbone\.encoder\.stages\.(\d)\.layers\.", "backbone.{}.", 2, 1),
    (r"^backbone\.encoder\.stages\.(\d)\.downsampling_layer\.", "backbone.{}.", 2, 0),
    (r"^backbone\.hidden_states_norms\.stage(\d)\.", "backbone.norms.{}.", 1, -1),
)
PARTS = {
    "decode_head.bottleneck.": "decoder.bottleneck.",
    "decode_head.fpn_bottleneck.": "decoder.fusion.",
    "decode_head.classifier.": "classifier.1.",
    "auxiliary_head.classifier.": "aux_classifier.2.",
    ".conv.": ".0.",
    ".batch_norm.": ".1.",
    "backbone.embeddings.patch_embeddings.projection.": "backbone.0.0.",
    "backbone.embeddings.patch_embeddings.": "backbone.0.0.",
    "backbone.embeddings.norm.": "backbone.0.2.",
    "backbone.embeddings.layernorm.": "backbone.0.1.",
    ".attention.self.query.": ".attn.qkv.",
    ".attention.self.relative": ".attn.relative",
    ".attention.output.dense.": ".attn.proj.",
    ".layernorm_before.": ".norm1.",
    ".layernorm_after.": ".norm2.",
    ".intermediate.dense.": ".mlp.0.",
    ".output.dense.": ".mlp.3.",
    ".dwconv.": ".block.0.",
    ".layernorm.": ".block.2.",
    ".pwconv1.": ".block.3.",
    ".pwconv2.": ".block.5.",
    ".layer_scale_parameter": ".layer_scale",
}
# Of the classifier alone, or merged into what stands before them, or the same in every network.
LEFT_OUT = ("backbone.swin.", ".attention.self.key.", ".attention.self.value.", ".relative_position_index")


def from_transformers(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """transformers' tensors under our names; anything else as it is. Raises InputError on queries without keys."""
    if not any(key.startswith("decode_head.") for key in state_dict):
        return dict(state_dict)
    swin = any(".relative_position_bias_table" in key for key in state_dict)
    adapted: dict[str, Tensor] = {}
    for key, value in state_dict.items():
        if any(part in key for part in LEFT_OUT):
            continue
        name = _named(key)
        if swin and name.startswith("backbone.norms."):
            name = re.sub(r"(norms\.\d\.)", r"\g<1>0.", name)  # followed by a permutation
        if ".attention.self.query." in key:
            value = torch.cat([value, *(_beside(state_dict, key, part) for part in ("key", "value"))])
        elif key.endswith("layer_scale_parameter"):
            value = value[:, None, None]
        elif key.endswith("relative_position_bias_table"):
            window = int(len(value) ** 0.5 + 1) // 2
            attention = ShiftedWindowAttention(value.shape[1], [window, window], [0, 0], value.shape[1])
            adapted[name.replace("bias_table", "index")] = attention.relative_position_index
        adapted[name] = value
    return adapted


def _named(key: str) -> str:
    for pattern, ours, factor, more in PLACES:
        if (found := re.match(pattern, key)) is not None:
            key = ours.format(factor * int(found[1]) + more) + key[found.end() :]
            break
    for theirs, ours in PARTS.items():
        key = key.replace(theirs, ours)
    return key


def _beside(state_dict: Mapping[str, Tensor], query: str, part: str) -> Tensor:
    key = query.replace(".query.", f".{part}.")
    if key not in state_dict:
        raise InputError(f"pretrained: {query} has no {part} beside it; expected a file as transformers saves it")
    return state_dict[key]
