# shellcheck shell=sh
# shellcheck disable=SC2034  # the steps use them
# Every setting with its default. board.env.example says what each is for. The file is read line
# by line and never run as a script: a stray character in it must not become a command.

ROLE=server
NODE_NAME=
NODE_ADDRESS=
SERVER_ADDRESS=
TLS_NAMES=
NODE_LABELS=
TOKEN_SOURCE=
K3S_DISABLE="traefik metrics-server"
KUBELET_ARGS=
NETWORK_POLICY=on
LOCAL_STORAGE=/var/lib/rancher/k3s/storage
POWER_MODE=0
ZRAM_PERCENT=50
IPV6=off
TIME_SERVERS=
TIME_ALLOW=
NFS_ROLE=none
NFS_FOLDER=/srv/dicomnode
NFS_CLIENTS=
NFS_SERVER=
NFS_MOUNT=/mnt/dicomnode
NVIDIA=auto
NVIDIA_RUNTIME=/usr/bin/nvidia-container-runtime
NVIDIA_DEFAULT=no
REGISTRY=
REGISTRY_CA=

SETTINGS="ROLE NODE_NAME NODE_ADDRESS SERVER_ADDRESS TLS_NAMES NODE_LABELS TOKEN_SOURCE K3S_DISABLE
KUBELET_ARGS NETWORK_POLICY LOCAL_STORAGE POWER_MODE ZRAM_PERCENT IPV6 TIME_SERVERS TIME_ALLOW NFS_ROLE NFS_FOLDER
NFS_CLIENTS NFS_SERVER NFS_MOUNT NVIDIA NVIDIA_RUNTIME NVIDIA_DEFAULT REGISTRY REGISTRY_CA"

load_settings() {
    if [ -z "$CONFIG" ]; then
        CONFIG=$HOME_OF_SETUP/board.env
        [ -e "$CONFIG" ] || CONFIG=$ROOT/etc/dicomnode/board.env
    fi
    [ -r "$CONFIG" ] || usage_error "no settings at $CONFIG; copy board.env.example there and edit it"
    number=0
    while IFS= read -r line || [ -n "$line" ]; do
        number=$((number + 1))
        case $line in "" | "#"*) continue ;; esac
        key=${line%%=*}
        case " $(printf '%s' "$SETTINGS" | tr '\n' ' ') " in
            *" $key "*) ;;
            *) usage_error "$CONFIG line $number: '$key' is not a setting; board.env.example lists them" ;;
        esac
        case $line in *=*) ;; *) usage_error "$CONFIG line $number: expected KEY=VALUE" ;; esac
        value=${line#*=}
        case $value in \"*\") value=${value#\"} value=${value%\"} ;; esac
        if [ -n "$(printf '%s' "$value" | tr -d 'A-Za-z0-9 ._:/,=@%+-')" ]; then
            usage_error "$CONFIG line $number: $key has a character other than letters, digits, blank and . _ : / , = @ % + -"
        fi
        export "$key=$value"
    done <"$CONFIG"
    check_settings
}

check_settings() {
    one_of ROLE "$ROLE" server agent
    one_of IPV6 "$IPV6" off keep
    one_of NETWORK_POLICY "$NETWORK_POLICY" on off
    one_of NFS_ROLE "$NFS_ROLE" server client none
    one_of NVIDIA "$NVIDIA" auto yes no
    one_of NVIDIA_DEFAULT "$NVIDIA_DEFAULT" yes no
    number_or ZRAM_PERCENT "$ZRAM_PERCENT" 100 none
    number_or POWER_MODE "$POWER_MODE" 15 keep
    needs_path LOCAL_STORAGE "$LOCAL_STORAGE"
    needs_path NFS_FOLDER "$NFS_FOLDER"
    needs_path NFS_MOUNT "$NFS_MOUNT"
    needs_path NVIDIA_RUNTIME "$NVIDIA_RUNTIME"
    if [ "$ROLE" = agent ] && [ -z "$SERVER_ADDRESS" ]; then
        usage_error "SERVER_ADDRESS is empty; an agent needs the address of the k3s server"
    fi
    if [ "$NFS_ROLE" = server ] && [ -z "$NFS_CLIENTS" ]; then
        usage_error "NFS_CLIENTS is empty; name who may mount, for example 10.0.0.0/28"
    fi
    if [ "$NFS_ROLE" = client ] && [ -z "$NFS_SERVER" ]; then
        usage_error "NFS_SERVER is empty; name the address that exports the folders"
    fi
    case $NFS_MOUNT in
        *-* | *" "*) usage_error "NFS_MOUNT must have no '-' or blank, got '$NFS_MOUNT': systemd names the mount after its path" ;;
    esac
}

one_of() {
    name=$1 found=$2
    shift 2
    for allowed in "$@"; do
        if [ "$found" = "$allowed" ]; then return 0; fi
    done
    usage_error "$name must be one of: $*; got '$found'"
}

number_or() {
    [ "$2" != "$4" ] || return 0
    case $2 in "" | *[!0-9]*) usage_error "$1 must be a number from 0 to $3, or $4; got '$2'" ;; esac
    [ "$2" -le "$3" ] || usage_error "$1 must be a number from 0 to $3, or $4; got '$2'"
}

needs_path() {
    case $2 in
        */../* | */..) usage_error "$1 must not go upward with '..', got '$2'" ;;
        /?*) ;;
        *) usage_error "$1 must be an absolute path, got '$2'" ;;
    esac
}
