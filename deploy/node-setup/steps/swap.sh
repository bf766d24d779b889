#!/bin/sh
# Compressed swap in memory (zram).
set -eu
# shellcheck source=../lib/common.sh
. "$(dirname "$0")/../lib/common.sh"

PROGRAM=/usr/local/sbin/dicomnode-zram
UNIT=dicomnode-zram.service
# JetPack's own: two zram swaps would promise the same memory twice.
VENDOR=nvzramconfig.service

step_apply() {
    if [ "$ZRAM_PERCENT" = none ]; then
        say "ZRAM_PERCENT=none: swap is left alone"
        return 0
    fi
    if has modprobe && ! call modprobe --dry-run --quiet zram; then
        problem "this kernel has no zram; set ZRAM_PERCENT=none, or use a kernel that has it"
        return 0
    fi
    if has systemctl && call systemctl is-enabled --quiet "$VENDOR" 2>/dev/null; then
        remember swap.vendor enabled
        service_off "$VENDOR"
    fi
    put_file 755 "$PROGRAM" "$(cat "$HOME_OF_SETUP/files/dicomnode-zram")"
    changed=$WROTE
    put_unit "$UNIT" "$(zram_unit)"
    if [ "$changed$WROTE" != nono ]; then restart_if_running "$UNIT"; fi
    service_on "$UNIT"
    swap_on_disk
}

zram_unit() {
    cat <<END
[Unit]
Description=Compressed swap in memory (dicomnode)
Before=k3s.service k3s-agent.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=$PROGRAM start $ZRAM_PERCENT
ExecStop=$PROGRAM stop
TimeoutStartSec=60

[Install]
WantedBy=multi-user.target
END
}

swap_on_disk() {
    [ -r "$ROOT/proc/swaps" ] || return 0
    sed -n '2,$s/ .*//p' "$ROOT/proc/swaps" | grep -v '^/dev/zram' | while IFS= read -r device; do
        say "note: swap on $device too; pixels of patients can end up there (swapoff, and out of /etc/fstab)"
    done
}

step_remove() {
    if _ours "$SYSTEMD/$UNIT"; then service_off "$UNIT"; fi
    drop_unit "$UNIT"
    drop_file "$PROGRAM"
    if [ "$(recall swap.vendor)" = enabled ]; then service_on "$VENDOR"; fi
    forget swap.vendor
}

step_status() {
    service_status "$UNIT"
    if [ -r "$ROOT/proc/swaps" ]; then sed 's/^/swap: /' "$ROOT/proc/swaps"; fi
}

main "$@"
