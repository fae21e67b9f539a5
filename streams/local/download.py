"""Jars from Maven Central, through jgo's resolver in pure Python: no Java, no Maven needed.

jgo's `EnvironmentBuilder` is not used: to sort jars into class path and module path it downloads a
JDK 11 of 190 MB, from elsewhere. A class path is all that Kafka needs.

    python -m streams.local.download     resolves `KAFKA` and writes `kafka.lock` anew
"""

import concurrent.futures
import contextlib
import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import requests
import rich.console
import rich.progress
import tenacity
from jgo.constants import MAVEN_CENTRAL_URL
from jgo.maven import Artifact, MavenContext, PythonResolver

from schemas.errors import StoplossError, UnavailableError
from streams.local.jars import KAFKA_VERSION, LOCK, Jar

KAFKA = f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}"
LOGGER = "org.apache.logging.log4j:log4j-slf4j-impl:2.24.3"
# Kafka's POM names log4j but no binding to it: without this one its errors are lost.

REQUEST_TIMEOUT_S = 20
DOWNLOADS = 6
ATTEMPTS = 3
SCRATCH = "download-"


def download(
    jars: list[Jar],
    folder: Path,
    repository: str | None = None,
    *,
    abandoned: Callable[[], bool] = lambda: False,
) -> None:
    """Fill `folder`, which appears whole or not at all: a killed download leaves no half jar.

    Blocks, for as long as it takes. Call it under a lock.

    Args:
        repository: the URL of a mirror of Maven Central.
        abandoned: asked with each chunk whether nobody waits any more.

    Raises:
        UnavailableError: the repository cannot be reached, or lacks a jar, or the disk is full.
        StoplossError: it has another file under a jar's name.
    """
    for scratch in folder.parent.glob(f"{SCRATCH}*"):  # of a process that was killed
        shutil.rmtree(scratch, ignore_errors=True)
    try:
        _download(jars, folder, repository or MAVEN_CENTRAL_URL, abandoned)
    except OSError as error:
        raise UnavailableError(
            f"{folder.parent}: Kafka cannot be kept there ({error.strerror}); name another folder "
            f"in STOPLOSS_CACHE_DIR"
        ) from error


def _download(
    jars: list[Jar], folder: Path, repository: str, abandoned: Callable[[], bool]
) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=SCRATCH) as scratch:
        staged = Path(scratch, "jars")
        staged.mkdir()
        with (
            _progress(jars) as advance,
            concurrent.futures.ThreadPoolExecutor(DOWNLOADS, "kafka-download") as pool,
        ):

            def received(count_bytes: int) -> None:
                if abandoned():
                    raise UnavailableError("the download of Kafka was abandoned")
                advance(count_bytes)

            context = _context(Path(scratch, "maven"), repository, received)
            fetches = [pool.submit(_fetch, context, jar, staged, repository) for jar in jars]
            try:
                for fetch in concurrent.futures.as_completed(fetches):
                    fetch.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        shutil.rmtree(folder, ignore_errors=True)
        for archive in folder.parent.glob(f"{folder.name}-*.jsa"):
            archive.unlink()  # Java takes none that was made from other files than these
        staged.rename(folder)


def _context(
    repo_cache: Path, repository: str, received: Callable[[int], None] = lambda _: None
) -> MavenContext:
    """Return jgo's side of it; `received` is called with the bytes of each chunk, in any thread."""

    @contextlib.contextmanager
    def progress(_filename: str, _size_bytes: int) -> Iterator[Callable[[int], None]]:
        yield received

    return MavenContext(
        resolver=PythonResolver(progress_callback=progress),
        repo_cache=repo_cache,
        remote_repos={"central": repository.rstrip("/")},
        timeout=REQUEST_TIMEOUT_S,
    )


def _fetch(context: MavenContext, jar: Jar, staged: Path, repository: str) -> None:
    """Bring one jar to `staged`.

    Raises:
        UnavailableError: the repository cannot be reached, or does not have it.
        StoplossError: it is not the file that was tested.
    """
    artifact = context.create_dependency(jar.coordinate).artifact
    retrying = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(ATTEMPTS),
        wait=tenacity.wait_random_exponential(multiplier=0.2, max=2),
        retry=tenacity.retry_if_exception_type((requests.RequestException, RuntimeError)),
        before_sleep=lambda _: _forget(artifact),
        reraise=True,
    )
    try:
        path: Path = retrying(artifact.resolve)
    except (requests.RequestException, RuntimeError) as error:  # jgo: not found there
        host = urlsplit(repository).netloc or repository
        raise UnavailableError(
            f"Kafka {KAFKA_VERSION} is not in the cache yet, and {jar.filename} cannot be fetched "
            f"from {host} ({type(error).__name__}); connect to the network once, name a mirror in "
            f"STOPLOSS_MAVEN_REPOSITORY, or a running Kafka in STOPLOSS_BOOTSTRAP_SERVERS"
        ) from error
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != jar.sha256:
        raise StoplossError(f"{jar.filename}: sha256 {found} is not allowed; use {jar.sha256}")
    path.rename(staged / jar.filename)


def _forget(artifact: Artifact) -> None:
    """Remove what a broken download left: jgo would take it for the whole file."""
    if artifact.cached_path is not None:
        artifact.cached_path.unlink(missing_ok=True)


@contextlib.contextmanager
def _progress(jars: list[Jar]) -> Iterator[Callable[[int], None]]:
    """Say on stderr what is going on, with a bar where somebody watches."""
    size_bytes = sum(jar.size_bytes for jar in jars)
    console = rich.console.Console(stderr=True)
    console.print(f"downloading Kafka {KAFKA_VERSION}, about {size_bytes // 10**6} MB, once")
    bar = rich.progress.Progress(
        rich.progress.BarColumn(),
        rich.progress.DownloadColumn(),
        rich.progress.TransferSpeedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task("Kafka", total=size_bytes)
        yield lambda done_bytes: bar.advance(task, done_bytes)


def _resolve() -> Iterator[Jar]:
    """Yield all jars that `KAFKA` needs, as Maven Central has them now."""
    with tempfile.TemporaryDirectory() as scratch:
        context = _context(Path(scratch), MAVEN_CENTRAL_URL)
        # Apart from each other: resolved together, log4j's own dependency management wins, and
        # kafka-clients becomes 3.8.0.
        wanted, needed = context.resolver.resolve([context.create_dependency(KAFKA)])
        needed = [each for each in needed if each.scope in {"compile", "runtime"}]
        for dependency in [*wanted, *needed, context.create_dependency(LOGGER)]:
            content = dependency.artifact.resolve().read_bytes()
            coordinate = f"{dependency.groupId}:{dependency.artifactId}:{dependency.version}"
            yield Jar(hashlib.sha256(content).hexdigest(), len(content), coordinate)


def main() -> None:
    """Write `kafka.lock` anew."""
    head = "# Written by `python -m streams.local.download`: sha256, bytes, coordinate on Maven Central."
    lines = (f"{jar.sha256} {jar.size_bytes} {jar.coordinate}" for jar in _resolve())
    LOCK.write_text("\n".join((head, *lines)) + "\n")


if __name__ == "__main__":
    main()
