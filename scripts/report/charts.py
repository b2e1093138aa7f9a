"""Charts as inline SVG, drawn by pygal, that need no script and no network."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from helpers.errors import ConfigurationError

# The page's own colours, light and dark, which are told apart in grey, too.
COLORS = ("var(--first)", "var(--second)")
LONGEST_LABEL = 28
MOST_DAY_LABELS = 10
# Drawn at the size at which they are shown, so that their text is as large as the page's.
WIDE, NARROW = 960, 520
BAR_HEIGHT = 30
# pygal's own: a script for tooltips, and comments.
NOT_NEEDED = re.compile(r"<script.*?</script>|<!--.*?-->", re.DOTALL)

Series = Mapping[str, Sequence[int]]


def load_pygal() -> Any:
    """The charting library, which Open WebUI doesn't bring.

    Raises:
        ConfigurationError: It isn't installed.
    """
    try:
        pygal: Any = import_module("pygal")
    except ImportError:
        raise ConfigurationError(
            "--format html",
            "the Python package pygal is missing",
            "an environment with it: pip install pygal",
        ) from None
    # For its maps it hooks into all later imports, in a way that Python warns of at each.
    sys.meta_path[:] = [
        finder for finder in sys.meta_path if not isinstance(finder, pygal.PluginImportFixer)
    ]
    return pygal


def day_chart(days: Sequence[str], series: Series) -> str:
    """Columns side by side, one for each day, stacked."""
    every = -(-len(days) // MOST_DAY_LABELS)
    chart = load_pygal().StackedBar(
        **common_options(WIDE, 300),
        x_labels_major_every=every,
        show_minor_x_labels=False,
        truncate_label=-1,
        spacing=4,
    )
    chart.x_labels = list(days)
    return drawn(chart, series)


def bar_chart(names: Sequence[str], series: Series) -> str:
    """Bars, one under another, stacked; the first name on top."""
    chart = load_pygal().HorizontalStackedBar(
        **common_options(NARROW, 90 + BAR_HEIGHT * len(names)),
        spacing=6,
    )
    chart.x_labels = [shortened(name) for name in reversed(names)]
    return drawn(chart, {name: list(reversed(values)) for name, values in series.items()})


def common_options(width: int, height: int) -> dict[str, Any]:
    """What all charts have in common."""
    style = import_module("pygal.style").Style(
        background="transparent",
        plot_background="transparent",
        foreground="var(--faint)",
        foreground_strong="var(--text)",
        foreground_subtle="var(--line)",
        opacity="1",
        font_family="inherit",
        label_font_size=12,
        major_label_font_size=12,
        legend_font_size=13,
        no_data_font_size=16,
        colors=COLORS,
    )
    return {
        "width": width,
        "height": height,
        "style": style,
        "js": (),
        "margin": 8,
        "legend_at_bottom": True,
        "legend_at_bottom_columns": 2,
        "legend_box_size": 12,
        "value_formatter": compact_number,
        "max_scale": 6,
        "disable_xml_declaration": True,
        "no_data_text": "nothing used",
    }


def drawn(chart: Any, series: Series) -> str:
    """The chart's SVG element."""
    for name, values in series.items():
        chart.add(name, list(values))
    return NOT_NEEDED.sub("", chart.render())


def shortened(name: str) -> str:
    """A name that leaves room for its bar."""
    return name if len(name) <= LONGEST_LABEL else name[: LONGEST_LABEL - 1] + "…"


def compact_number(value: float) -> str:
    """A number on an axis: ``1.5M``, ``20k``."""
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{suffix}"
    return f"{value:.3g}"
