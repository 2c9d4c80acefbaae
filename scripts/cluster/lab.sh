#!/usr/bin/env bash
# A cluster of three nodes on one machine, in network namespaces of its own, with a load balancer, a PostgreSQL and enforced
# network policies: lab.sh LAB up | down | node N | lose N | inside N COMMAND… | balance PORT | kafka | collector | adapter |
# version | k …
#
# LAB is the absolute path of the directory that build.sh has filled. Nothing outside it and /sys/fs/cgroup is changed.
set -euo pipefail
LAB=$1
command=$2
shift 2
here=$(cd "$(dirname "$0")" && pwd)
bin=$LAB/bin root=$LAB/root run=$LAB/run pki=$LAB/run/pki
nodes="1 2 3"
hierarchies="cpu cpuacct cpuset memory devices freezer blkio pids systemd"
outside="balancer postgres kafka collector adapter"
control_plane="kube-scheduler kube-controller-manager kube-apiserver etcd"

# start NAME COMMAND…
start() {
  local name=$1
  shift
  setsid nohup "$@" >"$run/$name.log" 2>&1 </dev/null &
  echo $! >"$run/$name.pid"
}

# until_true SECONDS WHAT COMMAND…
until_true() {
  local deadline=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$deadline" ] || { echo "not in time: $what" >&2; return 1; }
    sleep 0.3
  done
}

in_control() { nsenter --net=/run/netns/kc "$@"; }

k() { in_control env KUBECONFIG="$run/kubeconfig" "$bin/kubectl" "$@"; }

network() {
  local n m
  ip netns add kc
  ip -n kc link set lo up
  ip -n kc link add br0 type bridge
  ip -n kc addr add 172.30.0.1/24 dev br0
  ip -n kc link set br0 up
  for n in $nodes; do
    ip netns add "kn$n"
    ip -n "kn$n" link set lo up
    ip -n kc link add "v$n" type veth peer name eth0 netns "kn$n"
    ip -n kc link set "v$n" master br0 up
    ip -n "kn$n" addr add "172.30.0.1$n/24" dev eth0
    ip -n "kn$n" link set eth0 up
    ip -n "kn$n" route add default via 172.30.0.1
    ip -n kc route add "10.244.$n.0/24" via "172.30.0.1$n"
    for m in $nodes; do
      [ "$m" = "$n" ] || ip -n "kn$n" route add "10.244.$m.0/24" via "172.30.0.1$m"
    done
    nsenter --net="/run/netns/kn$n" sh -c \
      'echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/bridge/bridge-nf-call-iptables'
    # In `mangle`, so that kube-proxy's rules follow once a policy has let a connection through.
    for m in --source --destination; do
      nsenter --net="/run/netns/kn$n" iptables --table mangle --append FORWARD --match conntrack --ctstate NEW \
        "$m" 10.244.0.0/16 --jump NFQUEUE --queue-num 100
    done
    ip -n kc nexthop add id "$n" via "172.30.0.1$n" dev br0
  done
  # The load balancer's address. A connection stays at its node when others come or go.
  ip -n kc nexthop add id 10 group "${nodes// //}" type resilient buckets 64 idle_timer 2 unbalanced_timer 0
  ip -n kc route add 172.30.0.100/32 nhid 10
  in_control sh -c 'echo 1 >/proc/sys/net/ipv4/fib_multipath_hash_policy'
  in_control sh -c 'echo 0 >/proc/sys/net/ipv4/conf/all/send_redirects; echo 0 >/proc/sys/net/ipv4/conf/all/accept_redirects'
}

# certificate NAME SUBJECT EXTENSIONS
certificate() {
  openssl req -newkey rsa:2048 -nodes -keyout "$pki/$1.key" -out "$pki/$1.csr" -subj "$2" 2>/dev/null
  openssl x509 -req -in "$pki/$1.csr" -CA "$pki/ca.crt" -CAkey "$pki/ca.key" -CAcreateserial -days 30 -out "$pki/$1.crt" \
    -extfile <(printf '%b' "$3") 2>/dev/null
}

certificates() {
  mkdir -p "$pki"
  openssl req -x509 -newkey rsa:2048 -nodes -keyout "$pki/ca.key" -out "$pki/ca.crt" -days 30 -subj /CN=lab-ca 2>/dev/null
  openssl genrsa -out "$pki/sa.key" 2048 2>/dev/null
  openssl rsa -in "$pki/sa.key" -pubout -out "$pki/sa.pub" 2>/dev/null
  local names=DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local
  certificate apiserver /CN=kube-apiserver \
    "subjectAltName=$names,IP:10.96.0.1,IP:172.30.0.1,IP:127.0.0.1\nextendedKeyUsage=serverAuth"
  certificate admin /O=system:masters/CN=admin extendedKeyUsage=clientAuth
  cat >"$run/kubeconfig" <<K
apiVersion: v1
kind: Config
clusters: [{name: lab, cluster: {server: "https://172.30.0.1:6443", certificate-authority: $pki/ca.crt}}]
users: [{name: admin, user: {client-certificate: $pki/admin.crt, client-key: $pki/admin.key}}]
contexts: [{name: lab, context: {cluster: lab, user: admin}}]
current-context: lab
K
}

control() {
  start etcd nsenter --net=/run/netns/kc "$root/usr/bin/etcd" --data-dir "$run/etcd" --unsafe-no-fsync \
    --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
    --listen-peer-urls http://127.0.0.1:2380
  start kube-apiserver nsenter --net=/run/netns/kc "$bin/kube-apiserver" --etcd-servers=http://127.0.0.1:2379 \
    --advertise-address=172.30.0.1 --service-cluster-ip-range=10.96.0.0/16 --authorization-mode=Node,RBAC \
    --client-ca-file="$pki/ca.crt" --tls-cert-file="$pki/apiserver.crt" --tls-private-key-file="$pki/apiserver.key" \
    --service-account-issuer=https://kubernetes.default.svc --service-account-key-file="$pki/sa.pub" \
    --service-account-signing-key-file="$pki/sa.key" --kubelet-client-certificate="$pki/admin.crt" \
    --kubelet-client-key="$pki/admin.key" --kubelet-preferred-address-types=InternalIP --enable-aggregator-routing
  until_true 120 'the API server is ready' k get --raw /readyz
  k apply -f "$here/manifests/policies.yaml" >/dev/null
  mkdir -p "$run/identity"
  cp "$pki/ca.crt" "$run/identity/ca.crt"
  k -n kube-system create token kube-network-policies --duration=24h >"$run/identity/token"
  echo -n kube-system >"$run/identity/namespace"
  start kube-controller-manager nsenter --net=/run/netns/kc "$bin/kube-controller-manager" \
    --kubeconfig="$run/kubeconfig" --leader-elect=false --service-account-private-key-file="$pki/sa.key" \
    --root-ca-file="$pki/ca.crt" --use-service-account-credentials=false
  start kube-scheduler nsenter --net=/run/netns/kc "$bin/kube-scheduler" --kubeconfig="$run/kubeconfig" --leader-elect=false
}

# The files of a node, below its directory.
configure_node() {
  local n=$1 d=$run/n$1
  cat >"$d/cni/10-lab.conflist" <<K
{"cniVersion":"1.0.0","name":"lab","plugins":[
 {"type":"bridge","bridge":"cni0","isGateway":true,"ipMasq":false,"hairpinMode":true,
  "ipam":{"type":"host-local","ranges":[[{"subnet":"10.244.$n.0/24"}]],"routes":[{"dst":"0.0.0.0/0"}]}},
 {"type":"portmap","capabilities":{"portMappings":true}}]}
K
  cat >"$d/containerd.toml" <<K
version = 2
root = "$d/containerd"
state = "$d/containerd-run"
oom_score = 0
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs"]
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "docker.io/library/pause:1"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "$root/usr/lib/cni"
    conf_dir = "$d/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        BinaryName = "$root/usr/sbin/runc"
        SystemdCgroup = false
K
  cat >"$d/kubelet.yaml" <<K
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: false}, x509: {clientCAFile: $pki/ca.crt}}
authorization: {mode: AlwaysAllow}
clusterDNS: [10.96.0.10]
clusterDomain: cluster.local
cgroupDriver: cgroupfs
cgroupRoot: /divvy-lab-n$n
failCgroupV1: false
failSwapOn: false
oomScoreAdj: 0
resolvConf: $d/resolv.conf
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
evictionHard: {memory.available: "100Mi"}
imageGCHighThresholdPercent: 100
K
  : >"$d/resolv.conf"
  cat >"$d/proxy.yaml" <<K
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: iptables
clusterCIDR: 10.244.0.0/16
hostnameOverride: n$n
clientConnection: {kubeconfig: $run/kubeconfig}
conntrack: {maxPerCore: 0, min: 0}
oomScoreAdj: 0
K
}

node() {
  local n=$1 d=$run/n$1 h init
  mkdir -p "$d"/{kubelet,cni,cni-state,pod-logs,container-logs,containerd,containerd-run,settings}
  mkdir -p /var/run/secrets/kubernetes.io/serviceaccount
  mkdir -p /var/lib/kubelet /var/lib/cni /var/log/pods /var/log/containers /run/containerd
  for h in $hierarchies; do mkdir -p "/sys/fs/cgroup/$h/divvy-lab-n$n"; done
  for h in cpuset.cpus cpuset.mems; do
    cat "/sys/fs/cgroup/cpuset/$h" >"/sys/fs/cgroup/cpuset/divvy-lab-n$n/$h"
  done
  configure_node "$n"
  # Kubelet wants these settings of the kernel: it finds them so, and the machine's own stay.
  local settings="vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1
    kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000"
  for h in $settings; do echo "${h#*=}" >"$d/settings/$(basename "${h%=*}")"; done
  # The first process of the node: with it all its pods end.
  start "n$n-init" nsenter --net="/run/netns/kn$n" unshare --mount --uts --ipc --pid --fork --kill-child \
    --propagation private --mount-proc "$LAB/images/pause"
  until_true 10 "node $n has a first process" pgrep -P "$(cat "$run/n$n-init.pid")"
  init=$(pgrep -P "$(cat "$run/n$n-init.pid")")
  echo "$init" >"$run/n$n-init.child"
  # Not `ip netns exec`, which lays a new /sys over the cgroups.
  local inside="nsenter --target $init --mount --uts --ipc --pid --net"
  $inside bash -euc "
    hostname n$n
    mount --make-rshared /
    mount --bind $d/kubelet /var/lib/kubelet
    mount --bind $d/cni-state /var/lib/cni
    mount --bind $d/pod-logs /var/log/pods
    mount --bind $d/container-logs /var/log/containers
    mount --bind $d/containerd-run /run/containerd
    mount --bind $run/identity /var/run/secrets/kubernetes.io/serviceaccount
    for setting in $(printf '%s ' $settings); do
      mount --bind $d/settings/\$(basename \${setting%=*}) /proc/sys/\${setting%=*}
    done"
  # A socket that is left from before would let kubelet start too soon, and exit.
  rm -f "$d/containerd-run/containerd.sock"
  start "n$n-containerd" $inside env PATH="$root/usr/bin:$root/usr/sbin:/usr/sbin:/usr/bin:/sbin:/bin" \
    "$root/usr/bin/containerd" --config "$d/containerd.toml"
  until_true 20 "containerd of node $n listens" test -S "$d/containerd-run/containerd.sock"
  for h in "$LAB"/images/*.tar; do
    "$root/usr/bin/ctr" --address "$d/containerd-run/containerd.sock" --namespace k8s.io images import "$h" >/dev/null
  done
  start "n$n-policies" $inside env KUBERNETES_SERVICE_HOST=172.30.0.1 KUBERNETES_SERVICE_PORT=6443 \
    "$bin/kube-network-policies" --hostname-override "n$n" --disable-nri
  start "n$n-proxy" $inside "$bin/kube-proxy" --config "$d/proxy.yaml"
  start "n$n-kubelet" $inside "$bin/kubelet" --config "$d/kubelet.yaml" --kubeconfig "$run/kubeconfig" \
    --hostname-override "n$n" --node-ip "172.30.0.1$n" --node-labels "topology.kubernetes.io/zone=z$n"
}

node_is_ready() { k get node "n$1" --no-headers | grep -q ' Ready'; }

# The load balancer finds out by itself.
lose() { kill -KILL "$(cat "$run/n$1-init.child")"; }

inside() {
  local n=$1
  shift
  nsenter --target "$(cat "$run/n$n-init.child")" --net "$@"
}

# The port where the load balancer asks nodes whether they take connections.
balance() { echo "$1" >"$run/health-port"; }

version() { k version --output=json 2>/dev/null | python3 -c 'import json, sys; print(json.load(sys.stdin)["serverVersion"]["gitVersion"])'; }

# A PostgreSQL beside the cluster.
database() {
  local programs as="setpriv --reuid=nobody --regid=nogroup --clear-groups" directory=$run/postgres
  programs=$(echo /usr/lib/postgresql/*/bin)
  mkdir -p "$directory"
  echo divvy >"$directory/password"
  chown -R nobody:nogroup "$directory"
  (cd "$directory" && $as "$programs/initdb" -D data -U divvy -A scram-sha-256 --pwfile=password --no-sync >/dev/null)
  echo 'host all divvy 0.0.0.0/0 scram-sha-256' >>"$directory/data/pg_hba.conf"
  start postgres nsenter --net=/run/netns/kc $as "$programs/postgres" -D "$directory/data" -c listen_addresses=172.30.0.1 \
    -c "unix_socket_directories=$directory"
  until_true 30 'the database answers' in_control env PGPASSWORD=divvy \
    psql -h 172.30.0.1 -U divvy postgres -c 'CREATE DATABASE divvy'
}

# A broker of Kafka beside the cluster; scripts/kafka/fetch.sh has fetched it.
kafka() {
  ! in_control kcat -b 172.30.0.1:9092 -L -m 2 >/dev/null 2>&1 || return 0
  start kafka nsenter --net=/run/netns/kc "$here/../kafka/broker.sh" 9092 "$run/kafka" 172.30.0.1
  until_true 120 'the broker answers' in_control kcat -b 172.30.0.1:9092 -L -m 2
}

# What takes spans beside the cluster.
collector() {
  : >"$run/spans"
  ! in_control curl --silent --fail --data-binary '' http://172.30.0.1:4318/v1/traces >/dev/null || return 0
  start collector nsenter --net=/run/netns/kc "$here/collector.py" 172.30.0.1 4318 "$run/spans"
  until_true 20 'the collector answers' in_control curl --silent --fail --data-binary '' http://172.30.0.1:4318/v1/traces
}

# What gives the autoscaler the number in the file `wanted`, by the API server.
adapter() {
  local question=/apis/external.metrics.k8s.io/v1beta1
  k apply -f "$here/manifests/external-metrics.yaml" >/dev/null
  ! k get --raw "$question" >/dev/null 2>&1 || return 0
  echo 0 >"$run/wanted"
  start adapter nsenter --net=/run/netns/kc "$here/adapter.py" 172.30.0.1 6444 "$pki/apiserver.crt" "$pki/apiserver.key" "$run/wanted"
  until_true 120 'the API server has external metrics' k get --raw "$question"
}

up() {
  mkdir -p "$run/volume" "$run/results"
  network
  certificates
  control
  local n
  for n in $nodes; do node "$n"; done
  for n in $nodes; do until_true 120 "node $n is ready" node_is_ready "$n"; done
  k apply --server-side -f "$LAB/crds" >/dev/null
  k wait --for=condition=Established crd --all --timeout=60s >/dev/null
  k apply -f "$here/manifests/dns.yaml" >/dev/null
  sed "s#LAB/#$LAB/#" "$here/manifests/storage.yaml" | k apply -f - >/dev/null
  k -n kube-system rollout status deployment/coredns --timeout=120s >/dev/null
  balance 10256
  start balancer nsenter --net=/run/netns/kc "$here/balancer.sh" "$run/health-port" $nodes
  database
}

# end SIGNAL FILE: ends the process whose number is in the file, unless that number is another program's, as after a restart of
# the machine. The command line of each process of the lab names its directory.
end() {
  local number
  number=$(cat "$2" 2>/dev/null) || return 0
  if grep --quiet --text --fixed-strings "$LAB/" "/proc/$number/cmdline" 2>/dev/null; then
    kill "-$1" "$number" 2>/dev/null || true
  fi
}

down() {
  local file name n h
  for file in "$run"/n*-init.child; do end KILL "$file"; done
  for name in $outside $control_plane; do end TERM "$run/$name.pid"; done
  sleep 2
  for name in $outside $control_plane; do end KILL "$run/$name.pid"; done
  for n in c n1 n2 n3; do ip netns del "k$n" 2>/dev/null || true; done
  for h in $hierarchies unified; do
    for n in $nodes; do
      [ ! -d "/sys/fs/cgroup/$h/divvy-lab-n$n" ] ||
        find "/sys/fs/cgroup/$h/divvy-lab-n$n" -depth -type d -exec rmdir {} + 2>/dev/null || true
    done
  done
  rm -rf "$run"
}

"$command" "$@"
