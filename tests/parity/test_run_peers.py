"""The script that runs other projects' code, without their code."""

import pytest
import references
import run_peers
from peers import PEERS, Case

from rayrlhf.algorithms import PPO
from rayrlhf.algorithms.presets import PRESETS


@pytest.mark.parametrize("arguments", [[], ["."], ["no_such_folder"], ["one", "two"]])
def test_what_is_no_checkout_gets_a_list_of_what_is(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run_peers.main(arguments) == 2
    message = capsys.readouterr().err
    assert all(peer.name in message and peer.file in message for peer in PEERS)
    assert len(arguments) != 1 or message.startswith(arguments[0])


@pytest.mark.parametrize("peer", PEERS, ids=[peer.name for peer in PEERS])
def test_a_checkout_is_recognized_by_a_file(peer, tmp_path):
    file = tmp_path / peer.file
    file.parent.mkdir(parents=True)
    file.touch()
    assert run_peers.recognized(tmp_path) is peer


@pytest.mark.parametrize(("preset", "status"), [("openrlhf", 0), ("kochatgpt", 1)])
def test_the_exit_status_says_whether_all_are_equal(preset, status, monkeypatch, capsys):
    algorithm = PPO(**PRESETS[preset]["algorithm"])
    case = Case("made up", references.openrlhf, references.openrlhf, algorithm)
    monkeypatch.setattr(run_peers, "recognized", lambda checkout: PEERS[0])
    monkeypatch.setattr(run_peers, "load", lambda peer, checkout: [case])
    assert run_peers.main(["checkout"]) == status
    shown = capsys.readouterr().out
    assert shown.count("made up") == 6
    assert ("Not all errors" in shown) == (status == 1)


def test_help_is_no_path(capsys):
    assert run_peers.main(["--help"]) == 0
    assert "PATH_TO_CHECKOUT" in capsys.readouterr().out


def test_a_checkout_of_another_version_is_named(monkeypatch, capsys):
    def another_version(data):
        raise AttributeError("no attribute 'advantage_estimator'")

    case = Case("made up", another_version, references.openrlhf, PPO())
    monkeypatch.setattr(run_peers, "recognized", lambda checkout: PEERS[0])
    monkeypatch.setattr(run_peers, "load", lambda peer, checkout: [case])
    assert run_peers.main(["checkout"]) == 2
    assert "checkout has other functions than OpenRLHF 0.11 (no attribute" in capsys.readouterr().err
