#!/bin/sh
# Stop (remove) or start (apply) k3s and the pods of this board. `systemctl stop k3s` alone leaves
# the pods running.
set -eu
# shellcheck source=../lib/common.sh
. "$(dirname "$0")/../lib/common.sh"

# Longer than the longest terminationGracePeriodSeconds of the manifests.
GRACE_SECONDS=${GRACE_SECONDS:-150}

step_apply() {
    unit=$(unit)
    [ -n "$unit" ] || fail "k3s is not set up here; run board.sh apply"
    service_on "$unit"
    let_pods_come_back
}

step_remove() {
    unit=$(unit)
    if [ -z "$unit" ]; then
        say "k3s is not set up here"
        return 0
    fi
    if has systemctl && call systemctl is-active --quiet "$unit"; then
        drain "$unit"
        change "stop $unit" call systemctl stop "$unit"
    fi
    if [ -n "$(pod_processes)" ]; then change "end the pods that are left" end_pods; fi
}

unit() {
    for name in k3s.service k3s-agent.service; do
        if [ -e "$ROOT$SYSTEMD/$name" ]; then
            echo "$name"
            return 0
        fi
    done
}

# The node gives its jobs back and answers the modality's last image before it goes.
drain() {
    if [ "$1" = k3s-agent.service ]; then
        say "note: an agent cannot drain itself; on the server first: k3s kubectl drain ${NODE_NAME:-$(uname -n)} --ignore-daemonsets --delete-emptydir-data"
        return 0
    fi
    node=${NODE_NAME:-$(uname -n)}
    remember pods.drained "$node"
    change "drain $node" ask_to_leave "$node"
}

# Whoever stops a board means it: no disruption budget holds it up, nor does an API server that is
# away. What has not left by then is ended below.
ask_to_leave() {
    call k3s kubectl drain "$1" --ignore-daemonsets --delete-emptydir-data --force \
        --disable-eviction --timeout="${GRACE_SECONDS}s" ||
        say "note: $1 is not drained; its pods are ended with a signal instead"
}

# Every process in a pod's cgroup, and no other.
pod_processes() {
    find "$ROOT/sys/fs/cgroup" -path '*kubepods*' -name cgroup.procs -exec cat {} + 2>/dev/null | sort -un
}

end_pods() {
    waited=0
    signal=TERM
    while pids=$(pod_processes) && [ -n "$pids" ]; do
        if [ "$waited" = "$GRACE_SECONDS" ]; then signal=KILL; fi
        if [ "$waited" -gt $((GRACE_SECONDS + 10)) ]; then
            echo "processes of pods do not end: $(echo "$pids" | tr '\n' ' ')" >&2
            return 1
        fi
        if [ "$waited" = 0 ] || [ "$signal" = KILL ]; then
            # shellcheck disable=SC2086  # one argument per process; one may have ended meanwhile
            call kill -s "$signal" $pids 2>/dev/null || true
        fi
        call sleep 1
        waited=$((waited + 1))
    done
}

step_status() { say "$(pod_processes | wc -l) process(es) of pods"; }

main "$@"
