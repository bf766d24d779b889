#!/bin/sh
# The kernel has what k3s needs: modules loaded at boot, and the settings that kubelet asks for.
set -eu
# shellcheck source=../lib/common.sh
. "$(dirname "$0")/../lib/common.sh"

MODULES_FILE=/etc/modules-load.d/dicomnode.conf
SYSCTL_FILE=/etc/sysctl.d/90-dicomnode-kubelet.conf
# overlay: container file systems. br_netfilter, vxlan: pods on different boards.
MODULES="overlay br_netfilter vxlan"
# What k3s carries NetworkPolicies out with.
POLICY_MODULES="ip_set ip_set_hash_ip ip_set_hash_net xt_set"

step_apply() {
    wanted=
    if [ "$NETWORK_POLICY" = on ]; then MODULES="$MODULES $POLICY_MODULES"; fi
    for module in $MODULES; do
        if ! has modprobe || call modprobe --dry-run --quiet "$module"; then
            wanted="$wanted $module"
        else
            missing "$module"
        fi
    done
    # shellcheck disable=SC2086  # one line per module
    put_file 644 "$MODULES_FILE" "$(printf '%s\n' $wanted)"
    for module in $wanted; do
        if has modprobe && ! loaded "$module"; then
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

# One that is part of the kernel itself has a folder only when it has parameters.
loaded() {
    [ -d "$ROOT/sys/module/$1" ] ||
        grep -q "/$1\.ko" "$ROOT/lib/modules/$(uname -r)/modules.builtin" 2>/dev/null
}

missing() {
    case $1 in
        ip_set* | xt_set) problem "this kernel has no $1, so k3s cannot enforce NetworkPolicies; use a kernel with it (CONFIG_IP_SET, CONFIG_NETFILTER_XT_SET), or set NETWORK_POLICY=off and put a firewall in front of the cluster" ;;
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
    for module in $MODULES $POLICY_MODULES; do
        if loaded "$module"; then say "$module is there"; else say "$module is not loaded"; fi
    done
}

main "$@"
