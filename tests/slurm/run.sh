#!/usr/bin/env bash
# Cooks the example pool under a real Slurm of three nodes and breaks something each time: tests/slurm/run.sh [CASE…]
#
# Needs Linux, root and Debian (or a relative) with its package mirror, for Slurm is installed from there. This host stays as
# it is: everything happens in namespaces (mounts, processes, host name, network) over an overlay of / whose changes are in
# memory. When this script ends, however it does, the kernel ends all processes in there and drops the mounts with them.
#
# From the environment:
#   SOUPCTL  the program under test  [target/debug/soupctl of this checkout, built if it is not there]
#   ROUNDS   how often each case     [1]
#   KEEP     a folder that receives the logs
#
# Cases are the functions case_… of trials.sh; without arguments, all of them.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)

# What the changes of the overlay may take, packages included, in memory.
OVERLAY_SIZE=3g

# The first process of the new namespaces: makes the root that the cluster lives in, and installs Slurm there.
inside() {
    local soupctl=$1 mnt=/mnt r=/mnt/root
    shift
    # Where nobody has to make a folder for it.
    mount -t tmpfs -o "size=$OVERLAY_SIZE" tmpfs "$mnt"
    mkdir "$mnt/upper" "$mnt/work" "$r"
    mount -t overlay overlay -o "lowerdir=/,upperdir=$mnt/upper,workdir=$mnt/work" "$r"
    mount -t proc proc "$r/proc"
    mount --rbind /sys "$r/sys"
    mount --rbind /dev "$r/dev"
    local folder
    for folder in run tmp dev/shm; do mount -t tmpfs tmpfs "$r/$folder"; done
    chmod 1777 "$r/tmp"
    # The checkout may be on another file system than /, and the resolver's file may be a mount or a link into /run.
    mkdir "$r/soup"
    mount --bind "$root" "$r/soup"
    mount -o remount,bind,ro "$r/soup"
    cp --remove-destination -L /etc/resolv.conf "$r/etc/resolv.conf"
    cp "$soupctl" "$r/usr/local/bin/soupctl"
    if [[ -n ${KEEP:-} ]]; then
        mkdir -p "$KEEP" "$r/keep"
        mount --bind "$KEEP" "$r/keep"
    fi

    # Installed means started, to Debian; here nothing is.
    printf '#!/bin/sh\nexit 101\n' >"$r/usr/sbin/policy-rc.d"
    chmod +x "$r/usr/sbin/policy-rc.d"
    echo "installing Slurm into an overlay"
    if ! chroot "$r" /bin/bash -c '
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -qq &&
        apt-get install -y -qq --no-install-recommends slurmctld slurmd slurm-client munge iproute2 procps
    ' >"$r/tmp/apt.log" 2>&1; then
        tail -n 20 "$r/tmp/apt.log" >&2
        exit 69
    fi

    # The network of the cluster is its own from here on. The overlay is a copy of nothing: processes in there that look at
    # the host's mounts would only be confused.
    exec unshare --net chroot "$r" /bin/bash /soup/tests/slurm/trials.sh "$@"
}

if [[ ${1:-} == --inside ]]; then
    shift
    inside "$@"
fi

if [[ $(id -u) != 0 ]] || ! command -v apt-get >/dev/null; then
    echo "tests/slurm/run.sh needs root (for namespaces and mounts) and apt-get" >&2
    exit 78
fi
soupctl=${SOUPCTL:-$root/target/debug/soupctl}
if [[ -z ${SOUPCTL:-} && ! -x $soupctl ]]; then
    (cd "$root" && cargo build --locked -p soupctl)
fi
if [[ ! -x $soupctl ]]; then
    echo "tests/slurm/run.sh: there is no program $soupctl" >&2
    exit 2
fi

# --pdeathsig and --kill-child: the end of this shell, kill -9 included, is the end of the first process in the namespaces,
# and that is the end of all in there.
export ROUNDS=${ROUNDS:-1} KEEP=${KEEP:+$(realpath -m "$KEEP")}
setpriv --pdeathsig KILL \
    unshare --mount --uts --ipc --pid --fork --kill-child --mount-proc --propagation private \
    "$here/run.sh" --inside "$soupctl" "$@" </dev/null &
namespaces=$!
# With the exit code of what it waited for, where there is nobody left to end.
trap 'kill -KILL "$namespaces" 2>/dev/null || true' EXIT
trap 'exit 130' INT TERM HUP
wait "$namespaces"
