"""The report of `interest evaluate` as one HTML file: its plots are inside, nothing is fetched."""

from __future__ import annotations

import html
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from interest.errors import BadInput
from interest_cli.evaluation_report import (
    Report,
    columns,
    compared_lines,
    headline,
    number,
    rows_and_runs,
    slice_titles,
)

_ALL: Final = "#1f6f8b"
_UNTIED: Final = "#e0a458"
_STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0 }
th, td { padding: .2rem .7rem; text-align: right }
th:first-child, td:first-child { text-align: left } tr { border-bottom: 1px solid #ddd }
svg { max-width: 100%; height: auto }
"""


def write_html(report: Report, path: Path) -> None:
    """Write the report; the same figures give the same file.

    Raises:
        BadInput: the file cannot be written.
    """
    body = [
        f"<h1>{html.escape(headline(report))}</h1>",
        f"<p>Dataset {report.dataset}: {report.n_events:,} events. Tied scores count half. Items "
        "of the history are left out of the ranking, but for the target.</p>",
        _table(
            ["row", *(title for _, title in columns(report))],
            [
                [row["name"], *(number(row.get(name)) for name, _ in columns(report))]
                for row in rows_and_runs(report)
            ],
        ),
        _plot(lambda axes: _bars(axes, report), 1 + 0.45 * len(report.rows)),
        "<h2>NDCG@10 by slice</h2>",
        _table(
            ["row", *slice_titles(report)],
            [[row["name"], *map(number, row["slices"].values())] for row in report.rows],
        ),
        _plot(lambda axes: _slices(axes, report), 4.0),
        "<h2>Differences in NDCG@10</h2>",
        "<p>With 95% intervals of a paired bootstrap over users.</p>",
        _plot(lambda axes: _intervals(axes, report), 1 + 0.28 * len(report.comparisons)),
        _table(["row", "less", "over", "difference", ""], compared_lines(report.comparisons)),
    ]
    page = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Evaluation</title>'
        f"<style>{_STYLE}</style>{''.join(body)}</html>\n"
    )
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise BadInput(
            f"{path} cannot be written ({error.strerror or error}); name another for --html"
        ) from error


def _table(titles: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    def cells(tag: str, texts: Sequence[str]) -> str:
        return "".join(f"<{tag}>{html.escape(text)}</{tag}>" for text in texts)

    rows = "".join(f"<tr>{cells('td', line)}</tr>" for line in lines)
    return f"<table><tr>{cells('th', titles)}</tr>{rows}</table>"


def _plot(draw: Callable[[Any], None], height: float) -> str:
    """Draw on one pair of axes and give the SVG."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # Not pyplot: it would look for a screen, and keep the figure.
    options: Any = {"svg.hashsalt": "interest", "svg.fonttype": "none", "font.size": 9}
    with mpl.rc_context(options):
        figure = Figure(figsize=(9, height), layout="constrained")
        axes = figure.subplots()
        draw(axes)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    text = file.getvalue()
    return text[text.index("<svg") :]


def _bars(axes: Any, report: Report) -> None:
    names = [row["name"] for row in reversed(report.rows)]
    groups = [("ndcg@10", "all users", _ALL), ("untied_ndcg@10", "untied users", _UNTIED)]
    shown = [group for group in groups if any(group[0] in row for row in report.rows)]
    for i, (figure, label, colour) in enumerate(shown):
        values = [row.get(figure) or 0.0 for row in reversed(report.rows)]
        height = 0.8 / len(shown)
        places = [place - i * height for place in range(len(names))]
        bars = axes.barh(places, values, height, label=label, color=colour)
        axes.bar_label(bars, [f" {value:.4f}" for value in values])
    axes.set_yticks([place - 0.4 + 0.4 / len(shown) for place in range(len(names))], names)
    axes.set_xlabel("NDCG@10")
    axes.margins(x=0.12)
    axes.legend(frameon=False, loc="lower right")


def _slices(axes: Any, report: Report) -> None:
    titles = slice_titles(report)
    width = 0.8 / len(report.rows)
    for i, row in enumerate(report.rows):
        places = [place + i * width for place in range(len(titles))]
        values = [value or 0.0 for value in row["slices"].values()]
        axes.bar(places, values, width, label=row["name"])
    axes.set_xticks([place + 0.4 - width / 2 for place in range(len(titles))], titles)
    axes.set_ylabel("NDCG@10")
    axes.legend(frameon=False, ncols=2)


def _intervals(axes: Any, report: Report) -> None:
    found = list(reversed(report.comparisons))
    for place, one in enumerate(found):
        colour = _UNTIED if one.over == "untied" else _ALL
        axes.plot([one.low, one.high], [place, place], color=colour)
        axes.plot([one.mean], [place], "o", color=colour, markersize=4)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(found)), [f"{o.ours} − {o.theirs} ({o.over})" for o in found])
    axes.set_xlabel("difference in NDCG@10")
