#!/bin/sh
# Shared folders over NFS: exported on one machine, mounted on the others.
set -eu
# shellcheck source=../lib/common.sh
. "$(dirname "$0")/../lib/common.sh"

EXPORTS=/etc/exports.d/dicomnode.exports
FOLDERS="store models dataset work"
# Of every image of ours.
OWNER=10001:10001

step_apply() {
    case $NFS_ROLE in
        server) export_folders ;;
        client) mount_folders ;;
        none) say "NFS_ROLE=none: left alone" ;;
    esac
}

export_folders() {
    if [ -z "$ROOT" ] && ! has exportfs; then
        problem "the NFS server is not installed; install the package nfs-kernel-server"
        return 0
    fi
    put_folder 755 0:0 "$NFS_FOLDER"
    for folder in $FOLDERS; do put_folder 770 "$OWNER" "$NFS_FOLDER/$folder"; done
    put_file 644 "$EXPORTS" "$(exports)"
    changed=$WROTE
    service_on nfs-kernel-server.service
    if [ "$changed" = yes ]; then
        _later exportfs "exportfs -ra" || change "export the folders" call exportfs -ra
    fi
}

# sync: an image is acknowledged to the modality only once it is on the disk of this machine.
# all_squash: whatever a client claims to be, it is uid 10001 here; root of a board is nobody.
exports() {
    for folder in $FOLDERS; do
        for client in $NFS_CLIENTS; do
            echo "$NFS_FOLDER/$folder $client(rw,sync,no_subtree_check,all_squash,anonuid=${OWNER%:*},anongid=${OWNER#*:})"
        done
    done
}

mount_folders() {
    if [ -z "$ROOT" ] && [ ! -x /sbin/mount.nfs ] && [ ! -x /usr/sbin/mount.nfs ]; then
        problem "the NFS client is not installed; install the package nfs-common (kubelet needs it too)"
        return 0
    fi
    for folder in $FOLDERS; do
        put_unit "$(unit_name "$folder").mount" "$(mount_unit "$folder")"
        put_unit "$(unit_name "$folder").automount" "$(automount_unit "$folder")"
        service_on "$(unit_name "$folder").automount"
    done
}

unit_name() { printf '%s\n' "${NFS_MOUNT#/}/$1" | sed 's,//*,-,g'; }

# hard: a read waits for a server that is away instead of giving half a file. The pods' own
# volumes are mounted by kubelet; this one is for people and for backup.
mount_unit() {
    cat <<END
[Unit]
Description=$1 of dicomnode from $NFS_SERVER

[Mount]
What=$NFS_SERVER:$NFS_FOLDER/$1
Where=$NFS_MOUNT/$1
Type=nfs
Options=nfsvers=4.1,hard,timeo=600,retrans=3,noatime,nodev,nosuid,noexec
TimeoutSec=60
END
}

# On first use: a board starts although the server is still off.
automount_unit() {
    cat <<END
[Unit]
Description=$1 of dicomnode from $NFS_SERVER, on first use

[Automount]
Where=$NFS_MOUNT/$1

[Install]
WantedBy=multi-user.target
END
}

step_remove() {
    for folder in $FOLDERS; do
        name=$(unit_name "$folder")
        if _ours "$SYSTEMD/$name.mount"; then
            service_off "$name.automount"
            service_off "$name.mount"
        fi
        drop_unit "$name.automount"
        drop_unit "$name.mount"
    done
    drop_file "$EXPORTS"
    if [ "$WROTE" = yes ] && has exportfs; then change "withdraw the exports" call exportfs -ra; fi
    if [ -d "$ROOT$NFS_FOLDER" ]; then say "kept: $NFS_FOLDER and what is in it"; fi
}

step_status() {
    case $NFS_ROLE in
        server) if has exportfs; then call exportfs -s; fi ;;
        client) for folder in $FOLDERS; do service_status "$(unit_name "$folder").automount"; done ;;
        none) say "NFS_ROLE=none" ;;
    esac
}

main "$@"
