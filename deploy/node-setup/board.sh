#!/bin/sh
# A board from bare to member of the cluster, and back.
#
#   board.sh apply       make it as board.env says (again: changes nothing)
#   board.sh check       what differs; 1 when something does
#   board.sh status      what is there now
#   board.sh stop        stop k3s and every pod on this board; start: start again
#   board.sh remove      take everything of the set-up away, what was there before comes back
#   board.sh reinstall   stop, remove, apply; the cluster's data stays
#
# --dry-run tells what apply, stop, remove or reinstall would do. --config FILE names the settings.
# Words after the verb limit it to those steps: board.sh apply kernel swap
set -eu
here=$(cd "$(dirname "$0")" && pwd)
# Later steps need earlier ones: the clock before certificates, containerd's files before k3s.
STEPS="kernel power swap network clock storage nvidia registry k3s watch"

usage() {
    sed -n '2,/^set/s/^# \{0,1\}//p' "$0"
    exit "$1"
}

verb=
chosen=
options=
config=
while [ $# -gt 0 ]; do
    case $1 in
        apply | check | status | stop | start | remove | reinstall) [ -z "$verb" ] || usage 2 >&2; verb=$1 ;;
        --dry-run) options=--dry-run ;;
        --check) verb=check ;;
        --config)
            [ $# -ge 2 ] || usage 2 >&2
            config=$2
            shift
            ;;
        -h | --help) usage 0 ;;
        -*) usage 2 >&2 ;;
        *)
            case " $STEPS " in
                *" $1 "*) chosen="$chosen $1" ;;
                *)
                    echo "board: unknown step '$1'; expected one of: $STEPS" >&2
                    exit 2
                    ;;
            esac
            ;;
    esac
    shift
done
[ -n "$verb" ] || usage 2 >&2
STEPS=${chosen:-$STEPS}

run_step() {
    step=$1
    shift
    if [ -n "$config" ]; then set -- "$@" --config "$config"; fi
    if [ -n "$options" ]; then set -- "$@" "$options"; fi
    "$here/steps/$step.sh" "$@"
}

# apply stops at the first step that fails: k3s on a kernel without its modules would only be
# another thing to find out about.
apply() {
    for step in $STEPS; do
        run_step "$step" apply || {
            status=$?
            echo "board: stopped at step $step; put that right and run apply again, what is done stays done" >&2
            return $status
        }
    done
}

remove() {
    backwards=
    for step in $STEPS; do backwards="$step $backwards"; done
    for step in $backwards; do run_step "$step" remove || return $?; done
}

# Every step, so that one look says everything.
check() {
    worst=0
    for step in $STEPS; do
        status=0
        run_step "$step" apply --check || status=$?
        if [ "$status" -gt "$worst" ]; then worst=$status; fi
    done
    return "$worst"
}

case $verb in
    apply) apply ;;
    check) check ;;
    status) for step in $STEPS; do run_step "$step" status; done ;;
    stop) run_step pods remove ;;
    start) run_step pods apply ;;
    remove)
        case " $STEPS " in *" k3s "*) run_step pods remove ;; esac
        remove
        ;;
    reinstall)
        case " $STEPS " in *" k3s "*) run_step pods remove ;; esac
        remove
        apply
        ;;
esac
