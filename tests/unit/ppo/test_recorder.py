"""Where the loop's time goes, and what it says of the samplers."""

import pytest

from rayrlhf.pool.status import SamplerStatus, Status
from rayrlhf.ppo import recorder
from rayrlhf.ppo.handles import Collected
from rayrlhf.ppo.recorder import LoopClock, SamplingMetrics


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Set its only entry to move time."""
    now = [0.0]
    monkeypatch.setattr(recorder.time, "monotonic", lambda: now[0])
    return now


def test_every_second_of_the_loop_belongs_to_one_activity(clock: list[float]) -> None:
    laps = LoopClock()
    for activity, until in (("publish", 5.0), ("wait_for_rollouts", 6.0), ("train", 9.0)):
        clock[0] = until
        laps.enter(activity)
    clock[0] = 10.0
    first = laps.step()
    assert {name: value for name, value in first.items() if name.startswith("time/")} == {
        "time/publish_s": 1.0,
        "time/wait_for_rollouts_s": 3.0,
        "time/train_s": 1.0,
        "time/step_s": 5.0,
    }
    assert first["goodput/learner_start_up"] == 0.5
    laps.enter("publish")
    clock[0] = 12.0
    assert laps.step()["time/step_s"] == 2.0
    assert sum(laps.seconds().values()) == 12.0


def status(tokens: int, generate: float, load: float) -> Status:
    sampler = SamplerStatus(0, "ready", 1, 0, 0, 0, tokens, 0.0, None, None)
    ledger = {"trained": 8, "rejected": 1}
    seconds = {"generate": generate, "load_weights": load, "wait_for_prompts": 1.0}
    return Status(1, 0, (sampler,), ledger, {}, {"stale": 2}, {}, tokens, seconds, 1.0)


def test_samplers_are_compared_from_step_to_step() -> None:
    metrics = SamplingMetrics()
    metrics.of(Collected(None, 8, status(100, 2.0, 0.5), ()))
    second = metrics.of(Collected(None, 8, status(400, 5.0, 0.75), (), num_left_out=3))
    assert second["engine/tokens"] == 300
    assert second["engine/tokens_per_s"] == 100
    assert second["weights/load_s"] == 0.25
    assert (second["ledger/stale"], second["ledger/left_out"]) == (2, 3)
    assert second["goodput/sampler_generate"] == pytest.approx(5 / 6.75)
