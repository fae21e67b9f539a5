"""Where notices go is configured in tables; what is wrong there is named."""

import base64
import hmac
from pathlib import Path
from urllib.parse import unquote

import pytest

from schemas.alerts import Severity
from schemas.errors import InvalidFieldError
from streams.agents.delivery.signing import headers
from streams.agents.delivery.sinks import Sink, load_sinks
from streams.insight.notices import Notice, NoticeKind


def sinks(tmp_path: Path, text: str, **environ: str) -> list[Sink]:
    file = tmp_path / "stoploss.toml"
    file.write_text(text, "utf-8")
    return load_sinks(environ, file)


def test_no_file_and_no_table_are_no_sinks(tmp_path: Path) -> None:
    assert load_sinks({}, tmp_path / "missing.toml") == []
    assert sinks(tmp_path, 'bootstrap_servers = "a:1"') == []


def test_a_table_is_a_sink_and_its_secrets_may_be_variables(tmp_path: Path) -> None:
    found = sinks(
        tmp_path,
        """
        [sinks.on-call]
        kind = "webhook"
        min_severity = "warning"
        send = ["alert"]
        [sinks.log]
        kind = "log"
        """,
        STOPLOSS_SINK_ON_CALL_URL="https://hooks.example/T0",
        STOPLOSS_SINK_ON_CALL_SECRET="whsec_c2VjcmV0",  # noqa: S106 - made up
    )
    assert found == [
        Sink(
            name="on-call",
            kind="webhook",
            url="https://hooks.example/T0",
            secret="whsec_c2VjcmV0",  # noqa: S106 - made up
            min_severity=Severity.WARNING,
            send=(NoticeKind.ALERT,),
        ),
        Sink(name="log", kind="log"),
    ]
    assert "hooks" not in repr(found)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ('kind = "mail"', "kind: 'mail' is not allowed; use webhook, slack or log"),
        ("", "kind: None is not allowed; use webhook, slack or log"),
        ('kind = "slack"', "url: None is not allowed; use an address that begins with https://"),
        ('kind = "slack"\nurl = "hooks.example"', "url: '…' is not allowed; use an address"),
        ('kind = "slack"\nurl = 5', "url: '…' is not allowed; use an address"),
        ('kind = "log"\ncolour = "red"', "colour: 'red' is not allowed; use one of kind, url"),
        ('kind = "log"\nsend = ["news"]', "send: ['news'] is not allowed; use a list of alert"),
        ('kind = "log"\nmin_severity = "high"', "min_severity: 'high' is not allowed; use info"),
        ('kind = "log"\nsecret = "s"', "secret: '…' is not allowed; use none: only a webhook"),
    ],
)
def test_what_is_wrong_is_named_with_what_is_allowed(tmp_path: Path, table: str, said: str) -> None:
    with pytest.raises(InvalidFieldError) as raised:
        sinks(tmp_path, f"[sinks.ops]\n{table}")
    assert f"sinks.ops.{said}" in str(raised.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sinks = 5", "sinks: 5 is not allowed; use tables such as [sinks.oncall]"),
        ("sinks = {a = 1}", "use tables such as [sinks.oncall]"),
        ("[sinks.Ops]\nkind = 'log'", "name: 'Ops' is not allowed; use up to 32 small letters"),
        ("[sinks", "use TOML"),
        (
            "".join(f"[sinks.s{n}]\nkind='log'\n" for n in range(17)),
            "17 is not allowed; use at most 16",
        ),
    ],
)
def test_a_file_that_is_wrong_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InvalidFieldError) as raised:
        sinks(tmp_path, text)
    assert said in str(raised.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidFieldError, match="a file that can be read"):
        load_sinks({"STOPLOSS_CONFIG": str(tmp_path)})


@pytest.mark.parametrize(
    ("severity", "kind", "wanted"),
    [
        pytest.param(Severity.CRITICAL, NoticeKind.ALERT, True, id="more severe"),
        pytest.param(Severity.WARNING, NoticeKind.ALERT, True, id="just as severe"),
        pytest.param(Severity.INFO, NoticeKind.ALERT, False, id="less severe"),
        pytest.param(Severity.INFO, NoticeKind.COMPLETION, True, id="an end is always said"),
    ],
)
def test_a_sink_takes_what_is_severe_enough(
    severity: Severity, kind: NoticeKind, *, wanted: bool
) -> None:
    sink = Sink(name="ops", kind="log", min_severity=Severity.WARNING)
    notice = Notice(
        id="1",
        kind=kind,
        severity=severity,
        title="",
        text="",
        time="",
        task_id=None,
        link=None,
        record={},
    )
    assert sink.wants(notice) is wanted
    assert not Sink(name="ops", kind="log", send=()).wants(notice)


def test_a_signature_is_that_of_standard_webhooks() -> None:
    # The example of the specification.
    found = headers(
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1_614_265_330,
        b'{"test": 2432232314}',
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    )
    assert found == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


@pytest.mark.parametrize(
    ("notice_id", "sent"),
    [
        ("report-TASK.1/a:b~-1", "report-TASK.1/a:b~-1"),
        ("report-T\n1-1", "report-T%0A1-1"),
        ("report-T\r\nwebhook-id: 2-1", "report-T%0D%0Awebhook-id:%202-1"),
        ("report-Größe\x00\x7f-1", "report-Gr%C3%B6%C3%9Fe%00%7F-1"),
        ("report-%0A-1", "report-%250A-1"),
    ],
    ids=["as it is", "a new line", "another header", "what is not ASCII", "what looks quoted"],
)
def test_an_id_of_any_text_is_quoted_in_its_header_and_signed_as_it_is_sent(
    notice_id: str, sent: str
) -> None:
    found = headers(notice_id, 1, b"{}", "whsec_!")
    assert found["webhook-id"] == sent
    assert unquote(sent) == notice_id
    signed = hmac.digest(b"whsec_!", f"{sent}.1.{{}}".encode(), "sha256")
    assert found["webhook-signature"] == f"v1,{base64.b64encode(signed).decode()}"


def test_without_a_secret_nothing_is_signed_and_any_text_may_be_one() -> None:
    assert "webhook-signature" not in headers("1", 1, b"{}", None)
    ours = headers("1", 1, b"{}", "whsec_!")["webhook-signature"]
    assert ours != headers("1", 1, b"{}", "secret")["webhook-signature"]
