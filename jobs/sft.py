"""Supervised fine-tuning.

`rayrlhf train` for configurations of stage sft, and the way in for `ray job submit --working-dir . --`:
`python jobs/sft.py CONFIG.yaml [key.sub=value …] [--dry-run]`.
"""

from rayrlhf.cli.train import job

if __name__ == "__main__":
    job("sft")
