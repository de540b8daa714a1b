"""Online RL: the loop, its roles, and what they exchange.

```
 loop.py: object references and scalars, never tensors     who waits for whom, each step
 ──────────────────────────────────────────────────────    ────────────────────────────────────────────
 weights.publish    policy ──buckets──► WeightStore        the loop, until the version is stored;
                                           │               samplers pull it between two engine steps
 samplers.collect   RolloutPool ◄──leases──┤ samplers      the loop, until the step's batch is complete
                        │                                  (with max_staleness, it was requested before);
                        ├─ each group ──► reward           text rewards start as a group completes
                        ▼
                    Rollouts, one reference
                        │
 .score .logprobs   ┌───┴────┬─────────┬────────┐          nobody: all roles compute side by side
 .values          reward reference  policy   critic
                    └───┬────┴─────────┴────────┘
 credit.assign       TrainBatch, one reference             the loop, until it knows who is trained on
                        │
 learners.update    ┌───┴────┐                             the loop, until the last minibatch
                  policy   critic
```

`config.py` has the settings of a run, `roles/` one file for each role (its settings and its `RoleSpec`), `inputs.py`
reads and checks what a run reads, `actors.py` starts and ends the actors, `cast.py` and `handles.py` are what the loop
talks to, `sampling.py` requests the samples of a step, `recorder.py` keeps clock, metrics and checkpoints.
"""
