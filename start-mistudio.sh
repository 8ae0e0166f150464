#!/usr/bin/env bash
# Installs miStudio into .venv beside this file (once) and starts its daemon.
set -euo pipefail
ROOT=$(dirname "$(readlink -f "$0")")
. "$ROOT/scripts/install.sh"
BIN=$ROOT/.venv/bin

usage() {
    cat <<EOF
usage: start-mistudio.sh [demo|stop|status|-h]

  (nothing)  install what is missing, start the studio and say where it is
  demo       the same, then run the whole job on the bundled model and text
  stop       stop the studio; a running job keeps its last checkpoint
  status     say whether it runs, and where

MISTUDIO_PORT (6478) and MISTUDIO_DATA (~/.local/share/mistudio) say where; PYTHON names the Python to install with.
EOF
}

# look: sets url, host, data, holder and holder_data; scripts/look.py says what they mean. Sets log and pid_file too.
look() {
    local lines
    lines=$("$BIN/python" "$ROOT/scripts/look.py") || exit $?
    { IFS= read -r url && IFS= read -r host && IFS= read -r data && IFS= read -r holder_data && IFS= read -r holder; } <<<"$lines"
    log=$data/mistudiod.log pid_file=$data/mistudiod.pid
}

# our_pid: sets pid to the daemon that this script started on this data folder; fails when there is none.
our_pid() {
    pid=""
    [ -f "$pid_file" ] && read -r pid <"$pid_file"
    [ -n "$pid" ] && grep -zqs 'mistudiod$' "/proc/$pid/cmdline" &&
        grep -zqsxF "MISTUDIO_DATA=$data" "/proc/$pid/environ"
}

start() {
    install_studio worker
    look
    ! already_there || return 0
    { mkdir -p "$data" && exec 9>>"$log"; } 2>/dev/null ||
        fail "the data folder $data is not writable: make it so, or choose another with MISTUDIO_DATA"
    flock 9 # of two starts at once the second finds the first one's daemon
    look
    already_there || launch
    exec 9>&-
}

# already_there: says which miStudio there is to use; fails when one is to be started; ends when none can be.
already_there() {
    case $holder in
        ours) say "miStudio is already running at $url (data in $data)" && return ;;
        studio)
            [ -z "${MISTUDIO_DATA:-}" ] || fail "${url##*:} is the port of a miStudio with other data, in $holder_data:" \
                "choose another port with MISTUDIO_PORT"
            say "using the miStudio that runs at $url (data in $holder_data)" && return
            ;;
    esac
    ! our_pid || fail "miStudio runs with the data in $data (process $pid) but does not answer at $url:" \
        "stop it first ($0 stop), or see $log"
    [ "$holder" = nobody ] ||
        fail "port ${url##*:} is taken by another program: stop that one, or choose another port with MISTUDIO_PORT"
    return 1
}

launch() {
    local before
    before=$(stat -c %s "$log")
    MISTUDIO_DATA=$data setsid nohup "$BIN/mistudiod" serve </dev/null >>"$log" 2>&1 9>&- &
    local daemon=$! deadline=$((SECONDS + 30))
    echo "$daemon" >"$pid_file"
    say "starting miStudio"
    while [ "$SECONDS" -lt "$deadline" ]; do
        look
        if [ "$holder" = ours ]; then
            say "miStudio is running at $url (data in $data)"
            tail -c "+$((before + 1))" "$log" | sed -n '/^No device has a token yet/,/^Later:/p' # how the first one gets in
            return
        fi
        if ! kill -0 "$daemon" 2>/dev/null; then
            rm -f "$pid_file"
            tail -n 5 "$log" >&2
            fail "miStudio ended as it started; its last words are above, the whole log is $log"
        fi
        sleep 0.5
    done
    fail "miStudio does not answer at $url after 30 s; see $log"
}

stop() {
    [ -x "$BIN/mistudiod" ] || { say "miStudio is not running (it is not installed in $ROOT)"; return; }
    look
    if ! our_pid; then
        [ "$holder" != ours ] || fail "the miStudio at $url was not started by this script:" \
            "stop it where it was started (a service: sudo systemctl stop mistudiod)"
        say "miStudio is not running (data in $data)"
        return
    fi
    say "stopping miStudio"
    kill -TERM "$pid"
    local deadline=$((SECONDS + 40))
    while our_pid; do
        [ "$SECONDS" -lt "$deadline" ] || fail "miStudio (process $pid) has not ended after 40 s; see $log"
        sleep 0.2
    done
    rm -f "$pid_file"
    say "miStudio has stopped"
}

# Exit 3, as a service's status does, when it does not run.
status() {
    [ -x "$BIN/mistudiod" ] || { say "miStudio is not running (it is not installed in $ROOT)"; exit 3; }
    look
    case $holder in
        ours | studio) say "miStudio is running at $url (data in $holder_data)" ;;
        program) say "miStudio is not running: another program answers at $url"; exit 3 ;;
        nobody) say "miStudio is not running (data in $data)"; exit 3 ;;
    esac
    MISTUDIO_HOST=$host "$BIN/mistudio" status
}

case ${1:-start} in
    start) start ;;
    demo)
        start
        MISTUDIO_HOST=$host exec "$BIN/mistudio" demo "${@:2}"
        ;;
    stop) stop ;;
    status) status ;;
    -h | --help) usage ;;
    *)
        usage >&2
        exit 2
        ;;
esac
