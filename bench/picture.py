"""Draws `docs/demo.svg`: the live view of a demo that is running in `.stoploss/`, as it is now.

In one terminal `make demo`, in another `.venv/bin/python -m bench.picture`.
"""

import asyncio
import io
import re
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI

from streams.cli.following import Followed, follow
from streams.cli.options import DEFAULT_DIR
from streams.cli.place import kafka_of
from streams.cli.reading import opened
from streams.cli.watching import live_view

WATCHED_S = 3.0
COLUMNS = 118
ROWS = 14


async def drawn() -> str:
    """Watch for a moment; return what is seen as SVG."""
    followed = Followed()
    async with (
        kafka_of(Path(DEFAULT_DIR), 10.0) as place,
        opened(place.settings) as log,
        asyncio.TaskGroup() as group,
    ):
        watching = group.create_task(follow(place.settings, log, followed))
        await asyncio.sleep(WATCHED_S)
        watching.cancel()
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(live_view(followed, ended_too=True, rows=ROWS))
    svg = console.export_svg(title="stoploss demo", theme=MONOKAI)
    # Whoever looks at it fetches no font from anywhere.
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)


if __name__ == "__main__":
    Path("docs/demo.svg").write_text(asyncio.run(drawn()), "utf-8")
