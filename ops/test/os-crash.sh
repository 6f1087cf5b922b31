#!/usr/bin/env bash
# A crash of the machine: is what was acknowledged on the disk, or only in the kernel's memory?
#
# Who writes does so on a disk whose power can be cut (crash-disk). It is stopped at some moment, and goes on with what
# the disk was given by then; what that is, is compared with what was acknowledged.
#
#   ops/test/os-crash.sh [--rounds N] [--no-sync] [--binary PATH] [--sdk-binary PATH] [SCENARIO...]
#
#   local        a single node's store
#   replica      a node of a fleet: its replica is cut off at the first damage, and goes on as the others
#   retention    a node of a fleet while it drops what was given up
#   bootstrap    a node of a fleet while it begins with a checkpoint
#   servers      the machine of all NATS servers: nothing acknowledged is lost, and no node is ahead
#   one-server   the machine of one NATS server: it comes back, and the quorum then rests on it
#   rejoin       an agent that rejoins its channel: its vault opens, and it comes back to current
#   reboot       the same, while the group begins again: by this agent, or by another
#   backup       an agent that makes backups: under the name is a whole one or none
#   restore      a backup that is put in a vault's place: the vault is the old one or the new one
#
#   --rounds N   rounds of each (default: a few)
#   --no-sync    acknowledge without syncing (local, servers): losses must then be found, and nodes that are ahead must
#                stop; it fails if not
#   --binary     the log-store's integration test binary (default: built with cargo)
#   --sdk-binary the SDK's, for the scenarios of agents (default: built with cargo)
#
# Exit: 0 it holds; 1 it does not; 77 it cannot be tried here (no root, or no loop devices).
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
rounds=
no_sync=
binary=
sdk_binary=
scenarios=()
while [ $# -gt 0 ]; do
    case $1 in
    --rounds) rounds=$2; shift 2 ;;
    --no-sync) no_sync=1; shift ;;
    --binary) binary=$2; shift 2 ;;
    --sdk-binary) sdk_binary=$2; shift 2 ;;
    local | replica | retention | bootstrap | servers | one-server) scenarios+=("$1"); shift ;;
    rejoin | reboot | backup | restore) scenarios+=("$1"); shift ;;
    *) echo "unknown argument: $1" >&2; exit 64 ;;
    esac
done
if [ ${#scenarios[@]} = 0 ]; then
    scenarios=(local replica retention bootstrap servers one-server rejoin reboot backup restore)
    [ -z "$no_sync" ] || scenarios=(local servers)
fi

work=$(mktemp -d)
child=
cleanup() {
    trap - EXIT INT TERM
    if [ -n "$child" ]; then
        kill -TERM "$child" 2>/dev/null || true
        kill -CONT "$child" 2>/dev/null || true
        wait "$child" 2>/dev/null || true
        # What it had started ends with it, in a moment.
        sleep 0.5
    fi
    "$here/crash-disk" remove "$work/disk" || true
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

disk() { "$here/crash-disk" "$1" "$work/disk" "${@:2}"; }

code=0
disk make 1G 2>"$work/make.err" || code=$?
if [ "$code" != 0 ]; then
    [ "$code" != 77 ] || sed -n 's/^crash-disk: /os-crash: skipped: /p' "$work/make.err" >&2
    [ "$code" = 77 ] || cat "$work/make.err" >&2
    exit "$code"
fi

# The integration test binary of a package.
built() {
    local path
    path=$(cd "$here/../.." && cargo test -p "$1" --test it --no-run --message-format=json 2>/dev/null |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
    [ -x "$path" ] || { echo "os-crash: the test binary of $1 was not built" >&2; return 1; }
    printf '%s' "$path"
}

for scenario in "${scenarios[@]}"; do
    case $scenario in
    rejoin | reboot | backup | restore) [ -n "$sdk_binary" ] || sdk_binary=$(built skytale-sdk) ;;
    *) [ -n "$binary" ] || binary=$(built skytale-log-store) ;;
    esac
done

# Runs in the background and waits, so that a signal is heard at once.
await() {
    wait "$child" && code=0 || code=$?
    child=
    return "$code"
}

# A single node's store: a writer on the disk, stopped, copied, killed; and the copy is checked.
run_local() {
    local rounds=$1 lost_rounds=0 round acked verdict
    local -a test=("$binary" --exact local::crash::child --nocapture)
    for round in $(seq "$rounds"); do
        acked=$work/acked.$round
        : >"$acked"
        env SKYTALE_TEST_STORE="$work/disk/live/store.$round" SKYTALE_TEST_ROLE=write \
            ${no_sync:+SKYTALE_TEST_NO_SYNC=1} "${test[@]}" >"$acked" 2>"$work/writer.err" &
        child=$!
        for _ in $(seq 600); do
            grep -q '^acked' "$acked" && break
            sleep 0.05
        done
        grep -q '^acked' "$acked" || { echo "os-crash: the writer acknowledged nothing" >&2; cat "$work/writer.err" >&2; exit 1; }
        sleep "0.$((RANDOM % 900 + 100))"
        # Stopped, so that the copy is of one moment; what the kernel has not written by then is not in it.
        kill -STOP "$child"
        sleep 0.1
        disk copy || return 1
        kill -KILL "$child"
        await 2>/dev/null || true

        disk show || return 1
        env SKYTALE_TEST_STORE="$work/disk/copy/store.$round" SKYTALE_TEST_ROLE=check SKYTALE_TEST_ACKED="$acked" \
            "${test[@]}" >"$work/check" 2>&1 &
        child=$!
        if await; then
            verdict=$(grep 'acknowledged,' "$work/check")
        else
            lost_rounds=$((lost_rounds + 1))
            verdict="does not hold: $(grep -m 1 -E 'acknowledged,|panicked|cannot|refused' "$work/check" || tail -n 1 "$work/check")"
            [ -n "$no_sync" ] && [ -z "${VERBOSE:-}" ] || cat "$work/check" >&2
        fi
        echo "os-crash: local, round $round: $verdict"
        disk hide || return 1
        rm -rf "$work/disk/live/store.$round"
    done
    if [ -n "$no_sync" ]; then
        [ "$lost_rounds" -gt 0 ] || { echo "os-crash: nothing was lost without syncs: this test cannot fail" >&2; return 1; }
        echo "os-crash: local: without syncs, $lost_rounds of $rounds rounds lost acknowledged entries: the test can fail"
        return 0
    fi
    [ "$lost_rounds" = 0 ] || return 1
    echo "os-crash: local: $rounds rounds, nothing acknowledged was lost"
}

# A test of a binary that runs servers, nodes and agents, and cuts the power itself. The binary, the test, and scenarios,
# each with its rounds.
run_scenarios() {
    local program=$1 test=$2 began=$SECONDS tmp=$work/outside
    shift 2
    local scenarios=$*
    # The servers' folders are temporary ones.
    case $scenarios in *server*) tmp=$work/disk/live ;; esac
    # Nothing of the one before.
    rm -rf "$work/outside"
    mkdir "$work/outside"
    disk remove
    disk make 1G
    env SKYTALE_TEST_CRASH="$scenarios" SKYTALE_TEST_CRASH_DISK="$here/crash-disk" SKYTALE_TEST_CRASH_FOLDER="$work/disk" \
        SKYTALE_TEST_CRASH_OUTSIDE="$work/outside" TMPDIR="$tmp" ${no_sync:+SKYTALE_TEST_NO_SYNC=1} \
        timeout --kill-after=5 "$((1800 + ${rounds:-0} * 300))" "$program" --exact "$test" --nocapture \
        >"$work/scenarios.log" 2>&1 &
    child=$!
    if ! await; then
        cat "$work/scenarios.log" >&2
        echo "os-crash: $scenarios: does not hold" >&2
        return 1
    fi
    grep '^os-crash: ' "$work/scenarios.log" || { echo "os-crash: $scenarios: nothing was tried" >&2; return 1; }
    echo "os-crash: $scenarios: $((SECONDS - began)) s"
}

# By what they share: the servers' place.
nodes=()
servers=()
agents=()
failed=0
for scenario in "${scenarios[@]}"; do
    case $scenario in
    local) run_local "${rounds:-5}" || failed=1 ;;
    replica | retention | bootstrap) nodes+=("$scenario:${rounds:-2}") ;;
    servers) servers+=("$scenario:${rounds:-2}") ;;
    one-server) servers+=("$scenario:${rounds:-1}") ;;
    rejoin) agents+=("$scenario:${rounds:-20}") ;;
    reboot) agents+=("$scenario:${rounds:-8}") ;;
    backup | restore) agents+=("$scenario:${rounds:-40}") ;;
    esac
done
[ ${#nodes[@]} = 0 ] || run_scenarios "$binary" fleet::crash::scenarios "${nodes[@]}" || failed=1
[ ${#servers[@]} = 0 ] || run_scenarios "$binary" fleet::crash::scenarios "${servers[@]}" || failed=1
[ ${#agents[@]} = 0 ] || run_scenarios "$sdk_binary" os_crash_scenarios "${agents[@]}" || failed=1
exit "$failed"
