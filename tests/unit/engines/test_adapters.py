"""Adapters in the folder that vLLM reads: complete, as they were sent, and gone afterwards."""

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from rayrlhf.engines import Adapters
from rayrlhf.engines.vllm.adapters import adapter_folder
from rayrlhf.models import LoraConfig, Policy
from rayrlhf.models.lora import add_adapters, target_names
from rayrlhf.weights.buckets import pack

TOKENS = torch.tensor([[5, 6, 7, 8, 9]])


def test_a_base_with_the_folder_computes_what_the_policy_does(tiny_model):
    policy = Policy.load(tiny_model).eval()
    settings = LoraConfig(rank=3, alpha=6.5, target_modules=("q_proj", "down_proj"))
    adapters = Adapters(settings.rank, settings.alpha, tuple(target_names(policy.model, settings)))
    add_adapters(policy.model, settings)
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.2, generator=torch.Generator().manual_seed(0))
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    before = base(TOKENS).logits
    with adapter_folder(pack(policy.adapters()), adapters) as folder:
        adapted = PeftModel.from_pretrained(base, folder)
    assert not folder.exists()
    assert torch.equal(adapted(TOKENS).logits, policy.model(TOKENS).logits)
    assert not torch.allclose(before, adapted(TOKENS).logits, atol=1e-2)
