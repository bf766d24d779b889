# JupyterLab with the trainer installed.
#
#   docker build --file docker/jupyter.Dockerfile --tag dicomnode/jupyter:0.1.0 .
#
# Build dicomnode/trainer first (`make images` knows), or name another trainer, for instance
# dicomnode/trainer-l4t.
ARG TRAINER_IMAGE=dicomnode/trainer:0.1.0
FROM ${TRAINER_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="dicomnode-jupyter" \
      org.opencontainers.image.description="JupyterLab with dicomnode's trainer. Investigational, not for diagnostic use" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0"
USER 0:0
# Everything that the trainer has is in the list at the same version, so only JupyterLab is new.
# pip is that of the base image, which is not the python that the trainer puts first in PATH.
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    --mount=type=bind,source=docker/requirements/jupyter.txt,target=/src/jupyter.txt \
    PATH=/usr/local/bin:/usr/bin:/bin PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 \
    PIP_CONSTRAINT= \
    python3 -m pip --python /opt/dicomnode/bin/python install --no-compile --require-hashes \
        --only-binary :all: --requirement /src/jupyter.txt \
    && /opt/dicomnode/bin/python -m compileall -q --invalidation-mode unchecked-hash \
        /opt/dicomnode/lib
COPY docker/jupyter/jupyter_server_config.py /opt/dicomnode/etc/jupyter/
COPY docker/jupyter/start.ipynb /opt/notebooks/
COPY docker/healthcheck.py /opt/image/healthcheck.py
# Whoever has the token runs programs here: it comes from a file, and without it nothing starts.
ENV JUPYTER_TOKEN_FILE=/run/secrets/jupyter/token \
    JUPYTER_CONFIG_DIR=/tmp/jupyter/config \
    JUPYTER_DATA_DIR=/tmp/jupyter/data \
    JUPYTER_RUNTIME_DIR=/tmp/jupyter/runtime \
    IPYTHONDIR=/tmp/ipython \
    HEALTH_URL=http://127.0.0.1:8888/api
USER 10001:10001
WORKDIR /work
EXPOSE 8888
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["/opt/dicomnode/bin/python", "/opt/image/healthcheck.py"]
ENTRYPOINT ["/opt/dicomnode/bin/python", "/opt/image/with_weights.py", "jupyter-lab"]
CMD ["--no-browser"]
