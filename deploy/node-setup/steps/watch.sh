#!/bin/sh
# Look at each start of the board whether it is still as it should be. What differs fails the unit
# (systemctl --failed) and is in its journal; nothing is changed by it.
set -eu
# shellcheck source=../lib/common.sh
. "$(dirname "$0")/../lib/common.sh"

FOLDER=/usr/local/lib/dicomnode-setup
UNIT=dicomnode-board.service
SETUP_FILES="board.sh board.env.example lib/common.sh lib/files.sh lib/services.sh lib/settings.sh
steps/kernel.sh steps/power.sh steps/swap.sh steps/network.sh steps/clock.sh steps/storage.sh
steps/nvidia.sh steps/registry.sh steps/k3s.sh steps/pods.sh steps/watch.sh files/dicomnode-zram"

step_apply() {
    for name in $SETUP_FILES; do
        mode=755
        case $name in lib/* | *.example) mode=644 ;; esac
        put_file "$mode" "$FOLDER/$name" "$(cat "$HOME_OF_SETUP/$name")"
    done
    put_file 600 /etc/dicomnode/board.env "$(cat "$CONFIG")"
    put_unit "$UNIT" "$(unit_file)"
    service_on "$UNIT" enable
}

unit_file() {
    cat <<END
[Unit]
Description=Is this board as it was set up (dicomnode)
After=multi-user.target chrony.service

[Service]
Type=oneshot
ExecStart=$FOLDER/board.sh check --config /etc/dicomnode/board.env
TimeoutStartSec=300

[Install]
WantedBy=multi-user.target
END
}

step_remove() {
    if _ours "$SYSTEMD/$UNIT"; then service_off "$UNIT"; fi
    drop_unit "$UNIT"
    for name in $SETUP_FILES; do drop_file "$FOLDER/$name"; done
    drop_file /etc/dicomnode/board.env
}

step_status() { service_status "$UNIT"; }

main "$@"
