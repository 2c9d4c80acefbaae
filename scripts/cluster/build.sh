#!/usr/bin/env bash
# Builds what a cluster is made of and is not there yet: Kubernetes, CoreDNS and kube-network-policies from their Go modules;
# the types of operators; containerd, runc, etcd and the CNI plugins from Debian's packages; the images of the grid. About 20 minutes of CPU the first time.
# BINARIES is a directory with the grid's programs, where they are built already: with Kafka, as the images have it.
set -euo pipefail
LAB=$1
here=$(cd "$(dirname "$0")" && pwd)
KUBERNETES=1.34.4
COREDNS=1.12.4
POLICIES=0.8.0
staging="api apiextensions-apiserver apimachinery apiserver cli-runtime client-go cloud-provider cluster-bootstrap code-generator
component-base component-helpers controller-manager cri-api cri-client csi-translation-lib dynamic-resource-allocation endpointslice
externaljwt kms kube-aggregator kube-controller-manager kube-proxy kube-scheduler kubectl kubelet metrics mount-utils
pod-security-admission sample-apiserver"

step() { printf '== %s\n' "$*"; }

packages() {
  local missing=()
  local name
  for name in iptables conntrack gcc g++ make pkg-config openssl curl psql:postgresql ip:iproute2; do
    command -v "${name%:*}" >/dev/null || missing+=("${name#*:}")
  done
  [ -e /usr/include/openssl/ssl.h ] || missing+=(libssl-dev)
  if [ "${#missing[@]}" -gt 0 ]; then
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "${missing[@]}"
  fi
  [ -x "$LAB/root/usr/bin/containerd" ] && return
  step 'packages of Debian'
  mkdir -p "$LAB/debs" "$LAB/root"
  (cd "$LAB/debs" && apt-get download -qq containerd runc containernetworking-plugins etcd-server etcd-client)
  # Unpacked, so that nothing of them is started.
  for package in "$LAB"/debs/*.deb; do dpkg -x "$package" "$LAB/root"; done
}

kubernetes() {
  local programs="kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl" version=v$KUBERNETES
  local source=$LAB/go/kubernetes minor=${KUBERNETES%.*} flags name
  mkdir -p "$source"
  if ! [ -f "$source/go.sum" ]; then
    {
      printf 'module cluster\ngo 1.24.0\ngodebug default=go1.24\nrequire k8s.io/kubernetes %s\nreplace (\n' "$version"
      for name in $staging; do printf '  k8s.io/%s => k8s.io/%s v0.%s\n' "$name" "$name" "${KUBERNETES#1.}"; done
      printf ')\n'
    } >"$source/go.mod"
    {
      printf '//go:build tools\npackage cluster\nimport (\n'
      for name in $programs; do printf '  _ "k8s.io/kubernetes/cmd/%s"\n' "$name"; done
      printf ')\n'
    } >"$source/tools.go"
    (cd "$source" && go mod tidy)
  fi
  flags="-s -w"
  for name in "gitVersion=$version" gitMajor=1 "gitMinor=${minor#1.}" gitTreeState=archive; do
    flags+=" -X k8s.io/component-base/version.$name"
  done
  local missing=()
  for name in $programs; do
    [ -x "$LAB/bin/$name" ] || missing+=("k8s.io/kubernetes/cmd/$name")
  done
  [ "${#missing[@]}" -eq 0 ] && return
  step "Kubernetes $version"
  # In one go, since all of them share most packages.
  (cd "$source" && CGO_ENABLED=0 go build -trimpath -ldflags "$flags" -o "$LAB/bin/" "${missing[@]}")
}

coredns() {
  local source=$LAB/go/coredns plugin plugins="errors health ready loadbalance cache kubernetes"
  [ -f "$LAB/images/coredns.tar" ] && return
  step "CoreDNS $COREDNS"
  mkdir -p "$source"
  printf 'module dns\ngo 1.24.0\nrequire github.com/coredns/coredns v%s\n' "$COREDNS" >"$source/go.mod"
  {
    printf 'package main\nimport (\n  "github.com/coredns/coredns/core/dnsserver"\n  "github.com/coredns/coredns/coremain"\n'
    for plugin in $plugins; do printf '  _ "github.com/coredns/coredns/plugin/%s"\n' "$plugin"; done
    printf ')\nfunc main() {\n  dnsserver.Directives = []string{'
    for plugin in $plugins; do printf '"%s",' "$plugin"; done
    printf '}\n  coremain.Run()\n}\n'
  } >"$source/main.go"
  (cd "$source" && go mod tidy && CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o "$LAB/images/coredns" .)
  python3 "$here/image.py" "$LAB/images/coredns.tar" docker.io/library/coredns:1 0:0 /coredns -- "$LAB/images/coredns=/coredns"
}

policies() {
  local source=$LAB/go/policies package=sigs.k8s.io/kube-network-policies/cmd
  [ -x "$LAB/bin/kube-network-policies" ] && return
  step "kube-network-policies $POLICIES"
  mkdir -p "$source"
  printf 'module policies\ngo 1.24.0\nrequire sigs.k8s.io/kube-network-policies v%s\n' "$POLICIES" >"$source/go.mod"
  printf '//go:build tools\npackage policies\nimport _ "%s"\n' "$package" >"$source/tools.go"
  (cd "$source" && go mod tidy && CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o "$LAB/bin/kube-network-policies" "$package")
}

# The types of the operators whose objects k8s/ has. Nothing acts on them.
definitions() {
  local of
  "$here/../fetch-crds.sh"
  for of in keda cert-manager prometheus-operator; do cp "$here/../../target/tools/crds/$of/"*.yaml "$LAB/crds/"; done
}

pause() {
  [ -f "$LAB/images/pause.tar" ] && return
  step 'the container that holds a pod together'
  gcc -O2 -static -o "$LAB/images/pause" "$here/pause.c"
  python3 "$here/image.py" "$LAB/images/pause.tar" docker.io/library/pause:1 65535:65535 /pause -- "$LAB/images/pause=/pause"
}

grid() {
  local service tag binaries
  step 'images of the grid'
  binaries=${BINARIES:-$here/../../target/release}
  [ -n "${BINARIES:-}" ] ||
    (cd "$here/../.." && cargo build --release --locked --package coordinator --package worker --features coordinator/kafka --bins)
  printf 'root:x:0:0::/:/bin/false\nnonroot:x:65532:65532::/:/bin/false\n' >"$LAB/images/passwd"
  for service in coordinator worker; do
    cp "$binaries/divvy-$service" "$LAB/images/divvy-$service"
    objcopy --strip-debug "$LAB/images/divvy-$service"
    local libraries=() library
    while read -r library; do libraries+=("$library=$library"); done < <(ldd "$LAB/images/divvy-$service" | grep --only-matching '/lib[^ ]*')
    # The second tag is the same program: an upgrade to it is a change of nothing but the image.
    for tag in 0.1.0 next; do
      python3 "$here/image.py" "$LAB/images/$service-$tag.tar" "docker.io/library/divvy-$service:$tag" 65532:65532 \
        "/usr/local/bin/divvy-$service" -- "$LAB/images/divvy-$service=/usr/local/bin/divvy-$service" \
        "${libraries[@]}" "$LAB/images/passwd=/etc/passwd" \
        DIR=/var/lib/divvy:65532
    done
  done
}

# The Python of Debian with the package of these sources and a module with a named task, for the grid `components` alone.
python_worker() {
  local version site file files=() directory=$LAB/images/python
  [[ " ${GRIDS:-} " = *" components "* ]] || return 0
  step 'image of the Python workers'
  if ! /usr/bin/python3 -c 'import ensurepip' 2>/dev/null; then
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends python3-venv
  fi
  version=$(/usr/bin/python3 -c 'import sys; print(f"{sys.version_info.major}.{sys.version_info.minor}")')
  site=$directory/lib/python$version/site-packages
  /usr/bin/python3 -m venv --clear "$directory"
  "$directory/bin/pip" install --quiet --disable-pip-version-check "$here/../../sdk/python[executor]"
  printf 'import divvy\n\n\n@divvy.task("double")\ndef double(value):\n    return 2 * value\n' >"$site/lab_tasks.py"
  # As pip writes it: processes of slots import the program once more, under another name.
  printf '#!/usr/bin/python3\nfrom divvy.worker.cli import main\n\nif __name__ == "__main__":\n    raise SystemExit(main())\n' \
    >"$directory/divvy-python-worker"
  files=("/usr/bin/python3=/usr/bin/python3" "$directory/divvy-python-worker=/usr/local/bin/divvy-python-worker"
    "$LAB/images/passwd=/etc/passwd")
  while read -r file; do files+=("$file=$file"); done < <(
    find -L "/usr/lib/python$version" -type f ! -path '*/__pycache__/*' ! -path '*/test/*' ! -path '*/dist-packages/*'
    ldd /usr/bin/python3 "/usr/lib/python$version"/lib-dynload/*.so | grep --only-matching '/lib[^ ]*' | grep --invert-match ':$' | sort --unique)
  while read -r file; do files+=("$site/$file=/usr/local/lib/python$version/dist-packages/$file"); done < <(
    cd "$site" && find divvy cloudpickle lab_tasks.py -type f ! -path '*/__pycache__/*' &&
      find . -path './divvy-*' -type f -printf '%P\n')
  python3 "$here/image.py" "$LAB/images/python-worker-0.1.0.tar" docker.io/library/divvy-python-worker:0.1.0 65532:65532 \
    /usr/local/bin/divvy-python-worker -- "${files[@]}"
}

mkdir -p "$LAB/bin" "$LAB/crds" "$LAB/images"
packages
kubernetes
definitions
coredns
policies
pause
grid
python_worker
