# The official TensorFlow Serving in place of ours: amd64 only, the same ports and models.
#
#   docker build --file docker/model-server-tf-serving.Dockerfile \
#       --build-arg TF_SERVING_IMAGE=tensorflow/serving:2.20.0@sha256:DIGEST \
#       --tag dicomnode/model-server-tf-serving:0.1.0 .
#
# No default: docker/images.env says why.
ARG TF_SERVING_IMAGE
FROM ${TF_SERVING_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="dicomnode-model-server-tf-serving" \
      org.opencontainers.image.description="TensorFlow Serving for dicomnode. Investigational, not for diagnostic use" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY deploy/monitoring/tf-serving-monitoring.config /etc/tf-serving/monitoring.config
ENV HOME=/tmp \
    TF_CPP_MIN_LOG_LEVEL=2
USER 10001:10001
WORKDIR /tmp
EXPOSE 8500 8501
STOPSIGNAL SIGTERM
# There is neither python nor curl in this image, but bash can open a connection.
HEALTHCHECK --interval=30s --timeout=5s --start-period=300s --retries=3 \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8501 && printf 'GET /v1/models/covid19/metadata HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n' >&3 && head -n 1 <&3 | grep -q ' 200 '"]
# not the image's own script, which puts a shell between us and SIGTERM
ENTRYPOINT ["/usr/bin/tensorflow_model_server"]
CMD ["--port=8500", "--rest_api_port=8501", "--model_name=covid19", \
     "--model_base_path=/models/covid19", \
     "--monitoring_config_file=/etc/tf-serving/monitoring.config"]
