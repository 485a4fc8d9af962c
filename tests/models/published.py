"""Published models: configuration figures and parameter totals.

`total` is the count that the hub shows for the model's safetensors files (metadata of the checkpoint), or, where
marked, the rounded figure of the model card or paper.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Published:
    """One model: hub name, total parameters, the figures of its `config.json`."""

    name: str
    total: float
    config: dict[str, Any]
    source: str = "safetensors metadata on the hub"
    active: float = 0
    tolerance: float = 0.005
    predictors: bool = False
    """The checkpoint holds the layers of multi-token prediction."""
    copies: int = 0
    """Copies of embedding and head that these layers bring along."""


def _sizes(
    kind: str, hidden: int, width: int, layers: int, heads: int, kv_heads: int, vocabulary: int, **more: Any
) -> dict[str, Any]:
    return {
        "model_type": kind, "hidden_size": hidden, "intermediate_size": width, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": kv_heads, "vocab_size": vocabulary, **more,
    }  # fmt: skip


_CARD = "model card"
_TIED = {"tie_word_embeddings": True}

_GLM_MOE = {
    "attention_bias": True, "head_dim": 128, "n_shared_experts": 1, "num_experts_per_tok": 8,
    "num_nextn_predict_layers": 1, "tie_word_embeddings": False,
}  # fmt: skip

_LATENT = {"kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128}

PUBLISHED: tuple[Published, ...] = (
    Published("Llama-2-7b-hf", 6_738_415_616, _sizes("llama", 4096, 11008, 32, 32, 32, 32000)),
    Published("Llama-3.1-8B", 8_030_261_248, _sizes("llama", 4096, 14336, 32, 32, 8, 128256)),
    Published("Llama-3.1-70B", 70_553_706_496, _sizes("llama", 8192, 28672, 80, 64, 8, 128256)),
    Published("Llama-3.1-405B", 405_853_388_800, _sizes("llama", 16384, 53248, 126, 128, 8, 128256)),
    Published("Llama-3.2-1B", 1_235_814_400, _sizes("llama", 2048, 8192, 16, 32, 8, 128256, **_TIED)),
    Published("Llama-3.2-3B", 3_212_749_824, _sizes("llama", 3072, 8192, 28, 24, 8, 128256, **_TIED)),
    Published("Llama-3.3-70B-Instruct", 70_553_706_496, _sizes("llama", 8192, 28672, 80, 64, 8, 128256)),
    Published(
        "Llama-4-Scout-17B-16E", 107_769_861_120,
        {"model_type": "llama4", "text_config": _sizes(
            "llama4_text", 5120, 8192, 48, 40, 8, 202048, head_dim=128, intermediate_size_mlp=16384,
            interleave_moe_layer_step=1, num_local_experts=16, num_experts_per_tok=1, use_qk_norm=True,
        )}, "109B on the card, vision part included", 17e9, 0.02,
    ),
    Published(
        "Seed-OSS-36B-Base", 36_151_104_512,
        _sizes("seed_oss", 5120, 27648, 64, 80, 8, 155136, head_dim=128, attention_bias=True),
    ),
    Published("Qwen2.5-0.5B", 494_032_768, _sizes("qwen2", 896, 4864, 24, 14, 2, 151936, **_TIED)),
    Published("Qwen2.5-7B", 7_615_616_512, _sizes("qwen2", 3584, 18944, 28, 28, 4, 152064)),
    Published("Qwen2.5-72B", 72_706_203_648, _sizes("qwen2", 8192, 29568, 80, 64, 8, 152064)),
    Published("Qwen2-7B", 7_615_616_512, _sizes("qwen2", 3584, 18944, 28, 28, 4, 152064)),
    Published(
        "Qwen1.5-MoE-A2.7B", 14_315_784_192,
        _sizes(
            "qwen2_moe", 2048, 5632, 24, 16, 16, 151936, num_experts=60, num_experts_per_tok=4,
            moe_intermediate_size=1408, shared_expert_intermediate_size=5632, decoder_sparse_step=1,
        ), active=2.7e9,
    ),
    Published(
        "Qwen2-57B-A14B", 57_409_011_712,
        _sizes(
            "qwen2_moe", 3584, 18944, 28, 28, 4, 151936, num_experts=64, num_experts_per_tok=8,
            moe_intermediate_size=2560, shared_expert_intermediate_size=20480, decoder_sparse_step=1,
        ), active=14.2e9,
    ),
    Published("Qwen3-0.6B", 596_049_920, _sizes("qwen3", 1024, 3072, 28, 16, 8, 151936, head_dim=128, **_TIED)),
    Published("Qwen3-8B", 8_190_735_360, _sizes("qwen3", 4096, 12288, 36, 32, 8, 151936, head_dim=128)),
    Published("Qwen3-32B", 32_762_123_264, _sizes("qwen3", 5120, 25600, 64, 64, 8, 151936, head_dim=128)),
    Published(
        "Qwen3-30B-A3B", 30_532_122_624,
        _sizes(
            "qwen3_moe", 2048, 6144, 48, 32, 4, 151936, head_dim=128, num_experts=128, num_experts_per_tok=8,
            moe_intermediate_size=768,
        ), active=3.3e9,
    ),
    Published(
        "Qwen3-235B-A22B", 235_093_634_560,
        _sizes(
            "qwen3_moe", 4096, 12288, 94, 64, 4, 151936, head_dim=128, num_experts=128, num_experts_per_tok=8,
            moe_intermediate_size=1536,
        ), active=22e9,
    ),
    Published(
        "Qwen3-VL-30B-A3B-Instruct (text)", 30_532_122_624,
        {"model_type": "qwen3_vl_moe", "vision_config": {}, "text_config": _sizes(
            "qwen3_vl_moe_text", 2048, 6144, 48, 32, 4, 151936, head_dim=128, num_experts=128, num_experts_per_tok=8,
            moe_intermediate_size=768,
        )}, "as Qwen3-30B-A3B, whose text part it has",
    ),
    Published(
        "Qwen2.5-VL-7B-Instruct (text)", 7_615_616_512,
        {**_sizes("qwen2_5_vl", 3584, 18944, 28, 28, 4, 152064), "vision_config": {"depth": 32}},
        "as Qwen2.5-7B, whose text part it has",
    ),
    Published(
        "Qwen3-Next-80B-A3B-Instruct", 80e9,
        _sizes(
            "qwen3_next", 2048, 5120, 48, 16, 2, 151936, head_dim=256, full_attention_interval=4,
            linear_num_key_heads=16, linear_num_value_heads=32, linear_key_head_dim=128, linear_value_head_dim=128,
            linear_conv_kernel_dim=4, num_experts=512, num_experts_per_tok=10, moe_intermediate_size=512,
            shared_expert_intermediate_size=512,
        ), _CARD, 3.9e9,
    ),
    Published(
        "Mistral-7B-v0.1", 7_241_732_096,
        _sizes("mistral", 4096, 14336, 32, 32, 8, 32000, sliding_window=4096),
    ),
    Published(
        "Mistral-Nemo-Base-2407", 12_247_782_400,
        _sizes("mistral", 5120, 14336, 40, 32, 8, 131072, head_dim=128),
    ),
    Published(
        "Mistral-Small-24B-Base-2501", 23_572_403_200,
        _sizes("mistral", 5120, 32768, 40, 32, 8, 131072, head_dim=128),
    ),
    Published(
        "Mistral-Large-Instruct-2407", 122_610_069_504,
        _sizes("mistral", 12288, 28672, 88, 96, 8, 32768),
    ),
    Published(
        "Ministral-8B-Instruct-2410", 8_019_808_256,
        _sizes("mistral", 4096, 12288, 36, 32, 8, 131072, head_dim=128, sliding_window=32768),
    ),
    Published(
        "Mixtral-8x7B-v0.1", 46_702_792_704,
        _sizes("mixtral", 4096, 14336, 32, 32, 8, 32000, num_local_experts=8, num_experts_per_tok=2), active=12.9e9,
    ),
    Published(
        "Mixtral-8x22B-v0.1", 140_620_634_112,
        _sizes("mixtral", 6144, 16384, 56, 48, 8, 32000, num_local_experts=8, num_experts_per_tok=2), active=39e9,
    ),
    Published("gemma-2b", 2_506_172_416, _sizes("gemma", 2048, 16384, 18, 8, 1, 256000, head_dim=256)),
    Published("gemma-7b", 8_537_680_896, _sizes("gemma", 3072, 24576, 28, 16, 16, 256000, head_dim=256)),
    Published(
        "gemma-2-2b", 2_614_341_888, _sizes("gemma2", 2304, 9216, 26, 8, 4, 256000, head_dim=256, sliding_window=4096)
    ),
    Published(
        "gemma-2-9b", 9_241_705_984, _sizes("gemma2", 3584, 14336, 42, 16, 8, 256000, head_dim=256, sliding_window=4096)
    ),
    Published(
        "gemma-2-27b", 27_227_128_320,
        _sizes("gemma2", 4608, 36864, 46, 32, 16, 256000, head_dim=128, sliding_window=4096),
    ),
    Published(
        "gemma-3-1b-pt", 999_885_952,
        _sizes("gemma3_text", 1152, 6912, 26, 4, 1, 262144, head_dim=256, sliding_window=512, sliding_window_pattern=6),
    ),
    Published(
        "gemma-3-27b-pt (text)", 27_009_346_304,
        {"model_type": "gemma3", "vision_config": {}, "text_config": _sizes(
            "gemma3_text", 5376, 21504, 62, 32, 16, 262208, head_dim=128, sliding_window=1024,
        )}, "27.4B safetensors less the 0.42B vision tower",
    ),
    Published(
        "DeepSeek-V2", 235_741_434_880,
        _sizes(
            "deepseek_v2", 5120, 12288, 60, 128, 128, 102400, **_LATENT, q_lora_rank=1536, n_routed_experts=160,
            n_shared_experts=2, num_experts_per_tok=6, moe_intermediate_size=1536, first_k_dense_replace=1,
        ), active=21e9,
    ),
    Published(
        "DeepSeek-V2-Lite", 15_706_484_224,
        _sizes(
            "deepseek_v2", 2048, 10944, 27, 16, 16, 102400, **_LATENT, q_lora_rank=None, n_routed_experts=64,
            n_shared_experts=2, num_experts_per_tok=6, moe_intermediate_size=1408, first_k_dense_replace=1,
        ), active=2.4e9,
    ),
    Published(
        "DeepSeek-V3", 671_026_419_200,
        _sizes(
            "deepseek_v3", 7168, 18432, 61, 128, 128, 129280, **_LATENT, q_lora_rank=1536, n_routed_experts=256,
            n_shared_experts=1, num_experts_per_tok=8, moe_intermediate_size=2048, first_k_dense_replace=3,
            num_nextn_predict_layers=1,
        ), "arXiv 2412.19437, section 4.2: 671B; the count of its tensors without prediction", 37e9,
    ),
    Published(
        "Kimi-K2-Instruct", 1_026_408_232_448,
        _sizes(
            "kimi_k2", 7168, 18432, 61, 64, 64, 163840, **_LATENT, q_lora_rank=1536, n_routed_experts=384,
            n_shared_experts=1, num_experts_per_tok=8, moe_intermediate_size=2048, first_k_dense_replace=1,
        ), active=32e9,
    ),
    Published(
        "Kimi-Linear-48B-A3B-Instruct", 49_122_681_728,
        _sizes(
            "kimi_linear", 2304, 9216, 27, 32, 32, 163840, kv_lora_rank=512, q_lora_rank=None, qk_nope_head_dim=128,
            qk_rope_head_dim=64, v_head_dim=128, num_experts=256, num_experts_per_token=8, num_shared_experts=1,
            moe_intermediate_size=1024, first_k_dense_replace=1, linear_attn_config={
                "full_attn_layers": [4, 8, 12, 16, 20, 24, 27], "head_dim": 128, "num_heads": 32,
                "short_conv_kernel_size": 4,
            },
        ), active=3e9,
    ),
    Published(
        "gpt-oss-20b", 20_914_757_184,
        _sizes(
            "gpt_oss", 2880, 2880, 24, 64, 8, 201088, head_dim=64, num_local_experts=32, num_experts_per_tok=4,
            attention_bias=True, sliding_window=128,
        ), "arXiv 2508.10925, table 1: 20.91B, 3.61B active without embeddings",
    ),
    Published(
        "gpt-oss-120b", 116_829_156_672,
        _sizes(
            "gpt_oss", 2880, 2880, 36, 64, 8, 201088, head_dim=64, num_local_experts=128, num_experts_per_tok=4,
            attention_bias=True, sliding_window=128,
        ), "arXiv 2508.10925, table 1: 116.83B, 5.13B active without embeddings",
    ),
    Published(
        "glm-4-9b-hf", 9_399_951_360,
        _sizes("glm", 4096, 13696, 40, 32, 2, 151552, head_dim=128, attention_bias=True),
    ),
    Published(
        "GLM-4-32B-0414", 32_566_081_536,
        _sizes("glm4", 6144, 23040, 61, 48, 2, 151552, head_dim=128, attention_bias=False),
    ),
    Published(
        "GLM-4.5", 358_337_791_296,
        _sizes(
            "glm4_moe", 5120, 12288, 92, 96, 8, 151552, **_GLM_MOE, n_routed_experts=160, moe_intermediate_size=1536,
            first_k_dense_replace=3, use_qk_norm=True,
        ), active=32e9, predictors=True, copies=2,
    ),
    Published(
        "GLM-4.5-Air", 110_468_824_832,
        _sizes(
            "glm4_moe", 4096, 10944, 46, 96, 8, 151552, **_GLM_MOE, n_routed_experts=128, moe_intermediate_size=1408,
            first_k_dense_replace=1, use_qk_norm=False,
        ), active=12e9, predictors=True, copies=2,
    ),
    Published(
        "MiniMax-M2", 229e9,
        _sizes(
            "minimax_m2", 3072, 1536, 62, 48, 8, 200064, head_dim=128, num_local_experts=256, num_experts_per_tok=8,
            use_qk_norm=True, use_routing_bias=True,
        ), "hub, rounded", 10e9,
    ),
    Published(
        "Minitron-8B-Base", 8.27e9,
        _sizes("nemotron", 4096, 16384, 32, 48, 8, 256000, head_dim=128, hidden_act="relu2"),
        "hub, rounded",
    ),
    Published(
        "Nemotron-H-8B-Base-8K", 8_100_000_000,
        _sizes(
            "nemotron_h", 4096, 21504, 52, 32, 8, 131072, attention_head_dim=128, mamba_num_heads=128,
            mamba_head_dim=64,
            n_groups=8, ssm_state_size=128, conv_kernel=4, use_conv_bias=True, mlp_hidden_act="relu2",
            hybrid_override_pattern="M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-",
        ), "hub, rounded",
    ),
    Published(
        "Nemotron-H-56B-Base-8K", 56_324_350_464,
        _sizes(
            "nemotron_h", 8192, 32768, 118, 64, 8, 131072, attention_head_dim=128, mamba_num_heads=256,
            mamba_head_dim=64, n_groups=8, ssm_state_size=256, conv_kernel=4, use_conv_bias=True,
            mlp_hidden_act="relu2",
            hybrid_override_pattern="M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*"
            "-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-",
        ), "tensors that transformers 5.23 builds from the configuration",
    ),
    Published(
        "mamba-codestral-7B-v0.1", 7_285_403_648,
        {
            "model_type": "mamba2", "hidden_size": 4096, "num_hidden_layers": 64, "vocab_size": 32768, "expand": 2,
            "head_dim": 64, "num_heads": 128, "n_groups": 8, "state_size": 128, "conv_kernel": 4,
            "use_conv_bias": True, "tie_word_embeddings": False,
        },
    ),
    Published(
        "Falcon-H1-0.5B-Base", 521_411_104,
        _sizes(
            "falcon_h1", 1024, 2048, 36, 8, 2, 32784, head_dim=64, mamba_d_ssm=1536, mamba_n_heads=24, mamba_d_head=64,
            mamba_n_groups=1, mamba_d_state=128, mamba_d_conv=4, mamba_conv_bias=True, mamba_rms_norm=False,
        ),
    ),
    Published("OLMo-1B-hf", 1_176_764_416, _sizes("olmo", 2048, 8192, 16, 16, 16, 50304, **_TIED)),
    Published("OLMo-7B-hf", 6_888_095_744, _sizes("olmo", 4096, 11008, 32, 32, 32, 50304)),
    Published("OLMo-2-1124-7B", 7_298_617_344, _sizes("olmo2", 4096, 11008, 32, 32, 32, 100352)),
    Published("OLMo-2-1124-13B", 13_716_198_400, _sizes("olmo2", 5120, 13824, 40, 40, 40, 100352)),
    Published(
        "Olmo-3-1025-7B", 7_298_011_136,
        _sizes("olmo3", 4096, 11008, 32, 32, 32, 100278, sliding_window=4096),
    ),
    Published(
        "OLMoE-1B-7B-0924", 6_919_161_856,
        _sizes("olmoe", 2048, 1024, 16, 16, 16, 50304, num_experts=64, num_experts_per_tok=8), active=1.3e9,
    ),
    Published(
        "ERNIE-4.5-0.3B-PT", 360_748_032,
        _sizes("ernie4_5", 1024, 3072, 18, 16, 2, 103424, head_dim=128, use_bias=False, **_TIED),
    ),
    Published(
        "ERNIE-4.5-21B-A3B-PT", 21_825_437_888,
        _sizes(
            "ernie4_5_moe", 2560, 12288, 28, 20, 4, 103424, use_bias=False, moe_num_experts=64, moe_k=6,
            moe_intermediate_size=1536, moe_num_shared_experts=2, moe_layer_start_index=1,
            moe_layer_interval=1, **_TIED,
        ), active=3e9,
    ),
    Published(
        "ERNIE-4.5-300B-A47B-PT", 300e9,
        _sizes(
            "ernie4_5_moe", 8192, 28672, 54, 64, 8, 103424, use_bias=False, moe_num_experts=64, moe_k=8,
            moe_intermediate_size=3584, moe_num_shared_experts=0, moe_layer_start_index=3, moe_layer_interval=1,
            tie_word_embeddings=False,
        ), _CARD, 47e9,
    ),
    Published(
        "EXAONE-4.0-32B", 32_003_216_384,
        _sizes(
            "exaone4", 5120, 27392, 64, 40, 8, 102400, head_dim=128, sliding_window=4096, sliding_window_pattern="LLLG",
        ),
    ),
    Published(
        "EXAONE-4.0-1.2B", 1_279_391_488,
        _sizes("exaone4", 2048, 4096, 30, 32, 8, 102400, head_dim=64, **_TIED),
    ),
    Published(
        "Hunyuan-7B-Instruct", 7_504_652_288,
        _sizes("hunyuan_v1_dense", 4096, 14336, 32, 32, 8, 128167, head_dim=128, **_TIED),
    ),
    Published(
        "Hunyuan-A13B-Instruct", 80_393_183_232,
        _sizes(
            "hunyuan_v1_moe", 4096, 3072, 32, 32, 8, 128167, head_dim=128, num_experts=64, moe_topk=[8] * 32,
            num_shared_expert=[1] * 32, moe_intermediate_size=[3072] * 32, **_TIED,
        ), active=13e9,
    ),
    Published(
        "MiMo-7B-Base", 7.83e9,
        _sizes("mimo", 4096, 11008, 36, 32, 8, 151680, head_dim=128, attention_bias=True, num_nextn_predict_layers=1),
        "hub, rounded", predictors=True,
    ),
    Published(
        "Step-3.5-Flash", 196.81e9,
        _sizes(
            "step3p5", 4096, 11264, 45, 64, 8, 128896, head_dim=128, num_attention_groups=8, sliding_window=512,
            moe_num_experts=288, moe_top_k=8, moe_intermediate_size=1280, share_expert_dim=1280,
            layer_types=(["full_attention"] + ["sliding_attention"] * 3) * 11 + ["full_attention"],
            moe_layers_enum=",".join(str(index) for index in range(3, 45)),
            attention_other_setting={"attention_type": "sliding_attention", "num_attention_heads": 96},
        ), _CARD, 11e9,
    ),
    Published(
        "Ling-lite", 16.8e9,
        _sizes(
            "bailing_moe", 2048, 5632, 28, 16, 4, 126464, head_dim=128, num_experts=64, num_experts_per_tok=6,
            num_shared_experts=2, moe_intermediate_size=1408, first_k_dense_replace=0,
        ), _CARD, 2.75e9,
    ),
    Published(
        "Ling-mini-2.0", 16.26e9,
        _sizes(
            "bailing_moe_v2", 2048, 5120, 20, 16, 4, 157184, head_dim=128, num_experts=256, num_experts_per_tok=8,
            num_shared_experts=1, moe_intermediate_size=512, moe_shared_expert_intermediate_size=512,
            first_k_dense_replace=1, use_qk_norm=True, moe_router_enable_expert_bias=True,
        ), _CARD, 1.43e9,
    ),
    Published(
        "Phi-3-mini-4k-instruct", 3_821_079_552,
        _sizes("phi3", 3072, 8192, 32, 32, 32, 32064, sliding_window=2047),
    ),
    Published("phi-4", 14_659_507_200, _sizes("phi3", 5120, 17920, 40, 40, 10, 100352)),
    Published("phi-2", 2_779_683_840, _sizes("phi", 2560, 10240, 32, 32, 32, 51200, hidden_act="gelu_new")),
    Published(
        "gpt2", 124_439_808,
        {"model_type": "gpt2", "n_embd": 768, "n_head": 12, "n_layer": 12, "n_positions": 1024, "vocab_size": 50257},
    ),
    Published(
        "gpt2-xl", 1_557_611_200,
        {"model_type": "gpt2", "n_embd": 1600, "n_head": 25, "n_layer": 48, "n_positions": 1024, "vocab_size": 50257},
    ),
    Published(
        "opt-125m", 125_239_296,
        {
            "model_type": "opt", "hidden_size": 768, "ffn_dim": 3072, "num_hidden_layers": 12,
            "num_attention_heads": 12, "vocab_size": 50272, "max_position_embeddings": 2048, "word_embed_proj_dim": 768,
        },
    ),
    Published(
        "opt-350m", 331_196_416,
        {
            "model_type": "opt", "hidden_size": 1024, "ffn_dim": 4096, "num_hidden_layers": 24,
            "num_attention_heads": 16, "vocab_size": 50272, "max_position_embeddings": 2048, "word_embed_proj_dim": 512,
            "do_layer_norm_before": False,
        },
    ),
    Published(
        "opt-6.7b", 6_658_473_984,
        {
            "model_type": "opt", "hidden_size": 4096, "ffn_dim": 16384, "num_hidden_layers": 32,
            "num_attention_heads": 32, "vocab_size": 50272, "max_position_embeddings": 2048,
            "word_embed_proj_dim": 4096,
        },
    ),
    Published(
        "t5-small", 60_506_624,
        {
            "model_type": "t5", "d_model": 512, "d_ff": 2048, "d_kv": 64, "num_heads": 8, "num_layers": 6,
            "vocab_size": 32128, "feed_forward_proj": "relu",
        },
    ),
    Published(
        "t5-large", 737_668_096,
        {
            "model_type": "t5", "d_model": 1024, "d_ff": 4096, "d_kv": 64, "num_heads": 16, "num_layers": 24,
            "vocab_size": 32128, "feed_forward_proj": "relu",
        },
    ),
    Published(
        "flan-t5-xl", 2_849_757_184,
        {
            "model_type": "t5", "d_model": 2048, "d_ff": 5120, "d_kv": 64, "num_heads": 32, "num_layers": 24,
            "vocab_size": 32128, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False,
        },
    ),
)  # fmt: skip
