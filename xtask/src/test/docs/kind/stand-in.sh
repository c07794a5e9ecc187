#!/usr/bin/env bash
# kind, istioctl, helm, kubectl, docker and sleep, by whichever of their names it is called; see kind.rs.
#
# It writes down what it is asked, and answers as a cluster would whose agents do what the scenarios ask for. Of that cluster it keeps
# what they change, as files in $STAND_IN: labelled (the namespace outside is in the mesh), strict, denied, removed, and asked-NAMESPACE
# (somebody there has reached the server through a tunnel). $LIE names what goes wrong. What it does not know is an error and a file,
# unknown.
set -euo pipefail
shopt -s nullglob
cd "$STAND_IN"
program="${0##*/}"
# Nobody has to wait.
[[ "$program" != sleep ]] || exit 0
printf '%s\037' "$program" "$@" >>calls
printf '\036' >>calls

lie() { [[ "$LIE" == "$1" ]]; }

# Whether the pods of a namespace are in the mesh.
captured() {
  [[ ! -e removed ]] && { [[ "$1" == mesh ]] || { [[ -e labelled ]] && ! lie "labels do nothing"; }; }
}

# A request of a pod in a namespace.
request() {
  [[ ! -e strict ]] || captured "$1" || lie "plaintext is let in" || exit 1
  [[ ! -e denied || "$1" != mesh ]] || lie "who is denied is let in" || exit 1
  ! captured "$1" || touch "asked-$1"
}

case "$program $*" in
  "kind create cluster "* | "kind load image-archive "* | "kind delete cluster "*) ;;
  "istioctl install "*) ! lie "istiod does not start" ;;
  "istioctl ztunnel-config workloads") echo "mesh server-1 10.244.1.7 node1 None HBONE" ;;
  "istioctl proxy-status")
    for agent in 1 2; do
      echo "ztunnel-$agent.istio-system Kubernetes istiod-1 culvert-0.1.0 2 (WADS,WDS)"
    done ;;
  "istioctl proxy-status -v 1")
    state=SYNCED
    for agent in 1 2; do
      echo "ztunnel-$agent.istio-system Kubernetes IGNORED IGNORED IGNORED IGNORED IGNORED SYNCED (2m) $state (1m) istiod-1 culvert-0.1.0"
      ! lie "the control plane is not followed" || state=STALE
    done ;;
  "helm upgrade --install culvert "*) rm -f removed ;;
  "helm uninstall culvert "*) touch removed ;;
  "docker exec "*" sh -c ! "*) [[ -e removed ]] && ! lie "something stays behind" ;;
  "kubectl apply -f -")
    case "$(cat)" in
      *"kind: PeerAuthentication"*) touch strict ;;
      *"kind: AuthorizationPolicy"*) touch denied ;;
      *) touch unknown ;;
    esac ;;
  "kubectl apply -f "*) ;;
  "kubectl -n mesh delete authorizationpolicy/nobody peerauthentication/strict "*) rm -f strict denied ;;
  "kubectl -n istio-system delete daemonset/ztunnel "*) touch removed ;;
  "kubectl label namespace outside istio.io/dataplane-mode=ambient") touch labelled ;;
  "kubectl label namespace outside istio.io/dataplane-mode-") rm labelled ;;
  "kubectl get nodes -o name") printf 'node/%s\n' culvert-control-plane culvert-worker ;;
  "kubectl -n "*" get pod "*podIP*) echo 10.244.1.7 ;;
  "kubectl -n "*" get pod "*metadata.uid*) echo 5d1f6a ;;
  "kubectl -n "*" get pod "*redirection*) ! captured "$2" || echo enabled ;;
  "kubectl -n "*" rollout "*) ;;
  "kubectl -n "*" exec deployment/client -- wget "*) request "$2" ;;
  "kubectl -n mesh exec deployment/client -- sh -c "*"test -e /tmp/failed"*) ! lie "a request has failed" ;;
  "kubectl -n mesh exec deployment/client -- sh -c "*) ;;
  "kubectl -n istio-system logs daemonset/ztunnel --all-pods "*)
    for asked in asked-*; do
      lie "tunnels are not used" || echo "src.identity=\"spiffe://cluster.local/ns/${asked#asked-}/sa/default\""
    done ;;
  *)
    echo "$program $*" >>unknown
    exit 2 ;;
esac
