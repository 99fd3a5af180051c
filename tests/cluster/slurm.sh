#!/usr/bin/env bash
# A real SLURM on this machine alone, for the tests beside this file: Debian's packages, as root, without systemd.
#   slurm.sh FOLDER COMMAND...   install what is missing, start it, run COMMAND, and end it
# Its two nodes are two slurmd on this host, with all cores and two pretended GPUs each; there is no accounting. Logs and
# state are in FOLDER, which is emptied; the configuration is in /etc/slurm, unless another SLURM has its own there.
set -euo pipefail
folder=$1 && shift
conf=/etc/slurm/slurm.conf
if [ -e $conf ] && ! grep -q "^ClusterName=adatosk-tests$" $conf; then
    echo "error: $conf: another SLURM is configured on this machine: test on one without" >&2
    exit 1
fi
if ! command -v slurmctld >/dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get -o DPkg::Lock::Timeout=300 update -q
    apt-get -o DPkg::Lock::Timeout=300 install -y -q --no-install-recommends munge slurmctld slurmd slurm-client
fi
rm -rf "$folder"
mkdir -p "$folder" /etc/slurm
folder=$(realpath "$folder")
export ADATOSK_TESTS_SLURM=$folder
host=$(hostname -s) cores=$(nproc) megabytes=$(awk '/MemTotal/ {print int($2 / 1024 * 0.9)}' /proc/meminfo)
cat >$conf <<CONF
ClusterName=adatosk-tests
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=16817
SlurmUser=root
AuthType=auth/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/affinity
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
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
GresTypes=gpu
SlurmdParameters=config_overrides
NodeName=n[1-2] NodeHostname=$host NodeAddr=127.0.0.1 Port=[17001-17002] CPUs=$cores CoresPerSocket=$cores RealMemory=$megabytes Gres=gpu:2
PartitionName=all Nodes=n[1-2] Default=YES MaxTime=INFINITE DefMemPerCPU=500
CONF
echo "CgroupPlugin=autodetect" >/etc/slurm/cgroup.conf
# A GPU needs a device file to be counted: /dev/null under another name.
echo "NodeName=n[1-2] Name=gpu File=$folder/gpu[0-1]" >/etc/slurm/gres.conf
for number in 0 1; do mknod "$folder/gpu$number" c 1 3; done
mkdir "$folder/state" "$folder/spool.n1" "$folder/spool.n2"

[ -s /etc/munge/munge.key ] || /usr/sbin/mungekey
munge=
end() {
    for pid in "$folder"/*.pid; do [ -s "$pid" ] && kill "$(cat "$pid")" 2>/dev/null || true; done
    if [ -n "$munge" ]; then kill "$(cat /run/munge/munged.pid)"; fi
    rm -f $conf /etc/slurm/cgroup.conf /etc/slurm/gres.conf
}
trap end EXIT
if ! munge -n >/dev/null 2>&1; then
    mkdir -p /run/munge && chown munge:munge /run/munge
    runuser -u munge -- /usr/sbin/munged
    munge=started
fi
slurmctld
slurmd -N n1
slurmd -N n2
for _ in $(seq 30); do
    if [ "$(sinfo --noheader --Node --format=%T | grep -c idle)" = 2 ]; then break; fi
    sleep 1
done
"$@"
