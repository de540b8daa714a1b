"""Settings: what is refused, and how the message fixes it."""

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field, PositiveInt, ValidationError

from rayrlhf.cli.stages import STAGES
from rayrlhf.config import Config, ConfigError, load_config, read_settings, short_form

CONFIGS = Path(__file__).parents[2] / "configs"


def config_class(stage: str) -> type[Config]:
    return STAGES[stage]().config


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
    assert str(error.value).startswith(f"{tmp_path}/settings.yaml: 3 settings to fix\n")
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


# files that extend others


@pytest.fixture
def write(tmp_path):
    """`write(a="...", b="...")` writes `a.yaml` and `b.yaml` and returns the first one's path."""

    def run(**texts: str) -> Path:
        for name, text in texts.items():
            (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
        return tmp_path / f"{next(iter(texts))}.yaml"

    return run


def test_a_file_says_only_what_differs_from_the_one_it_extends(write):
    found = load_config(
        Settings,
        write(
            child="extends: parent.yaml\npart: {num_workers: 2, shape: [3]}\nnum_steps: 7\n",
            parent="extends: grandparent.yaml\npart: {name: p}\nnum_steps: 6\n",
            grandparent="model: m\npart: {num_workers: 1, shape: [1, 2]}\nnum_steps: 5\n",
        ),
        ["part.name=o"],
    )
    assert found == Settings(model="m", num_steps=7, part=Part(num_workers=2, name="o", shape=(3,)))


def test_extends_is_relative_to_the_file_that_says_it(write, tmp_path, monkeypatch):
    path = write(child="extends: below/parent.yaml\n")
    (tmp_path / "below").mkdir()
    (tmp_path / "below/parent.yaml").write_text("extends: ../top.yaml\nnum_steps: 3\n", encoding="utf-8")
    write(top="model: m\n")
    monkeypatch.chdir("/")
    assert load_config(Settings, path) == Settings(model="m", num_steps=3)


@pytest.mark.parametrize(
    ("child", "parent", "merged"),
    [
        ("{kind: sgd}", "{kind: adam, learning_rate: 1}", {"kind": "sgd"}),
        ("{kind: adam}", "{kind: adam, learning_rate: 1}", {"kind": "adam", "learning_rate": 1}),
        ("{learning_rate: 2}", "{kind: adam, beta: 1}", {"kind": "adam", "beta": 1, "learning_rate": 2}),
        ("{kind: sgd}", "{learning_rate: 1}", {"kind": "sgd"}),
        ("sgd", "{kind: adam, learning_rate: 1}", "sgd"),
        ("{momentum: 1}", "sgd", {"kind": "sgd", "momentum": 1}),
        ("{kind: adam}", "sgd", {"kind": "adam"}),
        ("null", "{kind: adam}", None),
    ],
)
def test_another_kind_of_section_takes_nothing_from_the_one_below(write, child, parent, merged):
    path = write(child=f"extends: parent.yaml\noptimizer: {child}\n", parent=f"optimizer: {parent}\n")
    assert read_settings(path) == {"optimizer": merged}


def test_a_file_that_extends_a_missing_one_names_both(write, tmp_path):
    with pytest.raises(ConfigError) as error:
        read_settings(write(child="extends: none.yaml\n"))
    assert str(error.value) == (
        f"{tmp_path}/child.yaml: extends {tmp_path}/none.yaml, which cannot be read: No such file or directory"
    )


def test_files_that_extend_each_other_are_named_in_turn(write, tmp_path):
    with pytest.raises(ConfigError) as error:
        read_settings(write(a="extends: b.yaml\n", b="extends: a.yaml\n"))
    a, b = tmp_path / "a.yaml", tmp_path / "b.yaml"
    assert str(error.value) == f"{a}: extends itself ({a} -> {b} -> {a}): remove one `extends`"


def test_extends_takes_one_name(write):
    with pytest.raises(ConfigError, match="extends: expected the name of one file, found a list"):
        read_settings(write(child="extends: [a.yaml]\n"))


# what is shipped


SHIPPED = sorted(CONFIGS.rglob("*.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_every_shipped_config_says_its_stage_first_and_loads(path):
    settings = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    assert settings[0] == f"stage: {path.relative_to(CONFIGS).parts[0]}"
    cls = config_class(settings[0].removeprefix("stage: "))
    loaded = load_config(cls, path)
    assert cls.model_validate(loaded.model_dump(mode="json")) == loaded


def test_there_are_shipped_configs_for_every_stage():
    assert {path.parent.name for path in SHIPPED} == set(STAGES)


def test_the_gsm8k_configs_ask_alike_and_hold_out_the_same_problems():
    sft = load_config(config_class("sft"), CONFIGS / "sft" / "gsm8k.yaml")
    grpo = load_config(config_class("ppo"), CONFIGS / "ppo" / "gsm8k.yaml")
    assert grpo.model == f"runs/{sft.run.name}/model"
    # A prompt's side follows from its text, the seed and the share: none that SFT learned is then tested on.
    assert (grpo.run.seed, grpo.data.heldout_share) == (sft.run.seed, sft.data.heldout_share)
    for part in ("train", "heldout", "template", "clean"):
        assert getattr(grpo.data, part) == getattr(sft.data, part), part


def test_ppo_sizes_that_do_not_fit_together_are_refused():
    path = CONFIGS / "ppo" / "demo.yaml"
    with pytest.raises(ConfigError, match="batch_size 128 must be a multiple of num_generations 3"):
        load_config(config_class("ppo"), path, ["batch_size=128", "num_generations=3"])
    with pytest.raises(ConfigError, match="minibatch_size 64 exceeds the step's batch_size 32: lower it"):
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
