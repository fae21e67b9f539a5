"""A bar on stderr for what takes a while, where somebody watches."""

import contextlib
from collections.abc import Callable, Iterator

import rich.progress
from rich.console import Console

Advance = Callable[[int, int | None], None]


@contextlib.contextmanager
def progress(doing: str, *, in_bytes: bool) -> Iterator[Advance]:
    """Give what is told how much is done, of how much (None: as said before, or unknown)."""
    console = Console(stderr=True)
    amount = rich.progress.DownloadColumn() if in_bytes else rich.progress.MofNCompleteColumn()
    shown = rich.progress.Progress(
        rich.progress.TextColumn(doing),
        rich.progress.BarColumn(),
        amount,
        rich.progress.TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with shown:
        bar = shown.add_task(doing, total=None)
        # A total of None would leave the old one, which is what is meant.
        yield lambda done, total: shown.update(bar, completed=done, total=total)
