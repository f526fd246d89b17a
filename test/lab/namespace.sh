#!/usr/bin/env bash
# namespace.sh FOLDER: becomes the first process of a machine of its own, a systemd, in the
# namespaces that unshare(1) has made. Its root file system is the machine's with a cover
# in memory; the folder's work, state and backups lie over /root/lab, /var/lib/quickims
# and /var/backups/quickims.
set -euo pipefail
folder=$1
cover=$folder/cover root=$folder/cover/root
mount -t tmpfs -o mode=755 quickims-lab "$cover" &&
  mkdir "$cover/upper" "$cover/work" "$root" &&
  mount -t overlay overlay -o "lowerdir=/,upperdir=$cover/upper,workdir=$cover/work" "$root" || {
  echo "namespace: no cover can be laid over the file system"
  exit 1
}
over() {
  mkdir -p "$root$2"
  mount --bind "$folder/$1" "$root$2"
}
over work /root/lab
over state /var/lib/quickims
over backups /var/backups/quickims
over images /var/lib/libvirt/images
cd "$root"
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t tmpfs -o mode=755 tmpfs sys/fs
mkdir sys/fs/cgroup
mount -t cgroup2 cgroup sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs dev
for node in null zero full random urandom tty net/tun; do
  [ -e "/dev/$node" ] || continue
  mkdir -p "$(dirname "dev/$node")"
  touch "dev/$node"
  mount --bind "/dev/$node" "dev/$node"
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s /proc/self/fd/1 dev/stdout
ln -s /proc/self/fd/2 dev/stderr
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
# The machine's own services stay out.
mkdir -p etc/systemd/system/lab.target.wants
printf '[Unit]\nRequires=sysinit.target sockets.target dbus.socket\nAfter=sysinit.target sockets.target\nAllowIsolate=yes\n' >etc/systemd/system/lab.target
# There is no network to fetch packages from: what is asked for must be installed.
cat >usr/local/sbin/apt-get <<'END'
#!/bin/sh
shift
for package; do
  case $package in -*) continue ;; esac
  dpkg-query -W -f '${Package} ${db:Status-Status}\n' "$package" | grep installed || exit
done
END
chmod +x usr/local/sbin/apt-get
# libvirt would give each VM a /dev made of the machine's.
echo 'namespaces = []' >>etc/libvirt/qemu.conf
ip link set lo up
exec env -i container=lab PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot . /lib/systemd/systemd --system --unit=lab.target
