# One image for every role of the fleet; docker-compose.yml gives each its command.
FROM python:3.11-slim AS build
WORKDIR /src

# Here the tools are, and they stay here: what builds the wheel is pinned like everything else.
COPY requirements.lock .
RUN python -m pip install --no-cache-dir --require-hashes -r requirements.lock
COPY pyproject.toml README.md beat_schedule.py ./
COPY tradepool tradepool
COPY tasks tasks
RUN python -m pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels .

FROM python:3.11-slim

# The pool's files belong to this user, also on a mounted volume.
# Book and audits have volumes within another one that their workers may only read, so the mount points must be there.
RUN useradd --create-home --uid 10001 tradepool && install -d -o tradepool /data /data/audits /data/book

WORKDIR /app

# First what changes rarely: the very versions that CI tested, checked by hash, without the tools. The locks with CuPy
# are the same and more, for workers with a device: docker-compose.gpu.yml.
COPY requirements-run.lock requirements-gpu.lock requirements-gpu13.lock ./
ARG LOCK=requirements-run.lock
RUN python -m pip install --no-cache-dir --require-hashes -r "$LOCK"
COPY --from=build /wheels /wheels
RUN python -m pip install --no-cache-dir --no-deps --no-index /wheels/*.whl

USER tradepool
VOLUME /data
CMD ["tradepool", "--help"]
