import functools
import gc
import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.errors import InvalidFieldError, StoplossError, UnavailableError
from streams.local.download import download
from streams.local.jars import KAFKA_VERSION, Jar, kafka_jars, locked_jars
from streams.local.ports import HOST, free_ports

CONTENT = b"a jar, as far as a digest can tell"
JAR = Jar(hashlib.sha256(CONTENT).hexdigest(), len(CONTENT), "org.example:thing:1.0")
PATH = "org/example/thing/1.0/thing-1.0.jar"


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Path]:
    """A Maven repository with one jar; its URL stands in `url` beside it."""
    root = tmp_path / "repository"
    (root / PATH).parent.mkdir(parents=True)
    (root / PATH).write_bytes(CONTENT)
    handler = functools.partial(QuietHandler, directory=str(root))
    with http.server.ThreadingHTTPServer((HOST, 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        (root / "url").write_text(f"http://{HOST}:{server.server_port}/")
        yield root
        server.shutdown()
        thread.join()


def url_of(repository: Path) -> str:
    return (repository / "url").read_text()


def test_every_jar_is_named_once_with_its_digest() -> None:
    jars = locked_jars()
    assert jars[0].filename == f"kafka_2.13-{KAFKA_VERSION}.jar"
    assert len({jar.filename for jar in jars}) == len(jars)
    assert all(len(bytes.fromhex(jar.sha256)) == 32 for jar in jars)


def test_all_of_kafka_is_of_one_version() -> None:
    # Resolved together with log4j, kafka-clients once became 3.8.0.
    ours = [
        jar.coordinate for jar in locked_jars() if jar.coordinate.startswith("org.apache.kafka:")
    ]
    assert {coordinate.split(":")[2] for coordinate in ours} == {KAFKA_VERSION}


def test_a_jar_that_is_the_tested_one_is_kept(repository: Path, tmp_path: Path) -> None:
    abandoned = tmp_path / "cache" / "download-of-a-killed-process"
    abandoned.mkdir(parents=True)
    download([JAR], tmp_path / "cache" / "jars", url_of(repository))
    assert (tmp_path / "cache" / "jars" / "thing-1.0.jar").read_bytes() == CONTENT
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["jars"]


def test_another_file_under_its_name_is_refused(repository: Path, tmp_path: Path) -> None:
    (repository / PATH).write_bytes(b"something else")
    (tmp_path / "cache").mkdir()
    with pytest.raises(StoplossError, match=rf"thing-1.0.jar: sha256 .* use {JAR.sha256}"):
        download([JAR], tmp_path / "cache" / "jars", url_of(repository))
    assert list((tmp_path / "cache").iterdir()) == []


# jgo leaves the answer of a failed request to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_jar_that_is_not_there_is_named(repository: Path, tmp_path: Path) -> None:
    (repository / PATH).unlink()
    (tmp_path / "cache").mkdir()
    with pytest.raises(UnavailableError, match=r"thing-1.0.jar cannot be fetched from 127.0.0.1"):
        download([JAR], tmp_path / "cache" / "jars", url_of(repository))
    gc.collect()


def test_an_abandoned_download_leaves_nothing(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    with pytest.raises(UnavailableError, match="abandoned"):
        download([JAR], tmp_path / "cache" / "jars", url_of(repository), abandoned=lambda: True)
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("named", ["maven", "ftp://maven/", "/srv/maven"])
async def test_a_mirror_that_is_no_url_is_refused(tmp_path: Path, named: str) -> None:
    environ = {"STOPLOSS_CACHE_DIR": str(tmp_path), "STOPLOSS_MAVEN_REPOSITORY": named}
    with pytest.raises(InvalidFieldError) as refused:
        await kafka_jars(environ)
    assert str(refused.value) == (
        f"STOPLOSS_MAVEN_REPOSITORY: '{named}' is not allowed; "
        "use a URL that begins with https:// or http://"
    )


async def test_without_network_and_cache_the_error_says_what_to_do(tmp_path: Path) -> None:
    nobody = f"{HOST}:{free_ports(1)[0]}"
    with pytest.raises(UnavailableError) as raised:
        await kafka_jars(
            {
                "STOPLOSS_CACHE_DIR": str(tmp_path / "cache"),
                "STOPLOSS_MAVEN_REPOSITORY": f"http://{nobody}",
            }
        )
    message = str(raised.value)
    assert "\n" not in message
    assert message.startswith(f"Kafka {KAFKA_VERSION} is not in the cache yet, and ")
    assert message.endswith(
        f"cannot be fetched from {nobody} (ConnectionError); connect to the network once, name a "
        f"mirror in STOPLOSS_MAVEN_REPOSITORY, or a running Kafka in STOPLOSS_BOOTSTRAP_SERVERS"
    )
