"""Train a policy with PPO or another online algorithm.

`rayrlhf train` for configurations of stage ppo, and the way in for `ray job submit --working-dir . --`:
`python jobs/ppo.py CONFIG.yaml [key.sub=value …] [--dry-run]`.
"""

from rayrlhf.cli.train import job

if __name__ == "__main__":
    job("ppo")
