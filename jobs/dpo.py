"""Train a policy on preference pairs, without a reward model (DPO).

`rayrlhf train` for configurations of stage dpo, and the way in for `ray job submit --working-dir . --`:
`python jobs/dpo.py CONFIG.yaml [key.sub=value …] [--dry-run]`.
"""

from rayrlhf.cli.train import job

if __name__ == "__main__":
    job("dpo")
