# shellcheck shell=bash
# Environment variables with secrets, which must stand on no command line: from a file that nobody
# else may read, or from standard input. Sourced.

# `check_env_file FILE`: in `trouble`, why it is not to be used; nothing if it may be.
check_env_file() {
  trouble=''
  if [[ ! -f $1 || ! -r $1 ]]; then
    trouble='is no file that can be read'
  elif [[ ! -O $1 ]]; then
    trouble='belongs to somebody else'
  elif [[ $(ls -ldL -- "$1") != -r[w-][x-]------[\ .@]* ]]; then
    trouble='may be read by others: chmod 600'
  fi
}

# KEY=VALUE lines from standard input into `secrets`; in `trouble`, the number of a line that is
# none, never what it holds. A value is taken as it stands.
read_env() {
  local line number=0
  trouble='' secrets=()
  while IFS= read -r line || [[ $line ]]; do
    number=$((number + 1))
    [[ $line != '#'* && $line != '' ]] || continue
    if [[ ! $line =~ ^[A-Za-z_][A-Za-z0-9_]*=[^[:cntrl:]]*$ ]]; then
      trouble="line $number is not KEY=VALUE"
    elif [[ $line =~ ^[^=]*=[\"\'] ]]; then
      trouble="line $number: leave out the quotes, a value is taken as it stands"
    else
      secrets+=("$line")
    fi
    [[ ! $trouble ]] || return 1
  done
}
