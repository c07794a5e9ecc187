# What is removed is gone by itself, and pods go on without the mesh; installed again, they come back into it.
annotated() { [[ "$(kubectl -n mesh get pod -l app=client -o jsonpath='{.items[0].metadata.annotations.ambient\.istio\.io/redirection}')" == "$1" ]]; }
kubectl -n istio-system delete daemonset/ztunnel --cascade=foreground --timeout 5m
helm uninstall culvert --namespace istio-system --wait
for node in $(kubectl get nodes -o name); do
  name="${node#node/}"
  expect "$name has no plugin" docker exec "$name" sh -c "! test -e /opt/cni/bin/culvert-cni"
  expect "$name has no entry" docker exec "$name" sh -c "! grep -rq culvert-cni /etc/cni/net.d"
  expect "$name has nothing pinned" docker exec "$name" sh -c "! test -e /sys/fs/bpf/culvert/v1"
done
expect "no pod is said to be captured" annotated ""
expect "a pod reaches the server" get mesh/client http://server.mesh:8080/
helm upgrade --install culvert deploy/helm/culvert --namespace istio-system \
  --set image=localhost/culvert:0.1.0 --set imagePullPolicy=Never --wait --timeout 5m
expect "it is captured again" annotated enabled
expect "and reaches the server" get mesh/client http://server.mesh:8080/
expect "through a tunnel" tunnelled 'src.identity="spiffe://cluster.local/ns/mesh/sa/default"'
