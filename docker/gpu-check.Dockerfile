# Says which NVIDIA GPU a container of this machine gets, if any: for every Jetson and every PC.
#
#   docker build --file docker/gpu-check.Dockerfile --tag dicomnode/gpu-check:0.1.0 .
#
# No CUDA in it: the NVIDIA runtime puts the machine's own driver library into the container, and
# that is what the question is about.
ARG PYTHON_IMAGE=python:3.11.15-slim-bookworm@sha256:d29f48a31a8b408ed19272ca1e7b10ebae13b240a27e862d3d4217c528e2e0c3
FROM ${PYTHON_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="dicomnode-gpu-check" \
      org.opencontainers.image.description="Device query: which NVIDIA GPU a container gets" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY docker/gpu-check/device_query.py /opt/image/device_query.py
# LD_LIBRARY_PATH: where JetPack 4 and 5, and 6, keep libcuda and what it needs
ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    LD_LIBRARY_PATH=/usr/lib/aarch64-linux-gnu/tegra:/usr/lib/aarch64-linux-gnu/nvidia \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001
WORKDIR /tmp
STOPSIGNAL SIGTERM
# it asks once and ends
HEALTHCHECK NONE
ENTRYPOINT ["python", "/opt/image/device_query.py"]
