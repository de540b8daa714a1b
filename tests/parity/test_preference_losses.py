"""Losses on pairs and labeled answers against the code of TRL's trainers, on random ragged batches."""

from collections import defaultdict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rayrlhf.algorithms.preference import DPO, IPO, KTO, ORPO, SimPO

pytestmark = pytest.mark.peer
VOCABULARY, PROMPT, PAD = 11, 2, 0
SEEDS = range(10)


class Model:
    """A language model that looks at the last token only, called as TRL calls one."""

    training = True

    def __init__(self, seed: int) -> None:
        self.table = torch.randn(VOCABULARY, VOCABULARY, generator=torch.Generator().manual_seed(seed)).double()
        self.table.requires_grad_()

    def __call__(self, input_ids: torch.Tensor, **_: Any) -> SimpleNamespace:
        return SimpleNamespace(logits=self.table[input_ids])


def batch(seed: int, count: int) -> dict[str, torch.Tensor]:
    """Prompts of two tokens, answers of 1 to 6, padded."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, VOCABULARY, (count, PROMPT + 6), generator=generator)
    lengths = PROMPT + torch.randint(1, 7, (count,), generator=generator)
    places = torch.arange(PROMPT + 6)
    mask = places < lengths[:, None]
    return {
        "input_ids": ids.where(mask, PAD),
        "attention_mask": mask.long(),
        "completion_mask": (mask & (places >= PROMPT)).long(),
    }


def logprobs(model: Model, rows: dict[str, torch.Tensor]) -> torch.Tensor:
    """[B], Σ log p over each answer's tokens, one token at a time."""
    every = torch.log_softmax(model.table, -1)
    sums = []
    for ids, mask in zip(rows["input_ids"], rows["completion_mask"], strict=True):
        at = [t for t in range(len(ids)) if mask[t]]
        sums.append(sum(every[ids[t - 1], ids[t]] for t in at))
    return torch.stack(sums)


def trainer(kind: type, model: Model, **settings: Any) -> Any:
    """TRL's trainer without what it needs to train."""
    made = kind.__new__(kind)
    alone: Callable[[Any], Any] = lambda value: value  # noqa: E731
    accelerator = SimpleNamespace(device=torch.device("cpu"), gather=alone, gather_for_metrics=alone)
    off = dict.fromkeys(("aux_loss_enabled", "use_liger_kernel"), False)
    defaults = {"model": model, "accelerator": accelerator, "precompute_ref_logps": True, **off}
    counters = {"_metrics": {"train": defaultdict(list)}, "_total_train_tokens": 0}
    vars(made).update(defaults | counters | settings)
    return made


def compare(ours: torch.Tensor, theirs: torch.Tensor, model: Model) -> None:
    """Value, and gradient by the model's table."""
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)
    gradients = [torch.autograd.grad(loss, model.table, retain_graph=True)[0] for loss in (ours, theirs)]
    assert (gradients[0] - gradients[1]).norm() <= 1e-6 * gradients[1].norm()
    assert gradients[1].any()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("loss", "name"), [(DPO(beta=0.3), "sigmoid"), (IPO(beta=0.3), "ipo")])
def test_dpo_and_ipo_are_those_of_the_dpo_trainer(seed, loss, name):
    from trl import DPOTrainer

    model, reference, rows = Model(seed), Model(seed + 100), batch(seed, 8)
    known = logprobs(reference, rows).detach().view(2, -1)
    theirs = trainer(
        DPOTrainer,
        model,
        ld_alpha=None,
        f_divergence_type="reverse_kl",
        loss_types=[name],
        loss_weights=[1.0],
        beta=0.3,
        label_smoothing=0.0,
        use_weighting=False,
        args=SimpleNamespace(padding_free=False),
    )
    inputs = rows | {"ref_chosen_logps": known[0], "ref_rejected_logps": known[1]}
    lengths = rows["completion_mask"].sum(1).view(2, -1)
    ours = loss.evaluate(logprobs(model, rows).view(2, -1), known, lengths).loss.mean()
    compare(ours, theirs._compute_loss(model, inputs, return_outputs=False), model)


@pytest.mark.parametrize("seed", SEEDS)
def test_kto_is_that_of_the_kto_trainer(seed):
    from trl import KTOTrainer

    model, reference, rows, others = Model(seed), Model(seed + 100), batch(seed, 8), batch(seed + 50, 8)
    known, known_others = (logprobs(reference, part).detach() for part in (rows, others))
    known_others -= 5 * (seed % 2)  # a KL that is clamped, or not
    theirs = trainer(
        KTOTrainer,
        model,
        calculate_KL=True,
        beta=0.3,
        loss_type="kto",
        desirable_weight=1.3,
        undesirable_weight=0.7,
    )
    labels = torch.arange(8) % 3 == 0
    inputs = {
        **rows,
        **{f"KL_{name}": value for name, value in others.items()},
        "label": labels,
        "ref_logps": known,
        "ref_KL_logps": known_others,
    }
    loss = KTO(beta=0.3, desirable_weight=1.3, undesirable_weight=0.7)
    kl = loss.kl(logprobs(model, others) - known_others)
    ours = loss.evaluate(logprobs(model, rows) - known, labels, kl).loss.mean()
    compare(ours, theirs._compute_loss(model, inputs, return_outputs=False), model)


def means(seed: int) -> tuple[Model, torch.Tensor, torch.Tensor]:
    """A model, and Σ log p and lengths of pairs."""
    model, rows = Model(seed), batch(seed, 8)
    return model, logprobs(model, rows).view(2, -1), rows["completion_mask"].sum(1).view(2, -1)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("beta", [2.0, 10.0])
@pytest.mark.parametrize("gamma", [0.0, 1.4])
def test_simpo_is_that_of_the_cpo_trainer(seed, beta, gamma):
    from trl.experimental.cpo import CPOTrainer

    model, sums, lengths = means(seed)
    settings = {"alpha": 0.0, "loss_type": "simpo", "simpo_gamma": gamma, "beta": beta, "label_smoothing": 0.0}
    theirs, *rewards = trainer(CPOTrainer, model, **settings).cpo_loss(*(sums / lengths))
    ours = SimPO(beta=beta, gamma=gamma).evaluate(sums, None, lengths)
    compare(ours.loss.mean(), theirs.mean(), model)
    torch.testing.assert_close(ours.rewards, torch.stack(rewards))


@pytest.mark.parametrize("seed", SEEDS)
def test_orpo_is_that_of_the_orpo_trainer(seed):
    from trl.experimental.orpo import ORPOTrainer

    model, sums, lengths = means(seed)
    theirs, *rewards, _, _ = trainer(ORPOTrainer, model, beta=0.3).odds_ratio_loss(*(sums / lengths))
    ours = ORPO(beta=0.3).evaluate(sums, None, lengths)
    # It is the trainer's loss less its odds ratio; TRL's odds are in float32.
    compare(ours.loss.mean(), (-sums[0] / lengths[0] - theirs).mean(), model)
    torch.testing.assert_close(ours.rewards, torch.stack(rewards).double(), rtol=1e-6, atol=0)
