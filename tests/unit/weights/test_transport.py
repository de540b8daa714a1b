"""Weight transports: how one is written, what a second one takes, and that the engine has a receiver for each."""

from typing import Annotated, Literal, get_args

import pytest
import torch
from pydantic import Field

from rayrlhf.algorithms import PPO
from rayrlhf.config import ConfigError, parse_config, short_form
from rayrlhf.ppo.config import PPOConfig
from rayrlhf.training.model_trainer import TrainingConfig
from rayrlhf.training.parallel import Ranks
from rayrlhf.weights import AnyTransport, ObjectStore, WeightTransport
from rayrlhf.weights.buckets import pack
from rayrlhf.workers.learner import PolicyLearner

TREE = {
    "run": {"name": "x"},
    "model": "m",
    "reward": {"source": {"kind": "reward_model", "model": "r"}},
    "data": {"train": ["p.jsonl"]},
}


class Halved(WeightTransport):
    """A second transport: every weight arrives at half its size."""

    kind: Literal["halved"] = "halved"

    def pack(self, weights, dtype=None):
        return pack(((name, tensor / 2) for name, tensor in weights), dtype)


class RunOfTwo(PPOConfig):
    """A run that has a second transport to choose from."""

    weights: Annotated[Annotated[ObjectStore | Halved, Field(discriminator="kind")], short_form()] = ObjectStore()


@pytest.mark.parametrize(
    "written", [{}, {"weights": "object_store"}, {"weights": {}}, {"weights": {"kind": "object_store"}}]
)
def test_the_object_store_is_the_default_and_may_be_written_as_its_kind(written):
    assert parse_config(PPOConfig, TREE | written, "x").weights == ObjectStore()


def test_an_unknown_transport_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"weights\.kind: .*'object_store' .*'pigeon'"):
        parse_config(PPOConfig, TREE | {"weights": "pigeon"}, "x")


def test_a_second_transport_is_a_second_member_of_the_union():
    assert parse_config(RunOfTwo, TREE | {"weights": "halved"}, "x").weights == Halved()
    assert parse_config(RunOfTwo, TREE, "x").weights == ObjectStore()


def test_the_object_store_sends_plain_buckets():
    weights = [("w", torch.tensor([1.0, 1 / 3]))]
    (bucket,) = ObjectStore().pack(weights, torch.bfloat16)
    assert (bucket.names, bucket.dtypes) == (["w"], ["bfloat16"])
    assert [b.names for b in ObjectStore().pack(weights)] == [["w"]]


def test_a_learner_sends_what_its_transport_packs(tiny_model):
    def exported(transport: WeightTransport | None) -> dict[str, torch.Tensor]:
        learner = PolicyLearner(tiny_model, TrainingConfig(), PPO(), 1, Ranks(), transport=transport)
        return {name: tensor for bucket in learner.export(None) for name, tensor in bucket.tensors()}

    whole, halved = exported(None), exported(Halved())
    assert list(whole) == list(halved)
    assert all(torch.equal(whole[name] / 2, halved[name]) for name in whole)


def test_vllm_has_a_receiver_for_every_transport():
    from rayrlhf.engines.vllm.receivers import RECEIVERS, register

    union = get_args(AnyTransport)[0]
    kinds = {model.model_fields["kind"].default for model in (get_args(union) or (union,))}
    assert kinds == set(RECEIVERS)
    assert {register(kind) for kind in kinds} == {register(kind) for kind in kinds} == {"rayrlhf_object_store"}
