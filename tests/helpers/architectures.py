"""Tiny models of every causal architecture that transformers has, vLLM serves, and that can be made tiny."""

from typing import Any

import torch

COMMON: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 64,
    "ffn_dim": 64,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 2,
    "num_experts": 2,
    "num_local_experts": 2,
    "n_routed_experts": 2,
    "num_experts_per_tok": 1,
    "moe_intermediate_size": 16,
}
GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8}
GROUPED = LATENT | {"n_shared_experts": 1, "topk_group": 1, "n_group": 1}
DEEPSEEK = GROUPED | {"num_key_value_heads": 4}
SCALED = {"logits_scaling": 8.0}
LINEAR = {"linear_num_value_heads": 2, "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
MAMBA = {"mamba_d_head": 8, "mamba_n_heads": 8}

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "afmoe": {},
    "apertus": {},
    "arcee": {},
    "axk1": DEEPSEEK,
    "bloom": {"n_layer": 2, "n_head": 4},
    "cohere": {},
    "cohere2": {},
    "cohere2_moe": {},
    "cwm": {},
    "dbrx": {
        "attn_config": {"rope_theta": 10000.0, "kv_n_heads": 2, "clip_qkv": 8.0},
        "ffn_config": {"ffn_hidden_size": 32, "moe_num_experts": 2, "moe_top_k": 1},
        **{"n_heads": 4, "n_layers": 2, "d_model": 32, "max_seq_len": 64},
    },
    "deepseek_v2": DEEPSEEK,
    "deepseek_v3": DEEPSEEK,
    "deepseek_v32": DEEPSEEK,
    "deepseek_v4": {},
    "ernie4_5": {},
    "ernie4_5_moe": {},
    "exaone4": {},
    "exaone_moe": {},
    "falcon": {"head_dim": None},
    "falcon_h1": MAMBA | {"lm_head_multiplier": 0.02, "mamba_d_ssm": 64, "mamba_d_state": 8, "mamba_chunk_size": 16},
    "falcon_mamba": {},
    "flex_olmo": {},
    "gemma": {},
    "gemma2": {"final_logit_softcapping": 5.0},
    "gemma3_text": {},
    "gemma3n_text": {
        "num_hidden_layers": 4,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "num_kv_shared_layers": 0,
        "intermediate_size": [64] * 4,
        "activation_sparsity_pattern": [0.0] * 4,
        "laurel_rank": 4,
        **{"vocab_size_per_layer_input": 64, "hidden_size_per_layer_input": 8},
    },
    "gemma4_text": {"vocab_size_per_layer_input": 64, "hidden_size_per_layer_input": 8},
    "glm": {},
    "glm4": {},
    "glm4_moe": {},
    "glm4_moe_lite": DEEPSEEK,
    "glm_moe_dsa": DEEPSEEK,
    "gpt2": GPT,
    "gpt_bigcode": GPT,
    "gpt_neox": {},
    "gpt_oss": {},
    "gptj": GPT | {"rotary_dim": 4},
    "granite": SCALED,
    "granite_swa": SCALED,
    "granitemoe": SCALED,
    "granitemoe_swa": SCALED,
    "granitemoehybrid": SCALED | MAMBA | {"mamba_expand": 2, "layer_types": ["mamba", "attention"]},
    "granitemoeshared": SCALED,
    "hrm_text": {},
    "hunyuan_v1_dense": {},
    "hunyuan_v1_moe": {},
    "hy_v3": {},
    "hy_v4": {},
    "hyperclovax": SCALED,
    "inkling_text": {},
    "jais2": {},
    "jamba": {},
    "kimi_linear": DEEPSEEK
    | {
        "linear_attn_config": {
            **{"full_attn_layers": [2], "kda_layers": [1]},
            **{"num_heads": 2, "head_dim": 8, "short_conv_kernel_size": 4},
        }
    },
    "laguna": {},
    "lfm2": {},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "llama": {},
    "llama4_text": {},
    "mamba": {},
    "mamba2": {"num_heads": 8, "head_dim": 8, "expand": 2, "n_groups": 1},
    "mellum": {},
    "mimo_v2_flash": {},
    "minicpm3": DEEPSEEK,
    "minimax_m2": {},
    "ministral3": {},
    "mistral": {},
    "mixtral": {},
    "nemotron": {},
    "nemotron_h": {},
    "olmo": {},
    "olmo2": {},
    "olmo3": {},
    "olmo_hybrid": {},
    "olmoe": {},
    "opt": {"word_embed_proj_dim": 32},
    "phi": {},
    "phi3": {},
    "qwen2": {},
    "qwen2_moe": {},
    "qwen3": {},
    "qwen3_5_moe_text": LINEAR,
    "qwen3_5_text": LINEAR,
    "qwen3_moe": {},
    "qwen3_next": LINEAR,
    "qwen4_exp_text": LINEAR,
    "seed_oss": {},
    "smollm3": {},
    "stablelm": {},
    "starcoder2": {},
    "vaultgemma": {},
}


def tiny_causal_model(model_type: str, dropout: float = 0.0) -> Any:
    """A random causal model in eval mode whose logits spread over several nats. dropout: every rate it has."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig

    settings = COMMON | ARCHITECTURES[model_type]
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **{name: value for name, value in settings.items() if value is not None})
    for name, value in vars(config).items():
        if "drop" in name and isinstance(value, float):
            setattr(config, name, dropout)
    model = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]._from_config(config).float().eval()
    with torch.no_grad():
        for parameter in model.get_output_embeddings().parameters():
            parameter.mul_(8)
    return model
