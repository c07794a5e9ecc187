# By service, headless service and pod address, from inside and outside of the mesh.
ip="$(kubectl -n mesh get pod -l app=server -o jsonpath='{.items[0].status.podIP}')"
for host in server.mesh headless.mesh "$ip"; do
  expect "a pod of the mesh reaches $host" get mesh/client "http://$host:8080/"
  expect "one outside reaches $host" get outside/client "http://$host:8080/"
done
expect "through a tunnel" tunnelled 'src.identity="spiffe://cluster.local/ns/mesh/sa/default"'
expect "istioctl sees it" bash -c "istioctl ztunnel-config workloads | grep -q 'mesh .*HBONE'"
# Each of its nodes has an agent, and what istiod sent last has been taken over there, of both types.
nodes="$(kubectl get nodes -o name | wc -l)"
expect "istiod lists all agents" bash -c "test \$(istioctl proxy-status | grep -c 'ztunnel-.*culvert-.*(WADS,WDS)') = $nodes"
expect "all have taken over what it sent" bash -c "test \$(istioctl proxy-status -v 1 | grep 'ztunnel-' | grep -c 'SYNCED.*SYNCED') = $nodes"
