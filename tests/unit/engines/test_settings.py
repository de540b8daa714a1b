"""What the program asks of an engine's settings: vLLM's answers, and a run with an engine that is not vLLM."""

import ast
import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pytest
import torch
from pydantic import Field, TypeAdapter

from rayrlhf.cli.describe import describe_ppo
from rayrlhf.config import Config, ConfigError, parse_config, short_form
from rayrlhf.engines import (
    Adapters,
    DefaultEngine,
    Engine,
    EngineConfig,
    EngineInputs,
    EngineSettings,
    Sampling,
    VllmEngineConfig,
)
from rayrlhf.models.init import ModelShape, init_model_folder
from rayrlhf.ppo.config import PPOConfig
from rayrlhf.ppo.roles import RoleInputs
from rayrlhf.ppo.roles.sampler import build_sampler

PACKAGE = Path(__file__).parents[3] / "rayrlhf"


class FakeEngineConfig(EngineSettings):
    """Another engine: none of its fields is one of vLLM's."""

    kind: Literal["fake"] = "fake"
    slots: int = 3
    exact: bool = False
    refuses: str | None = None

    @classmethod
    def of(cls, num_slots: int, dtype: str) -> Self:
        return cls(slots=num_slots, exact=dtype == "float32")

    @property
    def num_slots(self) -> int:
        return self.slots

    @property
    def memory_bytes(self) -> int:
        return 5 * 2**30

    def wire_dtype(self, on_gpu: bool) -> torch.dtype | None:
        return torch.float16

    def samples_exactly(self, on_gpu: bool) -> bool:
        return self.exact

    def check(self, model_config: Any, on_gpu: bool, adapters: Adapters | None = None) -> None:
        if self.refuses == model_config.model_type:
            raise ConfigError("sampler.engine.kind: fake computes no such model: choose another engine")

    def start(self, inputs: EngineInputs) -> Engine:
        raise NotImplementedError(inputs)


@pytest.fixture
def config(tmp_path):
    """A PPO configuration whose model and data are there, with another engine put in after it was read."""
    shape = ModelShape(vocab_size=300, hidden_size=32, num_layers=1, num_heads=1, num_kv_heads=1, intermediate_size=32)
    init_model_folder(tmp_path / "model", shape, ["1 + 1? #### 2"])
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps({"question": f"{i} + 1?", "answer": str(i + 1)}) + "\n" for i in range(20)))

    def make(engine: EngineSettings) -> PPOConfig:
        tree = {
            "run": {"name": "x"},
            "model": str(tmp_path / "model"),
            "reward": {"source": {"kind": "rules", "rules": [{"kind": "length", "max": 20}]}},
            "data": {"train": [str(file)], "heldout_share": 0.25, "cache": False},
        }
        read = parse_config(PPOConfig, tree, "x.yaml")
        return read.model_copy(update={"sampler": read.sampler.model_copy(update={"engine": engine})})

    return make


def test_a_run_with_another_engine_is_configured_checked_and_described(config):
    run = config(FakeEngineConfig())
    assert run.resolved().sampler.engine == FakeEngineConfig()
    assert (run.logprob_gap_limit, run.first_ratio_limit) == (0.5, 0.01)
    assert config(FakeEngineConfig(exact=True)).logprob_gap_limit == 1e-4
    memory = describe_ppo(run)["memory_gib_per_worker"]
    assert memory["sampler"] == pytest.approx(5, abs=0.05)
    pool = run.rollouts.pool(run.sampler.num_workers, run.sampler.engine.num_slots, start_s=1.0)
    assert pool.capacity == int(3 * 1.25)


def test_what_another_engine_cannot_compute_is_refused_before_anything_starts(config):
    with pytest.raises(ConfigError, match="fake computes no such model"):
        describe_ppo(config(FakeEngineConfig(refuses="qwen2")))


def test_another_engine_is_started_with_what_every_engine_is_told(config):
    run = config(FakeEngineConfig())
    with pytest.raises(NotImplementedError) as error:
        build_sampler(run, RoleInputs(eos_token_id=7, max_model_len=99, known=None, ptx=None), store=None)
    assert error.value.args[0] == EngineInputs(run.model, 99, Sampling(), 7, None, "object_store", False)


def test_a_second_engine_is_a_second_member_of_the_union():
    Two = Annotated[
        Annotated[VllmEngineConfig | FakeEngineConfig, Field(discriminator="kind")], short_form(kind="vllm")
    ]

    class Role(Config):
        engine: Two = DefaultEngine()

    assert parse_config(Role, {"engine": {"kind": "fake", "slots": 9}}, "x").engine == FakeEngineConfig(slots=9)
    assert parse_config(Role, {"engine": "fake"}, "x").engine == FakeEngineConfig()
    assert parse_config(Role, {"engine": {"max_num_seqs": 9}}, "x").engine == VllmEngineConfig(max_num_seqs=9)
    with pytest.raises(ConfigError, match=r"engine\.slots: unknown setting of vllm, but one of fake"):
        parse_config(Role, {"engine": {"slots": 9}}, "x")


@pytest.mark.parametrize("written", ["vllm", {}, {"kind": "vllm"}])
def test_an_engine_may_be_written_as_its_kind(written):
    assert TypeAdapter(EngineConfig).validate_python(written) == VllmEngineConfig()


def engine_fields_read(source: str, fields: set[str]) -> set[str]:
    """Attributes of anything called `engine` or `..._engine` that are among `fields`."""
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute) and node.attr in fields]
    return {node.attr for node in nodes if ast.unparse(node.value).rpartition(".")[2].endswith("engine")}


def test_nothing_outside_the_engines_reads_a_field_of_vllm():
    fields = set(VllmEngineConfig.model_fields) - {"kind"}
    assert engine_fields_read("a.sampler.engine.dtype, engine.max_num_seqs", fields) == {"dtype", "max_num_seqs"}
    modules = [path for path in PACKAGE.rglob("*.py") if PACKAGE / "engines" not in path.parents]
    read = {path.name: engine_fields_read(path.read_text(encoding="utf-8"), fields) for path in modules}
    assert {name: found for name, found in read.items() if found} == {}


@pytest.mark.parametrize(
    ("dtype", "on_cpu", "on_cuda"),
    [
        ("auto", None, torch.bfloat16),
        ("float32", None, None),
        ("bfloat16", torch.bfloat16, torch.bfloat16),
        ("float16", torch.float16, torch.float16),
    ],
)
def test_weights_travel_in_what_vllm_keeps(dtype, on_cpu, on_cuda):
    engine = VllmEngineConfig(dtype=dtype)
    assert (engine.wire_dtype(on_gpu=False), engine.wire_dtype(on_gpu=True)) == (on_cpu, on_cuda)


@pytest.mark.parametrize(
    ("dtype", "on_gpu", "exact"),
    [("auto", False, True), ("float32", False, True), ("bfloat16", False, False), ("auto", True, False)],
)
def test_vllm_samples_exactly_in_float32_on_a_cpu(dtype, on_gpu, exact):
    assert VllmEngineConfig(dtype=dtype).samples_exactly(on_gpu) == exact


def test_settings_of_slots_and_dtype_alone_leave_the_rest_at_its_default():
    assert DefaultEngine.of(num_slots=16, dtype="bfloat16") == VllmEngineConfig(max_num_seqs=16, dtype="bfloat16")
    assert DefaultEngine.of(num_slots=16, dtype="auto").num_slots == 16
    assert VllmEngineConfig(kv_cache_gib=0.25).memory_bytes == 2**28
