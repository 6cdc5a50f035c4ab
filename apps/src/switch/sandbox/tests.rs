use std::fs::{self, File};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixListener;
use std::process::Command;

use rustix::net::{AddressFamily, SocketType};

use super::*;

/// Names the folder for the process that goes into the sandbox.
const INSIDE: &str = "LINECARD_TEST_SANDBOX";

fn port(kind: PortKind) -> PortSpec {
    PortSpec::new("a", kind)
}

fn vdev(device: &str) -> PortSpec {
    port(PortKind::Vdev { device: device.into() })
}

#[test]
fn ports_need_their_folders_and_taps_a_capability() {
    let mut needs = Needs::default();
    let socket =
        |path: &str, client| port(PortKind::VhostUser { path: path.into(), client, mode: None, group: None });
    for spec in [
        socket("/run/a/x.sock", false),
        socket("/run/b/x.sock", true),
        vdev("net_vhost0,iface=/run/c/x.sock,queues=2"),
        vdev("net_null0"),
    ] {
        needs.add(&spec).expect("it can be sandboxed");
    }
    assert!(!needs.taps);
    assert_eq!(needs.folders, ["/run/a", "/run/c"].map(PathBuf::from).into());
    needs.add(&port(PortKind::Tap { name: "lc0".into(), netns: None })).expect("it can be sandboxed");
    assert!(needs.taps);
}

#[test]
fn what_cannot_be_sandboxed_is_refused_in_one_sentence() {
    for (spec, want) in [
        (
            vdev("net_af_packet0,iface=eth0"),
            "port 'a' needs packet sockets, which a switch with --sandbox cannot use",
        ),
        (vdev("net_af_xdp0,iface=eth0"), "port 'a' needs XDP programs"),
        (vdev("net_virtio_pci0,addr=0000:00:04.0"), "port 'a' needs PCI devices"),
        (vdev("net_virtio_user0,path=/dev/vhost-net"), "port 'a' needs device files"),
        (
            port(PortKind::VhostUser { path: "/x.sock".into(), client: false, mode: None, group: None }),
            "/x.sock lies in no folder but the root",
        ),
    ] {
        let problem = Needs::default().add(&spec).expect_err(want).to_string();
        assert!(problem.contains(want) && !problem.contains('\n'), "{problem}");
    }
}

/// Restrictions last as long as their process, so another one goes in.
#[test]
fn the_sandbox_denies_what_it_says_and_nothing_that_is_needed() {
    let folder = std::env::temp_dir().join(format!("linecard-sandbox-{}", std::process::id()));
    fs::create_dir_all(folder.join("open")).expect("a folder");
    fs::write(folder.join("secret"), "of somebody else").expect("a file");
    let inside = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "switch::sandbox::tests::inside", "--ignored", "--nocapture", "--test-threads=1"])
        .env(INSIDE, &folder)
        .output()
        .expect("it runs");
    fs::remove_dir_all(&folder).expect("it goes");
    let text =
        String::from_utf8_lossy(&inside.stdout).into_owned() + &String::from_utf8_lossy(&inside.stderr);
    assert!(inside.status.success() && text.contains("all of it was tried"), "{text}");
}

#[test]
#[ignore = "run by the_sandbox_denies_what_it_says_and_nothing_that_is_needed, in a process that it restricts for good"]
fn inside() {
    let folder = PathBuf::from(std::env::var_os(INSIDE).expect("a folder"));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("an address");
    let (secret, open) = (folder.join("secret"), folder.join("open"));
    let mut needs = Needs::default();
    needs.add_folder_of(&open.join("x.sock")).expect("a folder");
    let sandbox = enter(&needs).expect("a sandbox");
    let has_files = sandbox.files != RulesetStatus::NotEnforced;
    if !has_files {
        linecard_testing::skip("sandbox", "this kernel has no Landlock: files are not restricted");
    }
    // Before the filter, so that it is Landlock that denies.
    if has_files {
        assert_eq!(TcpStream::connect(address).expect_err("no TCP").kind(), ErrorKind::PermissionDenied);
        assert_eq!(
            Command::new("/bin/true").status().expect_err("no programs").kind(),
            ErrorKind::PermissionDenied
        );
        for denied in [
            File::open(&secret).err(),
            fs::write(folder.join("new"), "").err(),
            fs::remove_file(&secret).err(),
            fs::read_dir("/").err(),
        ] {
            assert_eq!(denied.map(|error| error.kind()), Some(ErrorKind::PermissionDenied));
        }
    }
    seal().expect("a filter");
    let capabilities = rustix::thread::capabilities(None).expect("they can be asked for");
    assert!(capabilities.effective.is_empty() && capabilities.permitted.is_empty(), "{capabilities:?}");
    assert!(rustix::thread::no_new_privs().expect("it can be asked for"));
    let denied = Command::new("/bin/true").status().expect_err("no processes");
    assert_eq!(denied.kind(), ErrorKind::PermissionDenied);
    assert_eq!(TcpStream::connect(address).expect_err("no TCP").kind(), ErrorKind::PermissionDenied);
    for (family, kind) in [
        (AddressFamily::PACKET, SocketType::RAW),
        (AddressFamily::INET, SocketType::RAW),
        (AddressFamily::INET6, SocketType::STREAM),
        (AddressFamily::VSOCK, SocketType::STREAM),
    ] {
        let denied = rustix::net::socket(family, kind, None).expect_err("no such socket");
        assert_eq!(denied, rustix::io::Errno::PERM, "{family:?} {kind:?}");
    }
    // And what is needed.
    std::thread::spawn(|| 1).join().expect("threads are made");
    fs::write(open.join("state.new"), "state").expect("a file");
    fs::rename(open.join("state.new"), open.join("state")).expect("a name");
    assert_eq!(fs::read(open.join("state")).expect("it can be read"), b"state");
    UnixListener::bind(open.join("x.sock")).expect("a socket");
    fs::remove_file(open.join("x.sock")).expect("it goes");
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("tunnels are UDP");
    assert!(fs::read_to_string("/proc/meminfo").is_ok_and(|text| text.contains("MemTotal")));
    assert!(listener.local_addr().is_ok());
    println!("all of it was tried");
}
