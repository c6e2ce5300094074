# shellcheck shell=bash
# Read environment variables with secrets from a private file or from standard input. Secrets must
# not appear on a command line. Sourced.

# `check_env_file FILE`: set `trouble` to the reason against using the file, or to nothing.
check_env_file() {
  trouble=''
  if [[ ! -f $1 || ! -r $1 ]]; then
    trouble='is not a readable file'
  elif [[ ! -O $1 ]]; then
    trouble='belongs to another user'
  elif [[ $(ls -ldL -- "$1") != -r[w-][x-]------[\ .@]* ]]; then
    trouble='is readable by others: chmod 600'
  fi
}

# Read KEY=VALUE lines from standard input into `secrets`. If a line is wrong, set `trouble` to its
# number, never to its content. Values are taken literally.
read_env() {
  local line number=0
  trouble='' secrets=()
  while IFS= read -r line || [[ $line ]]; do
    number=$((number + 1))
    [[ $line != '#'* && $line != '' ]] || continue
    if [[ ! $line =~ ^[A-Za-z_][A-Za-z0-9_]*=[^[:cntrl:]]*$ ]]; then
      trouble="line $number is not KEY=VALUE"
    elif [[ $line =~ ^[^=]*=[\"\'] ]]; then
      trouble="line $number: leave out the quotes, values are taken literally"
    else
      secrets+=("$line")
    fi
    [[ ! $trouble ]] || return 1
  done
}
