#!/bin/sh
# The kernel has what k3s needs: modules loaded at boot, and the settings that kubelet asks for.
set -eu
# shellcheck source=../lib/common.sh
. "$(dirname "$0")/../lib/common.sh"

MODULES_FILE=/etc/modules-load.d/dicomnode.conf
SYSCTL_FILE=/etc/sysctl.d/90-dicomnode-kubelet.conf
# overlay: container file systems. br_netfilter, vxlan: pods on different boards. ip_set:
# NetworkPolicies.
MODULES="overlay br_netfilter vxlan ip_set"

step_apply() {
    wanted=
    for module in $MODULES; do
        [ "$module" != ip_set ] || [ "$NETWORK_POLICY" = on ] || continue
        if ! has modprobe || call modprobe --dry-run --quiet "$module"; then
            wanted="$wanted $module"
        else
            missing "$module"
        fi
    done
    # shellcheck disable=SC2086  # one line per module
    put_file 644 "$MODULES_FILE" "$(printf '%s\n' $wanted)"
    for module in $wanted; do
        if has modprobe && [ ! -d "$ROOT/sys/module/$module" ]; then
            change "load the module $module" call modprobe "$module"
        fi
    done
    # What kubelet wants (protect-kernel-defaults in the settings of k3s makes it refuse
    # otherwise); an unattended board starts again ten seconds after a panic.
    put_sysctl "$SYSCTL_FILE" "vm.overcommit_memory = 1
vm.panic_on_oom = 0
kernel.panic = 10
kernel.panic_on_oops = 1"
    memory_cgroup
}

missing() {
    case $1 in
        ip_set) problem "this kernel has no ip_set, so k3s cannot enforce NetworkPolicies; use a kernel with CONFIG_IP_SET, or set NETWORK_POLICY=off and put a firewall in front of the cluster" ;;
        *) problem "this kernel has no module $1, k3s cannot run without it; use a kernel that has it" ;;
    esac
}

memory_cgroup() {
    [ -r "$ROOT/proc/cgroups" ] || return 0
    if [ ! -e "$ROOT/sys/fs/cgroup/cgroup.controllers" ] &&
        ! grep -q '^memory.*1$' "$ROOT/proc/cgroups"; then
        problem "the memory cgroup is off, so limits of pods mean nothing; add cgroup_enable=memory to the kernel's command line and restart"
    fi
}

step_remove() {
    drop_file "$MODULES_FILE"
    drop_sysctl "$SYSCTL_FILE"
}

step_status() {
    for module in $MODULES; do
        if [ -d "$ROOT/sys/module/$module" ]; then say "$module loaded"; else say "$module not loaded (or built in)"; fi
    done
}

main "$@"
