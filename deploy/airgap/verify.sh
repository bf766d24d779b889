#!/bin/sh
# verify.sh [BUNDLE] [--seal SHA256]: is the bundle whole, and nothing but the bundle?
#
# Every file must be named in SHA256SUMS with its right sum, every name there must have its file,
# and there must be no other file, link or device. Nothing is changed. 0: whole; 1: not.
# install.sh uses the same functions. Only sh and coreutils, as an old board has them.
set -eu
LC_ALL=C
export LC_ALL

bad() {
    printf 'bundle: %s\n' "$*" >&2
    exit 1
}

sum_of() { sha256sum <"$1" | cut -d ' ' -f 1; }

# A check whose program is not there would find nothing wrong.
verify_tools() {
    for program in cmp cut find grep head mktemp od rm sed sha256sum sort tail tr uniq wc; do
        command -v "$program" >/dev/null || bad "this system has no $program, the bundle cannot be verified; install it"
    done
}

# verify_list BUNDLE: the list is well formed, and names exactly what is there.
verify_list() {
    verify_tools
    [ -d "$1" ] || bad "$1 is not a folder"
    [ -f "$1/SHA256SUMS" ] || bad "no SHA256SUMS in $1; copy the bundle again"
    other=$(find "$1" ! -type f ! -type d -print | head -n 1)
    [ -z "$other" ] || bad "'$other' is neither a file nor a folder; a bundle has no links or devices"
    # Small letters and two blanks exactly: a flipped bit must not read as another way to write it.
    wrong=$(grep -a -v -n -E '^[0-9a-f]{64}  [A-Za-z0-9._+@-]+(/[A-Za-z0-9._+@-]+)*$' "$1/SHA256SUMS" | head -n 1) || true
    [ -z "$wrong" ] || bad "SHA256SUMS line ${wrong%%:*} is damaged; copy the bundle again"
    [ -s "$1/SHA256SUMS" ] || bad "SHA256SUMS is empty; copy the bundle again"
    [ "$(tail -c 1 "$1/SHA256SUMS" | od -An -tx1 | tr -d ' ')" = 0a ] || bad "SHA256SUMS ends in the middle of a line; copy the bundle again"
    unsafe=$(cut -c 67- "$1/SHA256SUMS" | grep -E '(^|/)(\.\.?|-[^/]*)(/|$)' | head -n 1) || true
    [ -z "$unsafe" ] || bad "SHA256SUMS names the unsafe path '$unsafe'; this is not a bundle of ours"
    twice=$(cut -c 67- "$1/SHA256SUMS" | sort | uniq -d | head -n 1)
    [ -z "$twice" ] || bad "SHA256SUMS names '$twice' twice; copy the bundle again"
    lists=$(mktemp -d "${TMPDIR:-/tmp}/dicomnode-bundle.XXXXXX")
    cut -c 67- "$1/SHA256SUMS" | sort >"$lists/named"
    (cd "$1" && find . -type f ! -path ./SHA256SUMS | sed 's,^\./,,' | sort) >"$lists/there"
    if ! cmp -s "$lists/named" "$lists/there"; then
        missing=$(grep -v -x -F -f "$lists/there" "$lists/named" | head -n 1) || true
        extra=$(grep -v -x -F -f "$lists/named" "$lists/there" | head -n 1) || true
        rm -r "$lists"
        [ -z "$missing" ] || bad "'$missing' is missing; copy the bundle again"
        bad "'$extra' is in the folder and not in SHA256SUMS; remove it if you know what it is"
    fi
    rm -r "$lists"
}

# verify_seal BUNDLE SEAL: the list is the one that was made (a sum alone finds damage, not malice).
verify_seal() {
    [ "$(sum_of "$1/SHA256SUMS")" = "$2" ] ||
        bad "the seal is $(sum_of "$1/SHA256SUMS"), expected $2; this is not the bundle whose seal you have"
}

# verify_sums BUNDLE: every file has its sum.
verify_sums() {
    while IFS= read -r entry; do
        name=${entry#*  }
        found=$(sum_of "$1/$name") || bad "'$name' cannot be read; copy the bundle again"
        [ "$found" = "${entry%%  *}" ] || bad "'$name' is damaged (sha256 $found, expected ${entry%%  *}); copy the bundle again"
    done <"$1/SHA256SUMS"
}

verify_main() {
    bundle=$(dirname "$0")
    seal=
    while [ $# -gt 0 ]; do
        case $1 in
            --seal)
                [ $# -ge 2 ] || bad "--seal needs the sum that make_bundle.py printed"
                seal=$2
                shift
                ;;
            -*) bad "unknown option $1; expected verify.sh [BUNDLE] [--seal SHA256]" ;;
            *) bundle=$1 ;;
        esac
        shift
    done
    verify_list "$bundle"
    if [ -n "$seal" ]; then verify_seal "$bundle" "$seal"; fi
    verify_sums "$bundle"
    echo "bundle: whole, $(wc -l <"$bundle/SHA256SUMS") files, seal $(sum_of "$bundle/SHA256SUMS")"
}

# Read by install.sh for its functions, this does nothing else.
case ${0##*/} in verify.sh) verify_main "$@" ;; esac
