# The trainer, with ImageNet weights in it, for amd64 and arm64 (processor only; the GPU of Orin
# boards: trainer-l4t.Dockerfile).
#
#   docker build --file docker/trainer.Dockerfile --tag dicomnode/trainer:0.1.0 .
#
# The weights are fetched now, never when it runs. Without internet here either:
#   --build-context weights-files=FOLDER    takes the .h5 files from FOLDER
#   --build-arg IMAGENET_NETWORKS=          bakes none
ARG PYTHON_IMAGE=python:3.11.15-slim-bookworm@sha256:d29f48a31a8b408ed19272ca1e7b10ebae13b240a27e862d3d4217c528e2e0c3

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /src
COPY docker/requirements/build.txt docker/requirements/trainer.txt docker/requirements/
# A mirror and its password come as a secret and stay in no layer: docs/operations/images.md
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    python -m venv /build \
    && /build/bin/python -m pip install --require-hashes --only-binary :all: \
        --requirement docker/requirements/build.txt \
    && python -m venv --without-pip /opt/dicomnode \
    && /build/bin/python -m pip --python /opt/dicomnode/bin/python install --no-compile \
        --require-hashes --only-binary :all: --requirement docker/requirements/trainer.txt
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

# Empty, unless --build-context puts a folder in its place.
FROM scratch AS weights-files

FROM build AS weights
ARG IMAGENET_NETWORKS="vgg16 mobilenet mobilenet_v2 efficientnet_b0 xception densenet121"
COPY docker/trainer/fetch_weights.py docker/trainer/
RUN --mount=type=bind,from=weights-files,target=/weights-files \
    TF_CPP_MIN_LOG_LEVEL=2 /opt/dicomnode/bin/python docker/trainer/fetch_weights.py \
        --from /weights-files --to /opt/keras ${IMAGENET_NETWORKS}

FROM ${PYTHON_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="dicomnode-trainer" \
      org.opencontainers.image.description="Trains, evaluates and publishes models. Investigational, not for diagnostic use" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --gid 10001 dicomnode \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp \
        --shell /usr/sbin/nologin dicomnode \
    && install --directory --owner 10001 --group 10001 /models /work \
    && install --directory /data /etc/trainer
COPY --from=build /opt/dicomnode /opt/dicomnode
COPY --from=weights /opt/keras /opt/keras
COPY docker/trainer/with_weights.py /opt/image/with_weights.py
COPY --chmod=0755 docker/trainer/trainer /opt/bin/trainer
# /opt/bin first: `trainer` there starts the real one where Keras finds the baked weights
ENV PATH=/opt/bin:/opt/dicomnode/bin:/usr/local/bin:/usr/bin:/bin \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    TF_CPP_MIN_LOG_LEVEL=2 \
    MPLCONFIGDIR=/tmp/matplotlib \
    KERAS_HOME=/tmp/keras
USER 10001:10001
WORKDIR /work
STOPSIGNAL SIGTERM
# a job, not a server: how it ends is what is watched
HEALTHCHECK NONE
ENTRYPOINT ["trainer"]
CMD ["--help"]
