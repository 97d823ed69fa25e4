# shellcheck shell=bash
# A Slurm cluster of three nodes on one kernel. Sourced by trials.sh, in the root and the namespaces that run.sh made.
#
# Each node has its own network (10.9.0.1 to 10.9.0.3, on a bridge), host name and processes, so that one can be cut off, or lose its
# power, without the others. They share the file system, as nodes of a cluster share that of its users. The controller is on
# the bridge, at 10.9.0.254.

NODES=(1 2 3)

# Slurm's patience, in seconds: for a node that does not answer, between SIGTERM and SIGKILL, and until a requeued job may
# start again (it waits until old credentials have expired; by default 2 minutes).
SLURMD_TIMEOUT_SECONDS=6
KILL_WAIT_SECONDS=15
CREDENTIAL_SECONDS=5

# Has the command done what it should within so many seconds? It is asked several times a second.
within() {
    local tries=$(($1 * 5))
    shift
    until "$@"; do
        ((tries-- > 0)) || return 1
        sleep 0.2
    done
}

start_cluster() {
    hostname ctl
    {
        echo '127.0.0.1 localhost'
        echo '10.9.0.254 ctl'
        local n
        for n in "${NODES[@]}"; do echo "10.9.0.$n n$n"; done
    } >/tmp/hosts
    # Not into the file of the overlay: /etc/hosts may be a mount.
    cp --remove-destination /tmp/hosts /etc/hosts
    ip link set lo up
    ip link add cluster type bridge
    ip addr add 10.9.0.254/24 dev cluster
    ip link set cluster up

    mkdir -p /run/munge /var/log/munge /var/lib/munge /etc/slurm /tmp/slurm/state
    [[ -f /etc/munge/munge.key ]] || mungekey -c -k /etc/munge/munge.key
    chown -R munge: /run/munge /var/log/munge /var/lib/munge /etc/munge
    setpriv --reuid munge --regid munge --clear-groups munged --force

    cat >/etc/slurm/slurm.conf <<CONF
ClusterName=soup
SlurmctldHost=ctl(10.9.0.254)
SlurmUser=root
StateSaveLocation=/tmp/slurm/state
SlurmdSpoolDir=/tmp/slurm/spool.%n
SlurmctldPidFile=/tmp/slurm/ctld.pid
SlurmdPidFile=/tmp/slurm/slurmd.%n.pid
SlurmctldLogFile=/tmp/slurm/ctld.log
SlurmdLogFile=/tmp/slurm/slurmd.%n.log
AuthInfo=cred_expire=$CREDENTIAL_SECONDS
SlurmdTimeout=$SLURMD_TIMEOUT_SECONDS
MessageTimeout=4
KillWait=$KILL_WAIT_SECONDS
ReturnToService=2
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
MpiDefault=none
NodeName=n[1-3] NodeAddr=10.9.0.[1-3] CPUs=2 RealMemory=2000 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
    slurmctld
    for n in "${NODES[@]}"; do start_node "$n"; done
    within 60 all_idle || {
        sinfo -N -l
        tail -n 20 /tmp/slurm/*.log
        return 1
    } >&2
}

# Switches a node on: its namespaces, with a shell as their first process, and the daemon in them.
start_node() {
    local n=$1
    mkdir -p "/tmp/slurm/spool.n$n"
    unshare --mount --uts --net --pid --fork --kill-child --mount-proc -- \
        bash -c "hostname n$n; ip link set lo up; until ip link show eth0; do sleep 0.1; done
                 slurmd -D -N n$n & while true; do wait; sleep 1; done" </dev/null >/dev/null 2>&1 &
    echo $! >"/tmp/slurm/node.$n"
    within 10 node_init "$n" >/dev/null
    # The same card each time: the others remember its address.
    ip link add "n$n" type veth peer name eth0 address "02:00:00:00:00:0$n" netns "$(node_init "$n")"
    ip link set "n$n" master cluster up
    nsenter --target "$(node_init "$n")" --net ip addr add "10.9.0.$n/24" dev eth0
    nsenter --target "$(node_init "$n")" --net ip link set eth0 up
}

# The first process of a node's namespaces, as seen from here.
node_init() {
    local unshare init
    unshare=$(cat "/tmp/slurm/node.$1")
    init=$(cat "/proc/$unshare/task/$unshare/children" 2>/dev/null)
    [[ -n ${init// /} ]] && echo "${init// /}"
}

# The processes on a node whose command line matches, as seen from here.
node_processes() {
    local pids namespace pid
    namespace=$(readlink "/proc/$(node_init "$1")/ns/net")
    pids=$(pgrep -f -- "$2") || true
    for pid in $pids; do
        [[ $(readlink "/proc/$pid/ns/net") == "$namespace" ]] && echo "$pid"
    done
    return 0
}

# kill -9 to processes on a node; fails where there are none, since then nothing would have been tested.
kill_on_node() {
    local pids
    pids=$(node_processes "$1" "$2")
    [[ -n $pids ]] || { echo "nothing to kill: no process $2 on n$1" >&2; return 1; }
    # shellcheck disable=SC2086 # one word for each process
    kill -KILL $pids
}

# The node's power fails: all of its processes are gone at once, and its network with them.
power_off() {
    kill -KILL "$(node_init "$1")"
    wait "$(cat "/tmp/slurm/node.$1")" 2>/dev/null || true
    within 10 no_link "n$1"
}

no_link() { ! ip link show "$1" >/dev/null 2>&1; }

node_state() { sinfo --noheader --nodes="n$1" --format=%T; }

node_is_down() { [[ $(node_state "$1") == down* ]]; }

all_idle() { [[ $(sinfo --noheader --Node --format=%T | sort -u) == idle ]]; }

# Brings the cluster back to three idle nodes without jobs.
repair() {
    scancel --quiet --user=root || true
    local n
    for n in "${NODES[@]}"; do
        ip link set "n$n" up 2>/dev/null || true
        if [[ -z $(node_init "$n") ]]; then
            start_node "$n"
        elif [[ -z $(node_processes "$n" '^slurmd ') ]]; then
            # The daemon alone was killed.
            power_off "$n"
            start_node "$n"
        fi
    done
    within 90 all_idle || { sinfo -N -l >&2; return 1; }
}

job_field() { scontrol show job --oneliner "$1" | tr ' ' '\n' | sed -n "s/^$2=//p"; }

job_state_is() { [[ $(job_field "$1" JobState) =~ ^($2)$ ]]; }
