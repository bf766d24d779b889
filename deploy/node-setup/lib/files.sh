# shellcheck shell=sh
# Files that the set-up owns. Nothing that somebody else wrote is lost: a file that was there
# before is kept under $STATE/backup and comes back with `remove`; a file of ours that was edited
# by hand is kept under $STATE/edited before it is replaced.

WROTE=no

_key() { printf '%s' "$1" | sed 's,/,%,g'; }

_sum() { sha256sum <"$1" | cut -d ' ' -f 1; }

_mode() { stat -c %a "$1"; }

# put_file MODE PATH CONTENT. Sets WROTE to yes when there was (or would be) something to write.
# An argument and not standard input: the end of a pipe is a process of its own, and what it counts
# is lost.
put_file() {
    WROTE=no
    if [ ! -e "$ROOT$2" ] && [ ! -L "$ROOT$2" ]; then
        WROTE=yes
        change "write $2" _write "$1" "$2" "$3"
    elif [ -L "$ROOT$2" ] || [ ! -f "$ROOT$2" ] || ! printf '%s\n' "$3" | cmp -s - "$ROOT$2"; then
        WROTE=yes
        change "replace $2 (the present one is kept under ${STATE#"$ROOT"})" _write "$1" "$2" "$3"
    elif [ "$(_mode "$ROOT$2")" != "$1" ]; then
        change "set the mode of $2 from $(_mode "$ROOT$2") to $1" chmod "$1" "$ROOT$2"
    fi
}

# Called as a condition, where `set -e` does not hold: each part says itself that it failed.
_write() {
    _keep "$2" &&
        mkdir -p "$(dirname "$ROOT$2")" "$STATE/files" &&
        _new=$(mktemp "$ROOT$2.XXXXXX") || return 1
    if printf '%s\n' "$3" >"$_new" && chmod "$1" "$_new" && _sum "$_new" >"$STATE/files/$(_key "$2")"; then
        mv -f "$_new" "$ROOT$2"
    else
        rm -f "$_new"
        return 1
    fi
}

_ours() { [ -e "$STATE/files/$(_key "$1")" ]; }

_untouched() {
    [ -f "$ROOT$1" ] && [ ! -L "$ROOT$1" ] &&
        [ "$(_sum "$ROOT$1")" = "$(cat "$STATE/files/$(_key "$1")")" ]
}

# Keep what is at PATH, if it is not what we wrote there.
_keep() {
    [ -e "$ROOT$1" ] || [ -L "$ROOT$1" ] || return 0
    [ ! -d "$ROOT$1" ] || [ -L "$ROOT$1" ] || fail "$1 is a folder, expected a file; move it away"
    if ! _ours "$1"; then
        mkdir -p "$STATE/backup" &&
            cp -a "$ROOT$1" "$STATE/backup/$(_key "$1")"
    elif ! _untouched "$1"; then
        mkdir -p "$STATE/edited" || return 1
        _number=1
        while [ -e "$STATE/edited/$(_key "$1").$_number" ]; do _number=$((_number + 1)); done
        cp -a "$ROOT$1" "$STATE/edited/$(_key "$1").$_number"
    fi
}

# drop_file PATH: take our file away; what was there before comes back.
drop_file() {
    WROTE=no
    _ours "$1" || return 0
    WROTE=yes
    if [ -e "$STATE/backup/$(_key "$1")" ] || [ -L "$STATE/backup/$(_key "$1")" ]; then
        change "put back $1 as it was" _drop "$1"
    else
        change "remove $1" _drop "$1"
    fi
}

_drop() {
    _keep "$1" || return 1
    if [ -e "$STATE/backup/$(_key "$1")" ] || [ -L "$STATE/backup/$(_key "$1")" ]; then
        mv -f "$STATE/backup/$(_key "$1")" "$ROOT$1" || return 1
    else
        rm -f "$ROOT$1" || return 1
    fi
    rm -f "$STATE/files/$(_key "$1")"
}

# put_folder MODE OWNER PATH. Folders are never removed: they hold other people's data.
put_folder() {
    if [ ! -d "$ROOT$3" ]; then
        change "make the folder $3" _make_folder "$1" "$2" "$3"
        return 0
    fi
    if [ "$(_mode "$ROOT$3")" != "$1" ]; then
        change "set the mode of $3 from $(_mode "$ROOT$3") to $1" chmod "$1" "$ROOT$3"
    fi
    if [ "$(id -u)" -eq 0 ] && [ "$(stat -c %u:%g "$ROOT$3")" != "$2" ]; then
        change "give $3 to $2" chown "$2" "$ROOT$3"
    fi
}

_make_folder() {
    mkdir -p "$ROOT$3" && chmod "$1" "$ROOT$3" || return 1
    if [ "$(id -u)" -eq 0 ]; then chown "$2" "$ROOT$3"; fi
}
