#!/bin/sh
# Where k3s takes images from: an internal registry in place of the public ones.
set -eu
# shellcheck source=../lib/common.sh
. "$(dirname "$0")/../lib/common.sh"

FILE=/etc/rancher/k3s/registries.yaml
# Every registry that the manifests' images are named after.
PUBLIC="docker.io ghcr.io nvcr.io quay.io registry.k8s.io"

step_apply() {
    if [ -z "$REGISTRY" ]; then
        say "REGISTRY is empty: images come from the stick"
        step_remove
        return 0
    fi
    case $REGISTRY in
        https://?*) ;;
        http://?*) say "note: $REGISTRY is not encrypted; whoever is on that network can change images" ;;
        *) usage_error "REGISTRY must be https://HOST[:PORT] or http://HOST[:PORT], got '$REGISTRY'" ;;
    esac
    # 600: a site may add a password by hand; such an edit is kept, see lib/files.sh.
    put_file 600 "$FILE" "$(registries)"
    if [ "$WROTE" = yes ]; then
        restart_if_running k3s.service
        restart_if_running k3s-agent.service
    fi
}

registries() {
    echo "mirrors:"
    for name in $PUBLIC; do
        printf '  %s:\n    endpoint:\n      - "%s"\n' "$name" "$REGISTRY"
    done
    if [ -n "$REGISTRY_CA" ]; then
        printf 'configs:\n  "%s":\n    tls:\n      ca_file: "%s"\n' "${REGISTRY#*://}" "$REGISTRY_CA"
    fi
}

step_remove() {
    drop_file "$FILE"
    if [ "$WROTE" = yes ]; then
        restart_if_running k3s.service
        restart_if_running k3s-agent.service
    fi
}

step_status() {
    if [ -e "$ROOT$FILE" ]; then say "mirror: ${REGISTRY:-unknown}"; else say "no mirror"; fi
}

main "$@"
