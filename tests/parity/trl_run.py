"""Two updates of TRL's own PPOTrainer on a tiny model in float64, with what it computed on the way.

    python tests/parity/trl_run.py OUT.pt

Nothing of TRL is changed: only the accelerator's `backward` is replaced, on the instance, by one that first reads the
local variables of the method that called it, `PPOTrainer.train`.
"""

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", TRL_EXPERIMENTAL_SILENCE="1")

import numpy as np
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, DataCollatorWithPadding
from trl.experimental.ppo import PPOConfig, PPOTrainer

from rayrlhf.models import load_tokenizer
from rayrlhf.models.init import ModelShape, init_model_folder

TEXTS = ["When does the train to Busan leave?", "It leaves at nine.", "I do not know.", "The weather is fine today."]
OF_THE_UPDATE = ("logprobs", "ref_logprobs", "values", "scores", "advantages", "returns", "padding_mask")
OF_THE_MICRO_BATCH = ("micro_batch_inds", "new_logprobs", "vpred", "pg_loss", "vf_loss")


def run(out: str) -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    torch.set_default_dtype(torch.float64)  # TRL's correction of the variance is rounded to float32 otherwise
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        shape = ModelShape(
            vocab_size=300, hidden_size=32, num_layers=2, intermediate_size=64, max_length=64, tie_embeddings=False
        )
        init_model_folder(folder, shape, TEXTS)
        tokenizer = load_tokenizer(str(folder))
        tokenizer.padding_side = "left"
        policy, reference = (AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64) for _ in range(2))
        value, reward = (scalar_model(folder, seed) for seed in (1, 2))
        prompts = [tokenizer(text).input_ids[: 3 + index % 4] for index, text in enumerate(TEXTS * 6)]
        make_interesting(policy, reference, prompts, tokenizer.eos_token_id)
        config = PPOConfig(
            output_dir=f"{scratch}/out",
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            report_to="none",
            per_device_train_batch_size=4,
            gradient_accumulation_steps=2,
            num_ppo_epochs=2,
            total_episodes=16,
            response_length=12,
            stop_token="eos",
            learning_rate=1e-3,
            num_sample_generations=0,
            save_strategy="no",
            seed=1,
            disable_tqdm=True,
        )
        trainer = PPOTrainer(
            config,
            tokenizer,
            policy,
            reference,
            reward,
            Dataset.from_dict({"input_ids": prompts}),
            value,
            data_collator=DataCollatorWithPadding(tokenizer),
        )
        updates: list[dict[str, Any]] = []
        backward = trainer.accelerator.backward

        def reading_backward(loss: torch.Tensor, **options: Any) -> Any:
            variables = sys._getframe(1).f_locals
            if len(updates) < variables["update"]:
                updates.append({name: variables[name].clone() for name in OF_THE_UPDATE} | {"micro_batches": []})
            found = {name: torch.as_tensor(variables[name]).detach().clone() for name in OF_THE_MICRO_BATCH}
            updates[-1]["micro_batches"].append(found)
            return backward(loss, **options)

        trainer.accelerator.backward = reading_backward
        trainer.train()
        torch.save(updates, out)


def scalar_model(folder: Path, seed: int) -> Any:
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, dtype=torch.float64)
    with torch.no_grad():
        model.score.weight.mul_(20.0)
    return model


@torch.no_grad()
def make_interesting(policy: Any, reference: Any, prompts: list[list[int]], eos: int) -> None:
    """Peaked logits, a reference that is another model, and an eos that is drawn about once in five tokens."""
    for model in (policy, reference):
        model.lm_head.weight.mul_(3.0)
    generator = torch.Generator().manual_seed(3)
    for weight in reference.parameters():
        weight.add_(0.01 * torch.randn(weight.shape, generator=generator, dtype=weight.dtype))
    states = [policy.model(torch.tensor([prompt])).last_hidden_state[0] for prompt in prompts]
    state = torch.cat(states).mean(0)
    for model in (policy, reference):
        model.lm_head.weight[eos] += 3.0 * state / state.dot(state)


if __name__ == "__main__":
    run(sys.argv[1])
