# shellcheck shell=sh
# What every step shares: arguments, the three modes, and how a change is made or only told.
#
# A step is written once, as "what ought to be". In mode `apply` a difference is changed, in
# `dry-run` it is told, in `check` it is told and the step ends with 1.
#
#   ROOT      work on the tree under this folder instead of on this machine (an SD card's image,
#             a test). Nothing is then asked of or told to the running system, except through
#   COMMANDS  a folder with the programs that stand for systemctl, sysctl and so on.

set -eu
umask 022
PATH=$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
ROOT=${ROOT:-}
COMMANDS=${COMMANDS:-}
STEP=$(basename "$0" .sh)
HOME_OF_SETUP=$(cd "$(dirname "$0")" && pwd)
case $HOME_OF_SETUP in */steps) HOME_OF_SETUP=$(dirname "$HOME_OF_SETUP") ;; esac
STATE=$ROOT/var/lib/dicomnode-setup
CONFIG=
VERB=apply
MODE=apply
CHANGES=0
PROBLEMS=0

say() { printf '%s: %s\n' "$STEP" "$*"; }

# Something that this script cannot put right: named with the next step, and counted.
problem() {
    printf '%s: PROBLEM %s\n' "$STEP" "$*" >&2
    PROBLEMS=$((PROBLEMS + 1))
}

fail() {
    printf '%s: %s\n' "$STEP" "$*" >&2
    exit 1
}

usage_error() {
    printf '%s: %s\n' "$STEP" "$*" >&2
    exit 2
}

parse_arguments() {
    while [ $# -gt 0 ]; do
        case $1 in
            apply | remove | status) VERB=$1 ;;
            --dry-run) MODE=dry-run ;;
            --check) MODE=check ;;
            --config)
                [ $# -ge 2 ] || usage_error "--config needs a file"
                CONFIG=$2
                shift
                ;;
            *) usage_error "unknown argument '$1'; expected [apply|remove|status] [--check|--dry-run] [--config FILE]" ;;
        esac
        shift
    done
}

check_root() {
    case $ROOT in
        # A look too: some of the files are root's alone, and unread they would seem to differ.
        "") [ "$VERB" = status ] || [ "$(id -u)" -eq 0 ] ||
            fail "must run as root, not as uid $(id -u); use sudo" ;;
        /*) [ -d "$ROOT" ] || usage_error "ROOT=$ROOT is not a folder" ;;
        *) usage_error "ROOT must be an absolute path, got '$ROOT'" ;;
    esac
    [ -z "$COMMANDS" ] || [ -n "$ROOT" ] || usage_error "COMMANDS is only for use with ROOT"
}

# The program's path; fails when it is not to be had. Under ROOT the machine's own programs are
# never meant.
tool() {
    if [ -z "$ROOT" ]; then
        command -v "$1"
    elif [ -n "$COMMANDS" ] && [ -x "$COMMANDS/$1" ]; then
        printf '%s\n' "$COMMANDS/$1"
    else
        return 1
    fi
}

has() { tool "$1" >/dev/null; }

call() {
    _called=$1
    shift
    if ! _called_path=$(tool "$_called"); then
        printf '%s: %s is not installed\n' "$STEP" "$_called" >&2
        return 127
    fi
    "$_called_path" "$@"
}

# change WHAT COMMAND...: make a change, or tell it, as the mode says.
change() {
    _what=$1
    shift
    CHANGES=$((CHANGES + 1))
    case $MODE in
        check) say "differs: should $_what" ;;
        dry-run) say "would $_what" ;;
        apply)
            say "$_what"
            "$@" || fail "could not $_what ('$1' failed); nothing after it was done, run the step again"
            ;;
    esac
}

changing() { [ "$MODE" = apply ]; }

# What was there before us, so that `remove` can go back to it.
remember() {
    if changing && [ ! -e "$STATE/before/$1" ]; then
        mkdir -p "$STATE/before"
        printf '%s\n' "$2" >"$STATE/before/$1"
    fi
}

recall() { if [ -e "$STATE/before/$1" ]; then cat "$STATE/before/$1"; fi; }

forget() { if changing; then rm -f "$STATE/before/$1"; fi; }

# main ARGUMENTS: run step_apply, step_remove or step_status of the script that calls.
main() {
    parse_arguments "$@"
    check_root
    load_settings
    case $VERB in
        status)
            step_status
            return 0
            ;;
        apply) step_apply ;;
        remove) step_remove ;;
    esac
    finish
}

finish() {
    if [ "$PROBLEMS" -gt 0 ]; then
        say "$PROBLEMS problem(s), see above"
        exit 1
    fi
    if [ "$CHANGES" -eq 0 ]; then
        say "as it should be"
    elif [ "$MODE" = check ]; then
        say "$CHANGES difference(s)"
        exit 1
    fi
}

# shellcheck source=settings.sh
. "$HOME_OF_SETUP/lib/settings.sh"
# shellcheck source=files.sh
. "$HOME_OF_SETUP/lib/files.sh"
# shellcheck source=services.sh
. "$HOME_OF_SETUP/lib/services.sh"
