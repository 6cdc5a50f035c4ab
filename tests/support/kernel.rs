//! A guest that runs `linecard testpmd` or `linecard switch` together with its own network stack.

use std::path::Path;

use super::guest::{Guest, Parts, TESTPMD};
use super::{Scratch, on_path, skip};

/// Bytes of each stream.
pub(crate) const STREAM_KIB: usize = 2000;

/// Shell functions: ports over `/dev/vhost-net` in the only testpmd of [`TESTPMD`], and traffic of the
/// guest's stack.
const FUNCTIONS: &str = r#"
single() { # arguments of the one port
  vdev=net_virtio_user0,path=/dev/vhost-net,$1; shift
  pmd -l 0,1 --no-huge -m 32 --vdev $vdev -- -i --forward-mode=icmpecho --total-num-mbufs=4096 "$@"
  printed testpmd && tell start 'icmpecho packet forwarding'
}
as_user() { su user -c "$*"; }
refused() { # arguments of a device that is not to be had
  ip link > /tmp/before
  $AS linecard testpmd -l 0,1 --no-huge -m 32 --vdev "$1" -- --total-num-mbufs=4096 < /dev/null > /tmp/refused 2>&1 && return 1
  ip link > /tmp/after; cmp /tmp/before /tmp/after || return 1
  grep net_virtio_user0 /tmp/refused
}
link() {
  asked=0
  until tell 'show port info 0' 'Link status:' && grep -q "Link status: $1" /tmp/out; do
    sleep 0.1; asked=$((asked+1))
    [ $asked -lt 600 ] || { cat /tmp/out; return 1; }
  done
}
echoes() { # bytes; by whom
  $2 ping -c 3 -i 0.2 -W 30 -s $1 10.0.0.2 > /tmp/ping 2>&1
  grep '3 packets transmitted, 3 packets received' /tmp/ping || { cat /tmp/ping /tmp/out; ip addr; return 1; }
}
datagram() { bash -c 'exec 3<>/dev/udp/10.0.0.2/7; head -c 1200 /dev/urandom > /tmp/sent; cat /tmp/sent >&3; timeout 60 head -c 1200 <&3 > /tmp/got; cmp /tmp/sent /tmp/got'; }
datagrams() { n=0; while [ $n -lt $1 ]; do datagram || return 1; n=$((n+1)); done; }
switch() { # arguments
  linecard switch --lcores 0@0,1@1 --no-huge -m 64 --packets 4096 --socket /tmp/switch.sock --state none "$@" > /tmp/switch 2>&1 & SWITCH=$!
  until_good 'ctl workers' || { cat /tmp/switch; return 1; }
}
ctl() { linecard switch ctl --socket /tmp/switch.sock "$@"; }
end_switch() { kill $SWITCH; wait $SWITCH || { cat /tmp/switch; return 1; }; }
inside() { nsenter -t $OTHER -n "$@"; }
own() { [ "$(readlink /proc/$OTHER/ns/net)" != "$(readlink /proc/$$/ns/net)" ]; }
elsewhere() { unshare -n sleep 100000 & OTHER=$!; until_good own; }
stream() {
  head -c ${KIB}k /dev/urandom > /tmp/sent
  $receiver nc -l -p 5000 -e dd of=/tmp/got bs=64k 2>/dev/null & listener=$!
  until $receiver netstat -tln | grep -q :5000; do sleep 0.1; done
  $sender timeout 100 nc $1 5000 -e dd if=/tmp/sent bs=64k 2>/dev/null
  wait $listener
  cmp /tmp/sent /tmp/got; same=$?; rm -f /tmp/got; return $same
}
"#;

/// Boots a guest with two processors, this program, the tests, and `programs`, given with their packages.
pub(crate) fn with_parts(
    test: &str,
    scratch: &Scratch,
    parts: Parts,
    programs: &[(&str, &str)],
) -> Option<Guest> {
    let mut parts = parts.with_program(Path::new(env!("CARGO_BIN_EXE_linecard")), scratch.path());
    for &(program, package) in programs {
        // Not in the PATH of ordinary users.
        let usual = Path::new("/usr/sbin").join(program);
        let Some(path) = on_path(program).or_else(|| usual.is_file().then_some(usual)) else {
            skip(test, &format!("{program} is not installed (apt-get install {package})"));
            return None;
        };
        // busybox has an `ip` too; this name avoids it.
        let name = if program == "ip" { "i2" } else { program };
        parts = parts.with_program_as(name, &path, scratch.path());
    }
    let parts = parts.with_checks(scratch.path());
    let devices = ["-smp".to_owned(), "2".to_owned()];
    let functions = format!("{TESTPMD}{}", FUNCTIONS.replace("${KIB}", &STREAM_KIB.to_string()));
    Some(Guest::with_shell(&parts, scratch.path(), &functions, &devices))
}
