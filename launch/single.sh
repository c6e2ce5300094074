#!/usr/bin/env bash
# shellcheck source-path=SCRIPTDIR
USAGE='Train on the CPUs, GPUs or TPU chips of one machine: this one, or another one through ssh.

  launch/single.sh COMMAND [SETTINGS]

  create   install the code; with --host, copy it first
  run      train in the background, unless the training is running
  resume   the same as run: the training continues where it stopped
  status   print the state of the training
  logs     print the log of the training
  delete   stop the training and keep its files'
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

option name name vclip 'name of the training'
option host word '' 'other machine, as ssh knows it: [USER@]HOST'
option folder path vclip 'folder of the code on the other machine'
option platform word cpu 'platform to install for: cpu, cuda or tpu'
common_options

# `worker HINT COMMAND...`: run launch/worker.sh on the machine of the training.
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
