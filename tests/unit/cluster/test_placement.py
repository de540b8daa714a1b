"""Placement plans, made without a cluster."""

import pytest

from rayrlhf.cluster.placement import PlacementError, Plan, Resources, Seat, check_capacity, describe, plan_placement

ROLES = {
    "sampler": Resources(num_workers=2, num_cpus=1.0),
    "policy": Resources(num_workers=2, num_cpus=0.5, num_gpus=1.0),
    "reference": Resources(num_workers=1, num_cpus=2.0, num_gpus=0.5),
}


def test_every_worker_has_a_bundle_of_its_own():
    plan = plan_placement(ROLES, ())
    assert plan.bundles == [
        {"CPU": 1},
        {"CPU": 1},
        {"CPU": 0.5, "GPU": 1},
        {"CPU": 0.5, "GPU": 1},
        {"CPU": 2, "GPU": 0.5},
    ]
    assert plan.seats["policy"] == [Seat(2, 0.5, 1.0), Seat(3, 0.5, 1.0)]
    assert (plan.total("CPU"), plan.total("GPU")) == (5.0, 2.5)


def test_colocated_roles_share_bundles_worker_by_worker():
    plan = plan_placement(ROLES, [["policy", "reference"]])
    assert plan.seats["policy"] == [Seat(0, 1.0, 0.5), Seat(1, 0.5, 1.0)]
    assert plan.seats["reference"] == [Seat(0, 1.0, 0.5)]
    assert plan.bundles[:2] == [{"CPU": 2, "GPU": 1}, {"CPU": 0.5, "GPU": 1}]
    assert [seat.bundle for seat in plan.seats["sampler"]] == [2, 3]


@pytest.mark.parametrize("colocate", [(), [["policy", "reference"]], [["sampler", "policy", "reference"]]])
def test_seats_never_take_more_than_their_bundle_has(colocate):
    plan = plan_placement(ROLES, colocate)
    assert {name: len(seats) for name, seats in plan.seats.items()} == {n: r.num_workers for n, r in ROLES.items()}
    for index, bundle in enumerate(plan.bundles):
        seats = [seat for seats in plan.seats.values() for seat in seats if seat.bundle == index]
        assert seats
        assert sum(seat.num_cpus for seat in seats) <= bundle.get("CPU", 0) + 1e-9
        assert sum(seat.num_gpus for seat in seats) <= bundle.get("GPU", 0) + 1e-9


def test_a_role_that_reserves_nothing_has_an_empty_bundle():
    assert plan_placement({"reward": Resources(num_cpus=0)}, ()).bundles == [{}]


def test_an_unknown_role_in_colocate_is_named_with_the_known_ones():
    with pytest.raises(PlacementError, match="'critik' is not a role; roles are sampler, policy, reference"):
        plan_placement(ROLES, [["policy", "critik"]])


@pytest.mark.parametrize("colocate", [[["policy", "sampler"], ["policy", "reference"]], [["policy", "policy"]]])
def test_a_role_in_two_groups_is_refused(colocate):
    with pytest.raises(PlacementError, match="name each role once"):
        plan_placement(ROLES, colocate)


def check(roles: dict[str, Resources], nodes: list[dict[str, float]]) -> None:
    check_capacity(plan_placement(roles, ()), roles, nodes)


def test_a_cluster_that_is_large_enough_is_fine():
    check(ROLES, [{"CPU": 5, "GPU": 3}])
    check({"a": Resources(num_workers=10, num_cpus=0.1)}, [{"CPU": 1}])  # 10 × 0.1 is a little over 1


def test_too_few_cpus_name_the_settings_to_lower_largest_first():
    roles = {"policy": Resources(), "sampler": Resources(num_workers=5), "reward": Resources(num_cpus=0)}
    with pytest.raises(PlacementError) as error:
        check(roles, [{"CPU": 1}, {"CPU": 1}])
    assert str(error.value) == (
        "the run needs 6 CPU, the cluster has 2: lower sampler.num_workers (now 5 × 1 CPU), policy.num_cpus (now 1), "
        "or their num_cpus, or let roles share devices with placement.colocate, or add nodes to the cluster"
    )


def test_too_few_gpus_name_only_roles_that_take_gpus():
    with pytest.raises(PlacementError) as error:
        check(ROLES, [{"CPU": 64, "GPU": 1}])
    assert str(error.value).startswith(
        "the run needs 2.5 GPU, the cluster has 1: lower policy.num_workers (now 2 × 1 GPU), reference"
    )
    assert "sampler" not in str(error.value)


def test_a_worker_that_fits_no_single_node_is_told_so():
    with pytest.raises(
        PlacementError, match="a worker needs 3 CPU on one node, and no node of the cluster has as much"
    ):
        check({"policy": Resources(num_cpus=3)}, [{"CPU": 2}, {"CPU": 2}])


def test_a_bundle_reads_as_a_sum():
    assert describe({"CPU": 1.0, "GPU": 0.5}) == "1 CPU + 0.5 GPU"
    assert describe({}) == "nothing"
    assert Plan().total("CPU") == 0


@pytest.mark.parametrize(
    ("resources", "threads"),
    [
        (Resources(num_cpus=0.25), 1),
        (Resources(num_cpus=0), 1),
        (Resources(num_cpus=2), 2),
        (Resources(num_cpus=2.5), 3),
        (Resources(num_cpus=0.5, num_threads=4), 4),
    ],
)
def test_threads_are_cpus_rounded_up_unless_they_are_named(resources, threads):
    assert resources.threads == threads
