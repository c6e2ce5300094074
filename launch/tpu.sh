#!/usr/bin/env bash
# shellcheck source-path=SCRIPTDIR
USAGE='Train on Cloud TPU, on one slice or several of the same kind (multislice), as a queued resource.

  launch/tpu.sh COMMAND [SETTINGS]

  create   request the slice, unless it exists; request it again if it was lost
  run      wait for the slice, copy and install the code, train and watch until the training ends.
           A preempted slice is replaced, and the training continues. After an interruption, repeat it
  resume   like run, but request the slice first if it does not exist or was lost
  status   print the state of the slice and of the training
  logs     print the log of the training
  delete   delete the slice, if it exists'
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
remedy="install Google Cloud's command line, gcloud"

option name name vclip 'name of the queued resource and of its nodes'
option zone word '' 'zone, for example us-central2-b'
option project word '' 'Google Cloud project, if not the default of gcloud'
option accelerator word '' 'type and size of one slice: v4-32, v5litepod-16, v5p-128, v6e-64'
option runtime word '' 'software version, if not the default of the accelerator'
option node-count count 1 'number of slices'
option spot switch '' 'use a spot slice: cheaper, may be preempted'
option reserved switch '' 'use a reservation'
option service-account word '' 'service account of the workers, for example to write to a bucket'
option iap switch '' 'use ssh through IAP, for workers without external addresses'
option max-restarts number 20 'number of lost slices before giving up'
option poll number 60 'seconds between checks'
option detach switch '' 'run, resume: return once the training has started, without watching'
option node number 0 'logs: number of the slice'
option worker number 0 'logs: number of the host'
common_options

# `resource VERB ARGUMENTS...`: set `words` to a gcloud command.
resource() {
  words=(gcloud compute tpus queued-resources "$@" --zone="${opt[zone]}")
  [[ ! ${opt[project]} ]] || words+=(--project="${opt[project]}")
  [[ ! ${opt[iap]} || $1 != s* ]] || words+=(--tunnel-through-iap) # ssh and scp
}

# `on NODE WORKER COMMAND`: set `words` to a command on workers.
on() { resource ssh "${opt[name]}" --node="$1" --worker="$2" --command="$3"; }

worker() { quoted bash vclip/launch/worker.sh "$@"; }

# Set `state` to the state of the queued resource, or to ABSENT. A dry run assumes $1.
look() {
  resource describe "${opt[name]}" '--format=value(state.state)'
  if ask "$1" "${words[@]}"; then
    state=${answer:-UNKNOWN}
  elif [[ $trouble == *NOT_FOUND* ]]; then
    state=ABSENT
  else
    die "gcloud: ${trouble#ERROR: }: check --zone, --project and 'gcloud auth list'"
  fi
}

nap() { [[ $dry_run ]] || sleep "${opt[poll]}"; }

usual_runtime() {
  case ${opt[accelerator]} in
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v6e-*) echo v2-alpha-tpuv6e ;;
    *) echo tpu-ubuntu2204-base ;;
  esac
}

create_slice() {
  local options=(--node-id="${opt[name]}")
  ((opt[node-count] == 1)) ||
    options=(--node-count="${opt[node-count]}" --node-prefix="${opt[name]}")
  options+=(--accelerator-type="${opt[accelerator]}"
    --runtime-version="${opt[runtime]:-$(usual_runtime)}")
  [[ ! ${opt[spot]} ]] || options+=(--spot)
  [[ ! ${opt[reserved]} ]] || options+=(--reserved)
  [[ ! ${opt[service-account]} ]] || options+=(--service-account="${opt[service-account]}")
  resource create "${opt[name]}" "${options[@]}"
  must "check the quota, --zone and --accelerator ('gcloud compute tpus accelerator-types list')" \
    "${words[@]}"
}

delete_slice() {
  resource delete "${opt[name]}" --force --quiet
  must "try again, or look at it in the console" "${words[@]}"
}

# Make sure that the slice exists or is in the queue.
ensure() {
  look "$1"
  while [[ $state == SUSPENDING || $state == DELETING ]]; do
    nap
    look "$1"
  done
  case $state in
    ABSENT) create_slice ;;
    SUSPENDED | PREEMPTED | FAILED)
      note "${opt[name]} is $state: replacing it"
      delete_slice
      create_slice
      ;;
    *) note "${opt[name]} exists: $state" ;;
  esac
}

# Wait until the slice is ACTIVE. Fail if it is lost.
wait_active() {
  local said=''
  while :; do
    look ACTIVE
    case $state in
      ACTIVE) return 0 ;;
      ABSENT | SUSPENDING | SUSPENDED | PREEMPTED | DELETING) return 1 ;;
      FAILED)
        resource describe "${opt[name]}"
        die "the request has failed: '$(quoted "${words[@]}")' says why, 'resume' asks again"
        ;;
    esac
    [[ $state == "$said" ]] || note "waiting for ${opt[name]}: $state"
    said=$state
    nap
  done
}

# Set `answer` to the state of the training on the first worker.
training_status() {
  on 0 0 "$(worker status "${opt[name]}") 2>/dev/null || echo absent"
  ask "$1" "${words[@]}"
}

# Copy, install and start on all workers, unless the training is running.
start() {
  local archive=$ROOT/$STATE_DIR/${opt[name]}.tgz
  if training_status absent && [[ $answer == *running ]]; then
    note "${opt[name]} is training"
    return
  fi
  if [[ $dry_run ]]; then
    echo "# pack the working tree as $(quoted "$archive")"
  else
    mkdir -p "$ROOT/$STATE_DIR"
    check_pack
    pack >"$archive" || return
  fi
  resource scp "$archive" "${opt[name]}:vclip.tgz" --node=all --worker=all
  run "${words[@]}" || return
  on all all "$(unpack ../vclip.tgz vclip) && bash launch/worker.sh install tpu"
  run "${words[@]}" || return
  local begin
  begin=$(worker start "${opt[name]}" ${secrets:+-} "${env_args[@]}" -- "${arguments[@]}")
  if [[ ${secrets-} ]]; then
    # gcloud passes no standard input on to several workers: use a private file that is deleted once it
    # is read.
    [[ ! $dry_run ]] || secret_names
    [[ $dry_run ]] || (rm -f "$secret_file" && umask 077 && printf '%s\n' "${secrets[@]}" >"$secret_file")
    resource scp "$secret_file" "${opt[name]}:vclip.env" --node=all --worker=all
    run "${words[@]}" || return
    begin="$begin <vclip.env; code=\$?; rm -f vclip.env; exit \$code"
  fi
  on all all "$begin"
  run "${words[@]}"
}

# Wait until the training has succeeded. Fail if the slice is lost; end if the training fails.
watch() {
  local failed='' unreachable=0
  while :; do
    look ACTIVE
    [[ $state == ACTIVE ]] || return 1
    if training_status 'exit 0'; then
      unreachable=0
      case $answer in
        *'exit 0') return 0 ;;
        *absent) return 1 ;; # the worker was restarted
        # A preemption also ends the training, before the state of the slice shows it: check twice.
        *exit*)
          [[ $answer != *'exit 12' ]] ||
            die "the devices have too little memory: see 'launch/tpu.sh logs' for what to change"
          [[ ! $failed ]] ||
            die "the training ended with '$answer': see 'launch/tpu.sh logs', then 'resume'"
          failed=1
          ;;
      esac
    else
      ((++unreachable < 5)) || die "the first worker does not answer ($trouble): 'resume' tries again"
    fi
    nap
  done
}

train() {
  local restarts=0
  # A preempted training has saved but not succeeded.
  arguments+=(--distributed --preempted_exit_code=75)
  note "put ${opt[workdir]} on a shared disk or a mounted bucket: otherwise it is lost with the slice"
  while :; do
    if wait_active; then
      if start; then
        if [[ ${opt[detach]} ]]; then return; fi
        if watch; then
          note "the training has ended: delete the slice with 'launch/tpu.sh delete'"
          return
        fi
      else
        nap
        look ACTIVE
        [[ $state != ACTIVE ]] ||
          die "the workers could not be prepared: the lines above say why, 'resume' tries again"
      fi
    fi
    ((++restarts <= opt[max-restarts])) ||
      die "the slice was lost $restarts times: 'resume' continues, --max-restarts allows more"
    note "the slice was lost ($state), restart $restarts of ${opt[max-restarts]}"
    ensure SUSPENDED
  done
}

parse "$@"
need name zone
secret_file=$ROOT/$STATE_DIR/${opt[name]}.env
trap 'rm -f "$scratch" "$secret_file"' EXIT
case $command in
  create)
    need accelerator
    ensure ABSENT
    ;;
  run)
    need accelerator
    main_arguments elsewhere
    look ACTIVE
    [[ $state != ABSENT ]] ||
      die "there is no ${opt[name]} in ${opt[zone]}: 'create' it first, or use 'resume'"
    train
    ;;
  resume)
    need accelerator
    main_arguments elsewhere
    ensure SUSPENDED
    train
    ;;
  status)
    look ACTIVE
    echo "slice: $state"
    if [[ $state == ACTIVE ]]; then
      training_status running || answer="unknown ($trouble)"
      echo "training: $answer"
    fi
    ;;
  logs)
    log=$(worker log "${opt[name]}" "${opt[lines]}" ${opt[follow]:+follow})
    on "${opt[node]}" "${opt[worker]}" "$log"
    must "'status' shows whether the slice exists" "${words[@]}"
    ;;
  delete)
    look ACTIVE
    if [[ $state == ABSENT ]]; then
      note "there is no ${opt[name]} in ${opt[zone]}"
    else
      delete_slice
    fi
    ;;
  *) die "there is no command ${command@Q}: see --help" ;;
esac
