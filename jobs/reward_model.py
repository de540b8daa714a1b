"""Train a reward model on preference pairs.

`rayrlhf train` for configurations of stage reward_model, and the way in for `ray job submit --working-dir . --`:
`python jobs/reward_model.py CONFIG.yaml [key.sub=value …] [--dry-run]`.
"""

from rayrlhf.cli.train import job

if __name__ == "__main__":
    job("reward_model")
