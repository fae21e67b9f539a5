"""The command line: every command by its name, errors as one line, exit codes of the contract.

Each command parses, calls one function that returns a Struct, and shows it; `--json` prints that
same Struct.
"""

import importlib.metadata
import logging
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from streams.cli import (
    demo,
    doctor,
    importing,
    operators,
    policies,
    replaying,
    running,
    tasks,
    topics,
    verifying,
)
from streams.cli.exits import run

app = typer.Typer(
    name="stoploss",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


@app.callback(invoke_without_command=True)
def stoploss(
    context: typer.Context,
    *,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """A budget stop-loss for autonomous coding agents.

    Events about what agents use go in; warn, review and block decisions come out.
    `stoploss demo` shows it with real recorded sessions, in about a minute.

    Exit codes: 0 fine, 1 the answer is no, 2 wrong usage, 3 a part is not reachable.
    """
    if version:
        print(f"stoploss {importlib.metadata.version('stoploss')}")
    elif context.invoked_subcommand is None:
        print(context.get_help())


app.command("up")(running.up)
app.command("demo")(demo.demo)
app.command("ledger")(running.ledger)
app.add_typer(topics.app, name="topics", help="Create or check the topics.")
app.command("import")(importing.import_logs)
app.command("replay")(replaying.replay)
app.command("tasks")(tasks.tasks)
app.command("task")(tasks.task)
app.command("watch")(tasks.watch)
app.command("grant")(operators.grant)
app.command("mode")(operators.mode)
app.add_typer(policies.app, name="policy", help="Check, apply or show the policy.")
app.command("reclassify")(operators.reclassify)
app.command("explain")(operators.explain)
app.command("verify")(verifying.verify)
app.command("doctor")(doctor.doctor)
app.command("recover")(operators.recover)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command in `arguments`, by default those of this process, and exit."""
    # Its own lines about an absent broker, several a second; ours say it once.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    sys.exit(run(lambda: app(args=arguments, prog_name="stoploss", standalone_mode=False)))


if __name__ == "__main__":
    main()
