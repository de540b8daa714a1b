"""The policy's weights on their way from learner to samplers.

learner ── sender: `WeightTransport.pack` ──► buckets of a version ──► receiver, inside the sampler's engine

A transport is its settings and its sender, one module here and one line in the union. An engine takes weights by its
own means, so the receiver belongs to the engine, which looks it up by the transport's `kind`. `VersionStore` says
which versions there are.
"""

from typing import Annotated

from rayrlhf.config import short_form
from rayrlhf.weights.base import WeightTransport
from rayrlhf.weights.object_store import ObjectStore

AnyTransport = Annotated[ObjectStore, short_form(kind="object_store")]
"""`object_store` is short for `{kind: object_store}`. Pydantic wants two members in a discriminated union: the second
transport makes the first argument `Annotated[ObjectStore | Second, Field(discriminator="kind")]`."""

__all__ = ["AnyTransport", "ObjectStore", "WeightTransport"]
