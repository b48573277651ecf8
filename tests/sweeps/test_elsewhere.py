"""Commands on a store whose truth is elsewhere: what they cannot keep they refuse, and who follows looks again."""

from types import SimpleNamespace

import pytest

from gpt3core.errors import UsageError
from gpt3core.store import places, rundir
from sweeps import hparams_command, serve, status
from sweeps.watching import words


@pytest.fixture
def elsewhere(smoke, monkeypatch):
    """The smoke sweep's folder as the working copy of a bucket, and how often it was refreshed."""
    root, looks = smoke[2], []
    remote = SimpleNamespace(
        uri="s3://bucket/runs", refresh=lambda: looks.append(1), unit=lambda path: None, mirror=None
    )
    monkeypatch.setitem(places._REMOTES, root, remote)
    monkeypatch.setattr(rundir, "default_root", lambda: root)
    return root, looks


@pytest.mark.parametrize(
    ("command", "given"), [(serve.main, ["recipe=smoke"]), (hparams_command.read, ["recipe=laptop_hparams"])]
)
def test_what_asks_by_files_of_a_folder_refuses_a_bucket(elsewhere, command, given):
    with pytest.raises(UsageError, match="needs a store that is a folder of all nodes, not s3://bucket/runs"):
        command(given)


def test_a_reader_is_given_a_bucket_by_its_uri(monkeypatch, tmp_path):
    monkeypatch.setattr(places, "local", lambda where: tmp_path / str(where).replace("/", "_"))
    assert words.root("s3://bucket/runs") == tmp_path / "s3:__bucket_runs"


def test_whoever_follows_a_sweep_looks_at_the_bucket_again(elsewhere):
    root, looks = elsewhere
    for _ in range(3):
        status._page(root, [], 80, None)
    assert len(looks) == 3
