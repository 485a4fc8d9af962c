"""Step 3.5 and 3.7 Flash."""

from __future__ import annotations

from dataclasses import replace

from treadle.frontends.blocks import Decoder, ExpertsBlock, QueryKeyNorm, pre_norm
from treadle.frontends.config import Config
from treadle.frontends.families import common


def step(config: Config) -> Decoder:
    """Step Flash: windowed layers with more heads, a gate per head, experts after the first dense layers."""
    count = config.layers()
    config = replace(config, fields=_renamed(config))
    full = replace(common.attention(config, qk_norm=QueryKeyNorm.HEAD), gate=common.heads(config))
    wide = config.integer("num_sliding_attention_heads", default=_other_heads(config, full.heads))
    if wide % full.kv_heads:
        raise config.wrong("num_sliding_attention_heads", "not a multiple of the key-value heads", "a multiple")
    windowed = replace(full, heads=wide, gate=wide, window=common.window(config))
    types = common.layer_types(config, common.periodic(count, 4, "sliding_attention", "full_attention"))
    experts = ExpertsBlock(
        config.integer("n_routed_experts", "num_experts", "moe_num_experts"),
        config.integer("num_experts_per_tok", "moe_top_k"),
        config.integer("moe_intermediate_size"),
        shared_width=config.integer("share_expert_dim", "share_expert_dims"),
        router_bias=config.flag("use_moe_router_bias", default=True),
    )
    dense = common.dense(config)
    sparse = _sparse_layers(config, count)
    blocks = [
        pre_norm(windowed if kind == "sliding_attention" else full, experts if index in sparse else dense)
        for index, kind in enumerate(types)
    ]
    return common.decoder(config, blocks, predictors=common.predictors(config, pre_norm(full, dense)))


def _other_heads(config: Config, heads: int) -> int:
    if not config.has("attention_other_setting"):
        return heads
    return config.section("attention_other_setting").integer("num_attention_heads", default=heads, most=10**5)


def _renamed(config: Config) -> dict[str, object]:
    fields = dict(config.fields)
    if "num_attention_groups" in fields:
        fields.setdefault("num_key_value_heads", fields["num_attention_groups"])
    return fields


def _sparse_layers(config: Config, count: int) -> set[int]:
    if config.has("mlp_layer_types"):
        kinds = config.choices("mlp_layer_types", ("dense", "sparse"), count)
        return {index for index, kind in enumerate(kinds) if kind == "sparse"}
    if config.has("moe_layers_enum"):
        words = config.word("moe_layers_enum").split(",")
        if not all(word.strip().isdecimal() for word in words):
            raise config.wrong("moe_layers_enum", "not a list of layer numbers", "numbers such as `3,4,5`")
        return {int(word) for word in words}
    return set(range(config.integer("first_k_dense_replace", default=3, least=0), count))
