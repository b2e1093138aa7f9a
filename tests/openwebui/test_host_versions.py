"""A canary for each internal of Open WebUI that the filter leans upon."""

from __future__ import annotations

import pytest

from helpers.openwebui.host_versions import HOST_INTERNALS, HostInternal
from scripts.compat.host_parts import read_host
from tests.conftest import host_version

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("internal", HOST_INTERNALS, ids=lambda each: f"{each.module}:{each.name}")
def test_internal_is_where_it_was(internal: HostInternal) -> None:
    """What the filter uses of Open WebUI is there since the version that is noted."""
    if host_version() >= internal.since:
        assert read_host().internals[internal], internal.used_for
