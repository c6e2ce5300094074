#!/usr/bin/env bash
# Install and run a named training in the background, on the training machine, in the folder of the
# code.
#
#   worker.sh install cpu|cuda|tpu       install the tested versions into .venv
#   worker.sh start NAME [-] [K=V...] -- ARGS   train in the background, unless NAME is running;
#                                        - reads more K=V, with secrets, from standard input
#   worker.sh status NAME                print running, "exit CODE" or absent
#   worker.sh log NAME LINES [follow]    print the end of the log
#   worker.sh stop NAME                  send SIGTERM, then wait
#
# Exit code 66 means that the worker has printed a line about the error itself.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/env.sh
source launch/env.sh
files=runs/.launch
mkdir -p "$files"

# Create .venv with a new enough Python, or with one that uv downloads: TPU images have 3.10.
make_venv() {
  local python new_enough='import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))'
  [[ ! -x .venv/bin/python ]] || return 0
  for python in ${VCLIP_PYTHON:+"$VCLIP_PYTHON"} python3.11 python3.12 python3.13 python3; do
    if "$python" -c "$new_enough" 2>/dev/null; then
      "$python" -m venv .venv
      return
    fi
  done
  python3 -m pip install --quiet --disable-pip-version-check --target "$files/uv" uv
  "$files/uv/bin/uv" venv --quiet --seed --python 3.11 .venv
}

install() {
  local target=.
  [[ $1 == cpu ]] || target=".[$1]"
  make_venv
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e "$target"
}

# Succeed if the supervisor of run $1 is alive. Check that its PID does not belong to another program.
running() {
  local pid
  pid=$(cat "$files/$1.pid" 2>/dev/null) && [[ $(ps -o args= -p "$pid" 2>/dev/null) == *"worker.sh supervise $1 "* ]]
}

# Train in the foreground, pass SIGTERM on, and write the exit code to a file.
supervise() {
  local name=$1 child code signalled=1
  shift
  echo "$$" >"$files/$name.pid"
  while [[ $1 != -- ]]; do
    export "${1?}"
    shift
  done
  shift
  .venv/bin/python -m vclip_jax.main "$@" &
  child=$!
  trap 'signalled=1; kill -TERM "$child" || true' TERM
  while [[ $signalled ]]; do # a signal interrupts the wait; bash keeps the exit code
    signalled=''
    code=0
    wait "$child" || code=$?
  done
  echo "$code" >"$files/$name.exit"
}

start() {
  local name=$1
  shift
  if [[ $1 == - ]]; then # read first: otherwise the writer would block
    shift
    read_env || {
      echo "error: standard input: $trouble" >&2
      exit 66
    }
    ((${#secrets[@]} == 0)) || export "${secrets[@]}"
  fi
  set -- "$name" "$@"
  if running "$1"; then
    echo "$1 is running already" >&2
    return
  fi
  rm -f "$files/$1.exit" "$files/$1.pid"
  nohup bash launch/worker.sh supervise "$@" </dev/null >>"$files/$1.log" 2>&1 &
  while [[ ! -s $files/$1.pid ]]; do sleep 0.05; done
}

status() {
  if running "$1"; then
    echo running
  elif [[ -s $files/$1.exit ]]; then
    echo "exit $(<"$files/$1.exit")"
  else
    echo absent
  fi
}

log() {
  if [[ ! -e $files/$1.log ]]; then
    echo "error: $1 has no log here: 'run' it first" >&2
    exit 66
  fi
  exec tail -n "$2" ${3:+-F} "$files/$1.log"
}

stop() {
  running "$1" || return 0
  kill -TERM "$(<"$files/$1.pid")"
  while running "$1"; do sleep 0.1; done
}

case ${1-} in
  install | start | supervise | status | log | stop) "$@" ;;
  *)
    echo "error: no command: see the top of launch/worker.sh" >&2
    exit 1
    ;;
esac
