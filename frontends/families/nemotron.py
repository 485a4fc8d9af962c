"""Nemotron-4 and the Nemotron-H hybrids (Nemotron Nano 2, Nemotron 3)."""

from __future__ import annotations

from treadle.frontends.blocks import (
    Block,
    Branch,
    Decoder,
    DenseBlock,
    ExpertsBlock,
    Norm,
    StateSpaceBlock,
    Sublayer,
    pre_norm,
)
from treadle.frontends.config import MOST_LAYERS, Config
from treadle.frontends.families import common

_WORDS = {
    "mamba": "M", "attention": "*", "mlp": "-", "moe": "E", "linear_attention": "M", "full_attention": "*",
}  # fmt: skip


def nemotron(config: Config) -> Decoder:
    """Nemotron-4 and Minitron: layer norm, squared ReLU without a gate."""
    biased = config.flag("attention_bias")
    mixer = common.attention(config, qkv_bias=biased, output_bias=biased)
    dense = common.dense(config, gated=False, bias=config.flag("mlp_bias"))
    return common.decoder(config, [pre_norm(mixer, dense)] * config.layers(), norm=Norm.LAYER)


def nemotron_h(config: Config) -> Decoder:
    """Nemotron-H: one sublayer per layer, chosen by letter: M mamba, * attention, - feed-forward, E experts."""
    pattern = _pattern(config)
    kinds = {letter: _branch(config, letter) for letter in sorted(set(pattern))}
    blocks = [Block((Sublayer((kinds[letter],)),)) for letter in pattern]
    return common.decoder(config, blocks, predictors=_predictors(config))


def _pattern(config: Config) -> str:
    if config.has("hybrid_override_pattern"):
        pattern = config.word("hybrid_override_pattern")
        count = config.layers() if config.has("num_hidden_layers") else min(max(len(pattern), 1), MOST_LAYERS)
        if len(pattern) != count or set(pattern) - set(_WORDS.values()):
            raise config.wrong(
                "hybrid_override_pattern", f"{len(pattern)} letters", f"{count} letters out of M, *, - and E"
            )
        return pattern
    words = config.choices("layers_block_type", tuple(_WORDS), config.layers_or_length("layers_block_type"))
    return "".join(_WORDS[word] for word in words)


def _predictors(config: Config) -> list[Block]:
    count = config.integer("num_nextn_predict_layers", default=0, least=0, most=64)
    pattern = config.word("mtp_hybrid_override_pattern", default="")
    if not count or set(pattern) - set(_WORDS.values()):
        return []
    sublayers = tuple(Sublayer((_branch(config, letter),)) for letter in pattern)
    return [common.predictor(Block(sublayers))] * count


def _branch(config: Config, letter: str) -> Branch:
    if letter == "M":
        return StateSpaceBlock(
            config.integer("mamba_num_heads"),
            config.integer("mamba_head_dim"),
            config.integer("n_groups", "mamba_n_groups"),
            config.integer("ssm_state_size"),
            config.integer("conv_kernel", most=1000),
            config.flag("use_conv_bias", default=True),
            config.flag("use_bias", "mamba_proj_bias"),
        )
    if letter == "*":
        return _attention(config)
    biased = config.flag("mlp_bias")
    if letter == "-":
        return DenseBlock(config.integer("intermediate_size"), gated=False, bias=biased)
    shared = config.integer("n_shared_experts", default=1, least=0, most=10**4)
    return ExpertsBlock(
        config.integer("n_routed_experts"),
        config.integer("num_experts_per_tok"),
        config.integer("moe_intermediate_size"),
        gated=False,
        bias=biased,
        shared_width=shared * config.integer("moe_shared_expert_intermediate_size", default=0, least=0),
        router_bias=True,
        latent_width=config.integer("moe_latent_size", default=0, least=0),
    )


def _attention(config: Config) -> Branch:
    from dataclasses import replace

    size = config.integer("head_dim", "attention_head_dim", default=128)
    biased = config.flag("attention_bias")
    mixer = common.attention(config, qkv_bias=biased, output_bias=biased)
    return replace(mixer, qk_head_dim=size, v_head_dim=size, rope=False)
