"""What vLLM takes as adapters, and what is said of the rest before an engine starts."""

import pytest
from transformers import AutoConfig

from rayrlhf.config import ConfigError
from rayrlhf.engines import Adapters, VllmEngineConfig
from rayrlhf.engines.vllm.adapter_support import check_layers


@pytest.mark.parametrize("rank", [1, 9, 512])
@pytest.mark.parametrize(("on_gpu", "dtype"), [(False, "float32"), (True, "auto"), (True, "bfloat16")])
def test_every_rank_and_dtype_that_vllm_computes_is_taken(rank, on_gpu, dtype):
    adapters = Adapters(rank, 16.0, ("model.layers.0.self_attn.q_proj",))
    config = AutoConfig.for_model("llama", architectures=["LlamaForCausalLM"])
    VllmEngineConfig(dtype=dtype).check(config, on_gpu, adapters)


def test_a_model_that_vllm_has_without_adapters_is_refused_with_the_fix():
    adapters = Adapters(8, 16.0, ("transformer.h.0.attn.c_attn",))
    config = AutoConfig.for_model("gpt2", architectures=["GPT2LMHeadModel"])
    with pytest.raises(ConfigError, match=r"architecture GPT2LMHeadModel: set policy\.lora\.send=merged"):
        VllmEngineConfig().check(config, on_gpu=False, adapters=adapters)


def test_layers_without_a_place_for_their_adapter_are_named():
    adapters = Adapters(8, 16.0, ("model.layers.0.self_attn.q_proj", "model.layers.0.mixer.conv", "model.gate"))
    check_layers(adapters, {"q_proj", "conv", "gate"})
    with pytest.raises(ConfigError, match=r"layers conv, gate of this model: set policy\.lora\.send=merged"):
        check_layers(adapters, {"q_proj", "o_proj"})
