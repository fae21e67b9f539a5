"""The command line: every command by its name, errors as one line, exit codes of the contract.

Each command parses, calls one function that returns a Struct, and shows it; `--json` prints that
same Struct.
"""

import importlib.metadata
import logging
import sys
from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from streams.cli import (
    alerts,
    auditing,
    baselines,
    calibrating,
    dead_letters,
    demo,
    doctor,
    importing,
    operators,
    policies,
    promoting,
    replaying,
    reports,
    running,
    tasks,
    topics,
    verifying,
    watching,
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


# In the order of `stoploss --help`: to run, to fill, to look, to say, to mend.
COMMANDS: tuple[tuple[str, Callable[..., object], str], ...] = (
    ("demo", demo.demo, "Play recorded sessions, and watch what is decided."),
    ("up", running.up, "Run everything on this machine until Ctrl-C."),
    ("ledger", running.ledger, "Run the ledger, for production."),
    ("agents", running.agents, "Run the agents over what the ledger writes."),
    ("view", running.view, "Run the view in Redis, for production."),
    ("init", calibrating.init, "Make a first policy from your agents' logs."),
    ("import", importing.import_logs, "Turn the logs of coding agents into events."),
    ("replay", replaying.replay, "Judge history offline: what would have been blocked?"),
    ("baseline", baselines.baseline, "Show what phases and tasks usually take."),
    ("calibrate", calibrating.calibrate_policy, "Propose a policy from what tasks used."),
    ("tasks", tasks.tasks, "List tasks, the nearest to its limit first."),
    ("task", tasks.task, "Show all about one task."),
    ("report", reports.report, "Show how a task went, three lines first."),
    ("watch", watching.watch, "Show tasks, decisions and alerts as they change."),
    ("alerts", alerts.alerts, "List the alerts that fire."),
    ("audit", auditing.audit, "Show who changed what, when and why."),
    ("grant", operators.grant, "Raise the limits of a task."),
    ("mode", operators.mode, "Say who is really held."),
    ("promote", promoting.promote, "Hold more, where it is earned."),
    ("demote", promoting.demote, "Take enforcement back."),
    ("reclassify", operators.reclassify, "Change a task's complexity or importance."),
    ("explain", operators.explain, "Answer a review or block in writing."),
    ("justify", operators.justify, "Review why a task is critical."),
    ("recover", operators.recover, "Mend a stuck task, or a torn record."),
    ("verify", verifying.verify, "Fold again, and compare what the ledger wrote."),
    ("doctor", doctor.doctor, "Look for what is wrong."),
)
for name, command, short_help in COMMANDS:
    app.command(name, short_help=short_help)(command)
app.add_typer(
    dead_letters.app, name="dead-letters", short_help="List what was refused, and send it again."
)
app.add_typer(policies.app, name="policy", help="Check, apply or show the policy.")
app.add_typer(topics.app, name="topics", help="Create or check the topics.")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command in `arguments`, by default those of this process, and exit."""
    # Its own lines about an absent broker, several a second; ours say it once.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    sys.exit(run(lambda: app(args=arguments, prog_name="stoploss", standalone_mode=False)))


if __name__ == "__main__":
    main()
