#!/usr/bin/env bash
# A crash of the machine: is what the store acknowledged on the disk, or only in the kernel's memory?
#
# A store on ext4 in a loop device that bypasses the page cache: the image file then holds what the device was given,
# and no more. A writer appends, and is stopped at some moment; the image is copied, with nothing synced or unmounted:
# the copy is the disk after a power loss at that moment. It is mounted, the store in it is opened, and compared with
# what the writer had been told by then.
#
#   ops/test/os-crash.sh [--rounds N] [--no-sync] [--binary PATH]
#
#   --no-sync   the writer acknowledges without syncing: this script must then find losses, and fails if it does not
#   --binary    the log-store's integration test binary (default: built with cargo)
#
# Exit: 0 it holds; 1 it does not; 77 it cannot be tried here (no root, or no loop devices).
set -euo pipefail

rounds=5
no_sync=
binary=
while [ $# -gt 0 ]; do
    case $1 in
    --rounds) rounds=$2; shift 2 ;;
    --no-sync) no_sync=1; shift ;;
    --binary) binary=$2; shift 2 ;;
    *) echo "unknown argument: $1" >&2; exit 64 ;;
    esac
done

skip() {
    echo "os-crash: skipped: $1" >&2
    exit 77
}

[ "$(id -u)" = 0 ] || skip "needs root, to mount a loop device"
for tool in mkfs.ext4 losetup mount umount; do
    command -v "$tool" >/dev/null || skip "needs $tool"
done

if [ -z "$binary" ]; then
    root=$(cd "$(dirname "$0")/../.." && pwd)
    binary=$(cd "$root" && cargo test -p skytale-log-store --test it --no-run --message-format=json 2>/dev/null |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
fi
[ -x "$binary" ] || { echo "os-crash: the test binary was not built" >&2; exit 1; }

work=$(mktemp -d)
writer=
devices=()
cleanup() {
    [ -z "$writer" ] || kill -KILL "$writer" 2>/dev/null || true
    [ -z "$writer" ] || wait "$writer" 2>/dev/null || true
    for folder in "$work"/copy "$work"/live; do
        mountpoint -q "$folder" && umount "$folder" || true
    done
    for device in "${devices[@]}"; do
        losetup --detach "$device" 2>/dev/null || true
    done
    rm -rf "$work"
}
trap cleanup EXIT

attach() {
    # Past the page cache, so that the image has what the device was given. Some systems under the image cannot.
    losetup --find --show --direct-io=on "$1" 2>/dev/null
}

child=("$binary" --exact local::crash::child --nocapture)

mkdir "$work/live" "$work/copy"
truncate --size 512M "$work/image"
mkfs.ext4 -q -F "$work/image"
device=$(attach "$work/image") || skip "no loop device with direct I/O"
devices+=("$device")
[ "$(losetup --noheadings --output DIO "$device" | tr -d ' ')" = 1 ] || skip "the loop device goes through the page cache"
# commit=300: the file system's own timer makes nothing durable that the store did not ask for.
mount -o commit=300 "$device" "$work/live" || skip "mounting is not allowed here"

lost_rounds=0
for round in $(seq "$rounds"); do
    acked=$work/acked.$round
    : >"$acked"
    env SKYTALE_TEST_STORE="$work/live/store.$round" SKYTALE_TEST_ROLE=write ${no_sync:+SKYTALE_TEST_NO_SYNC=1} \
        "${child[@]}" >"$acked" 2>"$work/writer.err" &
    writer=$!
    for _ in $(seq 600); do
        grep -q '^acked' "$acked" && break
        sleep 0.05
    done
    grep -q '^acked' "$acked" || { echo "os-crash: the writer acknowledged nothing" >&2; cat "$work/writer.err" >&2; exit 1; }
    sleep "0.$((RANDOM % 900 + 100))"
    # Stopped, so that the copy is of one moment; what the kernel has not written by then is not in it.
    kill -STOP "$writer"
    sleep 0.1
    cp --sparse=always "$work/image" "$work/image.copy"
    kill -KILL "$writer"
    wait "$writer" 2>/dev/null || true
    writer=

    copy=$(attach "$work/image.copy")
    devices+=("$copy")
    mount "$copy" "$work/copy"
    if env SKYTALE_TEST_STORE="$work/copy/store.$round" SKYTALE_TEST_ROLE=check SKYTALE_TEST_ACKED="$acked" \
        "${child[@]}" >"$work/check" 2>&1; then
        verdict=$(grep 'acknowledged,' "$work/check")
    else
        lost_rounds=$((lost_rounds + 1))
        verdict="does not hold: $(grep -m 1 -E 'acknowledged,|panicked|cannot|refused' "$work/check" || tail -n 1 "$work/check")"
        [ -n "$no_sync" ] && [ -z "${VERBOSE:-}" ] || cat "$work/check" >&2
    fi
    echo "os-crash: round $round: $verdict"
    umount "$work/copy"
    losetup --detach "$copy"
    rm -rf "$work/image.copy" "${work:?}/live/store.$round"
done

if [ -n "$no_sync" ]; then
    [ "$lost_rounds" -gt 0 ] || { echo "os-crash: nothing was lost without syncs: this test cannot fail" >&2; exit 1; }
    echo "os-crash: without syncs, $lost_rounds of $rounds rounds lost acknowledged entries: the test can fail"
    exit 0
fi
[ "$lost_rounds" = 0 ] || exit 1
echo "os-crash: $rounds rounds, nothing acknowledged was lost"
