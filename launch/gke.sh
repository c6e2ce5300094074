#!/usr/bin/env bash
# shellcheck source-path=SCRIPTDIR
USAGE='Train on a GKE cluster with TPU or GPU node pools, as a JobSet (which must be installed there).

  launch/gke.sh COMMAND [SETTINGS]

  create   build the image from the working tree and push it
  run      start the training; nothing if it is there
  resume   start it again if it has failed or ended; nothing if it is running
  status   of the training and its pods
  logs     of the first process
  delete   stop and remove the training; nothing if there is none'
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

option name name vclip 'of the JobSet'
option image word '' 'where the image goes: REGION-docker.pkg.dev/PROJECT/REPOSITORY/vclip:TAG'
option platform word tpu 'tpu or gpu'
option accelerator word '' 'as GKE labels its nodes: tpu-v5-lite-podslice, nvidia-h100-80gb'
option topology topology '' 'TPU: of one slice'
option slices count 1 'TPU: slices'
option hosts count 1 'nodes (TPU: of one slice)'
option chips count 4 'TPU chips or GPUs of one node'
option spot switch '' 'on spot nodes'
option bucket word '' 'a bucket to mount at /bucket, through Cloud Storage FUSE'
option service-account name '' 'Kubernetes service account, for example with access to the bucket'
option max-restarts number 20 'restarts before giving up'
option context word '' 'of kubectl, if not the current one'
option namespace name default 'of the cluster'
common_options

# A kubectl command, in `words`.
kubectl_words() {
  words=(kubectl)
  [[ ! ${opt[context]} ]] || words+=(--context="${opt[context]}")
  words+=(--namespace="${opt[namespace]}" "$@")
}

# ABSENT, or the JobSet's conditions that hold (Completed, Failed, ... or nothing), in `state`.
look() {
  kubectl_words get jobset "${opt[name]}" --ignore-not-found \
    '--output=jsonpath={.metadata.name} {.status.conditions[?(@.status=="True")].type}'
  ask "$1" "${words[@]}" ||
    die "kubectl: $trouble: check --context and --namespace, and that JobSet is installed"
  state=ABSENT
  [[ ! $answer ]] || state=${answer#* }
}

# A word as a JSON string (which YAML reads, too); Kubernetes would expand $(NAME) in it.
json() {
  local word=${1//\\/\\\\}
  word=${word//\"/\\\"}
  printf '"%s"' "${word//\$(/\$\$(}"
}

json_list() {
  local word list=''
  for word; do list+="${list:+, }$(json "$word")"; done
  printf '[%s]' "$list"
}

chips_of() {
  local side chips=1
  for side in ${1//x/ }; do chips=$((chips * side)); done
  echo "$chips"
}

# The JobSet, from its template, in `manifest`.
render() {
  local line key chips env='' arguments
  local -A only=() value=()
  need image accelerator config workdir
  [[ ${opt[workdir]} != /bucket/* || ${opt[bucket]} ]] || die "--workdir ${opt[workdir]} needs --bucket"
  [[ ! ${opt[spot]} ]] || only[spot]=1
  [[ ! ${opt[bucket]} ]] || only[bucket]=1
  [[ ! ${opt[service-account]} ]] || only[service_account]=1
  ((opt[slices] == 1)) || only[multislice]=1
  [[ ! ${secrets-} ]] || only[secrets]=1

  if [[ ${opt[platform]} == tpu ]]; then
    need topology
    chips=$(chips_of "${opt[topology]}")
    ((chips == opt[hosts] * opt[chips])) ||
      die "--topology ${opt[topology]} has $chips chips, not --hosts ${opt[hosts]} x --chips ${opt[chips]}"
    main_arguments elsewhere
    # To Kubernetes a pod that ends with 0 is done, also if its node was taken away.
    arguments+=(--distributed --preempted_exit_code=75)
    value[args]=$(json_list "${arguments[@]}")
  else
    ((opt[slices] == 1)) || die "--slices is for TPUs: with GPUs, --hosts says how many nodes"
    main_arguments elsewhere
    arguments+=(--preempted_exit_code=75)
    arguments+=(--coordinator="${opt[name]}-node-0-0.${opt[name]}:8476" --num_processes="${opt[hosts]}")
    value[args]=$(json_list "${arguments[@]}")
    value[args]=${value[args]%]}", \"--process_id=\$(PROCESS_ID)\"]" # for Kubernetes to expand
    key="metadata.annotations['batch.kubernetes.io/job-completion-index']"
    env="{name: PROCESS_ID, valueFrom: {fieldRef: {fieldPath: \"$key\"}}}"
  fi
  for key in "${env_args[@]}"; do
    env+="${env:+, }{name: ${key%%=*}, value: $(json "${key#*=}")}"
  done
  value[env]="[$env]"
  value[mounted]=false
  [[ ! ${opt[bucket]} ]] || value[mounted]=true
  value[max_restarts]=${opt[max-restarts]}
  for key in name slices hosts chips topology; do value[$key]=${opt[$key]}; done
  for key in image accelerator bucket; do value[$key]=$(json "${opt[$key]}"); done
  value[service_account]=$(json "${opt[service-account]}")

  manifest=''
  while IFS= read -r line; do
    if [[ $line == *'  # only: '* ]]; then
      [[ ${only[${line##*# only: }]-} ]] || continue
      line=${line%  # only: *}
    fi
    [[ $line != \#* ]] || continue
    # What is filled in is not looked at again.
    while [[ $line =~ ^([^$]*)\$\{([a-z_]+)\}(.*)$ ]]; do
      manifest+=${BASH_REMATCH[1]}${value[${BASH_REMATCH[2]}]}
      line=${BASH_REMATCH[3]}
    done
    manifest+=$line$'\n'
  done <"$ROOT/launch/gke-${opt[platform]}.yaml"
}

# The Secret of --env-file, as YAML; a dry run shows no value.
secret() {
  local line value
  printf 'apiVersion: v1\nkind: Secret\nmetadata:\n  name: "%s-env"\ndata:\n' "${opt[name]}"
  for line in "${secrets[@]}"; do
    value=...
    [[ $dry_run ]] || value=$(printf '%s' "${line#*=}" | base64 | tr -d '\n')
    printf '  %s: "%s"\n' "${line%%=*}" "$value"
  done
}

apply() {
  if [[ ${secrets-} ]]; then
    # On the server's side: otherwise kubectl keeps a copy of the values in an annotation.
    kubectl_words apply --server-side --force-conflicts --filename=-
    [[ ! $dry_run ]] || secret
    must "whoever starts trainings must be allowed to write Secrets, too" "${words[@]}" < <(secret)
  fi
  kubectl_words apply --filename=-
  [[ ! $dry_run ]] || printf '%s' "$manifest"
  must "the line above says why; 'kubectl get nodes' shows what the cluster has" "${words[@]}" <<<"$manifest"
}

remove() {
  kubectl_words delete jobset "${opt[name]}" --ignore-not-found --cascade=foreground
  must "try again" "${words[@]}"
}

parse "$@"
need name
[[ ${opt[platform]} == tpu || ${opt[platform]} == gpu ]] ||
  die "--platform ${opt[platform]@Q} is not tpu or gpu"
case $command in
  create)
    need image
    extra=tpu
    [[ ${opt[platform]} == tpu ]] || extra=cuda
    build=(docker build --tag="${opt[image]}" --file=launch/Dockerfile --build-arg=EXTRA="$extra" -)
    hint="docker must be installed and running"
    check_pack
    if [[ $dry_run ]]; then must "$hint" "${build[@]}"; else pack | must "$hint" "${build[@]}"; fi
    must "'gcloud auth configure-docker' lets docker push to Artifact Registry" docker push "${opt[image]}"
    ;;
  run)
    render
    look ''
    if [[ $state == ABSENT ]]; then
      apply
    else
      note "${opt[name]} is there${state:+: $state}; once it has failed or ended, 'resume' starts it again"
    fi
    ;;
  resume)
    render
    look "${opt[name]} Failed"
    case " $state " in # whole words: there is StartupPolicyCompleted, too
      ' ABSENT ') apply ;;
      *' Failed '* | *' Completed '*)
        remove
        apply
        ;;
      *) note "${opt[name]} is running" ;;
    esac
    ;;
  status)
    look "${opt[name]} "
    echo "training: ${state:-running}"
    if [[ $state != ABSENT ]]; then
      kubectl_words get pods --selector="jobset.sigs.k8s.io/jobset-name=${opt[name]}" --output=wide
      must "check --context and --namespace" "${words[@]}"
    fi
    ;;
  logs)
    selector=jobset.sigs.k8s.io/jobset-name=${opt[name]},jobset.sigs.k8s.io/job-index=0
    selector+=,batch.kubernetes.io/job-completion-index=0
    kubectl_words logs --tail="${opt[lines]}" --selector="$selector"
    [[ ! ${opt[follow]} ]] || words+=(--follow)
    must "'status' tells whether the training is there" "${words[@]}"
    ;;
  delete)
    remove
    kubectl_words delete secret "${opt[name]}-env" --ignore-not-found
    run "${words[@]}" || note "if it was started with --env-file, delete the Secret ${opt[name]}-env by hand"
    ;;
  *) die "there is no command ${command@Q}: see --help" ;;
esac
