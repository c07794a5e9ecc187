# STRICT, then who may call whom. Whatever comes of it, the next scenario finds neither.
clear_policies() { kubectl -n mesh delete authorizationpolicy/nobody peerauthentication/strict --ignore-not-found; }
trap clear_policies EXIT
kubectl apply -f - <<YAML
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: { name: strict, namespace: mesh }
spec: { mtls: { mode: STRICT } }
YAML
expect "plaintext is refused" refused outside/client http://server.mesh:8080/
expect "the mesh is not" get mesh/client http://server.mesh:8080/
kubectl apply -f - <<YAML
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: nobody, namespace: mesh }
spec: { action: DENY, rules: [{ from: [{ source: { namespaces: [mesh] } }] }] }
YAML
expect "who is denied is refused" refused mesh/client http://server.mesh:8080/
clear_policies
expect "and served again" get mesh/client http://server.mesh:8080/
