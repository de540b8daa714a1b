"""Two ranks and one give the same losses and weights, replicated (DDP) and sharded (FSDP2), on CPU with gloo.

Run as a script this file is one of the two ranks: see `launch`.
"""

import pickle
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from launch import join, launch
from padded_arrays import mask_of

from rayrlhf.algorithms import PPO, ScoredRollouts
from rayrlhf.algorithms.preference import DPO, KTO, SimPO
from rayrlhf.data.tokens.sequences import Sequences
from rayrlhf.models import LoraConfig, ScalarModel, load_tokenizer, policy
from rayrlhf.training.dpo import DPOWorker
from rayrlhf.training.kto import KTOWorker, LabeledSet
from rayrlhf.training.model_trainer import StepReport, SupervisedTraining
from rayrlhf.training.optimizers import AdamW
from rayrlhf.training.parallel import Ranks, Sharding, whole
from rayrlhf.training.reward_model import PairwiseLoss, RewardModelWorker
from rayrlhf.training.sft import SFTWorker
from rayrlhf.types import RowShare, TrainBatch
from rayrlhf.workers.learner import CriticLearner, PolicyLearner

ALL = np.arange(5)
MINIBATCHES = (ALL, np.array([4, 0, 2]), np.array([3]))  # the last is one row: the second rank has none
LENGTHS = [(3, 4), (2, 7), (5, 1), (1, 3), (4, 4)]


@dataclass
class Inputs:
    """What every rank is given."""

    policy: str
    reward_model: str
    sft: str
    batch: TrainBatch
    rows: Sequences
    pairs: tuple[Sequences, Sequences]


def exercise(inputs: Inputs, sharding: Sharding, ranks: Ranks, folder: Path) -> dict[str, Any]:
    """A few steps of every trained role; what came out on this rank."""
    # A large eps keeps Adam's first steps near linear in the gradient, so that rounding is not blown up.
    optimizer = AdamW(learning_rate=1e-2, eps=1e-3)
    config = SupervisedTraining(optimizer=optimizer, max_tokens_per_microbatch=24, sharding=sharding)
    tokenizer = load_tokenizer(inputs.policy)
    learner = PolicyLearner(inputs.policy, config, PPO(entropy_coef=0.01), 10, ranks)
    critic = CriticLearner(inputs.reward_model, config, PPO(), 10, True, ranks)
    sft = SFTWorker(inputs.sft, tokenizer, config, inputs.rows, inputs.rows, 10, ranks)
    reward = RewardModelWorker(
        inputs.reward_model, tokenizer, config, PairwiseLoss(), inputs.pairs, inputs.pairs, 10, ranks
    )
    dpo = DPOWorker(
        inputs.policy, inputs.sft, tokenizer, config, DPO(sft_coef=0.1), inputs.pairs, inputs.pairs, 10, ranks
    )
    labels = np.array([True, False, False, True, False])
    kto = KTOWorker(
        inputs.policy, inputs.sft, tokenizer, config, KTO(), *[LabeledSet(inputs.rows, labels)] * 2, 10, ranks
    )
    simpo = DPOWorker(inputs.policy, None, tokenizer, config, SimPO(), inputs.pairs, inputs.pairs, 10, ranks)
    logprobs = learner.logprobs(inputs.batch.rollouts, 0.8)
    reports = [learner.update(inputs.batch, rows, 0.8) for rows in MINIBATCHES]
    logprobs_after = learner.logprobs(inputs.batch.rollouts, 0.8)
    reports.append(learner.update(inputs.batch, ALL, 0.8))
    found: dict[str, Any] = {
        "logprobs": logprobs,
        "logprobs_after": logprobs_after,
        "policy_reports": reports,
        "values": critic.values(inputs.batch.rollouts),
        "critic_reports": [critic.update(inputs.batch, rows) for rows in MINIBATCHES],
        "sft_metrics": [sft.train_step(rows) for rows in MINIBATCHES] + [sft.evaluate()],
        "reward_metrics": [reward.train_step(rows) for rows in MINIBATCHES] + [reward.evaluate()],
        "dpo_metrics": [dpo.evaluate(), *(dpo.train_step(rows) for rows in MINIBATCHES), dpo.evaluate()],
    }
    for name, worker in (("kto", kto), ("simpo", simpo)):
        found[f"{name}_metrics"] = [
            worker.evaluate(),
            *(worker.train_step(rows) for rows in MINIBATCHES),
            worker.evaluate(),
        ]
        found[f"{name}_weights"] = weights_of(worker)
    found["policy_weights"] = exported(learner)
    found["critic_weights"] = weights_of(critic)
    found["reward_weights"] = weights_of(reward)
    found["dpo_weights"] = weights_of(dpo)
    learner.save(str(folder / "policy"))
    adapters = SupervisedTraining(
        lora=LoraConfig(rank=3),  # shards of 2 and 1 rows of A
        activation_checkpointing=True,
        **config.model_dump(exclude={"lora", "activation_checkpointing"}),
    )
    lora = PolicyLearner(inputs.policy, adapters, PPO(entropy_coef=0.01), 10, ranks)
    lora_reward = RewardModelWorker(
        inputs.reward_model, tokenizer, adapters, PairwiseLoss(), inputs.pairs, inputs.pairs, 10, ranks
    )
    found["lora_reports"] = [lora.update(inputs.batch, rows, 0.8) for rows in MINIBATCHES]
    found["lora_reward_metrics"] = [lora_reward.train_step(rows) for rows in MINIBATCHES] + [lora_reward.evaluate()]
    found["lora_weights"] = exported(lora)
    found["lora_adapters"] = {name: tensor.detach().clone() for name, tensor in lora.trainer.inner.adapters(whole)}
    found["lora_reward_weights"] = weights_of(lora_reward)
    lora.save(str(folder / "lora"))
    masters = config.model_copy(update={"parameters": "bfloat16"})
    halves = SFTWorker(inputs.sft, tokenizer, masters, inputs.rows, inputs.rows, 10, ranks)
    found["halves_metrics"] = [halves.train_step(rows) for rows in MINIBATCHES] + [halves.evaluate()]
    for name, worker in (("lora_reward", lora_reward), ("halves", halves)):
        worker.save(folder / name, {"step": 3})
        found[f"{name}_next"] = worker.train_step(ALL)
        worker.restore(folder / name)
        found[f"{name}_again"] = worker.train_step(ALL)
    sft.save(folder / "sft", {"step": 3})
    reward.save(folder / "reward_model", {"step": 3})
    found["sft_next"] = sft.train_step(ALL)
    found["sft_weights"] = weights_of(sft)
    return found


def exported(learner: PolicyLearner) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for bucket in learner.export(None) for name, tensor in bucket.tensors()}


def weights_of(worker: Any) -> dict[str, torch.Tensor]:
    return {name: whole(p.detach()).clone() for name, p in worker.trainer.inner.named_parameters()}


def main(*arguments: str) -> None:
    ranks, folder = join(*arguments)
    policy.LOGITS_CHUNK_ROWS = 4  # several chunks a micro-batch, recomputed in the backward pass
    inputs = Inputs(**pickle.loads((folder / "inputs.pickle").read_bytes()))
    for sharding in get_args(Sharding):
        found = exercise(inputs, sharding, ranks, folder / sharding)
        (folder / f"{sharding}-{ranks.rank}.pickle").write_bytes(pickle.dumps(found))
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def results(tiny_qwen2, tiny_llama, tokenizer, make_rollouts, tmp_path_factory) -> dict[str, Any]:
    """{"one": …, "ddp": [rank 0, rank 1], "fsdp": …}, `folder` and `inputs`."""
    folder = tmp_path_factory.mktemp("ranks")
    scalar = ScalarModel.load(tiny_qwen2)
    torch.nn.init.normal_(scalar.model.score.weight, generator=torch.Generator().manual_seed(0))
    scalar.save(folder / "start", tokenizer)
    rollouts = make_rollouts(LENGTHS)
    rng = np.random.default_rng(0)
    reference, old, values = (
        np.where(mask_of(rollouts), rng.normal(-5, 0.3, mask_of(rollouts).shape), 0).astype(np.float32)
        for _ in range(3)
    )
    state_values = np.pad(values + 5, ((0, 0), (0, 1)))
    scores = rng.normal(size=len(LENGTHS)).astype(np.float32)
    texts = [
        Sequences.build([(rng.integers(4, 200, p).tolist(), rng.integers(4, 200, r).tolist()) for p, r in LENGTHS])
        for _ in range(2)
    ]
    inputs = Inputs(
        policy=tiny_qwen2,
        reward_model=str(folder / "start"),
        sft=tiny_llama,
        batch=PPO().assign_credit(ScoredRollouts(rollouts, scores, old, 8, reference, state_values), 0.1)[0],
        rows=texts[0],
        pairs=(texts[0], texts[1]),
    )
    (folder / "inputs.pickle").write_bytes(pickle.dumps(vars(inputs)))
    one = launch(__file__, 2, folder, lambda: exercise(inputs, "ddp", Ranks(), folder / "one"))
    found = {
        sharding: [pickle.loads((folder / f"{sharding}-{rank}.pickle").read_bytes()) for rank in range(2)]
        for sharding in get_args(Sharding)
    }
    return {"one": one, "folder": folder, "inputs": inputs, **found}


pytestmark = pytest.mark.parametrize("sharding", get_args(Sharding))


def assert_close(found: dict[str, Any], wanted: dict[str, Any], tolerance: float = 1e-5) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(
            found[name], value, rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("name", ["logprobs", "logprobs_after", "values"])
def test_two_ranks_score_every_rollout_once_as_one_does(results, sharding, name):
    shares = [rank[name] for rank in results[sharding]]
    assert all(len(share.rows) for share in shares)
    merged = RowShare.merge(shares, len(LENGTHS))
    wanted = RowShare.merge([results["one"][name]], len(LENGTHS))
    np.testing.assert_allclose(merged, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("role", ["policy", "critic", "lora"])
def test_two_learners_report_the_losses_of_one(results, sharding, role):
    steps = zip(*(rank[f"{role}_reports"] for rank in results[sharding]), strict=True)
    for reports, wanted in zip(steps, results["one"][f"{role}_reports"], strict=True):
        assert reports[0].shared == reports[1].shared
        assert_close(StepReport.merge(reports), StepReport.merge([wanted]))
        assert StepReport.merge([wanted])[f"{'value' if role == 'critic' else 'policy'}/grad_norm"] > 0


@pytest.mark.parametrize("role", ["policy", "critic", "sft", "reward", "dpo", "kto", "simpo", "lora", "lora_reward"])
def test_two_ranks_have_the_weights_of_one_after_every_kind_of_step(results, sharding, role):
    for rank in results[sharding]:
        assert_close(rank[f"{role}_weights"], results["one"][f"{role}_weights"])


@pytest.mark.parametrize("role", ["sft", "reward", "dpo", "kto", "simpo", "lora_reward"])
def test_every_rank_knows_the_metrics_of_the_whole_step(results, sharding, role):
    for rank in results[sharding]:
        for found, wanted in zip(rank[f"{role}_metrics"], results["one"][f"{role}_metrics"], strict=True):
            assert_close(found, wanted)


def test_exported_weights_of_tied_models_carry_the_output_head(results, sharding):
    weights = results[sharding][0]["policy_weights"]
    assert torch.equal(weights["lm_head.weight"], weights["model.embed_tokens.weight"])


def test_what_two_ranks_saved_loads_in_transformers_with_the_weights_of_one(results, sharding):
    from transformers import AutoModelForCausalLM

    tokens = torch.arange(10, 20).unsqueeze(0)
    for part in ("policy", "sft/model", "lora"):
        found, wanted = (
            AutoModelForCausalLM.from_pretrained(results["folder"] / name / part)(tokens).logits
            for name in (sharding, "one")
        )
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_score_statistics_are_those_of_all_rows(results, sharding):
    found, wanted = (
        ScalarModel.load(str(results["folder"] / name / "reward_model" / "model")).statistics
        for name in (sharding, "one")
    )
    assert (found.mean, found.std) == (pytest.approx(wanted.mean, rel=1e-4), pytest.approx(wanted.std, rel=1e-4))


def test_merged_weights_of_shards_have_plain_names(results, sharding):
    ranks = [rank["lora_weights"] for rank in results[sharding]]
    assert ranks[0].keys() == ranks[1].keys() == results[sharding][0]["policy_weights"].keys()


def test_every_rank_gathers_the_whole_adapters_to_send(results, sharding):
    wanted = results["one"]["lora_adapters"]
    assert any(tensor.any() for name, tensor in wanted.items() if "lora_B" in name)
    for rank in results[sharding]:
        assert_close(rank["lora_adapters"], wanted)


def test_the_adapter_that_two_ranks_saved_is_that_of_one(results, sharding):
    from safetensors.torch import load_file

    found, wanted = (
        load_file(results["folder"] / name / "lora" / "adapter" / "adapter_model.safetensors")
        for name in (sharding, "one")
    )
    assert any(tensor.any() for name, tensor in found.items() if "lora_B" in name)
    assert_close(found, wanted)


def test_two_ranks_with_bfloat16_parameters_keep_close_to_one(results, sharding):
    first, second = (rank["halves_metrics"] for rank in results[sharding])
    assert first == second
    for found, wanted in zip(first, results["one"]["halves_metrics"], strict=True):
        assert_close(found, wanted, tolerance=0.05)


@pytest.mark.parametrize("role", ["lora_reward", "halves"])
def test_two_ranks_that_go_back_to_a_checkpoint_do_the_same_step_again(results, sharding, role):
    for rank in results[sharding]:
        assert rank[f"{role}_next"] == rank[f"{role}_again"]


def test_one_rank_goes_on_with_the_masters_of_two(results, sharding):
    inputs = results["inputs"]
    config = SupervisedTraining(
        optimizer=AdamW(learning_rate=1e-2, eps=1e-3), max_tokens_per_microbatch=24, parameters="bfloat16"
    )
    worker = SFTWorker(inputs.sft, load_tokenizer(inputs.policy), config, inputs.rows, inputs.rows, 10, Ranks())
    assert worker.restore(results["folder"] / sharding / "halves") == {"step": 3}
    assert_close(worker.train_step(ALL), results[sharding][0]["halves_next"], tolerance=0.05)


def test_one_rank_goes_on_from_what_two_ranks_saved(results, sharding):
    inputs = results["inputs"]
    config = SupervisedTraining(optimizer=AdamW(learning_rate=1e-2, eps=1e-3), max_tokens_per_microbatch=24)
    worker = SFTWorker(inputs.sft, load_tokenizer(inputs.policy), config, inputs.rows, inputs.rows, 10, Ranks())
    assert worker.restore(results["folder"] / sharding / "sft") == {"step": 3}
    assert_close(worker.train_step(ALL), results[sharding][0]["sft_next"])
    assert_close(weights_of(worker), results[sharding][0]["sft_weights"])


if __name__ == "__main__":
    main(*sys.argv[1:])
