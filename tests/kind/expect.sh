# What scenarios are written in.

# Runs a command until it succeeds, 60 times at most and a second apart.
expect() {
  local what="$1" said
  shift
  for _ in $(seq 60); do
    if said="$("$@" 2>&1)"; then
      echo "   ok: $what"
      return 0
    fi
    sleep 1
  done
  echo "   FAILED: $what"
  echo "$said"
  return 1
}

# Asks the server from a pod: from NAMESPACE/DEPLOYMENT URL.
get() {
  kubectl -n "${1%/*}" exec "deployment/${1#*/}" -- wget -q -T 3 -O - "$2"
}

refused() {
  ! get "$@"
}

# Whether the last answers came through a tunnel, by the access log of any agent. All of it is read: kubectl would fail if nobody did.
tunnelled() {
  kubectl -n istio-system logs daemonset/ztunnel --all-pods --since 10s | grep "$1" >/dev/null
}
