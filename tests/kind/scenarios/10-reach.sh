# By service, headless service and pod address, from inside and outside of the mesh.
ip="$(kubectl -n mesh get pod -l app=server -o jsonpath='{.items[0].status.podIP}')"
for host in server.mesh headless.mesh "$ip"; do
  expect "a pod of the mesh reaches $host" get mesh/client "http://$host:8080/"
  expect "one outside reaches $host" get outside/client "http://$host:8080/"
done
expect "through a tunnel" tunnelled 'src.identity="spiffe://cluster.local/ns/mesh/sa/default"'
expect "istioctl sees it" bash -c "istioctl ztunnel-config workloads | grep -q 'mesh .*HBONE'"
expect "istiod lists the agents" bash -c "istioctl proxy-status | grep -q 'ztunnel-.*culvert-.*(WADS,WDS)'"
expect "what it sent last has been taken over" bash -c "istioctl proxy-status -v 1 | grep 'ztunnel-' | grep -q 'SYNCED.*SYNCED'"
