"""The pictures in a terminal: lines in their colours, and the demo's live board. The only import of rich."""

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

from aggstream.cli._board import BalanceRow, Board, OrderRow, Summary
from aggstream.cli._lines import Segment
from aggstream.events import Event

if TYPE_CHECKING:
    from typing_extensions import Self

# Eight pictures a second look alive; more would only cost time.
_FRAME = 1 / 8
_WIDE = 100
_TALLEST = 40
# Rows that are no orders' or balances': the header, the frames, the columns' titles, the cursor's own line.
_OVERHEAD = 9
_MOST_BALANCES = 8
_FEWEST_ORDERS = 3
_SETTLED = {"filled": "green", "failed": "red", "cancelled": "bright_black", "expired": "bright_black"}
_UNSETTLED = {"submitted": "white", "running": "cyan", "partial": "blue"}
_STATES = {"connecting": "yellow", "live": "green", "lost": "red", "waiting": "yellow", "stopped": "bright_black"}

_console = Console(highlight=False)


def paint(segments: Iterable[Segment]) -> None:
    """Print a line in its colours."""
    _console.print(Text.assemble(*segments), soft_wrap=True)


class LiveView:
    """The board, drawn anew with each `draw`; it fits the terminal, also once that is resized."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._began = time.monotonic()
        self._next_frame = 0.0
        self._live = Live(console=_console, auto_refresh=False, vertical_overflow="crop")

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def take(self, event: Event) -> None:
        """An event came: the next drawing shows it."""

    def draw(self, board: Board) -> None:
        """Draw the board as it is now, unless the last drawing was a moment ago."""
        now = time.monotonic()
        if now >= self._next_frame:
            self._next_frame = now + _FRAME
            self._show(board)

    def _show(self, board: Board) -> None:
        elapsed = time.monotonic() - self._began
        board_now = picture(board, title=self._title, elapsed=elapsed, size=_console.size, now_ns=time.time_ns())
        self._live.update(board_now, refresh=True)

    def finish(self, board: Board, summary: Summary) -> None:
        """Leave the last picture where it is, and sum up below it."""
        self._show(board)
        self._live.stop()
        _console.print(summary_table(board, summary))


def picture(board: Board, *, title: str, elapsed: float, size: tuple[int, int], now_ns: int) -> RenderableType:
    """Return the board as it fits a terminal of `size` (columns, lines)."""
    columns, lines = size
    lines = min(lines, _TALLEST)
    room = lines - _OVERHEAD
    balances = max(1, min(_MOST_BALANCES, room // 3))
    below = Table.grid(expand=True)
    below.add_column(width=42 if columns < _WIDE else 46)
    below.add_column(ratio=1)
    below.add_row(_balances(board, balances), _log(board, balances + 1))
    return Group(
        _header(board, title, elapsed, now_ns),
        _orders(board, max(_FEWEST_ORDERS, room - balances), columns=columns),
        below,
    )


def _header(board: Board, title: str, elapsed: float, now_ns: int) -> RenderableType:
    grid = Table.grid(expand=True)
    grid.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    grid.add_column(justify="right", no_wrap=True)
    tally = board.tally
    counts = {
        "received": tally.received,
        "gaps": tally.gaps,
        "reconnects": tally.reconnects,
        "refreshes": tally.refreshes,
    }
    counted = Text("   ").join(Text.assemble((f"{name} ", "dim"), (f"{n}", "bold")) for name, n in counts.items())
    style = _STATES[board.state]
    state = Text.assemble(("\N{BLACK CIRCLE} ", style), (_state(board, now_ns), f"bold {style}"))
    grid.add_row(Text.assemble((f" {title}", "bold"), "   ", state), f"{elapsed:4.0f} s ")
    grid.add_row(Text.assemble(" ", counted), Text(f"{board.seen_orders} orders ", style="dim"))
    return grid


def _state(board: Board, now_ns: int) -> str:
    if board.state == "waiting" and board.waits_until_ns is not None:
        return f"reconnecting in {max(0, board.waits_until_ns - now_ns) / 1e9:.1f} s"
    return "connection lost" if board.state == "lost" else board.state


def _orders(board: Board, rows: int, *, columns: int) -> RenderableType:
    wide = columns >= _WIDE
    table = Table(box=None, expand=True, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("order", width=max(10, min(20, columns - 70)), no_wrap=True)
    table.add_column("venue", width=11, no_wrap=True)
    table.add_column("side", width=4, no_wrap=True)
    table.add_column("price", width=5, justify="right", no_wrap=True)
    table.add_column("filled", width=7, justify="right", no_wrap=True)
    table.add_column("", width=20 if wide else 6)
    table.add_column("step or reason", ratio=1, no_wrap=True)
    table.add_column("status", width=13 if wide else 11, no_wrap=True)
    shown = list(board.orders.values())[-rows:]
    for row in shown:
        table.add_row(*_order(row))
    for _ in range(rows - len(shown)):
        table.add_row()
    return Panel(table, box=box.ROUNDED, border_style="bright_black", padding=(0, 1))


def _order(row: OrderRow) -> tuple[RenderableType, ...]:
    dim = "dim" if row.is_over else ""
    unknown = Text("?", style="dim")
    side = Text(row.side or "?", style="green" if row.side == "buy" else "magenta")
    style = _SETTLED.get(row.status) or _UNSETTLED.get(row.status, "yellow")
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
        Text(f"{_shares(row.filled)}/{_shares(row.size)}", style=dim),
        ProgressBar(total=1.0, completed=row.share_filled, style="grey23", finished_style="green"),
        Text(row.reason if row.status == "failed" and row.reason else step, style=dim, overflow="ellipsis"),
        status,
    )


def _shares(number: Decimal | None) -> str:
    return "?" if number is None else f"{number:.0f}"


def _balances(board: Board, rows: int) -> RenderableType:
    table = Table(box=None, expand=True, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("balances", ratio=1, no_wrap=True)
    table.add_column("trading", justify="right", no_wrap=True)
    table.add_column("last change", justify="right", no_wrap=True)
    shown = sorted(list(board.balances.values())[-rows:], key=lambda row: row.venue)
    for row in shown:
        table.add_row(row.venue, f"{row.trading:,.2f}", _change(row))
    for _ in range(rows - len(shown)):
        table.add_row()
    hidden = len(board.balances) - len(shown)
    more = f"+{hidden} more" if hidden else None
    return Panel(
        table, box=box.ROUNDED, border_style="bright_black", padding=(0, 1), subtitle=more, subtitle_align="left"
    )


def _change(row: BalanceRow) -> Text:
    if not row.change:
        return Text("")
    return Text(f"{row.change:+,.2f}", style="green" if row.change > 0 else "red")


def _log(board: Board, rows: int) -> RenderableType:
    shown = list(board.log)[-rows:]
    body = Text("\n", no_wrap=True, overflow="ellipsis").join(
        Text.assemble((news.time, "dim"), " ", (news.text, news.style)) for news in shown
    )
    body.append("\n" * (rows - max(1, len(shown))))
    return Panel(body, box=box.ROUNDED, border_style="bright_black", padding=(0, 1))


def summary_table(board: Board, summary: Summary) -> RenderableType:
    """Return the summary for people."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(justify="right", style="dim")
    grid.add_column()
    sum_style = "green" if summary.adds_up else "bold red"
    relation = "=" if summary.adds_up else "\N{NOT EQUAL TO}"
    grid.add_row(
        " user events",
        Text(
            f"{summary.sent} happened {relation} {summary.received} received + {summary.missed} missed", sum_style
        ),
    )
    grid.add_row("gaps", str(summary.gaps))
    grid.add_row("reconnects", str(summary.reconnects))
    grid.add_row("refreshes", str(summary.refreshes))
    outcomes = [f"{number} {name}" for name, number in board.outcomes.most_common()]
    if running := board.seen_orders - board.outcomes.total() - board.not_known:
        outcomes.append(f"{running} still running")
    if board.not_known:
        outcomes.append(f"{board.not_known} not known: ended in a gap")
    grid.add_row("orders", f"{board.seen_orders}: {', '.join(outcomes)}" if outcomes else str(board.seen_orders))
    if summary.decode_failures:
        grid.add_row("decode failures", Text(str(summary.decode_failures), "red"))
    return grid
