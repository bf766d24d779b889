# What a modality and a workstation do, for trying things out: DCMTK's programs, the node's own
# command line, and a client of the model server's REST API.
#
#   docker build --file docker/client.Dockerfile --tag dicomnode/client:0.1.0 .
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
LABEL org.opencontainers.image.title="dicomnode-client" \
      org.opencontainers.image.description="DICOM and REST client for trying dicomnode out. Investigational, not for diagnostic use" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0"
# A mirror of Debian comes as a secret in the place of the image's own list, if at all.
RUN --mount=type=secret,id=apt_sources,target=/etc/apt/sources.list.d/debian.sources,mode=0444 \
    apt-get update \
    && apt-get install --yes --no-install-recommends dcmtk \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 dicomnode \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp \
        --shell /usr/sbin/nologin dicomnode
COPY --from=build /opt/dicomnode /opt/dicomnode
COPY docker/client/client.py /opt/image/client.py
COPY --chmod=0755 docker/client/client docker/client/dicomnode /opt/bin/
# /opt/dicomnode/bin stays out of PATH: pynetdicom has programs with the names of DCMTK's there
ENV PATH=/opt/bin:/usr/bin:/usr/local/bin:/bin \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /tmp
STOPSIGNAL SIGTERM
# it does one thing and ends
HEALTHCHECK NONE
ENTRYPOINT ["client"]
CMD ["--help"]
