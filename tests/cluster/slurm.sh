#!/usr/bin/env bash
# A real SLURM on this machine alone, for the tests beside this file: Debian's packages, as root, without systemd.
#   slurm.sh install             install what is missing; fails if that does, or if another SLURM is configured here
#   slurm.sh FOLDER COMMAND...   the same, then start it, run COMMAND, and end it with all that was started
# Its four nodes are slurmd on this host, each with four pretended cores and GPUs, for jobs that mostly wait: two in the
# partition all, two in the partition fragile, for tests that end a node. There is no accounting. Logs and state are in
# FOLDER, which is emptied; the configuration is in /etc/slurm.
set -euo pipefail
conf=/etc/slurm/slurm.conf

install() {
    local file
    if ! grep -qs "^ClusterName=adatosk-tests$" $conf; then
        for file in $conf /etc/slurm/cgroup.conf /etc/slurm/gres.conf; do
            if [ -e $file ]; then
                echo "error: $file: another SLURM is configured on this machine: test on one without" >&2
                return 1
            fi
        done
    fi
    for file in munged slurmctld slurmd srun; do
        if ! command -v $file >/dev/null; then
            apt
            return
        fi
    done
}

# A mirror that does not answer costs three minutes at most: only what has been downloaded whole is unpacked.
apt() {
    local packages=(munge slurmctld slurmd slurm-client) get=(apt-get -qq -o DPkg::Lock::Timeout=60)
    get+=(-o Acquire::Retries=1 -o Acquire::http::Timeout=20 -o Acquire::https::Timeout=20)
    export DEBIAN_FRONTEND=noninteractive
    if ! timeout 60 "${get[@]}" update ||
        ! timeout 120 "${get[@]}" install -y --no-install-recommends --download-only "${packages[@]}"; then
        echo "error: its packages could not be downloaded in time" >&2
        return 1
    fi
    "${get[@]}" install -y --no-install-recommends --no-download "${packages[@]}" >/dev/null
}

# Jobs and daemons inherit a variable that nothing else has. slurmstepd writes its title over it, but works in FOLDER.
started() {
    local pid
    grep -lsxzF "ADATOSK_TESTS_SLURM=$folder" /proc/[0-9]*/environ | cut -d / -f 3
    for pid in $(pgrep -f '^slurmstepd: '); do
        if [ "$(readlink "/proc/$pid/cwd")" = "$folder" ]; then echo "$pid"; fi
    done
}

# Ends all that was started and waits until it is gone; also what is left of a run that was killed.
clear_up() {
    local signal
    timeout 10 scancel --full --signal=KILL --user=root 2>/dev/null
    for signal in TERM KILL; do
        for _ in $(seq 50); do
            if [ -z "$(started)" ]; then break 2; fi
            started | xargs -r kill -$signal 2>/dev/null
            sleep 0.2
        done
    done
    rm -f $conf /etc/slurm/cgroup.conf /etc/slurm/gres.conf
}

end() {
    trap '' INT TERM HUP
    set +e
    export -n ADATOSK_TESTS_SLURM
    clear_up
}

if [ -n "${ADATOSK_TESTS_SLURM-}" ]; then
    echo "error: ADATOSK_TESTS_SLURM=$ADATOSK_TESTS_SLURM: one SLURM at a time: unset it" >&2
    exit 1
fi
install
if [ "$1" = install ]; then exit; fi
folder=$(realpath "$1") && shift
(set +e && clear_up)
rm -rf "$folder"
mkdir -p "$folder/state" /etc/slurm
export ADATOSK_TESTS_SLURM=$folder
trap end EXIT
host=$(hostname -s) megabytes=$(awk '/MemTotal/ {print int($2 / 1024 * 0.9)}' /proc/meminfo)
# cred_expire is also how long the job of a dead node waits, two minutes by default. Nodes that share a machine must not
# bind jobs to cores, for all would begin with the first.
cat >$conf <<CONF
ClusterName=adatosk-tests
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=16817
SlurmUser=root
AuthType=auth/munge
AuthInfo=cred_expire=20
MinJobAge=3600
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
ReturnToService=2
SlurmdTimeout=10
KillWait=5
SlurmctldPidFile=$folder/slurmctld.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdPidFile=$folder/slurmd.%n.pid
SlurmdLogFile=$folder/slurmd.%n.log
SlurmdSpoolDir=$folder/spool.%n
StateSaveLocation=$folder/state
SwitchType=switch/none
SchedulerParameters=bf_interval=5
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
GresTypes=gpu
SlurmdParameters=config_overrides
NodeName=n[1-4] NodeHostname=$host NodeAddr=127.0.0.1 Port=[17001-17004] CPUs=4 CoresPerSocket=4 RealMemory=$megabytes Gres=gpu:4
PartitionName=all Nodes=n[1-2] Default=YES MaxTime=INFINITE DefMemPerCPU=500
PartitionName=fragile Nodes=n[3-4] MaxTime=INFINITE DefMemPerCPU=500
CONF
echo "CgroupPlugin=autodetect" >/etc/slurm/cgroup.conf
# A GPU needs a device file to be counted: /dev/null under another name.
echo "NodeName=n[1-4] Name=gpu File=$folder/gpu[0-3]" >/etc/slurm/gres.conf
for number in 0 1 2 3; do mknod "$folder/gpu$number" c 1 3; done

[ -s /etc/munge/munge.key ] || /usr/sbin/mungekey
if ! munge -n >/dev/null 2>&1; then
    mkdir -p /run/munge && chown munge:munge /run/munge
    runuser -u munge -- /usr/sbin/munged
fi
slurmctld
for node in n1 n2 n3 n4; do
    mkdir "$folder/spool.$node"
    slurmd -N $node
done
for _ in $(seq 150); do
    if [ "$(sinfo --noheader --Node --format=%T | grep -c idle)" = 4 ]; then ready=yes && break; fi
    sleep 0.2
done
if [ -z "${ready-}" ]; then
    echo "error: the nodes are not ready: see $folder/slurmctld.log and slurmd.*.log" >&2
    exit 1
fi
"$@"
