"""Settings: frozen pydantic models, read from YAML plus `key.sub=value`, with errors that name the fix.

Each module owns its own `Config` subclass; a job's configuration is a tree of them. Nothing mutates a config.
A file that says `extends: other.yaml` (relative to itself) needs to say only what differs.
"""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError


class UserError(Exception):
    """Something the user gave cannot be used. The message is all they need: it is shown without a trace."""


class ConfigError(UserError):
    """A setting is unknown, of the wrong type or out of range."""


class Config(BaseModel):
    """Base of every configuration: immutable, unknown keys refused, docstrings below fields kept."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        protected_namespaces=(),
        hide_input_in_errors=True,  # `parse_config` shows values, but none that may be a secret
    )


ConfigT = TypeVar("ConfigT", bound=Config)
SECRET = "secret"
"""Type of a pydantic error whose value no message may show."""


def short_form(field: str = "kind", kind: str | Callable[[Mapping[str, Any]], str] | None = None) -> BeforeValidator:
    """For a union of kinds: a plain `x` is short for `{field: x}`, and a mapping without a kind is of `kind`."""

    def expand(value: Any) -> Any:
        if isinstance(value, str):
            value = {field: value}
        if isinstance(value, dict) and "kind" not in value and kind is not None:
            return {"kind": kind if isinstance(kind, str) else kind(value), **value}
        return value

    return BeforeValidator(expand)


def load_config(cls: type[ConfigT], path: str | Path, overrides: Sequence[str] = ()) -> ConfigT:
    """Read `path` (YAML) as a `cls`, with `key.sub=value` overrides applied on top.

    Raises ConfigError for a file that cannot be read, and for any key or value that `cls` refuses; the message
    lists every problem at once, each with the field, the value and what to do.
    """
    return parse_config(cls, read_settings(path, overrides), source=str(path))


def read_settings(path: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The settings of `path` and of the files that it extends as one tree, with `overrides` applied, not validated.

    Raises ConfigError.
    """
    tree = _read_file(Path(path), ())
    for override in overrides:
        _apply_override(tree, override)
    return tree


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """`key.sub=value` settings as a tree. Raises ConfigError for one that is not written like that."""
    tree: dict[str, Any] = {}
    for override in overrides:
        _apply_override(tree, override)
    return tree


def parse_config(cls: type[ConfigT], tree: dict[str, Any], source: str) -> ConfigT:
    """Validate `tree` as a `cls`. Raises ConfigError naming `source`."""
    try:
        return cls.model_validate(tree)
    except ValidationError as error:
        lines = [_explain(cls, problem) for problem in error.errors()]
        raise ConfigError("\n".join([f"{source}: {_count(len(lines))} to fix", *lines])) from None


def _read_file(path: Path, children: tuple[Path, ...]) -> dict[str, Any]:
    """`path` merged over the file that it extends. children: the files that extend this one, the nearest last."""
    if path.resolve() in [child.resolve() for child in children]:
        chain = " -> ".join(map(str, [*children, path]))
        raise ConfigError(f"{path}: extends itself ({chain}): remove one `extends`")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        problem = f"{path}: cannot read the configuration file"
        if children:
            problem = f"{children[-1]}: extends {path}, which cannot be read"
        raise ConfigError(f"{problem}: {reason}") from None
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected settings as `key: value` lines, found {_type_name(tree)}")
    parent = tree.pop("extends", None)
    if parent is None:
        return tree
    if not isinstance(parent, str):
        raise ConfigError(f"{path}: extends: expected the name of one file, found {_type_name(parent)}")
    return _merge(_read_file(path.parent / parent, (*children, path)), tree)


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """`above` over `below`: mappings merge, everything else is replaced, lists too.

    A section whose `kind` differs replaces the one below: its other settings belong to another variant. A single value
    below a mapping is the short form of such a section (`algorithm: grpo`).
    """
    merged = dict(below)
    for key, new in above.items():
        old = below.get(key)
        if isinstance(new, dict) and isinstance(old, str):
            old = {"kind": old}
        if isinstance(new, dict) and isinstance(old, dict) and new.get("kind") in (None, old.get("kind")):
            merged[key] = _merge(old, new)
        else:
            merged[key] = new
    return merged


def _count(problems: int) -> str:
    return "1 setting" if problems == 1 else f"{problems} settings"


def _apply_override(tree: dict[str, Any], override: str) -> None:
    key, separator, value = override.partition("=")
    parts = key.split(".")
    if not separator or not all(parts):
        raise ConfigError(f"override {override!r}: write it as key.sub=value, for example sampler.num_workers=2")
    node = tree
    for part in parts[:-1]:
        child = node.setdefault(part, {})
        if child is None:
            child = node[part] = {}
        if not isinstance(child, dict):
            raise ConfigError(f"override {override!r}: {part!r} is a single value, it has no settings below it")
        node = child
    try:
        node[parts[-1]] = yaml.safe_load(value)
    except yaml.YAMLError:
        node[parts[-1]] = value


@dataclass
class _Place:
    """Where a problem is."""

    names: list[str]
    """The location without union tags."""
    holders: list[type[BaseModel]]
    """The models that may hold its last part."""
    siblings: list[type[BaseModel]] = field(default_factory=list)
    """The other models of the union that the holder is of."""
    in_optional: bool = False
    """Whether the section that holds it could be left out."""

    @property
    def section(self) -> str:
        return ".".join(self.names[:-1])


def _explain(cls: type[BaseModel], problem: Any) -> str:
    """One line for one pydantic error: field, what is wrong, the value, the fix."""
    location, kind, value = problem["loc"], problem["type"], problem["input"]
    place = _place_of(cls, location)
    name = ".".join(place.names)
    if kind == "extra_forbidden":
        return f"  {name}: unknown setting{_hint(place)}"
    if kind == "missing":
        return f"  {name}: required, and not set" + (
            f"; set it, or leave {place.section} out" if place.in_optional else ""
        )
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        context = problem.get("ctx", {})
        return f"  {name}.kind: {context.get('tag', 'not set')!r} is not one of {context.get('expected_tags', '')}"
    message = problem["msg"].removeprefix("Value error, ")
    found = "" if isinstance(value, dict) or kind == SECRET else f" (found {value!r})"
    return f"  {name + ': ' if name else ''}{message}{found}"


def _hint(place: _Place) -> str:
    """What an unknown setting may have been meant to be."""
    name = place.names[-1]
    owners = [str(_tag(model)) for model in place.siblings if name in model.model_fields]
    if owners:
        others = f"{place.section}.kind={owners[0]}" + (" or another of these" if owners[1:] else "")
        return f" of {_tag(place.holders[0])}, but one of {', '.join(owners)}: leave it out, or set {others}"
    known = sorted(_field_names(place.holders))
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if near:
        return f"; did you mean `{'.'.join(filter(None, [place.section, near[0]]))}`?"
    return f"; known here: {', '.join(known)}"


def _place_of(cls: type[BaseModel], location: tuple[Any, ...]) -> _Place:
    place = _Place([], [cls])
    for index, part in enumerate(location):
        is_last = index == len(location) - 1
        fields = [model.model_fields[part] for model in place.holders if part in model.model_fields]
        tagged = [model for model in place.holders if _tag(model) == part]
        if tagged and (len(place.holders) > 1 or not fields):  # which of a union; one may have a field of that name too
            place.siblings = [model for model in place.holders if model not in tagged]
            place.holders = tagged
        elif fields:
            place.names.append(str(part))
            if not is_last:
                place.holders = [model for info in fields for model in _models_in(info.annotation)]
                place.siblings, place.in_optional = [], not any(info.is_required() for info in fields)
        elif isinstance(part, int) or is_last:
            place.names.append(str(part))
    return place


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is not None:
        for argument in typing.get_args(annotation):
            yield from _models_in(argument)


def _tag(model: type[BaseModel]) -> str | None:
    field = model.model_fields.get("kind")
    return typing.get_args(field.annotation)[0] if field is not None else None


def _field_names(models: list[type[BaseModel]]) -> set[str]:
    return {name for model in models for name in model.model_fields}


def _type_name(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"
