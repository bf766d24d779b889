#!/bin/sh
# Maximum power: nvpmodel's mode, and clocks held at their maximum (Jetson boards only).
set -eu
# shellcheck source=../lib/common.sh
. "$(dirname "$0")/../lib/common.sh"

UNIT=dicomnode-clocks.service

step_apply() {
    if [ "$POWER_MODE" = keep ]; then
        say "POWER_MODE=keep: left alone"
        return 0
    fi
    if ! has nvpmodel; then
        say "no nvpmodel: not a Jetson, its firmware decides"
        return 0
    fi
    now=$(power_mode)
    [ -n "$now" ] || fail "nvpmodel -q does not say a mode; look at it by hand, or set POWER_MODE=keep"
    if [ "$now" != "$POWER_MODE" ]; then
        remember power.mode "$now"
        change "change the power mode from $now to $POWER_MODE" set_mode "$POWER_MODE"
    fi
    put_unit "$UNIT" "$(clocks_unit)"
    service_on "$UNIT"
}

# The last line of the answer is the number; the one before it is a name.
power_mode() { call nvpmodel -q 2>/dev/null | sed -n 's/^\([0-9][0-9]*\)$/\1/p' | tail -n 1; }

# Some modes need a restart and ask for it: with no input the answer is no, and nothing hangs.
set_mode() { call nvpmodel -m "$1" </dev/null; }

clocks_unit() {
    cat <<END
[Unit]
Description=Clocks of this board at their maximum (dicomnode)
# nvpmodel sets the limits first; clocks held before that would be those of another mode.
After=nvpmodel.service

[Service]
Type=oneshot
RemainAfterExit=yes
# jetson_clocks asks before it overwrites; an old file would make it wait for ever.
ExecStartPre=/bin/rm -f /run/dicomnode-clocks.conf
ExecStartPre=/usr/bin/jetson_clocks --store /run/dicomnode-clocks.conf
ExecStart=/usr/bin/jetson_clocks
ExecStop=/usr/bin/jetson_clocks --restore /run/dicomnode-clocks.conf
TimeoutStartSec=60

[Install]
WantedBy=multi-user.target
END
}

step_remove() {
    if _ours "$SYSTEMD/$UNIT"; then service_off "$UNIT"; fi
    drop_unit "$UNIT"
    before=$(recall power.mode)
    if [ -n "$before" ] && has nvpmodel && [ "$(power_mode)" != "$before" ]; then
        change "change the power mode back to $before" set_mode "$before"
    fi
    forget power.mode
}

step_status() {
    if has nvpmodel; then say "power mode $(power_mode)"; else say "no nvpmodel"; fi
    service_status "$UNIT"
}

main "$@"
