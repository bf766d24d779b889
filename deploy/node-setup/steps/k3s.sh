#!/bin/sh
# k3s as a service: settings, join token, unit. The program itself comes from deploy/airgap.
set -eu
# shellcheck source=../lib/common.sh
. "$(dirname "$0")/../lib/common.sh"

SETTINGS_FILE=/etc/rancher/k3s/config.yaml
TOKEN=/etc/rancher/k3s/token
PROGRAM=/usr/local/bin/k3s
RENEW=dicomnode-k3s-renew

step_apply() {
    if [ "$ROLE" = server ]; then unit=k3s.service; else unit=k3s-agent.service; fi
    if [ ! -x "$ROOT$PROGRAM" ]; then
        problem "$PROGRAM is not there; install.sh of the bundle puts it (step k3s)"
        return 0
    fi
    token || return 0
    # 600: a site may add a password of a datastore.
    put_file 600 "$SETTINGS_FILE" "$(settings)"
    changed=$WROTE
    put_unit "$unit" "$(unit_file)"
    if [ "$changed$WROTE" != nono ]; then restart_if_running "$unit"; fi
    service_on "$unit"
    renewing "$unit"
    let_pods_come_back
}

# k3s's certificates are good for a year, and it renews those of the last 90 days when it starts,
# and only then: a board that nobody restarts for a year would end as a cluster.
renewing() {
    put_unit "$RENEW.service" "$(renew_service "$1")"
    put_unit "$RENEW.timer" "$(renew_timer)"
    service_on "$RENEW.timer"
}

renew_service() {
    cat <<END
[Unit]
Description=Restart k3s so that it renews its certificates (dicomnode)

[Service]
Type=oneshot
# Pods go on (KillMode=process). try-: one that was stopped on purpose stays so.
ExecStart=/bin/systemctl try-restart $1
TimeoutStartSec=1200
END
}

# In the middle of the month, before anything of the night: a retraining on several boards is
# followed through the API server. Not all boards at once.
renew_timer() {
    cat <<END
[Unit]
Description=Once a month: certificates of k3s (dicomnode)

[Timer]
OnCalendar=*-*-15 20:00
RandomizedDelaySec=7200
Persistent=true

[Install]
WantedBy=timers.target
END
}

# The token joins boards to the cluster: whoever has it can read every secret. Never shown.
token() {
    if [ -n "$TOKEN_SOURCE" ]; then
        if [ ! -s "$TOKEN_SOURCE" ]; then
            problem "TOKEN_SOURCE $TOKEN_SOURCE is not there or empty; copy $TOKEN of the server there"
            return 1
        fi
        put_file 600 "$TOKEN" "$(cat "$TOKEN_SOURCE")"
    elif [ ! -s "$ROOT$TOKEN" ]; then
        if [ "$ROLE" = agent ]; then
            problem "$TOKEN is not there; copy it from the server (mode 600), or set TOKEN_SOURCE"
            return 1
        fi
        put_file 600 "$TOKEN" "$(new_token)"
    elif [ "$(_mode "$ROOT$TOKEN")" != 600 ]; then
        change "set the mode of $TOKEN from $(_mode "$ROOT$TOKEN") to 600" chmod 600 "$ROOT$TOKEN"
    fi
}

new_token() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }

settings() {
    echo "# Of dicomnode's node set-up ($ROLE). Edit board.env and apply; k3s reads this at its start."
    if [ "$ROLE" = agent ]; then echo "server: \"https://$SERVER_ADDRESS:6443\""; fi
    echo "token-file: $TOKEN"
    if [ -n "$NODE_NAME" ]; then echo "node-name: \"$NODE_NAME\""; fi
    if [ -n "$NODE_ADDRESS" ]; then echo "node-ip: \"$NODE_ADDRESS\""; fi
    list node-label "$NODE_LABELS"
    if [ "$NVIDIA_DEFAULT" = yes ]; then echo "default-runtime: nvidia"; fi
    cat <<END
# kubelet stops rather than run with kernel settings other than those it wants (step kernel).
protect-kernel-defaults: true
# A registry that is not in registries.yaml is never asked: nothing leaves the hospital.
disable-default-registry-endpoint: true
END
    list kubelet-arg "fail-swap-on=false $(memory_arguments) $(cgroup_argument) $KUBELET_ARGS"
    if [ "$ROLE" = server ]; then server_settings; fi
}

# Swap is zram, which is why kubelet must put up with it. Below 100 MiB free a small board dies
# by itself: pods are evicted before. What the system and k3s use is not given to pods; the server
# also holds the API server and its data store.
memory_arguments() {
    if [ "$ROLE" = server ]; then reserved=800Mi; else reserved=500Mi; fi
    echo "eviction-hard=memory.available<100Mi,nodefs.available<5%,imagefs.available<5% system-reserved=memory=$reserved,cpu=200m"
}

# From 1.35 on kubelet refuses a machine with cgroup v1 (kernel 4.9 of a Jetson Nano) unless told
# otherwise; before 1.31 it does not know the setting.
cgroup_argument() {
    [ -d "$ROOT/sys/fs/cgroup" ] && [ ! -e "$ROOT/sys/fs/cgroup/cgroup.controllers" ] || return 0
    minor=$(call k3s --version 2>/dev/null | sed -n 's/^k3s version v1\.\([0-9]*\)\..*/\1/p') || minor=
    if [ "${minor:-31}" -ge 31 ]; then echo "fail-cgroupv1=false"; fi
}

server_settings() {
    list tls-san "$TLS_NAMES"
    list disable "$K3S_DISABLE"
    cat <<END
# No chart is installed here.
disable-helm-controller: true
# The data store is k3s's own SQLite: one server, nothing to operate. A second server would need
# an odd number of them and etcd's disk writes, which SD cards do not take.
# Secrets are encrypted in it.
secrets-encryption: true
# Where a volume of the class local-path is, on whichever board its pod is.
default-local-storage-path: "$LOCAL_STORAGE"
# kubectl with all rights: for root only.
write-kubeconfig-mode: "0600"
END
    if [ "$NETWORK_POLICY" = off ]; then
        echo "# NETWORK_POLICY=off: nothing in this cluster holds pods to their NetworkPolicies."
        echo "disable-network-policy: true"
    fi
}

list() {
    # shellcheck disable=SC2086  # blank-separated
    set -- "$1" $2
    name=$1
    shift
    if [ $# -eq 0 ]; then return 0; fi
    echo "$name:"
    for item in "$@"; do echo "  - \"$item\""; done
}

unit_file() {
    # Without a battery the clock is wrong after a power cut: wait for it, at most a minute, because
    # certificates that are "not yet valid" look like a broken cluster.
    wait_for_clock=
    after=
    if [ -n "$TIME_SERVERS" ]; then
        wait_for_clock="ExecStartPre=-/usr/bin/chronyc -n waitsync 6 1.0 0 10"
        after=" chrony.service"
    fi
    cat <<END
[Unit]
Description=k3s $ROLE (dicomnode)
Wants=network-online.target
After=network-online.target dicomnode-zram.service$after
# A disk that is not mounted must not become an empty folder on the SD card, with an empty database.
RequiresMountsFor="$LOCAL_STORAGE"

[Service]
Type=notify
# Pods outlive a restart of k3s: an upgrade interrupts no image.
KillMode=process
Delegate=yes
LimitNOFILE=1048576
LimitCORE=0
TasksMax=infinity
# A slow board needs minutes for its first start; then it is tried again.
TimeoutStartSec=900
Restart=always
RestartSec=10
ExecStartPre=-/sbin/modprobe br_netfilter
ExecStartPre=-/sbin/modprobe overlay
$wait_for_clock
ExecStart=$PROGRAM $ROLE

[Install]
WantedBy=multi-user.target
END
}

# Cluster data, images and volumes under /var/lib/rancher stay: removing the set-up must not
# remove a patient's image. docs/operations/bare-boards.md says how to delete them on purpose.
step_remove() {
    if _ours "$SYSTEMD/$RENEW.timer"; then service_off "$RENEW.timer"; fi
    drop_unit "$RENEW.timer"
    drop_unit "$RENEW.service"
    for unit in k3s.service k3s-agent.service; do
        if _ours "$SYSTEMD/$unit"; then service_off "$unit"; fi
        drop_unit "$unit"
    done
    drop_file "$SETTINGS_FILE"
    if [ -e "$ROOT$TOKEN" ]; then say "kept: $TOKEN (a server made anew with another one cannot read its data)"; fi
    if [ -d "$ROOT/var/lib/rancher" ]; then say "kept: /var/lib/rancher (the cluster's data and volumes)"; fi
}

step_status() {
    if has k3s; then call k3s --version; else say "no k3s"; fi
    if [ "$ROLE" = server ]; then
        service_status k3s.service
        if has systemctl && call systemctl is-active --quiet k3s.service; then
            call k3s kubectl get nodes -o wide || say "the API server does not answer"
        fi
    else
        service_status k3s-agent.service
    fi
}

main "$@"
