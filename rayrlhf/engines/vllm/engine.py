"""vLLM inside the calling process: `ray.get` works in its weight-transfer engine, and nothing is copied between."""

from __future__ import annotations

import os
from typing import Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from rayrlhf.config import Config, ConfigError
from rayrlhf.engines.base import Adapters, Completion, GenerationRequest, Sampling
from rayrlhf.engines.vllm.adapter_support import adaptable_layers, check_layers, check_model, engine_settings

CPU_HEAD_SIZES = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
"""Sizes of an attention head that vLLM's CPU kernels are built for."""


class VllmEngineConfig(Config):
    """Settings of one vLLM engine."""

    kind: Literal["vllm"] = "vllm"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """`auto` is float32 on CPU, where it makes sampler and learner agree, and bfloat16 on CUDA."""
    max_num_seqs: PositiveInt = 64
    """Responses drawn at the same time."""
    kv_cache_gib: PositiveFloat = 1.0
    """Memory of the key-value cache in GiB, on CPU. It bounds the engine together with the weights."""
    gpu_memory_utilization: float = Field(default=0.85, gt=0, le=1)
    """Share of the GPU's memory that the engine may use, on CUDA."""
    enforce_eager: bool = True
    """Skip graph capture and compilation: a faster start; on CPU compiled and eager speed are the same."""
    prefix_caching: bool = True
    """Share the key-value cache of equal prompt beginnings. It never serves across weight versions."""

    def check_model(self, model_config: Any, on_gpu: bool) -> None:
        """Raises ConfigError if vLLM has no attention kernel for the model's heads on a CPU."""
        heads = model_config.num_attention_heads
        size = getattr(model_config, "head_dim", None) or model_config.hidden_size // heads
        if not on_gpu and size not in CPU_HEAD_SIZES:
            raise ConfigError(
                f"the model has attention heads of {size} ({heads} of them); on a CPU, vLLM takes heads of "
                f"{', '.join(map(str, CPU_HEAD_SIZES))}: choose hidden_size and num_heads so that "
                "hidden_size / num_heads is one of these"
            )

    def check_adapters(self, model_config: Any, adapters: Adapters, on_gpu: bool) -> None:
        """Raises ConfigError if vLLM cannot take the adapters of such a model as adapters. Imports vLLM: seconds."""
        _be_quiet()
        check_model(model_config, adapters, in_float32_on_gpu=on_gpu and self.dtype == "float32")

    def start(
        self,
        model: str,
        max_model_len: int,
        sampling: Sampling,
        eos_token_id: int,
        adapters: Adapters | None = None,
    ) -> VllmEngine:
        """Load `model` (a folder) into a new engine. max_model_len: prompt + response, in tokens.

        With `adapters` the engine keeps the model's weights, and `load_weights` takes adapters. Raises ConfigError if
        one of their layers can have none in vLLM.
        """
        return VllmEngine(self, model, max_model_len, sampling, eos_token_id, adapters)


class VllmEngine:
    """One in-process vLLM engine."""

    def __init__(
        self,
        config: VllmEngineConfig,
        model: str,
        max_model_len: int,
        sampling: Sampling,
        eos_token_id: int,
        adapters: Adapters | None = None,
    ) -> None:
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        _be_quiet()
        import torch
        import torch._dynamo
        from vllm import LLM
        from vllm.config import WeightTransferConfig

        from rayrlhf.engines.vllm import weight_transfer

        weight_transfer.register()
        on_cuda = torch.cuda.is_available()
        if config.enforce_eager and not on_cuda:
            # vLLM compiles a small helper of its log-probabilities even so: seconds at every start, for no speed here.
            torch._dynamo.config.disable = True
        memory: dict[str, Any] = (
            {"gpu_memory_utilization": config.gpu_memory_utilization}
            if on_cuda
            else {"kv_cache_memory_bytes": int(config.kv_cache_gib * 2**30)}
        )
        dtype = config.dtype if config.dtype != "auto" else ("bfloat16" if on_cuda else "float32")
        self._eos_token_id = eos_token_id
        self._adapters = adapters
        self._adapter: Any = None
        self._llm = LLM(
            model=model,
            skip_tokenizer_init=True,
            dtype=dtype,
            max_model_len=max_model_len,
            max_num_seqs=config.max_num_seqs,
            enforce_eager=config.enforce_eager,
            enable_prefix_caching=config.prefix_caching,
            # A prompt that is read in two pieces moves its generator back by one draw, and a CPU's cannot do that.
            enable_chunked_prefill=None if on_cuda else False,
            generation_config="vllm",  # the folder's own sampling defaults must not change ours
            logprobs_mode="raw_logprobs" if sampling.truncates else "processed_logprobs",
            weight_transfer_config=WeightTransferConfig(backend=weight_transfer.BACKEND),
            disable_log_stats=True,
            **memory,
            **engine_settings(adapters),
        )
        self._llm.collective_rpc("init_weight_transfer_engine", kwargs={"init_info": {}})
        self._engine = self._llm.llm_engine
        self._engine.set_weight_version("-1")
        if adapters is not None:
            (adaptable,) = self._llm.collective_rpc(adaptable_layers)
            check_layers(adapters, adaptable)

    def add(self, request_id: int, request: GenerationRequest, sampling: Sampling) -> None:
        """Begin a response; vLLM draws it together with the others from the next step on."""
        self._engine.add_request(
            str(request_id),
            {"prompt_token_ids": list(request.token_ids)},
            self._parameters(sampling, request.seed),
            lora_request=self._adapter,
        )

    def step(self) -> list[tuple[int, Completion]]:
        """One pass of the model over the running responses."""
        return [(int(output.request_id), _completion(output.outputs[0])) for output in self._engine.step()]

    def load_weights(self, update: dict[str, Any], version: int) -> int:
        """Take a version of the weights, or of the adapters. Running responses lose their key-value cache, which the
        next steps compute anew from their tokens, and no cached prefix of the old version is left."""
        if self._adapters is None:
            self._load_model(update)
        else:
            self._load_adapter(update, self._adapters)
        self._engine.reset_prefix_cache(reset_running_requests=True)
        self._engine.set_weight_version(str(version))
        states = self._engine.output_processor.request_states.values()
        drawn = [(state.prompt_len, state.detokenizer.num_output_tokens()) for state in states]
        redone = sum(prompt + response for prompt, response in drawn if response)
        return -(-redone // self._engine.vllm_config.scheduler_config.max_num_batched_tokens)

    def _load_model(self, update: dict[str, Any]) -> None:
        """Run vLLM's weight-update protocol."""
        self._llm.collective_rpc("start_weight_update")
        self._llm.collective_rpc("update_weights", kwargs={"update_info": update})
        self._llm.collective_rpc("finish_weight_update")

    def _load_adapter(self, update: dict[str, Any], adapters: Adapters) -> None:
        """Put new adapters in place of the last, under the same name, which running responses go on with."""
        from vllm.lora.request import LoRARequest

        from rayrlhf.engines.vllm.adapters import adapter_folder

        with adapter_folder(update["buckets"], adapters) as folder:
            self._engine.add_lora(LoRARequest("policy", 1, str(folder), load_inplace=True))
            self._adapter = LoRARequest("policy", 1, str(folder))  # loaded: nobody reads the folder again

    def _parameters(self, sampling: Sampling, seed: int) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        return SamplingParams(
            temperature=sampling.temperature,
            top_k=sampling.top_k or -1,
            top_p=sampling.top_p,
            repetition_penalty=sampling.repetition_penalty,
            max_tokens=sampling.max_completion_length,
            stop_token_ids=[self._eos_token_id],
            seed=seed,
            logprobs=0,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )


def _be_quiet() -> None:
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")


def _completion(output: Any) -> Completion:
    token_ids = tuple(output.token_ids)
    logprobs = tuple(step[token].logprob for token, step in zip(token_ids, output.logprobs, strict=True))
    versions = tuple(int(span.version) for span in output.weight_versions for _ in range(span.start, span.end))
    return Completion(token_ids, logprobs, output.finish_reason == "stop", versions)
