# The worker, for AWS Lambda (where infra/worker.yaml sets the entry point), ECS, or anywhere else.
#
#     docker build --file infra/worker.Dockerfile --build-arg PYTHON=python@sha256:... .
#
# The base is given by its full version. `twofold cloud push` looks up the digest and builds from that.
ARG PYTHON=python:3.13.18-slim-trixie

FROM ${PYTHON} AS build
WORKDIR /src
COPY infra/build-requirements.txt infra/worker-requirements.txt infra/
# Everything is installed by hash, and --no-deps because the file is complete. pip compiles the bytecode, because the
# file system may be read-only once the image runs.
RUN python -m venv --without-pip /opt/twofold \
    && pip install --no-cache-dir --no-deps --require-hashes --only-binary :all: --requirement infra/build-requirements.txt \
    && pip --python /opt/twofold/bin/python install --no-cache-dir --no-deps --require-hashes --only-binary :all: \
        --requirement infra/worker-requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY infra infra
COPY jobs jobs
COPY worker worker
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels . \
    && pip --python /opt/twofold/bin/python install --no-cache-dir --no-deps --no-index /wheels/*.whl \
    && python -m jobs.cloud.lean /opt/twofold/lib/python3.*/site-packages \
    && /opt/twofold/bin/python -c "import awslambdaric, worker.__main__, worker.serverless, worker.scoring.litert"

FROM ${PYTHON}
LABEL org.opencontainers.image.title="twofold-worker" org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/twofold /opt/twofold
# The root file system may be read-only: the worker writes only to /tmp.
ENV PATH=/opt/twofold/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp TWOFOLD_HEARTBEAT=/tmp/heartbeat
# ECS and Batch create an empty volume here with the permissions of this image: writable by everyone, not only by root.
VOLUME ["/tmp"]
USER 10001:10001
WORKDIR /tmp
HEALTHCHECK --interval=60s --timeout=10s --start-period=60s --retries=3 CMD ["python", "-m", "worker.health"]
# Exec form, so that the worker is process 1 and receives SIGTERM. The kernel drops a signal to process 1 that has no
# handler yet. A blocked signal waits instead, until the worker has set its handler and takes it.
ENTRYPOINT ["env", "--block-signal=INT,TERM", "python", "-m"]
CMD ["worker"]
