"""Data preparation through Ray Data on several nodes gives the bytes that one process gives."""

import pytest

from gpt3core.data.prepare import parts, task
from gpt3core.data.prepare.__main__ import main
from gpt3core.errors import StoreError
from tests.gpt3core import corpora

pytestmark = [pytest.mark.cluster, pytest.mark.soak, pytest.mark.timeout(600)]


def test_nodes_and_workers_change_no_byte_and_errors_stay_sentences(mock_cluster, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setattr(parts, "PART_BYTES", 60_000)
    import ray

    from sweeps.cluster.data import on_cluster

    path = corpora.write(tmp_path / "text")
    main([f"recipe={path}", f"out={tmp_path / 'one'}"], spread=lambda _: task.one_by_one)
    try:
        words = [f"recipe={path}", f"out={tmp_path / 'four'}", "workers=4"]
        main(words, spread=lambda n: on_cluster(n, address=mock_cluster))
        assert corpora.shards(tmp_path / "four") == corpora.shards(tmp_path / "one")
        ray.shutdown()
        failing = task.Task(out=tmp_path / "text" / "small.yaml" / "x", work=print, given={})
        with pytest.raises(StoreError, match="cannot write"):
            list(on_cluster(2, address=mock_cluster)([failing]))
    finally:
        ray.shutdown()
