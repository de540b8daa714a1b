"""Plain torch that trains one module on one rank, whoever asks: no Ray here, and no engine.

Token sequences or pairs → micro-batches (`batching`) → a loss per micro-batch (`sft`, `reward_model`, `dpo`, `ptx`, the
learners) → one optimizer step (`ModelTrainer`), replicated or sharded over ranks (`parallel`).
"""
