from __future__ import annotations

from tests.e2e.test_export import archive, long_archive

__all__ = ["archive", "long_archive"]  # fixtures
