"""vLLM inside the calling process: the buckets of a new version reach it without a copy between processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from rayrlhf.engines.base import Adapters, Completion, EngineInputs, GenerationRequest, Sampling
from rayrlhf.engines.vllm.adapter_support import adaptable_layers, check_layers, engine_settings
from rayrlhf.engines.vllm.config import VllmEngineConfig, be_quiet


class VllmEngine:
    """One in-process vLLM engine."""

    def __init__(self, config: VllmEngineConfig, inputs: EngineInputs) -> None:
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        be_quiet()
        import torch
        import torch._dynamo
        from vllm import LLM
        from vllm.config import WeightTransferConfig

        from rayrlhf.engines.vllm.receivers import register

        on_cuda = torch.cuda.is_available()
        if config.enforce_eager and not on_cuda:
            # vLLM compiles a small helper of its log-probabilities even so: seconds at every start, for no speed here.
            torch._dynamo.config.disable = True
        memory: dict[str, Any] = (
            {"gpu_memory_utilization": config.gpu_memory_utilization}
            if on_cuda
            else {"kv_cache_memory_bytes": config.memory_bytes}
        )
        head = {"hf_overrides": {"head_dtype": "float32"}} if inputs.float32_head else {}
        self._eos_token_id = inputs.eos_token_id
        self._adapters = adapters = inputs.adapters
        self._adapter: Any = None
        self._llm = LLM(
            model=inputs.model,
            skip_tokenizer_init=True,
            dtype=config.kept_dtype(on_cuda),
            max_model_len=inputs.max_model_len,
            max_num_seqs=config.max_num_seqs,
            enforce_eager=config.enforce_eager,
            enable_prefix_caching=config.prefix_caching,
            # A prompt that is read in two pieces moves its generator back by one number, and a CPU's cannot do that.
            enable_chunked_prefill=None if on_cuda else False,
            generation_config="vllm",  # the folder's own sampling defaults must not change ours
            logprobs_mode="raw_logprobs" if inputs.sampling.truncates else "processed_logprobs",
            weight_transfer_config=WeightTransferConfig(backend=register(inputs.transport)),
            disable_log_stats=True,
            **memory,
            **head,
            **engine_settings(adapters),
        )
        self._llm.collective_rpc("init_weight_transfer_engine", kwargs={"init_info": {}})
        self._engine = self._llm.llm_engine
        self._engine.set_weight_version("-1")
        if adapters is not None:
            (adaptable,) = self._llm.collective_rpc(adaptable_layers)
            check_layers(adapters, adaptable)

    def add(self, request_id: int, request: GenerationRequest, sampling: Sampling) -> None:
        """Begin a response; vLLM generates it together with the others from the next step on."""
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
        next steps compute again from their tokens, and no cached prefix of the old version is left."""
        if self._adapters is None:
            self._load_model(update)
        else:
            self._load_adapter(update, self._adapters)
        self._engine.reset_prefix_cache(reset_running_requests=True)
        self._engine.set_weight_version(str(version))
        states = self._engine.output_processor.request_states.values()
        lengths = [(state.prompt_len, state.detokenizer.num_output_tokens()) for state in states]
        redone = sum(prompt + response for prompt, response in lengths if response)
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

    def stream(self, request: GenerationRequest, sampling: Sampling) -> Iterator[tuple[int, ...]]:
        """The tokens of one response so far, after every step."""
        self.add(0, request, sampling)
        try:
            while not (ended := self.step()):
                for state in self._engine.output_processor.request_states.values():
                    yield tuple(state.detokenizer.output_token_ids)
            yield ended[0][1].token_ids
        finally:
            self._engine.abort_request(["0"])  # does nothing once it has ended

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


def _completion(output: Any) -> Completion:
    token_ids = tuple(output.token_ids)
    logprobs = tuple(step[token].logprob for token, step in zip(token_ids, output.logprobs, strict=True))
    versions = tuple(int(span.version) for span in output.weight_versions for _ in range(span.start, span.end))
    return Completion(token_ids, logprobs, output.finish_reason == "stop", versions)
