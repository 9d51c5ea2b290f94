"""Draws with rich: lines in colours, and the demo's live dashboard. No other module imports rich."""

from __future__ import annotations

import time
from collections.abc import Iterable
from decimal import Decimal
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from aggstream.cli._dashboard import BalanceRow, Dashboard, OrderRow, Summary
from aggstream.cli._event_format import Segment
from aggstream.events import Event

if TYPE_CHECKING:
    from typing_extensions import Self

# The seconds between two drawings. Faster drawing would cost time and look no better.
_DRAW_INTERVAL = 1 / 8
_WIDE_COLUMNS = 100
_MAX_LINES = 40
# The lines besides orders and balances: the header, the borders, the columns' titles, the cursor's line.
_OTHER_LINES = 9
_MAX_BALANCES = 8
_MIN_ORDERS = 3
_ENDED_STYLES = {"filled": "green", "failed": "red", "cancelled": "bright_black", "expired": "bright_black"}
_OPEN_STYLES = {"submitted": "white", "running": "cyan", "partial": "blue"}
_STATE_STYLES = {
    "connecting": "yellow",
    "live": "green",
    "lost": "red",
    "waiting": "yellow",
    "stopped": "bright_black",
}

_console = Console(highlight=False)


def paint(segments: Iterable[Segment]) -> None:
    """Print one line with its styles."""
    _console.print(Text.assemble(*segments), soft_wrap=True)


class LiveView:
    """Shows the dashboard in the terminal. `draw` redraws it so that it fits, also after a resize."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._began = time.monotonic()
        self._next_drawing = 0.0
        self._live = Live(console=_console, auto_refresh=False, vertical_overflow="crop")

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def show_event(self, event: Event) -> None:
        """Do nothing: the next drawing shows the event."""

    def draw(self, dashboard: Dashboard) -> None:
        """Draw the dashboard, if the last drawing is old enough."""
        now = time.monotonic()
        if now >= self._next_drawing:
            self._next_drawing = now + _DRAW_INTERVAL
            self._draw_now(dashboard)

    def _draw_now(self, dashboard: Dashboard) -> None:
        elapsed = time.monotonic() - self._began
        drawing = picture(dashboard, title=self._title, elapsed=elapsed, size=_console.size, now_ns=time.time_ns())
        self._live.update(drawing, refresh=True)

    def finish(self, dashboard: Dashboard, summary: Summary) -> None:
        """Draw the dashboard for the last time, and print the summary below it."""
        self._draw_now(dashboard)
        self._live.stop()
        _console.print(summary_table(dashboard, summary))


def picture(
    dashboard: Dashboard, *, title: str, elapsed: float, size: tuple[int, int], now_ns: int
) -> RenderableType:
    """Return a drawing of the dashboard that fits a terminal of `size` (columns, lines)."""
    columns, lines = size
    lines = min(lines, _MAX_LINES)
    room = lines - _OTHER_LINES
    balances = max(1, min(_MAX_BALANCES, room // 3))
    below = Table.grid(expand=True)
    below.add_column(width=42 if columns < _WIDE_COLUMNS else 46)
    below.add_column(ratio=1)
    below.add_row(_balances_panel(dashboard, balances), _log_panel(dashboard, balances + 1))
    return Group(
        _header(dashboard, title, elapsed, now_ns),
        _orders_panel(dashboard, max(_MIN_ORDERS, room - balances), columns=columns),
        below,
    )


def _header(dashboard: Dashboard, title: str, elapsed: float, now_ns: int) -> RenderableType:
    grid = Table.grid(expand=True)
    grid.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    grid.add_column(justify="right", no_wrap=True)
    event_counts = dashboard.counts
    counts = {
        "received": event_counts.received,
        "gaps": event_counts.gaps,
        "reconnects": event_counts.reconnects,
        "refreshes": event_counts.refreshes,
    }
    counted = Text("   ").join(Text.assemble((f"{name} ", "dim"), (f"{n}", "bold")) for name, n in counts.items())
    style = _STATE_STYLES[dashboard.state]
    state = Text.assemble(("\N{BLACK CIRCLE} ", style), (_state_text(dashboard, now_ns), f"bold {style}"))
    grid.add_row(Text.assemble((f" {title}", "bold"), "   ", state), f"{elapsed:4.0f} s ")
    grid.add_row(Text.assemble(" ", counted), Text(f"{dashboard.seen_orders} orders ", style="dim"))
    return grid


def _state_text(dashboard: Dashboard, now_ns: int) -> str:
    if dashboard.state == "waiting" and dashboard.next_attempt_ns is not None:
        return f"reconnecting in {max(0, dashboard.next_attempt_ns - now_ns) / 1e9:.1f} s"
    return "connection lost" if dashboard.state == "lost" else dashboard.state


def _orders_panel(dashboard: Dashboard, rows: int, *, columns: int) -> RenderableType:
    wide = columns >= _WIDE_COLUMNS
    table = Table(box=None, expand=True, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("order", width=max(10, min(20, columns - 70)), no_wrap=True)
    table.add_column("venue", width=11, no_wrap=True)
    table.add_column("side", width=4, no_wrap=True)
    table.add_column("price", width=5, justify="right", no_wrap=True)
    table.add_column("filled", width=7, justify="right", no_wrap=True)
    table.add_column("", width=20 if wide else 6)
    table.add_column("step or reason", ratio=1, no_wrap=True)
    table.add_column("status", width=13 if wide else 11, no_wrap=True)
    shown = list(dashboard.orders.values())[-rows:]
    for row in shown:
        table.add_row(*_order_cells(row))
    for _ in range(rows - len(shown)):
        table.add_row()
    return Panel(table, box=box.ROUNDED, border_style="bright_black", padding=(0, 1))


def _order_cells(row: OrderRow) -> tuple[RenderableType, ...]:
    dim = "dim" if row.is_over else ""
    unknown = Text("?", style="dim")
    side = Text(row.side or "?", style="green" if row.side == "buy" else "magenta")
    style = _ENDED_STYLES.get(row.status) or _OPEN_STYLES.get(row.status, "yellow")
    status = Text(row.status, style=style)
    if not row.is_certain:
        status = Text("not known", style="dim yellow")
    step = row.step or ""
    if row.attempt:
        step += f" \N{MULTIPLICATION SIGN}{row.attempt + 1}"
    return (
        Text(row.order_id, style=dim, overflow="ellipsis"),
        Text(row.venue or "?", style=dim),
        side,
        Text(f"{row.price:.2f}", style=dim) if row.price is not None else unknown,
        Text(f"{_shares_text(row.filled)}/{_shares_text(row.size)}", style=dim),
        ProgressBar(total=1.0, completed=row.share_filled, style="grey23", finished_style="green"),
        Text(row.reason if row.status == "failed" and row.reason else step, style=dim, overflow="ellipsis"),
        status,
    )


def _shares_text(number: Decimal | None) -> str:
    return "?" if number is None else f"{number:.0f}"


def _balances_panel(dashboard: Dashboard, rows: int) -> RenderableType:
    table = Table(box=None, expand=True, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("balances", ratio=1, no_wrap=True)
    table.add_column("trading", justify="right", no_wrap=True)
    table.add_column("last change", justify="right", no_wrap=True)
    shown = sorted(list(dashboard.balances.values())[-rows:], key=lambda row: row.venue)
    for row in shown:
        table.add_row(row.venue, f"{row.trading:,.2f}", _change_text(row))
    for _ in range(rows - len(shown)):
        table.add_row()
    hidden = len(dashboard.balances) - len(shown)
    more = f"+{hidden} more" if hidden else None
    return Panel(
        table, box=box.ROUNDED, border_style="bright_black", padding=(0, 1), subtitle=more, subtitle_align="left"
    )


def _change_text(row: BalanceRow) -> Text:
    if not row.change:
        return Text("")
    return Text(f"{row.change:+,.2f}", style="green" if row.change > 0 else "red")


def _log_panel(dashboard: Dashboard, rows: int) -> RenderableType:
    shown = list(dashboard.log)[-rows:]
    body = Text("\n", no_wrap=True, overflow="ellipsis").join(
        Text.assemble((entry.time, "dim"), " ", (entry.text, entry.style)) for entry in shown
    )
    body.append("\n" * (rows - max(1, len(shown))))
    return Panel(body, box=box.ROUNDED, border_style="bright_black", padding=(0, 1))


def summary_table(dashboard: Dashboard, summary: Summary) -> RenderableType:
    """Return the summary as a table for people."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(justify="right", style="dim")
    grid.add_column()
    style = "green" if summary.is_balanced else "bold red"
    relation = "=" if summary.is_balanced else "\N{NOT EQUAL TO}"
    grid.add_row(
        " user events",
        Text(f"{summary.sent} happened {relation} {summary.received} received + {summary.missed} missed", style),
    )
    grid.add_row("gaps", str(summary.gaps))
    grid.add_row("reconnects", str(summary.reconnects))
    grid.add_row("refreshes", str(summary.refreshes))
    outcomes = [f"{number} {name}" for name, number in dashboard.outcomes.most_common()]
    if running := dashboard.seen_orders - dashboard.outcomes.total() - dashboard.unknown_orders:
        outcomes.append(f"{running} still running")
    if dashboard.unknown_orders:
        outcomes.append(f"{dashboard.unknown_orders} not known: ended in a gap")
    grid.add_row(
        "orders", f"{dashboard.seen_orders}: {', '.join(outcomes)}" if outcomes else str(dashboard.seen_orders)
    )
    if summary.decode_failures:
        grid.add_row("decode failures", Text(str(summary.decode_failures), "red"))
    return grid
