"""Weight versions: the newest two are kept, older ones refused."""

import pytest

from rayrlhf.weights.store import Published, VersionStore


def test_an_empty_store_has_no_newest_version():
    assert VersionStore().newest is None


def test_the_newest_two_versions_are_kept_and_older_ones_let_go():
    store = VersionStore()
    for version in (0, 1, 5):
        store.publish(Published(version, [f"bucket {version}"]))
        assert store.newest == Published(version, [f"bucket {version}"])
    assert [published.version for published in store._kept] == [1, 5]


@pytest.mark.parametrize("version", [2, 3])
def test_a_version_that_is_not_newer_is_refused_and_changes_nothing(version):
    store = VersionStore()
    store.publish(Published(3, ["three"]))
    with pytest.raises(ValueError, match=f"version {version} is not newer than 3"):
        store.publish(Published(version, ["late"]))
    assert store.newest == Published(3, ["three"])
