# The trainer on the GPU of a Jetson with JetPack 6 (Orin): arm64 only.
#
#   docker build --platform linux/arm64 --file docker/trainer-l4t.Dockerfile \
#       --build-arg L4T_IMAGE=nvcr.io/nvidia/tensorflow:25.02-tf2-py3-igpu@sha256:DIGEST \
#       --build-context weights-files=FOLDER --tag dicomnode/trainer-l4t:0.1.0 .
#
# NVIDIA's last TensorFlow for Jetson is 2.17 (Python 3.12, CUDA 12.8). Boards before Orin cannot
# run it: a Nano (JetPack 4.6) has Python 3.6 and TensorFlow 2.7, for which this project's code
# does not exist; it trains on its processor, with trainer.Dockerfile. Which board runs what, and
# what was tried, is in docs/operations/images.md. No default base: docker/images.env says why.
ARG PYTHON_IMAGE=python:3.11.15-slim-bookworm@sha256:d29f48a31a8b408ed19272ca1e7b10ebae13b240a27e862d3d4217c528e2e0c3
ARG L4T_IMAGE

# The wheel is the same for every machine, so it is built where it is quick.
FROM --platform=${BUILDPLATFORM} ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /src
COPY docker/requirements/build.txt docker/requirements/
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    python -m venv /build \
    && /build/bin/python -m pip install --require-hashes --only-binary :all: \
        --requirement docker/requirements/build.txt
COPY pyproject.toml README.md ./
COPY dicomnode dicomnode
COPY trainer trainer
RUN /build/bin/python -m pip wheel --no-deps --no-index --no-build-isolation --wheel-dir /wheels .

# Empty, unless --build-context puts a folder in its place.
FROM scratch AS weights-files

FROM ${L4T_IMAGE} AS environment
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /src
COPY docker/requirements/trainer-l4t.txt docker/requirements/
# Its own packages before the image's, and from the image tensorflow. --no-deps: pyproject.toml
# asks for a newer TensorFlow, NumPy and protobuf than there are for these boards; the list is
# resolved with what 2.17 needs (docker/requirements/l4t-overrides.txt). PIP_CONSTRAINT: NVIDIA's
# images pin packages of their own with it.
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    --mount=type=bind,from=build,source=/wheels,target=/wheels \
    python3 -m venv --without-pip --system-site-packages /opt/dicomnode \
    && PIP_CONSTRAINT= python3 -m pip --python /opt/dicomnode/bin/python install --no-compile \
        --ignore-installed --no-deps --require-hashes --only-binary :all: \
        --requirement docker/requirements/trainer-l4t.txt \
    && PIP_CONSTRAINT= python3 -m pip --python /opt/dicomnode/bin/python install --no-compile \
        --no-deps --no-index /wheels/*.whl \
    && /opt/dicomnode/bin/python -m compileall -q --invalidation-mode unchecked-hash \
        /opt/dicomnode/lib
ARG IMAGENET_NETWORKS="vgg16 mobilenet mobilenet_v2 efficientnet_b0 xception densenet121"
COPY docker/trainer/fetch_weights.py docker/trainer/
# It imports tensorflow: packages that do not fit together fail here, not in the hospital.
RUN --mount=type=bind,from=weights-files,target=/weights-files \
    TF_CPP_MIN_LOG_LEVEL=2 /opt/dicomnode/bin/python -c "import tensorflow, trainer.train" \
    && /opt/dicomnode/bin/python docker/trainer/fetch_weights.py \
        --from /weights-files --to /opt/keras ${IMAGENET_NETWORKS}

FROM ${L4T_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="dicomnode-trainer-l4t" \
      org.opencontainers.image.description="The trainer for the GPU of Jetson Orin boards. Investigational, not for diagnostic use" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --gid 10001 dicomnode \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp \
        --shell /usr/sbin/nologin dicomnode \
    && install --directory --owner 10001 --group 10001 /models /work \
    && install --directory /data /etc/trainer
COPY --from=environment /opt/dicomnode /opt/dicomnode
COPY --from=environment /opt/keras /opt/keras
COPY docker/trainer/with_weights.py /opt/image/with_weights.py
COPY --chmod=0755 docker/trainer/trainer /opt/bin/trainer
# GPU memory as it is needed: on these boards it is the memory of everything else too
ENV PATH=/opt/bin:/opt/dicomnode/bin:/usr/local/bin:/usr/bin:/bin \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    TF_CPP_MIN_LOG_LEVEL=2 \
    TF_FORCE_GPU_ALLOW_GROWTH=true \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    MPLCONFIGDIR=/tmp/matplotlib \
    KERAS_HOME=/tmp/keras
USER 10001:10001
WORKDIR /work
STOPSIGNAL SIGTERM
# a job, not a server: how it ends is what is watched
HEALTHCHECK NONE
ENTRYPOINT ["trainer"]
CMD ["--help"]
