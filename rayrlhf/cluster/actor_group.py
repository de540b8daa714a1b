"""Groups of Ray actors: `Host` puts any plain worker in an actor, `ActorGroup` is the actors of one role.

A method's named arguments may be object references, or lists of them: the worker gets their values, straight from the
object store, and what a method returns stays there until someone asks for it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ray

from rayrlhf.cluster.placement import Reservation, Resources
from rayrlhf.config import UserError
from rayrlhf.training.parallel import Ranks

Factory = Callable[[Ranks], Any]
"""Builds the plain worker of one rank, inside its actor."""


class WorkerError(UserError):
    """A worker failed, died or did not answer in time."""


MAX_RESTARTS = 10
"""Of a worker without a state of its own that died."""


@ray.remote
class Host:
    """An actor that holds one plain worker.

    A worker without a state of its own is made from `recipe` together with its actor, so that Ray can start it again
    and repeat its calls.
    """

    def __init__(self, recipe: tuple[Factory, Ranks] | None = None) -> None:
        self._worker: Any = None
        if recipe is not None:
            self.build(*recipe)

    def ready(self) -> None:
        """Answers once the worker is there."""

    def address(self) -> tuple[str, int]:
        """A free address on this node, where rank 0 lets the others meet it."""
        ip = ray.util.get_node_ip_address()
        with socket.socket() as probe:
            probe.bind((ip, 0))
            return ip, probe.getsockname()[1]

    def build(self, factory: Factory, ranks: Ranks, meeting: tuple[str, int] = ("", 0), timeout_s: float = 0.0) -> None:
        """Join the other ranks and build the worker."""
        if threads := os.environ.get("OMP_NUM_THREADS"):
            import torch

            torch.set_num_threads(int(threads))
        ranks.join(*meeting, timeout_s)
        self._worker = factory(ranks)

    def call(self, method: str, **arguments: Any) -> Any:
        """Call a method of the worker."""
        return getattr(self._worker, method)(**{name: _resolved(value) for name, value in arguments.items()})

    def export(self, dtype: Any) -> Iterator[Any]:
        """The worker's weights, bucket by bucket, then how many there were. Only rank 0 gives them out."""
        is_first = os.environ["RAYRLHF_RANK"] == "0"
        count = 0
        for bucket in self._worker.export(dtype):  # every rank takes part in gathering
            if is_first:
                count += 1
                yield bucket
        yield count


def _resolved(value: Any) -> Any:
    """Ray fetches references that are arguments themselves; those in a list or tuple are fetched here."""
    if isinstance(value, list | tuple) and value and all(isinstance(item, ray.ObjectRef) for item in value):
        return ray.get(list(value))
    return value


@dataclass(frozen=True)
class RoleFactory:
    """How the workers of a role are made."""

    build: Factory
    together: bool = False
    """Whether its ranks share a process group."""
    restartable: bool = False
    """Whether a worker that died can be made anew from nothing but this."""


class ActorGroup:
    """The actors of one role."""

    def __init__(
        self, role: str, factory: RoleFactory, resources: Resources, reservation: Reservation, timeout_s: float
    ) -> None:
        self.role, self._factory, self._timeout_s = role, factory, timeout_s
        seats = reservation.plan.seats[role]
        self._ranks = [Ranks(rank, len(seats), joins=factory.together) for rank in range(len(seats))]
        restarts = {"max_restarts": MAX_RESTARTS, "max_task_retries": -1} if factory.restartable else {}
        self._hosts = [
            Host.options(  # type: ignore[attr-defined]
                name=f"{role}-{ranks.rank}-{os.getpid()}-{id(self):x}",
                runtime_env={"env_vars": environment(ranks.rank, resources.threads)},
                **restarts,
                **reservation.options(seat),
            ).remote((factory.build, ranks) if factory.restartable else None)
            for ranks, seat in zip(self._ranks, seats, strict=True)
        ]

    def build(self) -> list[Any]:
        """Build the workers. Returns references to wait for."""
        if self._factory.restartable:
            return [host.ready.remote() for host in self._hosts]
        meeting = ("", 0)
        if self._factory.together and len(self._hosts) > 1:
            meeting = wait_for([self._hosts[0].address.remote()], f"{self.role} to start", self._timeout_s)[0]
        return [
            host.build.remote(self._factory.build, ranks, meeting, self._timeout_s)
            for ranks, host in zip(self._ranks, self._hosts, strict=True)
        ]

    def call(self, method: str, **arguments: Any) -> list[Any]:
        """Call `method` on every worker; one reference each."""
        return [host.call.remote(method, **arguments) for host in self._hosts]

    def call_first(self, method: str, num_returns: int = 1, **arguments: Any) -> Any:
        """Call `method` on rank 0 alone; a reference, or a list of them."""
        return self._hosts[0].call.options(num_returns=num_returns).remote(method, **arguments)

    @property
    def hosts(self) -> list[Any]:
        """The actors, by rank."""
        return self._hosts

    def kill(self) -> None:
        """End the actors."""
        for host in self._hosts:
            ray.kill(host)


def environment(rank: int, threads: int) -> dict[str, str]:
    """Variables of a worker's process."""
    return {
        "OMP_NUM_THREADS": str(threads),
        "RAYRLHF_RANK": str(rank),
        "TOKENIZERS_PARALLELISM": "false",
    }


def wait_for(references: Sequence[Any], awaited: str, timeout_s: float, setting: str = "timeouts.start_s") -> list[Any]:
    """The values of `references`. Raises WorkerError naming what was awaited and the setting to change."""
    try:
        return list(ray.get(list(references), timeout=timeout_s))
    except ray.exceptions.GetTimeoutError:
        raise WorkerError(
            f"waited {timeout_s:g} s for {awaited}: raise {setting}, or look at the actor's log"
        ) from None
    except ray.exceptions.RayTaskError as error:
        cause = error.as_instanceof_cause()
        if isinstance(error.cause, UserError):
            raise WorkerError(f"{awaited}: {error.cause}") from None
        raise WorkerError(f"{awaited}: {type(error.cause).__name__}: {cause}") from error
    except ray.exceptions.RayActorError as error:
        raise WorkerError(f"{awaited}: an actor died: {str(error).strip()}") from None
