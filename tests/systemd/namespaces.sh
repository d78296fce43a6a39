#!/bin/sh
# Process 1 of fresh namespaces, as root: what a `systemd --user` needs to find around it. Says "ready", and
# takes everything down again when its standard input ends.
set -eu
scratch=$1 uid=$2 home=$3 cgroup=/sys/fs/cgroup/$4

mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/systemd/system /run/systemd/unit-root /run/systemd/journald.conf.d /run/credentials
printf '[Journal]\nStorage=volatile\nReadKMsg=no\nAudit=no\nRateLimitIntervalSec=0\n' \
    >/run/systemd/journald.conf.d/test.conf
mkdir -p "/run/user/$uid"
chmod 700 "/run/user/$uid"
chown "$uid:$uid" "/run/user/$uid"
# The user exists in here only, and its home is not where PrivateTmp= would hide it.
mount --bind "$scratch/passwd" /etc/passwd
mount --bind "$scratch/group" /etc/group
mount -t tmpfs -o mode=755 tmpfs /home
mkdir -m 700 "$scratch/home" "$home"
mount --bind "$scratch/home" "$home"
chown "$uid:$uid" "$home"

umount -R /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir "$cgroup"
chown -R "$uid:$uid" "$cgroup"

/lib/systemd/systemd-journald >&2 &
echo ready
read -r _ || true

echo 1 >"$cgroup/cgroup.kill" 2>/dev/null || true
until rmdir "$cgroup" 2>/dev/null || ! [ -d "$cgroup" ]; do
    find "$cgroup" -depth -mindepth 1 -type d -exec rmdir {} + 2>/dev/null || true
done
