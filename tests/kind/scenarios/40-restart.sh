# Agents and the control plane are replaced while a client goes on asking.
kubectl -n mesh exec deployment/client -- sh -c \
  'rm -f /tmp/failed /tmp/enough
  (until test -e /tmp/enough; do
    wget -q -T 3 -O /dev/null http://server.mesh:8080/ || date >> /tmp/failed
    sleep 0.1
  done) >/dev/null 2>&1 &'
kubectl -n istio-system rollout restart daemonset/ztunnel
kubectl -n istio-system rollout status daemonset/ztunnel --timeout 5m
kubectl -n istio-system rollout restart deployment/istiod
kubectl -n istio-system rollout status deployment/istiod --timeout 3m
expect "no request has failed" kubectl -n mesh exec deployment/client -- sh -c 'touch /tmp/enough && ! test -e /tmp/failed'
