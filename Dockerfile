# One image for every part of ours; which part it is, the command says: `ledger`, `topics create` …
FROM python:3.12-slim-bookworm AS build

WORKDIR /src
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1

# 1. What we depend on, by hash: a layer that changes only with the lock.
COPY requirements-runtime.txt ./
RUN python -m venv /opt/stoploss \
    && /opt/stoploss/bin/pip install --quiet --require-hashes -r requirements-runtime.txt

# 2. What builds our wheel, apart from what runs.
COPY requirements-build.txt ./
RUN pip install --quiet --require-hashes -r requirements-build.txt

# 3. Our wheel.
COPY pyproject.toml README.md LICENSE ./
COPY schemas ./schemas
COPY streams ./streams
RUN pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /dist . \
    && /opt/stoploss/bin/pip install --quiet --no-deps /dist/*.whl \
    && /opt/stoploss/bin/pip check


FROM python:3.12-slim-bookworm

# A number, so that a cluster which forbids root can see that it is none.
RUN groupadd --system --gid 10001 stoploss \
    && useradd --system --uid 10001 --gid stoploss --home-dir /var/lib/stoploss --create-home \
        --shell /usr/sbin/nologin stoploss

COPY --from=build /opt/stoploss /opt/stoploss

ENV PATH=/opt/stoploss/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /var/lib/stoploss
USER 10001:10001

# Exec form: the ledger gets the signal itself and finishes or aborts its open batch.
ENTRYPOINT ["stoploss"]
CMD ["--help"]
