#!/usr/bin/env bash
# shellcheck source-path=SCRIPTDIR
USAGE='Train on the GPUs of a SLURM cluster. Run this on a login node, in a checkout that the nodes see.

  launch/slurm.sh COMMAND [SETTINGS]

  create   install the code into .venv of this checkout
  run      submit the training, unless it is queued or running. SLURM queues the job again after a
           preemption or a lost node; the job queues itself again at its time limit
  resume   the same as run: the training continues where it stopped
  status   print the state of the job
  logs     print the log of all its processes
  delete   cancel the job, if it exists'
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
remedy='run this on a login node of the cluster'

option name name vclip 'name of the job'
option nodes count 1 'number of nodes'
option gpus count 8 'number of GPUs on one node'
option cpus-per-gpu count 8 'number of CPU cores for each GPU'
option processes word gpu 'gpu: one process per GPU; node: one process per node'
option time time 24:00:00 'time limit of one start of the job'
option partition word '' "partition, if not the cluster's default"
option account word '' 'account, if not your default'
option qos word '' 'quality of service, if not your default'
option max-restarts number 20 'number of restarts before giving up'
common_options

# Set `answer` to the numbers and states of the user's jobs of this name.
look() {
  ask "$1" squeue --user="$(id -un)" --name="${opt[name]}" --noheader --format='%i %T %R' ||
    die "squeue: $trouble: run this on a login node of the cluster"
}

submit() {
  local tasks=${opt[gpus]} cores=${opt[cpus-per-gpu]} setting
  case ${opt[processes]} in
    gpu) ;;
    node) tasks=1 cores=$((opt[gpus] * opt[cpus-per-gpu])) ;;
    *) die "--processes ${opt[processes]@Q} is not gpu or node" ;;
  esac
  words=(sbatch --job-name="${opt[name]}" --nodes="${opt[nodes]}" --ntasks-per-node="$tasks"
    --gpus-per-node="${opt[gpus]}" --cpus-per-task="$cores" --time="${opt[time]}"
    --chdir="$ROOT" --output="$STATE_DIR/${opt[name]}.log")
  for setting in partition account qos; do
    [[ ! ${opt[$setting]} ]] || words+=(--"$setting=${opt[$setting]}")
  done
  # Use env and not --export, which splits values at commas.
  words=(env VCLIP_PROCESSES="${opt[processes]}" VCLIP_MAX_RESTARTS="${opt[max-restarts]}" "${env_args[@]}"
    "VCLIP_ENV_FILE=${opt[env-file]}" "${words[@]}" --export=ALL "$ROOT/launch/slurm.sbatch" "${arguments[@]}")
  [[ $dry_run ]] || mkdir -p "$ROOT/$STATE_DIR"
  must "the line above says why; 'sinfo' shows partitions and limits" "${words[@]}"
}

parse "$@"
need name
case $command in
  create) must "the lines above say why" bash "$ROOT/launch/worker.sh" install cuda ;;
  run | resume)
    main_arguments
    installed sbatch
    look ''
    if [[ $answer ]]; then
      note "${opt[name]} exists: $answer"
    else
      [[ $dry_run || -x $ROOT/.venv/bin/python ]] || die "there is no .venv yet: 'create' first"
      submit
    fi
    ;;
  status)
    look ''
    echo "${answer:-${opt[name]} is neither queued nor running}"
    ;;
  logs)
    [[ $dry_run || -e $ROOT/$STATE_DIR/${opt[name]}.log ]] || die "${opt[name]} has no log yet: see 'status'"
    must "see 'status'" tail -n "${opt[lines]}" ${opt[follow]:+-F} "$ROOT/$STATE_DIR/${opt[name]}.log"
    ;;
  delete)
    look "1 RUNNING"
    if [[ $answer ]]; then
      must "run this on a login node of the cluster" scancel --user="$(id -un)" --name="${opt[name]}"
    else
      note "${opt[name]} is neither queued nor running"
    fi
    ;;
  *) die "there is no command ${command@Q}: see --help" ;;
esac
