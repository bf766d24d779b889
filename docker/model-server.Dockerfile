# Our model server, with TensorFlow Serving's API and flags, for amd64 and arm64. For arm64 there
# is no official image; the recipe on the official one is model-server-tf-serving.Dockerfile.
#
#   docker build --file docker/model-server.Dockerfile --tag dicomnode/model-server:0.1.0 .
ARG PYTHON_IMAGE=python:3.11.15-slim-bookworm@sha256:d29f48a31a8b408ed19272ca1e7b10ebae13b240a27e862d3d4217c528e2e0c3

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /src
COPY docker/requirements/build.txt docker/requirements/model-server.txt docker/requirements/
# A mirror and its password come as a secret and stay in no layer: docs/operations/images.md
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    python -m venv /build \
    && /build/bin/python -m pip install --require-hashes --only-binary :all: \
        --requirement docker/requirements/build.txt \
    && python -m venv --without-pip /opt/dicomnode \
    && /build/bin/python -m pip --python /opt/dicomnode/bin/python install --no-compile \
        --require-hashes --only-binary :all: --requirement docker/requirements/model-server.txt
COPY pyproject.toml README.md ./
COPY dicomnode dicomnode
COPY trainer trainer
# Byte code once, here: the root is read-only, and without it every start and every decoder
# process would compile for itself (4.4 s instead of 1.3 s to start, for 60 MB).
RUN /build/bin/python -m pip wheel --no-deps --no-index --no-build-isolation --wheel-dir /wheels . \
    && /build/bin/python -m pip --python /opt/dicomnode/bin/python install --no-compile \
        --no-deps --no-index /wheels/*.whl \
    && /opt/dicomnode/bin/python -m compileall -q --invalidation-mode unchecked-hash \
        /opt/dicomnode/lib

FROM ${PYTHON_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="dicomnode-model-server" \
      org.opencontainers.image.description="Serves models with TensorFlow Serving's API. Investigational, not for diagnostic use" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --gid 10001 dicomnode \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp \
        --shell /usr/sbin/nologin dicomnode \
    && install --directory --owner 10001 --group 10001 /models
COPY --from=build /opt/dicomnode /opt/dicomnode
COPY docker/healthcheck.py /opt/image/healthcheck.py
# /metadata rather than the bare status, which answers 200 while a version is still loading
ENV PATH=/opt/dicomnode/bin:/usr/local/bin:/usr/bin:/bin \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    TF_CPP_MIN_LOG_LEVEL=2 \
    HEALTH_URL=http://127.0.0.1:8501/v1/models/covid19/metadata
USER 10001:10001
WORKDIR /tmp
EXPOSE 8500 8501
STOPSIGNAL SIGTERM
# 5 minutes: a board reads tensorflow and the model slowly
HEALTHCHECK --interval=30s --timeout=5s --start-period=300s --retries=3 \
    CMD ["/opt/dicomnode/bin/python", "/opt/image/healthcheck.py"]
ENTRYPOINT ["dicomnode", "model-server"]
# in a container loopback reaches nobody
CMD ["--host=0.0.0.0", "--port=8500", "--rest_api_port=8501", "--model_name=covid19", \
     "--model_base_path=/models/covid19"]
