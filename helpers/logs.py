"""The one logger; its name is how Open WebUI's log shows where a line comes from."""

from __future__ import annotations

import logging

log = logging.getLogger("usage_limits")
