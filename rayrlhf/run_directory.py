"""The run directory: `runs/NAME/` with configuration, metrics, checkpoints and summary."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, PositiveInt, field_validator

from rayrlhf import __version__
from rayrlhf.config import Config, UserError

RUNS_VARIABLE = "RAYRLHF_RUNS"
"""Environment variable with the folder that `runs/` means. `rayrlhf up` sets it for the jobs of its cluster, whose
working directory is a temporary copy that Ray deletes."""

MIN_FREE_BYTES = 500 * 2**20
"""Free disk space that every run needs to start."""


RUN_FILES = (
    "config.yaml",
    "metrics.jsonl",
    "tensorboard",
    "checkpoints",
    "model",
    "rollouts",
    "summary.json",
    "lineage.json",
    "data.json",
    "rejected.jsonl",
)
"""The files of a run. Overwriting removes only these, since other runs may be in folders below."""


class RunConfig(Config):
    """The run's name, seed and what it keeps."""

    name: str = Field(pattern=r"^[\w][\w.-]*(/[\w][\w.-]*)*$")
    """Folder below `runs/`; may be nested, as in `demo/sft`."""
    overwrite: bool = False
    """Remove an earlier run of this name. If false, such a run is an error."""
    keep_checkpoints: PositiveInt = 2
    seed: int = Field(default=0, ge=0)

    @field_validator("name")
    @classmethod
    def _is_no_file_of_another_run(cls, name: str) -> str:
        for part in name.split("/")[1:]:
            if part in RUN_FILES:
                raise ValueError(f"{part!r} is what a run calls one of its files: choose another name for that part")
        return name


def runs_root() -> Path:
    """The folder that `runs/` means: $RAYRLHF_RUNS, or `~/rayrlhf/runs` inside a Ray job, or `runs` here."""
    if named := os.environ.get(RUNS_VARIABLE):
        return Path(named)
    in_job = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ
    return Path.home() / "rayrlhf" / "runs" if in_job else Path("runs").absolute()


def resolve(path: str) -> str:
    """An absolute path; `runs/…` is below `runs_root()`. Hub names are returned unchanged."""
    first, _, rest = path.partition("/")
    if first == "runs" and rest:
        return str(runs_root() / rest)
    candidate = Path(path).expanduser()
    return str(candidate.absolute()) if candidate.is_absolute() or os.path.exists(candidate) else path


@dataclass(frozen=True)
class RunDirectory:
    """The folder of one run; made by `create`."""

    path: Path

    @classmethod
    def create(cls, run: RunConfig, config: Config, inputs: Iterable[str] = ()) -> RunDirectory:
        """Make the folder and write `config.yaml`.

        Raises UserError if the name is taken, if overwriting would remove one of the run's own `inputs`, or if the
        disk has no room.
        """
        path = runs_root() / run.name
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{path}: cannot make the run directory: {error.strerror}") from None
        check_room(path, MIN_FREE_BYTES)
        if (path / "config.yaml").exists():
            if not run.overwrite:
                raise UserError(f"{path}: a run of this name exists; choose another run.name or set run.overwrite=true")
            for given in inputs:
                if any(_lies_in(Path(given), path / name) for name in RUN_FILES):
                    raise UserError(
                        f"{given} is an input of this run, and run.overwrite would remove it: rename the run"
                    )
            for name in RUN_FILES:
                _remove(path / name)
        (path / "config.yaml").write_text(
            yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
            encoding="utf-8",
        )
        return cls(path)

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """`summary.json`: the metrics at the end of the run."""
        self._write_json("summary.json", summary)

    def write_data_report(self, account: Mapping[str, Any], rejected: Path) -> None:
        """`data.json`: the account of all rows. `rejected.jsonl`: the rejected rows."""
        self._write_json("data.json", account)
        if rejected.exists():
            shutil.copyfile(rejected, self.path / "rejected.jsonl")

    def write_lineage(self, data: Mapping[str, str | None], models: Mapping[str, str]) -> None:
        """`lineage.json`: the run's inputs. `data`: content hash of each source."""
        lineage = {
            "rayrlhf": __version__,
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "data": dict(data),
            "models": dict(models),
        }
        self._write_json("lineage.json", lineage)

    def _write_json(self, name: str, content: Mapping[str, Any]) -> None:
        (self.path / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def check_room(path: Path, needed_bytes: int) -> None:
    """Raises UserError if the disk under `path` has less than `needed_bytes` free."""
    free = shutil.disk_usage(path).free
    if free < needed_bytes:
        raise UserError(
            f"{path}: the disk has {free / 2**30:.1f} GiB free, the run needs {needed_bytes / 2**30:.1f} GiB; "
            f"free some space, or set {RUNS_VARIABLE} to a folder on another disk"
        )


def _lies_in(path: Path, folder: Path) -> bool:
    """By whatever name or link."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
