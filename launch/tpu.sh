#!/usr/bin/env bash
# shellcheck source-path=SCRIPTDIR
USAGE='Train on Cloud TPU: a slice, or several of the same kind (multislice), as a queued resource.

  launch/tpu.sh COMMAND [SETTINGS]

  create   ask for the slice; nothing if it is there, again if it was lost
  run      wait for it, copy and install the code, train; a preempted slice is replaced and the
           training goes on, until it has ended; when interrupted, say it again
  resume   as run, but asks for the slice first if it is not there or was lost
  status   of the slice, and of the training on it
  logs     of the training
  delete   give the slice back; nothing if there is none'
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
remedy="install Google Cloud's command line, gcloud"

option name name vclip 'of the queued resource, and of its nodes'
option zone word '' 'for example us-central2-b'
option project word '' 'Google Cloud project, if not the default of gcloud'
option accelerator word '' 'type and size of one slice: v4-32, v5litepod-16, v5p-128, v6e-64'
option runtime word '' 'software version, if not the usual one of the accelerator'
option node-count count 1 'slices'
option spot switch '' 'cheaper, may be preempted'
option reserved switch '' 'from a reservation'
option service-account word '' 'that the workers act as, for example to write to the bucket'
option iap switch '' 'ssh through IAP, for workers without external addresses'
option max-restarts number 20 'slices lost before giving up'
option poll number 60 'seconds between looks'
option detach switch '' 'run, resume: return once the training has started, without watching'
option node number 0 'logs: of which slice'
option worker number 0 'logs: of which host'
common_options

# `resource VERB WHAT...`: a gcloud command, in `words`.
resource() {
  words=(gcloud compute tpus queued-resources "$@" --zone="${opt[zone]}")
  [[ ! ${opt[project]} ]] || words+=(--project="${opt[project]}")
  [[ ! ${opt[iap]} || $1 != s* ]] || words+=(--tunnel-through-iap) # ssh and scp
}

# `on NODE WORKER COMMAND`: on workers, in `words`.
on() { resource ssh "${opt[name]}" --node="$1" --worker="$2" --command="$3"; }

worker() { quoted bash vclip/launch/worker.sh "$@"; }

# The queued resource's state in `state`, ABSENT if there is none. A dry run assumes $1.
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
  must "check the quota, --zone, --accelerator ('gcloud compute tpus accelerator-types list')" \
    "${words[@]}"
}

delete_slice() {
  resource delete "${opt[name]}" --force --quiet
  must "try again, or look at it in the console" "${words[@]}"
}

# A slice that is alive or in the queue.
ensure() {
  look "$1"
  while [[ $state == SUSPENDING || $state == DELETING ]]; do
    nap
    look "$1"
  done
  case $state in
    ABSENT) create_slice ;;
    SUSPENDED | PREEMPTED | FAILED)
      note "${opt[name]} is $state: it is replaced"
      delete_slice
      create_slice
      ;;
    *) note "${opt[name]} is there: $state" ;;
  esac
}

# Until the slice is ACTIVE; fails if it is lost instead.
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

# The training's status on the first worker, in `answer`.
training_status() {
  on 0 0 "$(worker status "${opt[name]}") 2>/dev/null || echo absent"
  ask "$1" "${words[@]}"
}

# Copy, install and start everywhere; a training that is running is left alone.
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
    # gcloud passes no standard input on to several workers: a file that only we may read, and that
    # goes once it is read.
    [[ ! $dry_run ]] || secret_names
    [[ $dry_run ]] || (rm -f "$secret_file" && umask 077 && printf '%s\n' "${secrets[@]}" >"$secret_file")
    resource scp "$secret_file" "${opt[name]}:vclip.env" --node=all --worker=all
    run "${words[@]}" || return
    begin="$begin <vclip.env; code=\$?; rm -f vclip.env; exit \$code"
  fi
  on all all "$begin"
  run "${words[@]}"
}

# Until the training has ended well; fails if the slice is lost, ends if the training fails.
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
        # A preemption, too, ends the training before the slice's state tells: look twice.
        *exit*)
          [[ $answer != *'exit 12' ]] ||
            die "the devices have too little memory: see 'launch/tpu.sh logs' for what to change"
          [[ ! $failed ]] ||
            die "the training ended with '$answer': see 'launch/tpu.sh logs', then 'resume'"
          failed=1
          ;;
      esac
    else
      ((++unreachable < 5)) || die "the first worker does not answer ($trouble): 'resume' looks again"
    fi
    nap
  done
}

train() {
  local restarts=0
  # A preempted training has not ended well, though it has saved.
  arguments+=(--distributed --preempted_exit_code=75)
  note "${opt[workdir]} must be a shared disk or a mounted bucket, or it is lost with the slice"
  while :; do
    if wait_active; then
      if start; then
        if [[ ${opt[detach]} ]]; then return; fi
        if watch; then
          note "the training has ended; 'launch/tpu.sh delete' gives the slice back"
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
      die "the slice was lost $restarts times: 'resume' goes on, --max-restarts allows more"
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
    must "'status' tells whether the slice is there" "${words[@]}"
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
