#!/bin/sh
# The time: chrony with the hospital's servers, and a look whether the clock is synchronised.
set -eu
# shellcheck source=../lib/common.sh
. "$(dirname "$0")/../lib/common.sh"

# One whole file rather than a drop-in: Ubuntu 18.04's chrony (JetPack 4) reads no conf.d.
FILE=/etc/chrony/chrony.conf

step_apply() {
    if [ -n "$TIME_SERVERS" ]; then
        if [ -z "$ROOT" ] && ! has chronyd; then
            problem "chrony is not installed; install the package chrony (an air-gapped board: from the distribution's own medium)"
            return 0
        fi
        put_file 644 "$FILE" "$(chrony_conf)"
        if [ "$WROTE" = yes ]; then restart_if_running chrony.service; fi
        service_on chrony.service
    else
        say "TIME_SERVERS is empty: only looking"
    fi
    if has chronyc; then synchronised; fi
}

chrony_conf() {
    for server in $TIME_SERVERS; do echo "server $server iburst"; done
    cat <<END
driftfile /var/lib/chrony/chrony.drift
# A board without a clock battery starts in the past: step at first, slew later, because reports
# and leases carry times.
makestep 1 3
rtcsync
leapsectz right/UTC
logdir /var/log/chrony
END
    if [ -n "$TIME_ALLOW" ]; then
        for network in $TIME_ALLOW; do echo "allow $network"; done
        # Boards agree with each other even while the hospital's servers are away.
        echo "local stratum 10"
    else
        echo "port 0"
    fi
}

# An observation, not a change: chrony may still be at it right after a start.
synchronised() {
    tracking=$(call chronyc -n tracking 2>/dev/null) || tracking=
    case $tracking in
        *"Leap status"*": Normal"*) ;;
        *) case $MODE in
            check) problem "the clock is not synchronised (chronyc -n tracking); is one of '$TIME_SERVERS' reachable on UDP port 123?" ;;
            *) say "note: the clock is not synchronised yet (chronyc -n tracking)" ;;
        esac ;;
    esac
}

step_remove() {
    drop_file "$FILE"
    if [ "$WROTE" = yes ]; then restart_if_running chrony.service; fi
}

step_status() {
    if has chronyc; then call chronyc -n tracking; else say "no chrony"; fi
}

main "$@"
