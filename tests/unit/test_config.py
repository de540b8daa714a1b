"""Settings: what is refused, and how the message mends it."""

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field, PositiveInt, ValidationError

from rayrlhf.cli.check import config_class
from rayrlhf.config import Config, ConfigError, load_config, short_form

CONFIGS = Path(__file__).parents[2] / "configs"


class Adam(Config):
    kind: Literal["adam"] = "adam"
    learning_rate: float = 1e-3


class Sgd(Config):
    kind: Literal["sgd"] = "sgd"
    momentum: float = 0.9


class Part(Config):
    num_workers: PositiveInt = 1
    name: str | None = None
    shape: tuple[int, ...] = ()


class File(Config):
    path: str


class Settings(Config):
    model: str
    num_steps: int = 10
    part: Part = Part()
    maybe: Part | None = None
    file: File | None = None
    parts: list[Part] = Field(default=[])
    optimizer: Annotated[Adam | Sgd, Field(discriminator="kind")] = Adam()


@pytest.fixture
def load(tmp_path):
    """`load(text, *overrides)` reads the text as `Settings`."""

    def run(text: str, *overrides: str) -> Settings:
        path = tmp_path / "settings.yaml"
        path.write_text(text, encoding="utf-8")
        return load_config(Settings, path, overrides)

    return run


def problem(load, text: str, *overrides: str) -> str:
    """The message, without the line that names the file."""
    with pytest.raises(ConfigError) as error:
        load(text, *overrides)
    first, *lines = str(error.value).splitlines()
    assert "settings.yaml" in first or not lines
    return "\n".join(lines) or first


def test_settings_are_read_and_the_rest_is_default(load):
    found = load("model: 모델\npart: {num_workers: 3}\n")
    assert (found.model, found.part.num_workers, found.num_steps) == ("모델", 3, 10)


def test_a_config_can_not_be_changed(load):
    with pytest.raises(ValidationError, match="frozen"):
        load("model: m").num_steps = 5


# unknown settings


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: m\nnum_step: 5", "  num_step: unknown setting; did you mean `num_steps`?"),
        (
            "model: m\npart: {num_worker: 5}",
            "  part.num_worker: unknown setting; did you mean `part.num_workers`?",
        ),
        (
            "model: m\nmaybe: {num_worker: 5}",
            "  maybe.num_worker: unknown setting; did you mean `maybe.num_workers`?",
        ),
        (
            "model: m\nparts: [{}, {nam: x}]",
            "  parts.1.nam: unknown setting; did you mean `parts.1.name`?",
        ),
        (
            "model: m\noptimizer: {kind: adam, learning_rat: 1}",
            "  optimizer.learning_rat: unknown setting; did you mean `optimizer.learning_rate`?",
        ),
        (
            "model: m\noptimizer: {kind: sgd, learning_rate: 1}",
            "  optimizer.learning_rate: unknown setting of sgd, but one of adam: "
            "leave it out, or set optimizer.kind=adam",
        ),
        (
            "model: m\noptimizer: {kind: sgd, zzz: 1}",
            "  optimizer.zzz: unknown setting; known here: kind, momentum",
        ),
        ("model: m\npart: {zzz: 1}", "  part.zzz: unknown setting; known here: name, num_workers, shape"),
    ],
)
def test_an_unknown_setting_is_told_the_nearest_known_one(load, text, message):
    assert problem(load, text) == message


def test_an_unknown_variant_lists_those_there_are(load):
    found = problem(load, "model: m\noptimizer: {kind: lion}")
    assert found == "  optimizer.kind: 'lion' is not one of 'adam', 'sgd'"


# values


def test_a_value_of_the_wrong_type_names_field_and_value(load):
    found = problem(load, "model: m\npart: {num_workers: many}")
    assert found.startswith("  part.num_workers: Input should be a valid integer")
    assert found.endswith("(found 'many')")


def test_a_value_out_of_range_names_the_range(load):
    assert problem(load, "model: m\npart: {num_workers: 0}") == (
        "  part.num_workers: Input should be greater than 0 (found 0)"
    )


def test_a_value_inside_a_union_is_named_without_the_unions_tag(load):
    found = problem(load, "model: m\noptimizer: {kind: adam, learning_rate: fast}")
    assert found.startswith("  optimizer.learning_rate: Input should be a valid number")


def test_a_required_setting_that_is_missing_is_named(load):
    assert problem(load, "num_steps: 3") == "  model: required, and not set"


def test_a_required_setting_of_a_section_that_may_be_left_out_says_so(load):
    assert problem(load, "model: m\nfile: {}") == "  file.path: required, and not set; set it, or leave file out"


def test_every_problem_is_reported_at_once(load, tmp_path):
    with pytest.raises(ConfigError) as error:
        load("num_step: 5\npart: {num_workers: x}")
    assert str(error.value).startswith(f"{tmp_path}/settings.yaml: 3 settings to mend\n")
    for name in ("model", "num_step", "part.num_workers"):
        assert f"\n  {name}: " in str(error.value)


# files


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none.yaml: cannot read the configuration file: No such file or directory"):
        load_config(Settings, tmp_path / "none.yaml")


def test_bad_yaml_names_its_line(load):
    found = problem(load, "model: m\npart: {num_workers: 1\n")
    assert "settings.yaml: not valid YAML: " in found
    assert "line 3" in found


@pytest.mark.parametrize(("text", "found"), [("", "nothing"), ("- a\n", "a list"), ("word", "a str")])
def test_a_file_that_holds_no_settings_is_told_what_it_holds(load, text, found):
    assert problem(load, text).endswith(f"expected settings as `key: value` lines, found {found}")


# overrides


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("num_steps=5", lambda s: s.num_steps == 5),
        ("part.num_workers=4", lambda s: s.part.num_workers == 4),
        ("part.shape=[1, 2]", lambda s: s.part.shape == (1, 2)),
        ("part.name=null", lambda s: s.part.name is None),
        ("part.name=a=b", lambda s: s.part.name == "a=b"),
        ("part.name=[", lambda s: s.part.name == "["),
        ("maybe.num_workers=2", lambda s: s.maybe == Part(num_workers=2)),
        ("optimizer.learning_rate=1e-5", lambda s: s.optimizer == Adam(learning_rate=1e-5)),
        ("optimizer.learning_rate=3.5E+2", lambda s: s.optimizer == Adam(learning_rate=350.0)),
        ("optimizer={kind: sgd, momentum: .5}", lambda s: s.optimizer == Sgd(momentum=0.5)),
    ],
)
def test_an_override_is_read_as_the_files_values_are(load, override, read):
    assert read(load("model: m\noptimizer: {kind: adam}\nmaybe:\n", override))


def test_scientific_notation_without_a_dot_is_a_number_in_the_file_too(load):
    assert load("model: m\noptimizer: {kind: adam, learning_rate: 1e-5}").optimizer == Adam(learning_rate=1e-5)


def test_the_last_override_wins(load):
    assert load("model: m\nnum_steps: 1", "num_steps=2", "num_steps=3").num_steps == 3


def test_an_override_of_an_unknown_setting_is_told_the_nearest(load):
    assert "did you mean `part.num_workers`?" in problem(load, "model: m", "part.num_wrokers=2")


@pytest.mark.parametrize("override", ["num_steps", "=3", "part..name=x"])
def test_an_override_that_is_none_is_shown_how_to_write_it(load, override):
    assert "write it as key.sub=value" in problem(load, "model: m", override)


def test_an_override_below_a_single_value_says_so(load):
    assert "'model' is a single value" in problem(load, "model: m", "model.name=x")


# what is shipped


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: str(path.relative_to(CONFIGS)))
def test_every_shipped_config_loads(path):
    stage = path.relative_to(CONFIGS).parts[0]
    loaded = load_config(config_class(stage), path)
    assert config_class(stage).model_validate(loaded.model_dump(mode="json")) == loaded


def test_there_are_shipped_configs_for_every_stage():
    assert {path.parent.name for path in CONFIGS.rglob("*.yaml")} >= {"sft", "reward_model", "dpo", "ppo"}


def test_the_gsm8k_configs_ask_alike_and_hold_out_the_same_problems():
    sft = load_config(config_class("sft"), CONFIGS / "sft" / "gsm8k.yaml")
    grpo = load_config(config_class("ppo"), CONFIGS / "ppo" / "gsm8k.yaml")
    assert grpo.model == f"runs/{sft.run.name}/model"
    # A prompt's side follows from its text, the seed and the share: none that SFT learnt is then tested on.
    assert (grpo.run.seed, grpo.data.heldout_share) == (sft.run.seed, sft.data.heldout_share)
    for part in ("train", "heldout", "template", "clean"):
        assert getattr(grpo.data, part) == getattr(sft.data, part), part


def test_ppo_sizes_that_do_not_fit_together_are_refused():
    path = CONFIGS / "ppo" / "demo.yaml"
    with pytest.raises(ConfigError, match="batch_size 128 must be a multiple of num_generations 3"):
        load_config(config_class("ppo"), path, ["batch_size=128", "num_generations=3"])
    with pytest.raises(ConfigError, match="minibatch_size 64 is more than the step's batch_size 32: lower it"):
        load_config(config_class("ppo"), path, ["batch_size=32", "algorithm.minibatch_size=64"])


@pytest.mark.parametrize(
    ("form", "value", "expected"),
    [
        (short_form(), "a", {"kind": "a"}),
        (short_form(), {"size": 1}, {"size": 1}),
        (short_form(kind="a"), {"size": 1}, {"kind": "a", "size": 1}),
        (short_form(kind="a"), {"kind": "b"}, {"kind": "b"}),
        (short_form("path", kind=lambda tree: "c" if "size" in tree else "a"), "x", {"kind": "a", "path": "x"}),
        (short_form("path", kind=lambda tree: "c" if "size" in tree else "a"), {"size": 1}, {"kind": "c", "size": 1}),
        (short_form(kind="a"), 3, 3),
    ],
)
def test_a_short_form_is_written_out(form, value, expected):
    assert form.func(value) == expected
