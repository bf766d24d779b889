#!/bin/sh
# install.sh [STEP...]: put on this board what the bundle brings. Steps, in this order:
#
#   k3s         the k3s program and its own images
#   images      our images, into containerd (k3s runs) or where k3s takes them from at its start
#   setup       deploy/node-setup to /opt/dicomnode/node-setup
#   manifests   apply the rendered manifests to the cluster (once, on the server)
#   wheels      the program `dicomnode` in a virtual environment (Python 3.11)
#
# Without a step: k3s images setup. Before anything is used the whole bundle is verified, and each
# file once more as a copy on this board's disk, which is what is used then. Interrupted, it goes
# on where it was.
#
#   --bundle DIR   the bundle; default: where this script lies     --seal SHA256   what was printed
#   --overlay NAME which manifests, when there are several          --arch NAME     default: this board's
#   --venv DIR     for wheels; default /opt/dicomnode/venv          --python PATH   default python3.11
#   --dry-run      verify and tell; --check: what of it is not on this board yet (1 when something)
#
# ROOT and COMMANDS: as in node-setup/lib/common.sh. Only sh and coreutils: JetPack 4 has no more.
set -eu
PATH=$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
ROOT=${ROOT:-}
COMMANDS=${COMMANDS:-}
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=verify.sh
. "$here/verify.sh"

BUNDLE=$here SEAL='' OVERLAY='' MODE=apply STEPS='' CHANGES=0
VENV=/opt/dicomnode/venv PYTHON=python3.11
case $(uname -m) in aarch64 | arm64) ARCH=arm64 ;; x86_64) ARCH=amd64 ;; *) ARCH=$(uname -m) ;; esac
PROGRAM=/usr/local/bin/k3s
IMAGES=/var/lib/rancher/k3s/agent/images
SETUP=/opt/dicomnode/node-setup

say() { printf 'install: %s\n' "$*"; }

usage_error() {
    printf 'install: %s\n' "$*" >&2
    exit 2
}

parse() {
    while [ $# -gt 0 ]; do
        case $1 in
            k3s | images | setup | manifests | wheels) STEPS="$STEPS $1" ;;
            --dry-run) MODE=dry-run ;;
            --check) MODE=check ;;
            --bundle | --seal | --overlay | --arch | --venv | --python)
                [ $# -ge 2 ] || usage_error "$1 needs a value"
                case $1 in
                    --bundle) BUNDLE=$2 ;;
                    --seal) SEAL=$2 ;;
                    --overlay) OVERLAY=$2 ;;
                    --arch) ARCH=$2 ;;
                    --venv) VENV=$2 ;;
                    --python) PYTHON=$2 ;;
                esac
                shift
                ;;
            -h | --help)
                sed -n '2,/^set/s/^# \{0,1\}//p' "$0"
                exit 0
                ;;
            *) usage_error "unknown argument '$1'; --help lists steps and options" ;;
        esac
        shift
    done
    STEPS=${STEPS:-k3s images setup}
    case $ROOT in
        "") [ "$(id -u)" -eq 0 ] || bad "must run as root, not as uid $(id -u); use sudo" ;;
        /*) [ -d "$ROOT" ] || usage_error "ROOT=$ROOT is not a folder" ;;
        *) usage_error "ROOT must be an absolute path, got '$ROOT'" ;;
    esac
    [ -z "$COMMANDS" ] || [ -n "$ROOT" ] || usage_error "COMMANDS is only for use with ROOT"
}

tool() {
    if [ -z "$ROOT" ]; then
        command -v "$1"
    elif [ -n "$COMMANDS" ] && [ -x "$COMMANDS/$1" ]; then
        printf '%s\n' "$COMMANDS/$1"
    else
        return 1
    fi
}

call() {
    program=$1
    shift
    program_path=$(tool "$program") || bad "$program is not installed"
    "$program_path" "$@"
}

# change WHAT COMMAND...: make it, or tell it.
change() {
    what=$1
    shift
    CHANGES=$((CHANGES + 1))
    case $MODE in
        check) say "missing: should $what" ;;
        dry-run) say "would $what" ;;
        apply)
            say "$what"
            "$@" || bad "could not $what ('$1' failed); run it again, it goes on from here"
            ;;
    esac
}

main() {
    parse "$@"
    verify_list "$BUNDLE"
    if [ -n "$SEAL" ]; then verify_seal "$BUNDLE" "$SEAL"; fi
    stage=$ROOT/var/lib/dicomnode-setup/bundle/$(sum_of "$BUNDLE/SHA256SUMS" | cut -c 1-16)
    made_for=$(sed -n 's,^.*  \(k3s\|images\|wheels\)/\([a-z0-9]*\)/.*,\2,p' "$BUNDLE/SHA256SUMS" | sort -u | tr '\n' ' ')
    case " $made_for" in *" $ARCH "*) ;; *) bad "this bundle has nothing for $ARCH; it was made for: $made_for" ;; esac
    if [ "$MODE" = apply ]; then
        check_space
        stage_all
        source=$stage
    else
        verify_sums "$BUNDLE"
        source=$BUNDLE
    fi
    say "verified $(wc -l <"$BUNDLE/SHA256SUMS") files, seal $(sum_of "$BUNDLE/SHA256SUMS")"
    for step in $STEPS; do "step_$step"; done
    if [ "$CHANGES" -eq 0 ]; then say "nothing to do, it is all there"; fi
    if [ "$MODE" = check ] && [ "$CHANGES" -gt 0 ]; then exit 1; fi
}

# Is this file needed on this board for these steps, and not there yet?
wanted() {
    case $1 in
        images/*/* | k3s/*/* | wheels/*/*)
            rest=${1#*/}
            [ "${rest%%/*}" = "$ARCH" ] || return 1
            ;;
    esac
    case $1 in
        images/*) chosen images && ! placed "$1" && ! imported "$1" ;;
        k3s/*) chosen k3s && ! placed "$1" ;;
        wheels/*) chosen wheels ;;
        manifests/*) chosen manifests ;;
        node-setup/*) chosen setup ;;
        docs/* | deploy/* | CHANGELOG.md) return 1 ;; # read on the stick
    esac
}

chosen() { case " $STEPS " in *" $1 "*) ;; *) return 1 ;; esac }

placed() { [ -f "$ROOT$IMAGES/${1##*/}" ] && [ "$(sum_of "$ROOT$IMAGES/${1##*/}")" = "$(expected "$1")" ]; }

expected() { sed -n "s,^\\([0-9a-f]*\\)  $(printf '%s' "$1" | sed 's,\.,\\.,g')\$,\\1,p" "$BUNDLE/SHA256SUMS"; }

staged() { [ -f "$stage/$1" ] && [ "$(sum_of "$stage/$1")" = "$(expected "$1")" ]; }

# A copy here, then its layers in containerd, compressed and unpacked: three times its size.
check_space() {
    need=0
    while IFS= read -r entry; do
        name=${entry#*  }
        wanted "$name" || continue
        bytes=$(stat -c %s "$BUNDLE/$name")
        case $name in *.tar | *.tar.*) bytes=$((bytes * 3)) ;; esac
        need=$((need + bytes / 1024 + 1))
    done <"$BUNDLE/SHA256SUMS"
    mkdir -p "$stage"
    chmod 700 "$stage"
    free=$("$(tool df || echo df)" -Pk "$stage" | awk 'NR == 2 { print $4 }')
    [ "$free" -ge "$need" ] || bad "$need KiB are needed under /var/lib, $free KiB are free; make room and run it again"
}

# What is verified is the copy that is used, and not what a worn stick answers the second time.
stage_all() {
    while IFS= read -r entry; do
        name=${entry#*  }
        sum=${entry%%  *}
        if wanted "$name"; then
            if staged "$name"; then continue; fi
            mkdir -p "$(dirname "$stage/$name")"
            cp "$BUNDLE/$name" "$stage/$name.part" || bad "'$name' cannot be copied; is the stick still there?"
            found=$(sum_of "$stage/$name.part")
        else
            found=$(sum_of "$BUNDLE/$name")
        fi
        if [ "$found" != "$sum" ]; then
            rm -f "$stage/$name.part"
            bad "'$name' is damaged (sha256 $found, expected $sum); nothing was used, copy the bundle again"
        fi
        if wanted "$name"; then mv "$stage/$name.part" "$stage/$name"; fi
    done <"$BUNDLE/SHA256SUMS"
}

# place MODE NAME TARGET: a file of the bundle to its place, at once or not at all.
place() {
    if [ -f "$ROOT$3" ] && [ "$(sum_of "$ROOT$3")" = "$(expected "$2")" ]; then return 0; fi
    change "put $3" put "$@"
}

# Called as a condition, where `set -e` does not hold: each part says itself that it failed.
put() {
    mkdir -p "$(dirname "$ROOT$3")" || return 1
    case $3 in
        # Gigabytes: moved, the staged copy is not needed any more.
        "$IMAGES"/*) mv "$source/$2" "$ROOT$3.new" ;;
        *) cp "$source/$2" "$ROOT$3.new" ;;
    esac || return 1
    # The way back of an upgrade.
    if [ "$3" = "$PROGRAM" ] && [ -e "$ROOT$3" ]; then cp -p "$ROOT$3" "$ROOT$3.previous" || return 1; fi
    chmod "$1" "$ROOT$3.new" && mv -f "$ROOT$3.new" "$ROOT$3"
}

files_under() { cut -c 67- "$BUNDLE/SHA256SUMS" | grep "^$1/" || true; }

step_k3s() {
    for name in $(files_under "k3s/$ARCH"); do
        case ${name##*/} in
            k3s) place 755 "$name" "$PROGRAM" ;;
            *.tar | *.tar.*) place 600 "$name" "$IMAGES/${name##*/}" ;;
        esac
    done
    if [ "$MODE" = apply ] && [ "$CHANGES" -gt 0 ] && tool systemctl >/dev/null &&
        call systemctl is-active --quiet k3s.service; then
        say "note: the running k3s is still the former one; systemctl restart k3s"
    fi
}

step_images() {
    while read -r architecture image file; do
        [ "$architecture" = "$ARCH" ] || continue
        if placed "$file" || imported "$file"; then continue; fi
        if containerd_answers; then
            change "import $image" import_image "$image" "$file"
        else
            place 600 "$file" "$IMAGES/${file##*/}"
        fi
    done <"$source/images.txt"
}

containerd_answers() { tool k3s >/dev/null && listed=$(call k3s ctr --namespace k8s.io images list --quiet 2>/dev/null); }

# A mark with the file's sum, and containerd still has the name.
imported() {
    [ -f "$stage/.imported/${1##*/}" ] && [ "$(cat "$stage/.imported/${1##*/}")" = "$(expected "$1")" ] &&
        containerd_answers && printf '%s\n' "$listed" | grep -q -x -F "$(sed -n "s,^$ARCH \\(.*\\) $1\$,\\1,p" "$BUNDLE/images.txt")"
}

# Pinned: kubelet removes images when the disk fills, and this one cannot be pulled again.
import_image() {
    call k3s ctr --namespace k8s.io images import "$source/$2" >/dev/null || return 1
    call k3s ctr --namespace k8s.io images label "$1" io.cri-containerd.pinned=pinned >/dev/null || return 1
    mkdir -p "$stage/.imported" && expected "$2" >"$stage/.imported/${2##*/}" && rm -f "$source/$2"
}

step_setup() {
    for name in $(files_under node-setup); do
        mode=644
        case $name in *.sh | */files/*) mode=755 ;; esac
        case $name in */lib/*) mode=644 ;; esac
        place "$mode" "$name" "$SETUP/${name#node-setup/}"
    done
}

step_manifests() {
    found=$(files_under manifests)
    if [ -n "$OVERLAY" ]; then found=$(printf '%s\n' "$found" | grep -x "manifests/$OVERLAY.yaml") || bad "no manifests of '$OVERLAY' in this bundle; there are: $(files_under manifests | tr '\n' ' ')"; fi
    case $found in
        "") bad "this bundle has no manifests" ;;
        *" "* | *"
"*) bad "several manifests: say which with --overlay; there are: $(printf '%s' "$found" | tr '\n' ' ')" ;;
    esac
    if [ "$MODE" != apply ] && call k3s kubectl diff -f "$source/$found" >/dev/null 2>&1; then return 0; fi
    change "apply $found" call k3s kubectl apply -f "$source/$found"
}

step_wheels() {
    version=$(sed -n 's/^dicomnode //p' "$source/versions.txt")
    if [ -x "$ROOT$VENV/bin/dicomnode" ] && [ -d "$(echo "$ROOT$VENV"/lib/python*/site-packages/dicomnode-"$version".dist-info)" ]; then return 0; fi
    change "install dicomnode $version into $VENV" install_wheels "$version"
}

install_wheels() {
    call "$PYTHON" -m venv "$ROOT$VENV" &&
        "$ROOT$VENV/bin/python" -m pip install --quiet --no-index --find-links "$source/wheels/$ARCH" "dicomnode[postgres]==$1"
}

main "$@"
