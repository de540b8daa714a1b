"""Variables of a user's shell."""

import os

OURS = ("RAY_ADDRESS", "RAY_AUTH", "RAYRLHF_", "OMP_")


def plain_environment() -> dict[str, str]:
    """This process's variables without those that tests set: a cluster, rayrlhf's own, numbers of threads."""
    return {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
