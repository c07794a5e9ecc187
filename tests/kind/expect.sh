# What scenarios are written in.

# Runs a command until it succeeds, for at most a minute.
expect() {
  local what="$1"
  shift
  for _ in $(seq 60); do
    if "$@" >/tmp/expect.out 2>&1; then
      echo "   ok: $what"
      return 0
    fi
    sleep 1
  done
  echo "   FAILED: $what"
  cat /tmp/expect.out
  return 1
}

# Asks the server from a pod: from NAMESPACE/DEPLOYMENT URL.
get() {
  kubectl -n "${1%/*}" exec "deployment/${1#*/}" -- wget -q -T 3 -O - "$2"
}

refused() {
  ! get "$@"
}

# Whether the last answers came through a tunnel, by the access log of any agent.
tunnelled() {
  kubectl -n istio-system logs daemonset/ztunnel --all-pods --since 10s | grep -q "$1"
}
