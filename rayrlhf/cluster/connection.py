"""Connecting to a Ray cluster: the one that `rayrlhf up` recorded, the one that runs this job, or RAY_ADDRESS.

Every failure ends within seconds in a `ClusterError` that says what was found and how to fix it.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import ray
from ray._private import services

from rayrlhf.cluster import ray_auth
from rayrlhf.cluster.processes import ProcessId
from rayrlhf.config import UserError


class ClusterError(UserError):
    """A cluster cannot be started or reached. The message is one paragraph: `what was found; the fix`."""


@dataclass(frozen=True)
class LocalCluster:
    """What `up` started, as the state file records it."""

    address: str  # host:port of the control service (GCS), what ray.init takes
    dashboard_url: str  # what `ray job submit` takes
    temp_dir: str
    log: str
    mark: str  # an environment variable's value in every process of this cluster
    root: ProcessId  # `ray start --head --block`
    core: tuple[ProcessId, ...]  # its children: GCS, raylet, dashboard

    def is_up(self) -> bool:
        """Whether its head process runs. False after a crash or a reboot."""
        return self.root.find() is not None


def state_path() -> Path:
    """RAYRLHF_STATE, or ~/.rayrlhf/cluster.json."""
    return Path(os.environ.get("RAYRLHF_STATE") or Path.home() / ".rayrlhf" / "cluster.json")


def recorded() -> LocalCluster | None:
    """The cluster that `up` recorded last, running or not. Raises ClusterError if the file is damaged."""
    try:
        raw = json.loads(state_path().read_text())
        raw["root"] = ProcessId(**raw["root"])
        raw["core"] = tuple(ProcessId(**process) for process in raw["core"])
        return LocalCluster(**raw)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise ClusterError(f"{state_path()} is damaged ({error}); remove it: rm {state_path()}") from None


def running() -> LocalCluster | None:
    """The recorded cluster, if it is up."""
    cluster = recorded()
    return cluster if cluster and cluster.is_up() else None


def client_environment() -> dict[str, str]:
    """Environment variables with which a process, `ray job submit` included, reaches the recorded cluster. None is
    secret: a token that this process has in RAY_AUTH_TOKEN is left to it.

    Raises ClusterError if none is up.
    """
    cluster = running()
    if cluster is None:
        raise ClusterError(f"no cluster is recorded as running in {state_path()}; start one with `rayrlhf up`")
    variables = {
        "RAY_ADDRESS": cluster.address,
        "RAY_API_SERVER_ADDRESS": cluster.dashboard_url,
        "RAY_AUTH_MODE": "token",
    }
    custom = {key: os.environ[key] for key in ("RAY_AUTH_TOKEN_PATH",) if key in os.environ}
    return variables | custom


def find_address() -> str:
    """host:port of RAY_ADDRESS, else of the recorded cluster, else of the one Ray finds on this machine.

    Raises ClusterError if there is none.
    """
    address = os.environ.get("RAY_ADDRESS", "")
    if not address and (cluster := running()):
        return cluster.address
    if "://" in address or (address and address != "auto" and ":" not in address):
        raise ClusterError(
            f"RAY_ADDRESS={address} is not host:port of a Ray cluster; set it to e.g. 127.0.0.1:6379. The "
            "dashboard's URL, for `ray job submit`, goes into RAY_API_SERVER_ADDRESS"
        )
    try:
        return str(services.canonicalize_bootstrap_address_or_die(address or "auto"))
    except (ConnectionError, ValueError):
        raise ClusterError(
            "no Ray cluster runs on this machine; start one with `rayrlhf up` or `ray start --head`"
        ) from None


def check_access(address: str) -> ray_auth.AuthMode:
    """Check that we may use the cluster at `address`. Returns its authentication mode.

    Raises ClusterError: unreachable, token missing or wrong, another version of Ray. Takes at most 10 s.
    """
    answer, mode = ray_auth.ask(address, token=None), "disabled"
    if answer.status == "unreachable":
        raise ClusterError(
            f"no Ray cluster answers at {address} ({answer.detail}); start one with `rayrlhf up` or "
            "`ray start --head`, or set RAY_ADDRESS to host:port of one that runs"
        )
    if answer.status == "refused":
        token = ray_auth.read_token()
        place = "RAY_AUTH_TOKEN" if os.environ.get("RAY_AUTH_TOKEN") else str(ray_auth.token_path())
        if token is None:
            raise ClusterError(
                f"the Ray cluster at {address} requires an authentication token, and {place} has none; copy that "
                "file from the machine or user that started the cluster, or set RAY_AUTH_TOKEN"
            )
        answer, mode = ray_auth.ask(address, token), "token"
        if answer.status != "ok":
            raise ClusterError(
                f"the Ray cluster at {address} does not accept the token of {place} ({answer.detail}); copy "
                "~/.ray/auth_token from the machine or user that started the cluster"
            )
    if answer.ray_version and answer.ray_version != ray.__version__:
        raise ClusterError(
            f"the Ray cluster at {address} runs Ray {answer.ray_version}, this process {ray.__version__}; "
            f"install the same on both: pip install 'ray[default,train]=={answer.ray_version}'"
        )
    return "token" if mode == "token" else "disabled"


def connect(namespace: str | None = None) -> None:
    """Connect this process to the cluster, inside a Ray job too. Does nothing if already connected.

    `namespace` is where named actors are looked up. Raises ClusterError within 30 s.
    """
    if ray.is_initialized():
        return
    address = find_address()
    ray_auth.use_mode(check_access(address))
    try:
        ray.init(address=address, namespace=namespace, log_to_driver=False, logging_level="WARNING")
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        first = str(error).strip().splitlines()[0]
        raise ClusterError(
            f"the Ray cluster at {address} answers, but this process could not join it: {first}. It needs "
            "the same Python and Ray, and a Ray node on this machine: run it with `ray job submit`, or add "
            f"this machine with `ray start --address={address}`"
        ) from None
