#!/usr/bin/env bash
# On the machine that trains, in the folder of the code: install, and one background run by name.
#
#   worker.sh install cpu|cuda|tpu       .venv with the tested versions
#   worker.sh start NAME [-] [K=V...] -- ARGS   train in the background; nothing if it is running;
#                                        - takes more K=V, with secrets, from standard input
#   worker.sh status NAME                one word or two: running, "exit CODE", absent
#   worker.sh log NAME LINES [follow]
#   worker.sh stop NAME                  SIGTERM, then wait
#
# Where a line of its own says what is wrong, it ends with 66.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/env.sh
source launch/env.sh
files=runs/.launch
mkdir -p "$files"

# A Python that the package runs on, or one that uv fetches: TPU images bring 3.10.
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

# The supervisor of run $1 is alive, and its number has not gone to another program.
running() {
  local pid
  pid=$(cat "$files/$1.pid" 2>/dev/null) && [[ $(ps -o args= -p "$pid" 2>/dev/null) == *"worker.sh supervise $1 "* ]]
}

# Trains in the foreground, passes SIGTERM on, leaves the exit code behind.
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
  while [[ $signalled ]]; do # it interrupts the wait; bash still knows a code it has told
    signalled=''
    code=0
    wait "$child" || code=$?
  done
  echo "$code" >"$files/$name.exit"
}

start() {
  local name=$1
  shift
  if [[ $1 == - ]]; then # before anything else: nobody is to be left writing
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
