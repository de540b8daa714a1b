"""Every sample ends once, and what is not allowed is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayrlhf.pool.ledger import ENDS, Ledger, LedgerError, State

KEYS = [(0, prompt, sample) for prompt in range(2) for sample in range(2)]


def ledger_with(*states: State) -> Ledger:
    ledger = Ledger()
    ledger.add(KEYS)
    for state in states:
        ledger.move(KEYS, state)
    return ledger


@pytest.mark.parametrize("end", [State.TRAINED, State.USED])
def test_a_sample_goes_from_pending_over_leased_and_done_to_its_end(end):
    ledger = ledger_with(State.LEASED, State.DONE, end)
    assert ledger.counts == {state.value: len(KEYS) if state is end else 0 for state in State}
    assert ledger.state(KEYS[0]) is None


def test_a_sample_whose_lease_is_taken_back_is_pending_again():
    ledger = ledger_with(State.LEASED, State.PENDING)
    assert ledger.state(KEYS[0]) is State.PENDING
    ledger.move(KEYS, State.LEASED)


def test_rejected_samples_are_counted_by_reason():
    ledger = ledger_with(State.LEASED, State.DONE)
    ledger.reject(KEYS[:3], "no reward")
    ledger.reject(iter(KEYS[3:]), "too long")
    assert ledger.reasons == {"no reward": 3, "too long": 1}
    assert ledger.counts["rejected"] == 4


def test_a_sample_is_never_submitted_twice():
    with pytest.raises(LedgerError, match="submitted twice"):
        ledger_with().add(KEYS[:1])


@pytest.mark.parametrize("end", ENDS)
def test_a_sample_that_has_ended_ends_no_second_time(end):
    ledger = ledger_with(State.LEASED, State.DONE, end)
    with pytest.raises(LedgerError, match="not in flight"):
        ledger.move(KEYS, end)


def test_a_rejected_rollout_is_never_trained_on():
    ledger = ledger_with(State.LEASED, State.DONE)
    ledger.reject(KEYS[:1], "no reward")
    with pytest.raises(LedgerError):
        ledger.move(KEYS[:1], State.TRAINED)


def test_what_nobody_sampled_cannot_be_trained_on():
    for path in [(), (State.LEASED,)]:
        with pytest.raises(LedgerError, match="cannot become trained"):
            ledger_with(*path).move(KEYS, State.TRAINED)


def test_a_sample_is_never_leased_twice():
    with pytest.raises(LedgerError, match="is leased and cannot become leased"):
        ledger_with(State.LEASED).move(KEYS, State.LEASED)


@given(st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from(list(State))), max_size=60))
def test_whatever_is_asked_for_every_sample_is_in_exactly_one_state(steps):
    ledger = ledger_with()
    ended = set()
    for key, state in steps:
        try:
            ledger.move([key], state)
        except LedgerError:
            continue
        assert key not in ended
        if state in ENDS:
            ended.add(key)
    assert sum(ledger.counts.values()) == len(KEYS)
    assert sum(ledger.counts[end] for end in ENDS) == len(ended)
    assert all((ledger.state(key) is None) == (key in ended) for key in KEYS)
