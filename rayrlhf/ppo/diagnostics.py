"""What users of RLHF report as "it does not learn", read off a step's metrics: one line each, with the setting to see.

A line is printed once a run, at the first step that shows its sign.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

Metrics = Mapping[str, float]

MIN_SEQUENCE_KL = -1.0
ENTROPY_COLLAPSE = 0.1
LENGTH_DRIFT = 2.0
MIN_FINISHED_SHARE = 0.5
LENGTH_CORRELATION = 0.5


@dataclass
class Diagnostics:
    """Reads the metrics of one step after another."""

    logprob_gap_limit: float
    """Nats; see `max_logprob_gap`."""
    first_ratio_limit: float = 0.01
    """How far from 1 a first minibatch's mean ratio may be."""
    _first: dict[str, float] = field(default_factory=dict)
    _said: set[str] = field(default_factory=set)

    def warnings(self, metrics: Metrics) -> list[str]:
        """New lines for this step."""
        self._first = {**metrics, **self._first}
        found = dict(self._signs(metrics))
        new = [text for name, text in found.items() if name not in self._said]
        self._said |= found.keys()
        return [f"warning: {text}" for text in new]

    def _signs(self, now: Metrics) -> Iterator[tuple[str, str]]:
        if (gap := now.get("engine/logprob_gap_max", 0.0)) > self.logprob_gap_limit:
            yield (
                "gap",
                f"sampler and learner disagree by {gap:.3g} on a token's log-probability (limit "
                f"{self.logprob_gap_limit:g}): the sampler's weights or precision are not the learner's; see "
                "sampler.engine.dtype and max_logprob_gap",
            )
        ratio = now.get("policy/first_ratio_mean", 1.0)
        if abs(ratio - 1) > self.first_ratio_limit:
            yield (
                "ratio",
                f"the first minibatch has ratio {ratio:.4g} and not 1: old and new log-probabilities are not of the "
                "same weights, temperature or precision; see policy.precision and sampling.temperature, and with "
                "algorithm.old_logprobs=sampler also sampler.engine.dtype",
            )
        if (kl := now.get("kl/sequence_mean", 0.0)) < MIN_SEQUENCE_KL:
            yield (
                "kl",
                f"the KL to the reference is {kl:.3g} nats a response, and a KL is never negative: the responses are "
                "not sampled from the policy's distribution; see sampling.top_k, top_p and repetition_penalty",
            )
        first_entropy = self._first.get("policy/entropy", 0.0)
        entropy = now.get("policy/entropy", first_entropy)  # a step whose responses are all left out has none
        if entropy < ENTROPY_COLLAPSE * first_entropy:
            yield (
                "entropy",
                f"the entropy fell from {first_entropy:.3g} to {entropy:.3g} nats a token: the policy gives "
                "nearly the same answers only; raise algorithm.kl_coef or algorithm.entropy_coef, or lower "
                "policy.optimizer.learning_rate",
            )
        yield from self._length_signs(now)
        if now.get("policy/skipped_steps", 0.0) + now.get("value/skipped_steps", 0.0):
            yield (
                "skipped",
                "an optimizer step was skipped, its gradient was not finite; lower the learning rate, or see precision",
            )

    def _length_signs(self, now: Metrics) -> Iterator[tuple[str, str]]:
        length, first_length = now.get("length/mean", 0.0), self._first.get("length/mean", 0.0)
        drifted = length > LENGTH_DRIFT * first_length or length < first_length / LENGTH_DRIFT
        if drifted:
            yield (
                "length",
                f"responses went from {first_length:.0f} to {length:.0f} tokens: does the reward like length? See "
                "algorithm.overlong_penalty and algorithm.missing_eos_penalty",
            )
        if (finished := now.get("length/finished_share", 1.0)) < MIN_FINISHED_SHARE:
            yield (
                "truncated",
                f"{1 - finished:.0%} of the responses are cut at the length limit: raise "
                "sampling.max_completion_length, or set algorithm.missing_eos_penalty",
            )
        rise = now.get("reward/score_mean", 0.0) - self._first.get("reward/score_mean", 0.0)
        correlation = now.get("reward/length_correlation", 0.0)
        explained = abs(correlation) > LENGTH_CORRELATION and (length - first_length) * correlation > 0
        if rise > self._first.get("reward/score_std", 0.0) > 0 and explained:
            yield (
                "hacking",
                f"the reward rose by {rise:.3g}, but it goes with length (correlation {correlation:.2f}) and responses "
                f"went from {first_length:.0f} to {length:.0f} tokens: length alone may explain it; compare with "
                "reward_model eval/length_baseline_accuracy",
            )
