"""The rollout pool: samplers come and go, and each sample still counts exactly once.

```
 loop ── SampleBatch ──► Pool ── Lease ──► sampler    one prompt's samples, held until a deadline
                          │  ◄── Report ──            at least every heartbeat: its Answers, weight version, seconds
                          ├── group of Rollouts ───►  on_group: at once, so that rewards start early
 loop ◄── batch of Rollouts                           once the last group is accepted
 loop ── settle ────────► Ledger                      trained, used, or rejected with a reason
```
`pool.py` decides which sampler generates what and which answers count, `fleet.py` and `member.py` which samplers run,
`ledger.py` what became of every sample. They are pure: events (`leases.py`) and a clock go in, commands (`commands.py`)
come out. `runner.py` carries the commands out with asyncio; what a sampler process is, its `Link` decides.
"""
