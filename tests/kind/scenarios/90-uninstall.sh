# What is removed is gone, and pods go on without the mesh.
helm uninstall culvert --namespace istio-system --wait
for node in $(kubectl get nodes -o name); do
  name="${node#node/}"
  expect "$name has no plugin" bash -c "! docker exec $name test -e /opt/cni/bin/culvert-cni"
  expect "$name has no entry" bash -c "! docker exec $name grep -rq culvert-cni /etc/cni/net.d"
done
expect "a pod reaches the server" get mesh/client http://server.mesh:8080/
