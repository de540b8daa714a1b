"""Ray's token authentication: where the token is, and whether a cluster accepts it.

Ray (2.60) looks for a token in RAY_AUTH_TOKEN, then in the file RAY_AUTH_TOKEN_PATH, then in
~/.ray/auth_token, and uses it only in processes where RAY_AUTH_MODE=token. A cluster's mode is fixed
when it starts; a process with another mode hangs or fails deep inside Ray. So this module asks the cluster first: one
call to its control service (GCS) tells in milliseconds whether it runs, requires a token, accepts ours, and which
version of Ray it has.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import grpc
from ray._private.authentication import authentication_token_setup
from ray._raylet import AuthenticationTokenLoader, Config
from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

AuthMode = Literal["token", "disabled"]


def token_path() -> Path:
    """The file that holds the token, by Ray's own rules; it may not exist."""
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")


def read_token() -> str | None:
    """The token of this user, None if there is none."""
    if token := os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return token
    path = token_path()
    return (path.read_text().strip() or None) if path.is_file() else None


def ensure_token() -> str:
    """The token. If there is none, one is made that only this user can read."""
    if token := read_token():
        return token
    path = token_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    token = secrets.token_hex(32)
    # Created with mode 0600: never readable by others, not even for a moment. An empty file may have been there.
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(token)
    return token


@dataclass(frozen=True)
class Answer:
    """The answer of a GCS. `ray_version` is known only when `status` is "ok"."""

    status: Literal["ok", "refused", "unreachable"]
    ray_version: str = ""
    detail: str = ""


def ask(address: str, token: str | None, timeout_s: float = 5.0) -> Answer:
    """Call the GCS at `address` (host:port), with or without a token. Network errors are answers, not exceptions."""
    metadata = [("authorization", f"Bearer {token}")] if token else None
    # Like Ray itself, ignore HTTP proxies.
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        stub = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel)
        try:
            reply = stub.CheckAlive(gcs_service_pb2.CheckAliveRequest(), timeout=timeout_s, metadata=metadata)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.UNAUTHENTICATED:
                return Answer("refused", detail=error.details())
            return Answer("unreachable", detail=f"{error.code().name}: {error.details()}")
    return Answer("ok", reply.ray_version)


def use_mode(mode: AuthMode) -> None:
    """Make this process, and those it starts, authenticate as the cluster requires.

    Ray reads its settings at import, so setting the environment alone would be too late.
    """
    os.environ[authentication_token_setup.AUTH_MODE_ENV_VAR] = mode
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()
