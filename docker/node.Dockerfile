# The node: storage SCP, worker, delivery, web. No tensorflow in it.
#
#   docker build --file docker/node.Dockerfile --tag dicomnode/node:0.1.0 .
#
# Runs with a read-only root: it writes to /var/lib/dicomnode and /tmp only.
ARG PYTHON_IMAGE=python:3.11.15-slim-bookworm@sha256:d29f48a31a8b408ed19272ca1e7b10ebae13b240a27e862d3d4217c528e2e0c3

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /src
COPY docker/requirements/build.txt docker/requirements/node.txt docker/requirements/
# A mirror and its password come as a secret and stay in no layer: docs/operations/images.md
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    python -m venv /build \
    && /build/bin/python -m pip install --require-hashes --only-binary :all: \
        --requirement docker/requirements/build.txt \
    && python -m venv --without-pip /opt/dicomnode \
    && /build/bin/python -m pip --python /opt/dicomnode/bin/python install --no-compile \
        --require-hashes --only-binary :all: --requirement docker/requirements/node.txt
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
LABEL org.opencontainers.image.title="dicomnode-node" \
      org.opencontainers.image.description="DICOM node: receives, has judged, reports. Investigational, not for diagnostic use" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0"
# A name for the number: "who imported these labels" is asked of the user database. A new named
# volume takes its owner from the folder that it is mounted on.
RUN groupadd --gid 10001 dicomnode \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp \
        --shell /usr/sbin/nologin dicomnode \
    && install --directory --owner 10001 --group 10001 /var/lib/dicomnode /models \
    && install --directory /etc/dicomnode
COPY --from=build /opt/dicomnode /opt/dicomnode
COPY docker/healthcheck.py /opt/image/healthcheck.py
ENV PATH=/opt/dicomnode/bin:/usr/local/bin:/usr/bin:/bin \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    DICOMNODE_CONFIG=/etc/dicomnode/node.toml \
    HEALTH_URL=http://127.0.0.1:8080/healthz
USER 10001:10001
WORKDIR /tmp
EXPOSE 11112 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["/opt/dicomnode/bin/python", "/opt/image/healthcheck.py"]
ENTRYPOINT ["dicomnode"]
CMD ["serve"]
