#!/usr/bin/env bash
# shellcheck source-path=SCRIPTDIR
USAGE='Train on the GPUs of a SLURM cluster. Run it on a login node, in a checkout that the nodes see.

  launch/slurm.sh COMMAND [SETTINGS]

  create   install the code into .venv of this checkout
  run      submit the training; nothing if it is queued or running. SLURM queues it again after a
           preemption or a lost node, the job does so itself when its time is up
  resume   the same as run: a training goes on where it stopped
  status   of the job
  logs     of all its processes
  delete   cancel the job; nothing if there is none'
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
remedy='run this on a login node of the cluster'

option name name vclip 'of the job'
option nodes count 1 'how many'
option gpus count 8 'GPUs of one node'
option cpus-per-gpu count 8 'CPU cores for each GPU'
option processes word gpu 'one per gpu, or one per node'
option time time 24:00:00 'limit of one stay on the nodes'
option partition word '' "if not the cluster's default"
option account word '' 'if not your default'
option qos word '' 'if not your default'
option max-restarts number 20 'stays before the job no longer queues itself again'
common_options

# The numbers and states of our jobs of this name, in `answer`.
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
  # By env rather than by --export, whose commas separate.
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
      note "${opt[name]} is there: $answer"
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
