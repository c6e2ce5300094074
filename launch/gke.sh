#!/usr/bin/env bash
# shellcheck source-path=SCRIPTDIR
USAGE='Train on a GKE cluster with TPU or GPU node pools, as a JobSet. The cluster needs JobSet.

  launch/gke.sh COMMAND [SETTINGS]

  create   build the image from the working tree and push it
  run      start the training, unless it exists
  resume   restart the training if it has failed or ended
  status   print the state of the training and its pods
  logs     print the log of the first process
  delete   stop and remove the training, if it exists'
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

option name name vclip 'name of the JobSet'
option image word '' 'address of the image: REGION-docker.pkg.dev/PROJECT/REPOSITORY/vclip:TAG'
option platform word tpu 'tpu or gpu'
option accelerator word '' 'label of the GKE nodes: tpu-v5-lite-podslice, nvidia-h100-80gb'
option topology topology '' 'TPU: topology of one slice'
option slices count 1 'TPU: number of slices'
option hosts count 1 'number of nodes (TPU: of one slice)'
option chips count 4 'number of TPU chips or GPUs on one node'
option spot switch '' 'use spot nodes'
option bucket word '' 'bucket to mount at /bucket, through Cloud Storage FUSE'
option service-account name '' 'Kubernetes service account, with access to the bucket'
option max-restarts number 20 'number of restarts before giving up'
option context word '' 'kubectl context, if not the current one'
option namespace name default 'Kubernetes namespace'
common_options

# Set `words` to a kubectl command.
kubectl_words() {
  words=(kubectl)
  [[ ! ${opt[context]} ]] || words+=(--context="${opt[context]}")
  words+=(--namespace="${opt[namespace]}" "$@")
}

# Set `state` to ABSENT, or to the true conditions of the JobSet (Completed, Failed, ... or nothing).
look() {
  kubectl_words get jobset "${opt[name]}" --ignore-not-found \
    '--output=jsonpath={.metadata.name} {.status.conditions[?(@.status=="True")].type}'
  ask "$1" "${words[@]}" ||
    die "kubectl: $trouble: check --context and --namespace, and that JobSet is installed"
  state=ABSENT
  [[ ! $answer ]] || state=${answer#* }
}

# Print a word as a JSON string, which YAML also reads. Escape $(NAME), which Kubernetes would expand.
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

# Render the JobSet from its template into `manifest`.
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
    # Kubernetes takes exit code 0 for done, even if the node was taken away.
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
    # Filled-in values are not expanded again.
    while [[ $line =~ ^([^$]*)\$\{([a-z_]+)\}(.*)$ ]]; do
      manifest+=${BASH_REMATCH[1]}${value[${BASH_REMATCH[2]}]}
      line=${BASH_REMATCH[3]}
    done
    manifest+=$line$'\n'
  done <"$ROOT/launch/gke-${opt[platform]}.yaml"
}

# Print the Secret of --env-file as YAML. A dry run shows no value.
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
    # Apply on the server: otherwise kubectl keeps a copy of the values in an annotation.
    kubectl_words apply --server-side --force-conflicts --filename=-
    [[ ! $dry_run ]] || secret
    must "your account must be allowed to write Secrets" "${words[@]}" < <(secret)
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
      note "${opt[name]} exists${state:+: $state}; after it has failed or ended, 'resume' restarts it"
    fi
    ;;
  resume)
    render
    look "${opt[name]} Failed"
    case " $state " in # whole words: StartupPolicyCompleted also exists
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
    must "'status' shows whether the training exists" "${words[@]}"
    ;;
  delete)
    remove
    kubectl_words delete secret "${opt[name]}-env" --ignore-not-found
    run "${words[@]}" || note "if it was started with --env-file, delete the Secret ${opt[name]}-env by hand"
    ;;
  *) die "there is no command ${command@Q}: see --help" ;;
esac
