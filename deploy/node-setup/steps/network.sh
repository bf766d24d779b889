#!/bin/sh
# Which addresses this board has: the IPv6 policy.
set -eu
# shellcheck source=../lib/common.sh
. "$(dirname "$0")/../lib/common.sh"

SYSCTL_FILE=/etc/sysctl.d/90-dicomnode-ipv6.conf

step_apply() {
    if [ "$IPV6" = keep ]; then
        say "IPV6=keep: left alone"
        return 0
    fi
    # Loopback keeps ::1: programs that try it first would wait or fail.
    put_sysctl "$SYSCTL_FILE" "net.ipv6.conf.all.disable_ipv6 = 1
net.ipv6.conf.default.disable_ipv6 = 1
net.ipv6.conf.lo.disable_ipv6 = 0"
}

step_remove() { drop_sysctl "$SYSCTL_FILE"; }

step_status() {
    for interface in all default lo; do
        if has sysctl; then
            say "$interface: disable_ipv6 = $(call sysctl -n "net.ipv6.conf.$interface.disable_ipv6" 2>/dev/null || echo unknown)"
        fi
    done
}

main "$@"
