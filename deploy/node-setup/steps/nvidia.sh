#!/bin/sh
# Containers that use an NVIDIA GPU: containerd's templates for k3s.
set -eu
# shellcheck source=../lib/common.sh
. "$(dirname "$0")/../lib/common.sh"

FOLDER=/var/lib/rancher/k3s/agent/etc/containerd

step_apply() {
    if ! wanted; then
        say "no NVIDIA runtime wanted here"
        step_remove
        return 0
    fi
    if [ ! -x "$ROOT$NVIDIA_RUNTIME" ]; then
        problem "$NVIDIA_RUNTIME is not there; install nvidia-container-toolkit (JetPack: nvidia-container), or set NVIDIA=no"
        return 0
    fi
    # k3s with containerd 1.7 (before 1.31.6 and 1.32.2) reads the first, newer ones the second.
    put_file 600 "$FOLDER/config.toml.tmpl" "$(template io.containerd.grpc.v1.cri)"
    changed=$WROTE
    put_file 600 "$FOLDER/config-v3.toml.tmpl" "$(template io.containerd.cri.v1.runtime)"
    if [ "$changed$WROTE" != nono ]; then restart_k3s; fi
}

wanted() {
    case $NVIDIA in
        yes) return 0 ;;
        no) return 1 ;;
        *) [ -x "$ROOT$NVIDIA_RUNTIME" ] ;;
    esac
}

# k3s finds the runtime by itself in the usual places and then has the table already; the same
# table twice, and containerd does not start.
template() {
    cat <<END
# Of dicomnode's node set-up: what k3s writes by itself, and the NVIDIA runtime.
{{ template "base" . }}
{{- if not (index .ExtraRuntimes "nvidia").BinaryName }}

[plugins."$1".containerd.runtimes."nvidia"]
  runtime_type = "io.containerd.runc.v2"
[plugins."$1".containerd.runtimes."nvidia".options]
  BinaryName = "$NVIDIA_RUNTIME"
{{- end }}
END
}

restart_k3s() {
    restart_if_running k3s.service
    restart_if_running k3s-agent.service
}

step_remove() {
    drop_file "$FOLDER/config.toml.tmpl"
    changed=$WROTE
    drop_file "$FOLDER/config-v3.toml.tmpl"
    if [ "$changed$WROTE" != nono ]; then restart_k3s; fi
}

step_status() {
    if [ -x "$ROOT$NVIDIA_RUNTIME" ]; then say "$NVIDIA_RUNTIME is there"; else say "$NVIDIA_RUNTIME is not there"; fi
    if [ -r "$ROOT$FOLDER/config.toml" ]; then
        if grep -q nvidia "$ROOT$FOLDER/config.toml"; then say "containerd knows it"; else say "containerd does not know it"; fi
    fi
}

main "$@"
