"""PPO: sample, score, assign credit, learn. The loop holds object references and scalars, never tensors."""

from __future__ import annotations

from rayrlhf.algorithms import Algorithm
from rayrlhf.cluster.connection import connect
from rayrlhf.cluster.placement import Reservation, check_capacity, cluster_nodes, plan_placement
from rayrlhf.metrics import MetricsLog
from rayrlhf.ppo.actors import RunActors
from rayrlhf.ppo.cast import Cast
from rayrlhf.ppo.config import PPOConfig
from rayrlhf.ppo.inputs import PPOInputs, load_inputs
from rayrlhf.ppo.pool_actor import check_not_alive
from rayrlhf.ppo.recorder import Recorder
from rayrlhf.run_directory import RunDirectory
from rayrlhf.workers.credit import StepOutcome

SHOWN = (
    "reward/score_mean",
    "eval/reward_mean",
    "kl/sequence_mean",
    "length/mean",
    "policy/loss",
    "value/loss",
    "engine/logprob_gap_max",
    "time/step_s",
)


def run_ppo(config: PPOConfig) -> RunDirectory:
    """Train `config.model` with PPO. Everything that can be wrong with the input is found before any actor starts."""
    config = config.resolved()
    inputs = load_inputs(config)
    connect()
    check_not_alive(config.run.name)
    plan = plan_placement(config.reserved_roles, config.placement.colocate)
    check_capacity(plan, config.reserved_roles, cluster_nodes())
    directory = RunDirectory.create(config.run, config, [*config.data.files, *inputs.models.values()])
    directory.write_lineage(inputs.data.sources, inputs.models)
    directory.write_data_report(inputs.data.account.as_dict(), inputs.data.rejected)
    with (
        MetricsLog(directory.path, "ppo", config.num_steps, SHOWN) as log,
        RunActors(config, Reservation(plan, config.placement), inputs) as actors,
    ):
        log.say(f"prompts: {inputs.data.account}; held out: {len(inputs.heldout)}; run: {directory.path}")
        for columns in inputs.data.account.unread:
            log.say(f"prompts: {columns}")
        run = Recorder(config, directory, log)
        ready = actors.wait_until_ready()
        log.say("actors ready: " + ", ".join(f"{role} {seconds:.1f} s" for role, seconds in ready.items()))
        train(config, inputs, Cast(actors, inputs.prompts, log.say), run)
    return directory


def train(config: PPOConfig, inputs: PPOInputs, cast: Cast, run: Recorder) -> None:
    """The loop."""
    weights, samplers, learners = cast.weights, cast.samplers, cast.learners
    reward, policy, reference, critic, credit = cast.reward, cast.policy, cast.reference, cast.critic, cast.credit
    kl = KLController(config.algorithm)
    run.tell_with(samplers.tell)

    def evaluate(step: int) -> None:
        if not inputs.heldout:
            return
        heldout = samplers.generate(inputs.heldout, step)
        scores, old, ref = reward.score(heldout), policy.logprobs(heldout), reference.logprobs(heldout)
        file = run.heldout_file(step)
        run.evaluation(credit.evaluate(heldout, file, scores=scores, old_logprobs=old, ref_logprobs=ref))
        samplers.settle(heldout)

    for step in run.steps():
        run.enter("publish")
        weights.publish(version=step)  # policy → store; samplers pull
        if run.evaluates(step):
            run.enter("evaluate")
            evaluate(step)
        run.enter("wait_for_rollouts")
        rollouts = samplers.collect(step)  # y ~ π_old(·|x)
        run.enter("score")
        scores = reward.score(rollouts)  # r(x, y)
        baselines = reward.baselines(rollouts)  # r(x, greedy y), if the algorithm compares with it
        old = policy.logprobs(rollouts)  # log π_old(y|x)
        ref = reference.logprobs(rollouts)  # log π_ref(y|x)
        values = critic.values(rollouts)  # V(s_t)
        others = cast.others.ask(rollouts)
        outcome = credit.assign(  # A_t, R_t, who is trained on
            rollouts,
            weights.version,
            kl.coef,
            run.rollouts_file(step),
            scores=scores,
            greedy_scores=baselines,
            old_logprobs=old,
            ref_logprobs=ref,
            values=values,
            **others,
        )
        run.enter("train")
        updates = learners.update(outcome, step)  # epochs of minibatches, policy and critic
        samplers.settle(rollouts, outcome.ends)
        kl.update(outcome)
        run.save(step, learners.save)
        run.record(step, rollouts, outcome, updates)
    weights.publish(version=config.num_steps)
    evaluate(config.num_steps)
    run.finish()


class KLController:
    """The coefficient of the KL penalty, fixed or adaptive."""

    def __init__(self, algorithm: Algorithm) -> None:
        self._algorithm = algorithm
        self.coef = algorithm.kl_coef

    def update(self, outcome: StepOutcome) -> None:
        """After a step."""
        self.coef = self._algorithm.next_kl_coef(self.coef, outcome.mean_kl, outcome.num_trained)
