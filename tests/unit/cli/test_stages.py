"""`stage:` decides what a configuration is for, and who refuses it."""

import subprocess
import sys
from pathlib import Path

import pytest

from rayrlhf.cli.stages import STAGES, stage_of
from rayrlhf.config import ConfigError

HERE = Path("some.yaml")


@pytest.mark.parametrize("stage", list(STAGES))
def test_a_stage_is_also_the_value_that_its_configuration_holds(stage):
    config = STAGES[stage]().config
    assert next(iter(config.model_fields)) == "stage"
    assert config.model_fields["stage"].default == stage


def test_the_file_says_the_stage():
    assert stage_of(HERE, {"stage": "dpo"}) == "dpo"
    assert stage_of(HERE, {"stage": "dpo"}, job="dpo") == "dpo"


def test_a_job_takes_a_file_that_says_no_stage():
    assert stage_of(HERE, {}, job="sft") == "sft"


@pytest.mark.parametrize(
    ("tree", "job", "message"),
    [
        ({}, None, "some.yaml: stage is not set: add the line `stage: ppo` (one of sft, reward_model, dpo, ppo)"),
        ({"stage": "demo"}, None, "some.yaml: stage 'demo' is not one of sft, reward_model, dpo, ppo"),
        ({"stage": "rewardmodel"}, None, "did you mean `stage: reward_model`?"),
        ({"stage": ["ppo"]}, None, "some.yaml: stage ['ppo'] is not one of sft, reward_model, dpo, ppo"),
        (
            {"stage": "ppo"},
            "sft",
            "some.yaml: stage is 'ppo', but jobs/sft.py runs 'sft': "
            "use `python jobs/ppo.py some.yaml` or `rayrlhf train some.yaml`",
        ),
    ],
)
def test_any_other_stage_is_refused_with_the_file_the_value_and_the_command(tree, job, message):
    with pytest.raises(ConfigError) as error:
        stage_of(HERE, tree, job)
    assert message in str(error.value)


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["generate", "--help"]])
def test_help_loads_neither_torch_nor_ray_nor_vllm(arguments):
    code = f"""
import sys
from rayrlhf.cli import app
try:
    app({arguments})
except SystemExit:
    pass
print("loaded:", sorted({{"torch", "ray", "vllm", "transformers"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "loaded: []"
