# shellcheck shell=bash disable=SC2034  # the launchers read these variables
# Shared functions of the launchers: settings, running and printing commands, packing the code.
# Sourced.

set -euo pipefail
if ((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] < 404)); then
  echo "error: bash $BASH_VERSION is too old: put bash 4.4 or newer on PATH" >&2
  exit 1
fi

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=launch/env.sh
source "$ROOT/launch/env.sh"
STATE_DIR=runs/.launch # relative to the code, git-ignored: logs, exit codes, packed code
declare -A opt=() option_kind=() option_help=()
option_names=() train_args=() env_args=() secrets=()
dry_run='' command='' trouble='' remedy='install it'
scratch=$(mktemp)
trap 'rm -f "$scratch"' EXIT

# --- Output.

# Print a note. A dry run prints none, because it finds and does nothing.
note() { [[ $dry_run ]] || printf '%s\n' "$*" >&2; }

die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# Print words as one line that a shell reads back as the same words.
quoted() {
  local word line=''
  for word; do
    [[ $word =~ ^[A-Za-z0-9_./:=@%+,-]+$ ]] || word=${word@Q}
    line+="${line:+ }$word"
  done
  printf '%s' "$line"
}

# --- Running.

# End if a program is missing; `remedy` is the launcher's hint. A dry run needs no program.
installed() { [[ $dry_run ]] || type -P "$1" >/dev/null || die "there is no $1 on this machine: $remedy"; }

# Show a command and run it. A dry run only shows it.
run() {
  if [[ $dry_run ]]; then
    quoted "$@"
    echo
  else
    note "+ $(quoted "$@")"
    "$@"
  fi
}

# `must HINT COMMAND...`: run the command. If it fails, end with one line that says what to do. Exit
# code 66 of the worker means that the worker has printed this line itself.
must() {
  local hint=$1 code=0
  shift
  installed "$1"
  run "$@" || code=$?
  ((code != 66)) || exit 1
  ((code == 0)) || die "$1 ended with exit code $code: $hint"
}

# `ask ASSUMED COMMAND...`: set `answer` to the output of a command, and `trouble` to its last error
# line. The command changes nothing, so it is not shown. A dry run shows it and assumes an answer.
ask() {
  local assumed=$1 code=0
  shift
  trouble=''
  if [[ $dry_run ]]; then
    quoted "$@"
    printf '  # assumed: %s\n' "${assumed:-nothing}"
    answer=$assumed
    return
  fi
  installed "$1"
  answer=$("$@" 2>"$scratch") || code=$?
  trouble=$(grep -v '^[[:space:]]*$' "$scratch" | tail -n 1 || true)
  return "$code"
}

# End unless `pack` can work.
check_pack() {
  git -C "$ROOT" rev-parse --is-inside-work-tree >/dev/null 2>&1 ||
    die "$ROOT is not a git checkout, and git lists the files to copy: clone it, or run 'git init' there"
}

# Write the working tree, without ignored files, as a compressed tar to standard output.
pack() (
  cd "$ROOT"
  git ls-files -z --cached --others --exclude-standard |
    while IFS= read -r -d '' entry; do
      if [[ -e $entry ]]; then printf '%s\0' "$entry"; fi
    done | tar --null --no-recursion -czf - -T -
)

# Print the remote command that unpacks archive $1 into folder $2, in place of an earlier copy. It
# keeps .venv, runs and data, and refuses a folder that is not such a copy.
unpack() {
  local folder
  folder=$(quoted "$2")
  echo "mkdir -p $folder && cd $folder &&" \
    "{ [ -e $STATE_DIR/copy ] || [ -z \"\$(ls -A)\" ] ||" \
    "{ echo 'error: the folder holds other files' >&2; exit 1; }; } &&" \
    "find . -mindepth 1 -maxdepth 1 ! -name .venv ! -name runs ! -name data -exec rm -rf {} + &&" \
    "mkdir -p $STATE_DIR && touch $STATE_DIR/copy && tar -xzf $1"
}

# --- Settings.

# `option NAME KIND DEFAULT HELP`: declare a flag --NAME. VCLIP_NAME may set its default.
option() {
  local variable=VCLIP_${1^^}
  variable=${variable//-/_}
  option_names+=("$1")
  option_kind[$1]=$2
  option_help[$1]="$4${3:+ [$3]}"
  opt[$1]=${!variable-$3}
}

# Declare the options of every launcher.
common_options() {
  option config path '' 'recipe: configs/X.py[:argument]'
  option workdir path '' 'folder of the run; all processes must see it'
  option env-file path '' 'file of KEY=VALUE lines with secrets, mode 600; run and resume need it each time'
  option lines count 50 'logs: number of lines'
  option follow switch '' 'logs: follow the log'
}

usage() {
  local name argument
  printf '%s\n\nSettings (also as environment variables: --node-count is VCLIP_NODE_COUNT):\n' "$USAGE"
  for name in "${option_names[@]}"; do
    case ${option_kind[$name]} in
      switch) argument='' ;;
      *) argument=${option_kind[$name]^^} ;;
    esac
    printf '  %-26s %s\n' "--$name $argument" "${option_help[$name]}"
  done
  printf '  %-26s %s\n' '--env KEY=VALUE' "set an environment variable of the training, not a secret; may be repeated" \
    '--config.KEY=VALUE' 'set a key of the recipe; arguments after -- go to the trainer unchanged' \
    '--dry-run' 'print the commands, run nothing' '--help' 'print this help'
}

# Parse and check the command and flags into `command`, `opt`, `env_args`, `train_args`.
parse() {
  local name
  while (($#)); do
    case $1 in
      -h | --help)
        usage
        exit
        ;;
      --dry-run) dry_run=1 ;;
      --)
        shift
        train_args+=("$@")
        break
        ;;
      --config.*=*) train_args+=("$1") ;;
      --env | --env=*)
        if [[ $1 == --env ]]; then
          (($# > 1)) || die "--env needs KEY=VALUE"
          shift
        fi
        name=${1#--env=}
        [[ $name =~ ^[A-Za-z_][A-Za-z0-9_]*=[^[:cntrl:]]*$ ]] ||
          die "--env: the text that begins with $(quoted "${name::4}") is not KEY=VALUE"
        ! looks_secret "$name" ||
          die "--env ${name%%=*} would show a secret in the list of processes: put the line into a" \
            "file, chmod 600, and name the file with --env-file"
        env_args+=("$name")
        ;;
      --*)
        name=${1#--}
        name=${name%%=*}
        [[ ${option_kind[$name]-} ]] || die "there is no --$name: see --help"
        if [[ ${option_kind[$name]} == switch ]]; then
          [[ $1 != *=* ]] || die "--$name takes no value"
          opt[$name]=1
        elif [[ $1 == *=* ]]; then
          opt[$name]=${1#*=}
        else
          (($# > 1)) || die "--$name needs a value"
          opt[$name]=$2
          shift
        fi
        ;;
      *)
        [[ ! $command ]] || die "one command at a time: $command or ${1@Q}?"
        command=$1
        ;;
    esac
    shift
  done
  if [[ ! $command ]]; then
    usage
    exit 1
  fi
  for name in "${option_names[@]}"; do check "$name"; done
  for name in "${train_args[@]}"; do
    [[ $name != *[[:cntrl:]]* ]] || die "${name@Q} holds control characters"
  done
  [[ $command != @(run|resume) ]] || load_env_file
}

# Succeed if KEY=VALUE looks secret: by its name, or by a password in an address.
looks_secret() {
  local name=${1%%=*}
  [[ ${name^^} =~ (TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|KEY|CREDENTIAL|COOKIE)S?(_|$) ||
    ${name^^} =~ (^|_)(PASS|PWD|PW|AUTH|PAT)(_|$) || ${1#*=} =~ ://[^/@]*:[^/@]*@ ]]
}

# Read the lines of --env-file into `secrets`.
load_env_file() {
  local path=${opt[env-file]}
  [[ $path ]] || return 0
  check_env_file "$path"
  [[ ! $trouble ]] || die "--env-file $path $trouble"
  path=$(cd "$(dirname "$path")" && pwd)/$(basename "$path")
  [[ ! $(git -C "$ROOT" ls-files --cached --others --exclude-standard -- "$path" 2>/dev/null) ]] ||
    die "--env-file $path would be copied with the code: put it elsewhere, or into .gitignore"
  read_env <"$path" || die "--env-file $path: $trouble"
  opt[env-file]=$path
}

# `must_with_secrets HINT COMMAND...`: like `must`, with any secrets on standard input.
must_with_secrets() {
  if ((${#secrets[@]} == 0)); then
    must "$@"
    return
  fi
  [[ ! $dry_run ]] || secret_names
  must "$@" < <(printf '%s\n' "${secrets[@]}")
}

# Print the names of the secrets, for a dry run.
secret_names() { echo "# the values of ${secrets[*]%%=*} come from $(quoted "${opt[env-file]}")"; }

check() {
  local value=${opt[$1]} pattern rule
  [[ $value ]] || return 0
  case ${option_kind[$1]} in
    name) pattern='^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$' rule='a letter, then letters, digits and dashes, lower case, 40 at most' ;;
    word) pattern='^[A-Za-z0-9][A-Za-z0-9._:/@+=,-]*$' rule='letters, digits and . _ : / @ + = , -' ;;
    path) pattern='^[^-[:cntrl:]][^[:cntrl:]]*$' rule='a path' ;;
    count) pattern='^[1-9][0-9]{0,5}$' rule='a whole number from 1' ;;
    number) pattern='^(0|[1-9][0-9]{0,5})$' rule='a whole number from 0' ;;
    topology) pattern='^[1-9][0-9]*(x[1-9][0-9]*){1,2}$' rule='for example 4x4 or 2x2x4' ;;
    time) pattern='^([0-9]+-)?[0-9]+(:[0-9]{2}){0,2}$' rule='for example 24:00:00 or 2-00:00:00' ;;
    switch) pattern='^1$' rule='1 (on) or empty' ;;
  esac
  [[ $value =~ $pattern ]] || die "--$1 ${value@Q} is not $rule"
}

need() {
  local name variable
  for name; do
    variable=${name^^}
    [[ ${opt[$name]} ]] || die "--$name (or VCLIP_${variable//-/_}) is needed: see --help"
  done
}

# End if the recipe's file is missing. A training reads it from the folder of the code; with an
# argument (`elsewhere`), from a copy of this folder.
check_config() {
  local file=${opt[config]%%:*} there
  if [[ $file == /* ]]; then
    [[ ${1-} || -f $file ]] || die "--config: there is no $file: name the recipe's file"
  elif [[ ! -f $ROOT/$file ]]; then
    there=$(cd "$ROOT" && echo configs/*.py)
    die "--config: there is no $file in $ROOT, where the training starts: it has $there"
  fi
}

# Set `arguments` to those of vclip_jax.main. $1 is not empty if the training runs `elsewhere`.
main_arguments() {
  need config workdir
  check_config "${1-}"
  arguments=(--config "${opt[config]}" --workdir "${opt[workdir]}" "${train_args[@]}")
}
