"""The Ray head of the cluster tests, one for this package."""

from tests.cluster.conftest import head

__all__ = ["head"]
