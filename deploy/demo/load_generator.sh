#!/usr/bin/env bash
# Calls the gateway again and again for SECONDS: load_generator.sh [SECONDS] [GATEWAY_URL]
# Needs curl only. Exit code 1 when no call succeeded; Ctrl-C ends it with the summary.
set -u

duration=${1:-60}
gateway=${2:-${GATEWAY_URL:-http://localhost:${GATEWAY_PORT:-8080}}}
gateway=${gateway%/}
pause=0.5

if [[ ! $duration =~ ^[0-9]+$ ]]; then
  echo "usage: $0 [SECONDS] [GATEWAY_URL]" >&2
  exit 2
fi

calls=0
errors=0

summary() {
  trap - INT TERM
  echo
  echo "$calls calls, $errors errors, ${SECONDS} s"
  ((calls > errors))
  exit
}
trap summary INT TERM

# call METHOD PATH MAX_SECONDS [BODY]
call() {
  local options=(--silent --output /dev/null --max-time "$3" --request "$1")
  local answer
  if (($# > 3)); then
    options+=(--header 'content-type: application/json' --data "$4")
  fi
  if [[ -n ${GATEWAY_KEY:-} ]]; then
    options+=(--header "authorization: Bearer $GATEWAY_KEY")
  fi
  answer=$(curl "${options[@]}" --write-out '%{http_code} %{time_total}' "$gateway$2")
  calls=$((calls + 1))
  [[ $answer == 2* ]] || errors=$((errors + 1))
  printf '%-5s%-18s%s  %s s\n' "$1" "$2" "${answer% *}" "${answer#* }"
}

SECONDS=0
while ((SECONDS < duration)); do
  call GET /health 5
  call POST /local-inference 30 '{"prompt": "Observability is", "max_length": 8}'
  call GET /stats 5
  sleep "$pause"
done
summary
