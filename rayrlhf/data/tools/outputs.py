"""The files that a run of a tool makes: checked before anything is read, put in place together when all is done."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from rayrlhf.data.ingest.account import Account, DataError, RejectedFile
from rayrlhf.data.ingest.sources import file_hash
from rayrlhf.data.tools.output_file import OutputFile, explained, temporary_name
from rayrlhf.data.tools.writer import RecordWriter, check_format, lineage_text


class Outputs:
    """All files of one run: for each named output its records and lineage, and the rejected rows beside the first.

    Nothing is written and `writers` is empty if no output is named.
    """

    def __init__(
        self, named: Mapping[str, Path], inputs: Sequence[Path], force: bool, columns: Sequence[str] = ()
    ) -> None:
        for path in named.values():
            check_format(path)
        self._named, self._force, self._columns = named, force, columns
        self._paths = output_paths([*named.values()])
        self._rejected_path = self._paths[-1] if named else None
        check_outputs(self._paths, inputs)
        self.writers: dict[str, RecordWriter] = {}
        self.rejected: RejectedFile | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Outputs:
        with ExitStack() as stack:
            self._files = {path: stack.enter_context(OutputFile(path, self._force)) for path in self._paths}
            if self._rejected_path is not None:
                self.rejected = RejectedFile(self._rejected_path, self._files[self._rejected_path].temporary)
            for name, path in self._named.items():
                self.writers[name] = stack.enter_context(RecordWriter(self._files[path], self._columns))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def publish(
        self, command: str, sources: Mapping[str, str | None], rules: Mapping[str, Any], account: Account
    ) -> dict[str, str]:
        """Put all files in place. Returns what to say of each; rules: settings that made them."""
        written: dict[str, str] = {}
        for writer in self.writers.values():
            writer.finish()
        for name, path in self._named.items():
            digest = file_hash(self._files[path].temporary)
            lineage = self._files[_lineage_path(path)]
            lineage.write(lineage_text(command, sources, {**rules, "output": name}, account, digest))
            written[name] = f"{path} ({self.writers[name].num_records:,} {rules['read_as']})"
            written[f"{name} lineage"] = str(lineage.path)
        for path, file in self._files.items():
            if path != self._rejected_path:
                file.publish()
        if self.rejected is not None and self.rejected.is_empty:
            with explained(self.rejected.path):
                self.rejected.path.unlink(missing_ok=True)  # of an earlier run, which this one replaces
        return written | self.publish_rejected()

    def publish_rejected(self) -> dict[str, str]:
        """Put the rejected rows in place, if there are any: also those of a run that too many bad rows stopped."""
        if self.rejected is None or self.rejected.is_empty:
            return {}
        self.rejected.close()
        self._files[self.rejected.path].publish()
        return {"rejected rows": str(self.rejected.path)}


def output_paths(named: Sequence[Path]) -> list[Path]:
    """`named`, and the files beside them; that of the rejected rows is the last one."""
    rejected = [path.with_name(f"{path.name}.rejected.jsonl") for path in named[:1]]
    return [*named, *map(_lineage_path, named), *rejected]


def check_outputs(outputs: Sequence[Path], inputs: Sequence[Path]) -> None:
    """Raises DataError for an output that is a folder or cannot be made, and for one that is an input, under whatever
    name or link, or that lies in a folder that is one."""
    for path in outputs:
        temporary = temporary_name(path)
        with explained(path), suppress(FileNotFoundError):
            temporary.stat()  # a name may be too long
        if path.is_dir():
            raise DataError(f"--out {path}: it is a folder; name a file in it")
        for given in inputs:
            if any(
                os.path.exists(ours) and os.path.exists(given) and os.path.samefile(ours, given)
                for ours in (path, temporary)
            ):
                also = "" if str(path) == str(given) else f" {given}"
                raise DataError(f"--out {path}: it is the input{also}, which would be lost; give another name")
            if os.path.isdir(given) and Path(os.path.realpath(path)).is_relative_to(os.path.realpath(given)):
                raise DataError(f"--out {path}: it would become a part of the input {given}; name another folder")


def _lineage_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.lineage.json")
