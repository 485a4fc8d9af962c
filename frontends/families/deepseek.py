"""DeepSeek-V2 to V3.2, Kimi-K2 and GLM-5: latent attention, fine-grained experts, multi-token prediction."""

from __future__ import annotations

from treadle.frontends.blocks import Block, Branch, Decoder, ExpertsBlock, Indexer, LatentBlock, pre_norm
from treadle.frontends.config import Config
from treadle.frontends.families import common


def deepseek_v2(config: Config) -> Decoder:
    """DeepSeek-V2, V2.5, V2-Lite and Coder-V2."""
    return _decoder(config, router_bias=False)


def deepseek_v3(config: Config) -> Decoder:
    """DeepSeek-V3, R1, V3.1, Kimi-K2 and everything published under the same architecture."""
    return _decoder(config, router_bias=config.word("topk_method", default="noaux_tc") == "noaux_tc")


def sparse_attention(config: Config) -> Decoder:
    """DeepSeek-V3.2 and GLM-5: latent attention over the `index_topk` best keys."""
    return _decoder(config, router_bias=True)


def _decoder(config: Config, router_bias: bool) -> Decoder:
    count = config.layers()
    dense_first = config.integer("first_k_dense_replace", default=0, least=0)
    period = config.integer("moe_layer_freq", default=1)
    experts, dense = _experts(config, router_bias), common.dense(config)
    owners = _index_owners(config, count)
    blocks: list[Block] = []
    for index in range(count):
        routed = experts is not None and index >= dense_first and index % period == 0
        part: Branch = experts if routed and experts is not None else dense
        blocks.append(pre_norm(_latent(config, owners[index]), part))
    last = pre_norm(_latent(config, True), experts or dense)
    return common.decoder(config, blocks, predictors=common.predictors(config, last))


def _experts(config: Config, router_bias: bool) -> ExpertsBlock | None:
    if not config.has("n_routed_experts", "num_local_experts", "num_experts"):
        return None
    width = config.integer("moe_intermediate_size")
    return ExpertsBlock(
        config.integer("n_routed_experts", "num_local_experts", "num_experts"),
        config.integer("num_experts_per_tok"),
        width,
        shared_width=width * config.integer("n_shared_experts", default=0, least=0, most=10**4),
        router_bias=router_bias,
    )


def _index_owners(config: Config, count: int) -> list[bool]:
    """Return per layer whether it selects keys itself or uses an earlier layer's selection (GLM-5.2 and later)."""
    if not config.has("indexer_types"):
        return [True] * count
    return [kind == "full" for kind in config.choices("indexer_types", ("full", "shared"), count)]


def _latent(config: Config, owned: bool) -> LatentBlock:
    indexer = None
    if config.has("index_topk"):
        indexer = Indexer(
            config.integer("index_n_heads"), config.integer("index_head_dim"), config.integer("index_topk"), owned
        )
    return LatentBlock(
        common.heads(config),
        config.integer("q_lora_rank", default=0, least=0),
        config.integer("kv_lora_rank"),
        config.integer("qk_nope_head_dim"),
        config.integer("qk_rope_head_dim"),
        config.integer("v_head_dim"),
        config.flag("attention_bias"),
        indexer,
    )
