#!/bin/bash
# The demonstration: what cgmgr does for a workspace machine, on the machine that this runs on. Needs root, cgroup v2
# and python3. Everything it makes it takes away again, also when it fails.
set -u
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
examples=${CGMGR_EXAMPLES:-/lab/examples}
work=$(mktemp -d)
heartbeat=$here/heartbeat.py
agent_pid=
agent_unit=cgmgr-demo-agent
installed=

say() { printf '\n# %s\n' "$*"; }
# Shows a command as one would type it, and runs it.
run() {
    local word shown=
    for word in "$@"; do
        case $word in
            *[!A-Za-z0-9_./=:%+-]*) shown+=" '$word'" ;;
            *) shown+=" $word" ;;
        esac
    done
    printf '$%s\n' "$shown"
    "$@"
}
fail() { printf '\ndemo: failed: %s\n' "$*"; exit 1; }
now() { python3 -c 'import time; print(time.monotonic())'; }
on_systemd() { [ -d /run/systemd/system ]; }

stop_agent() {
    if on_systemd; then
        systemctl stop $agent_unit 2>/dev/null
    elif [ -n "$agent_pid" ]; then
        kill "$agent_pid" 2>/dev/null
        wait "$agent_pid" 2>/dev/null
    fi
    agent_pid=
}
clean() {
    stop_agent
    cgmgr down --kill >/dev/null 2>&1
    [ -n "$installed" ] && cgmgr uninstall >/dev/null 2>&1
    rm -rf "$work"
}
trap clean EXIT

cd "$examples/.." || exit 1
role=examples/rust.role.toml
groups_before=$(find /sys/fs/cgroup -type d -name '*cgmgr*' | wc -l)

say "A workspace machine: $(uname -sr), $(nproc) CPUs, $(awk '/MemTotal/ {print int($2/1024)}' /proc/meminfo) MiB of memory."
if on_systemd && [ ! -e /etc/systemd/system/cgmgr-sessions.service ]; then
    say "systemd owns the cgroup tree. One command puts a delegated unit for sessions beside its own."
    run cgmgr install || fail "install"
    installed=yes
fi

say "What can this machine enforce?"
run cgmgr doctor || fail "doctor"

say "Make the machine as the role declares it: a protected part for the agent, a ceiling over all workloads."
run cgmgr apply "$role" 2>/dev/null || fail "apply"

say "An agent with a heartbeat moves into agent.slice. First, how it beats on an idle machine:"
if on_systemd; then
    systemd-run --quiet --unit=$agent_unit --slice=agent.slice -p OOMScoreAdjust=-900 \
        python3 "$heartbeat" "$work/beats" || fail "the agent did not start"
else
    python3 "$heartbeat" "$work/beats" &
    agent_pid=$!
    echo "$agent_pid" >/sys/fs/cgroup/agent.slice/cgroup.procs
fi
sleep 4
idle_from=$(now); sleep 6; idle_to=$(now)
python3 "$heartbeat" report "$work/beats" "$idle_from" "$idle_to" || fail "no heartbeat"

say "Three sessions that misbehave: one forks without end, one burns every CPU, one hogs memory."
attack_from=$(now)
run cgmgr run --quiet --role "$role" --name forks --pids 60 --detach -- \
    sh -c 'f() { f | f & sleep 1; f; }; f' || fail "run forks"
run cgmgr run --quiet --role "$role" --name spin --cpus 1 --detach -- \
    sh -c 'for i in 1 2 3 4 5 6 7 8; do while :; do :; done & done; wait' || fail "run spin"
sleep 4

say "Who uses what?"
run cgmgr status

say "The memory hog may have 200 MiB. It wants everything:"
run cgmgr run --quiet --role "$role" --name hog --memory-max 200MiB --memory-high max -- \
    python3 -c 'hoard = []
while True: hoard.append(bytearray(1 << 20))'
status=$?
printf '(exit status %s)\n' $status
[ $status = 137 ] || fail "the hog was not killed"

say "A plain kill -9 is not called an OOM kill:"
run cgmgr run --quiet --name innocent -- sh -c 'kill -9 $$'
printf '(exit status %s, and not a word about memory)\n' $?
attack_to=$(now)

say "And the agent's heartbeat, while all that went on:"
python3 "$heartbeat" report "$work/beats" "$attack_from" "$attack_to" || fail "the agent did not survive"

say "End the sessions, and undo everything:"
run cgmgr kill forks spin || fail "kill"
stop_agent
run cgmgr down || fail "down"
if [ -n "$installed" ]; then
    run cgmgr uninstall || fail "uninstall"
    installed=
fi
left=$(find /sys/fs/cgroup -type d -name '*cgmgr*' | wc -l)
[ "$left" = "$groups_before" ] || fail "groups are left behind: $(find /sys/fs/cgroup -type d -name '*cgmgr*')"
say "Nothing is left behind."
