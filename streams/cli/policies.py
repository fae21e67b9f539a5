"""`stoploss policy`: check a file, make it the running one, show what runs."""

import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from msgspec import Struct

from schemas.audit import Action, Audit
from schemas.errors import InvalidFileError
from schemas.events import PolicySetData
from schemas.outputs import PolicyRef
from streams.budget.policy import (
    InvalidPolicyError,
    Policy,
    builtin_policy,
    policy_from_toml,
    policy_json,
)
from streams.cli.exits import AnswerIsNoError
from streams.cli.operating import AllOutcome, held_before, operate_on_all
from streams.cli.options import DEFAULT_DIR, TIMEOUT_S, By, Dir, Json, TimeoutS, named
from streams.cli.reading import LedgerView, Log
from streams.cli.shot import ask
from streams.cli.show import all_partitions, print_json
from streams.insight.policy_text import toml

FILE_BYTES_MAX = 1024 * 1024
BUILTIN_ORIGIN = "built-in"

app = typer.Typer()

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="A policy in TOML.")]


class PolicyError(Struct, frozen=True):
    """One thing that is wrong with a policy file."""

    field: str
    value: str
    allowed: str


class CheckAnswer(Struct, frozen=True):
    """What `policy check` found."""

    file: str
    version: str | None
    hash: str | None
    errors: list[PolicyError]


class ShowAnswer(Struct, frozen=True, kw_only=True):
    """The policy that new tasks start under. `partitions` that have another are named."""

    version: str
    hash: str
    origin: str
    differing: dict[int, PolicyRef | None] = {}
    policy: dict[str, Any]


@app.command()
def check(file: FileArgument, *, as_json: Json = False) -> None:
    """Name everything that is wrong with a policy file, at once.

    Exit code 1 where something is. A file names only what differs from the built-in policy.

    Example: stoploss policy check policy.toml
    """
    try:
        policy = policy_of_file(file)
    except InvalidPolicyError as error:
        if as_json:
            errors = [
                PolicyError(each.field, str(each.value), each.allowed) for each in error.errors
            ]
            print_json(CheckAnswer(str(file), None, None, errors))
        raise AnswerIsNoError(str(error)) from None
    if as_json:
        print_json(CheckAnswer(str(file), policy.version, policy.hash, []))
    else:
        print(f"{file}: fine; version {policy.version}, hash {policy.hash}")


@app.command()
def apply(
    file: FileArgument,
    *,
    by: By = None,
    folder: Dir = DEFAULT_DIR,
    timeout_s: TimeoutS = TIMEOUT_S,
    as_json: Json = False,
) -> None:
    """Make a policy file the running policy: tasks that start from now on get it.

    It is written to every partition in one transaction. Tasks that have started keep theirs.

    Example: stoploss policy apply policy.toml --by ann
    """
    policy, who = policy_of_file(file), named(by)

    async def question(log: Log) -> AllOutcome:
        return await set_policy(log, policy, who, timeout_s)

    outcome = ask(folder, timeout_s, question)
    if as_json:
        print_json(outcome)
    else:
        where = all_partitions(len(outcome.partitions))
        print(f"policy {policy.version} ({policy.hash}) runs in {where}")


@app.command()
def show(
    *, folder: Dir = DEFAULT_DIR, timeout_s: TimeoutS = TIMEOUT_S, as_json: Json = False
) -> None:
    """Print the running policy whole, as TOML.

    Example: stoploss policy show > policy.toml
    """

    async def question(log: Log) -> ShowAnswer:
        return await running_policy(log)

    answer = ask(folder, timeout_s, question)
    if as_json:
        print_json(answer)
        return
    print(f"# version {answer.version}, hash {answer.hash}, {answer.origin}")
    for partition, other in answer.differing.items():
        what = "none yet" if other is None else f"{other.version} ({other.hash})"
        print(f"# partition {partition} has another: {what}")
    sys.stdout.write(toml(answer.policy))


async def running_policy(log: Log) -> ShowAnswer:
    """Return the policy of most partitions, the built-in one where none was set yet."""
    view = await log.ledger_view()
    refs = {partition: state.policy for partition, state in sorted(view.partitions.items())}
    known = [ref for ref in refs.values() if ref is not None and ref.hash in view.policies]
    if not known:
        builtin = builtin_policy()
        return ShowAnswer(
            version=builtin.version,
            hash=builtin.hash,
            origin="built-in; no ledger has run here yet",
            policy=msgspec.json.decode(policy_json(builtin)),
        )
    ref = max(known, key=known.count)
    return ShowAnswer(
        version=ref.version,
        hash=ref.hash,
        origin=BUILTIN_ORIGIN if ref.hash == builtin_policy().hash else "set by an operator",
        differing={partition: other for partition, other in refs.items() if other != ref},
        policy=view.policies[ref.hash].policy,
    )


def policy_of_file(file: Path, field: str = "FILE") -> Policy:
    """Return the policy in a file, which `field` of the command line names.

    Raises:
        InvalidFileError: the file cannot be read.
        InvalidPolicyError: everything that is wrong with it.
    """
    try:
        with file.open("rb") as opened:
            content = opened.read(FILE_BYTES_MAX + 1)
        text = content.decode()
    except OSError as error:
        problem = error.strerror or str(error)
        raise InvalidFileError(field, file, "a file that can be read", problem) from None
    except UnicodeDecodeError as error:
        raise InvalidFileError(field, file, "TOML in UTF-8", error.reason) from None
    if len(content) > FILE_BYTES_MAX:
        raise InvalidFileError(field, file, f"at most {FILE_BYTES_MAX} bytes", "it has more")
    return policy_from_toml(text, str(file))


async def set_policy(log: Log, policy: Policy, by: str, timeout_s: float) -> AllOutcome:
    """Make `policy` the running one, in every partition; `audit` has it whole.

    Raises:
        StoplossError: as `operate_on_all`.
    """
    data = PolicySetData(
        policy=msgspec.Raw(policy_json(policy)), version=policy.version, hash=policy.hash, by=by
    )

    def noted(before: LedgerView) -> Audit:
        return Audit(
            subject="policy",
            action=Action.POLICY_SET,
            by=by,
            before=held_before(
                before,
                version=lambda state: "" if state.policy is None else state.policy.version,
                hash=lambda state: "" if state.policy is None else state.policy.hash,
            ),
            after={"version": policy.version, "hash": policy.hash},
            policy=policy.document,
        )

    return await operate_on_all(log, "stoploss.policy.set", data, timeout_s, noted)
