# The training job, for AWS Batch, SageMaker, or any machine with an NVIDIA driver and the NVIDIA Container Toolkit.
#
#     docker build --file infra/train.Dockerfile --build-arg PYTHON=python@sha256:... .
#
# CUDA is installed from wheels, by hash like everything else. The machine only has to provide the driver. Without a GPU,
# --build-arg REQUIREMENTS=train-requirements.txt makes an image with the same libraries and no CUDA, a third of the size.
ARG PYTHON=python:3.13.18-slim-trixie

FROM ${PYTHON} AS build
ARG REQUIREMENTS=train-gpu-requirements.txt
WORKDIR /src
COPY infra/build-requirements.txt infra/${REQUIREMENTS} infra/
RUN python -m venv --without-pip /opt/twofold \
    && pip install --no-cache-dir --no-deps --require-hashes --only-binary :all: --requirement infra/build-requirements.txt \
    && pip --python /opt/twofold/bin/python install --no-cache-dir --no-deps --require-hashes --only-binary :all: \
        --requirement infra/${REQUIREMENTS}
COPY pyproject.toml README.md LICENSE ./
COPY infra infra
COPY jobs jobs
COPY worker worker
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels . \
    && pip --python /opt/twofold/bin/python install --no-cache-dir --no-deps --no-index /wheels/*.whl \
    && /opt/twofold/bin/python -c "import jobs.container, jobs.train"

FROM ${PYTHON}
LABEL org.opencontainers.image.title="twofold-train" org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/twofold /opt/twofold
# SageMaker provides /opt/ml. Apart from that and /tmp, the root file system may be read-only.
ENV PATH=/opt/twofold/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp TF_CPP_MIN_LOG_LEVEL=2 \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
# ECS and Batch create an empty volume here with the permissions of this image: writable by everyone, not only by root.
VOLUME ["/tmp"]
# No USER: SageMaker starts every container as its image says, "expects all containers to run with root users", and promises
# nobody else that /opt/ml can be written to. On AWS Batch, the job definition makes it user 10001.
# https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html
WORKDIR /tmp
# A job is monitored by the service that runs it. This only checks that the interpreter and the package work.
HEALTHCHECK --interval=300s --timeout=60s --start-period=300s --retries=3 CMD ["python", "-c", "import jobs.config"]
# Exec form, so that the job is process 1 and receives SIGTERM. The kernel drops a signal to process 1 that has no handler
# yet. A blocked signal waits instead, until the job has set its handler (jobs/training/interruption.py) and takes it.
ENTRYPOINT ["env", "--block-signal=INT,TERM", "python", "-m", "jobs.container"]
