# In and out of the mesh without a restart.
before="$(kubectl -n outside get pod -l app=client -o jsonpath='{.items[0].metadata.uid}')"
annotated() { [[ "$(kubectl -n outside get pod -l app=client -o jsonpath='{.items[0].metadata.annotations.ambient\.istio\.io/redirection}')" == "$1" ]]; }
kubectl label namespace outside istio.io/dataplane-mode=ambient
expect "it is captured" annotated enabled
expect "and reaches the server" get outside/client http://server.mesh:8080/
expect "through a tunnel" tunnelled 'src.identity="spiffe://cluster.local/ns/outside/sa/default"'
kubectl label namespace outside istio.io/dataplane-mode-
expect "it is let go" annotated ""
expect "and reaches the server" get outside/client http://server.mesh:8080/
[[ "$before" == "$(kubectl -n outside get pod -l app=client -o jsonpath='{.items[0].metadata.uid}')" ]]
