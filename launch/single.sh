#!/usr/bin/env bash
# shellcheck source-path=SCRIPTDIR
USAGE='Train on one machine with its CPUs, GPUs or TPU chips: this one, or another through ssh.

  launch/single.sh COMMAND [SETTINGS]

  create   copy (to another machine) and install the code
  run      train in the background; nothing if it is running
  resume   the same as run: a training goes on where it stopped
  status   of the training
  logs     of the training
  delete   stop the training, whose files stay; nothing if there is none'
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

option name name vclip 'of the training'
option host word '' 'another machine, as ssh knows it: [USER@]HOST'
option folder path vclip 'of the code on the other machine'
option platform word cpu 'what to install for: cpu, cuda or tpu'
common_options

# `worker HINT COMMAND...`: launch/worker.sh where the training is.
worker() {
  local hint=$1
  shift
  if [[ ${opt[host]} ]]; then
    must_with_secrets "$hint" ssh "${opt[host]}" "$(quoted bash "${opt[folder]}/launch/worker.sh" "$@")"
  else
    must_with_secrets "$hint" bash "$ROOT/launch/worker.sh" "$@"
  fi
}

copy() {
  local hint="'ssh ${opt[host]}' must work without a question"
  words=(ssh "${opt[host]}" "$(unpack - "${opt[folder]}")")
  check_pack
  if [[ $dry_run ]]; then must "$hint" "${words[@]}"; else pack | must "$hint" "${words[@]}"; fi
}

parse "$@"
need name
[[ ${opt[platform]} =~ ^(cpu|cuda|tpu)$ ]] || die "--platform ${opt[platform]@Q} is not cpu, cuda or tpu"
case $command in
  create)
    [[ ! ${opt[host]} ]] || copy
    worker "the lines above say why" install "${opt[platform]}"
    ;;
  run | resume)
    main_arguments "${opt[host]}"
    worker "has 'create' been run?" start "${opt[name]}" ${secrets:+-} "${env_args[@]}" -- "${arguments[@]}"
    ;;
  status) worker "has 'create' been run?" status "${opt[name]}" ;;
  logs) worker "has it been run?" log "${opt[name]}" "${opt[lines]}" ${opt[follow]:+follow} ;;
  delete) worker "is the machine there?" stop "${opt[name]}" ;;
  *) die "there is no command ${command@Q}: see --help" ;;
esac
