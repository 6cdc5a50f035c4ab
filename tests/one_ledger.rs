//! A process has one table of descriptors: frontends and backends in it take what their peers send from one total.

use linecard::prelude::*;
use linecard_lab::wait_until;

#[test]
fn ports_of_both_ends_share_one_total() {
    let (args, _) = EalArgs::parse(["--no-huge", "-m", "32"]).expect("arguments");
    let eal = Eal::new(&args).expect("memory");
    let config = PoolConfig::default().packets(1024);
    let pool = Pool::new(&eal.default_domain(), config).expect("a pool");
    let path = std::env::temp_dir().join(format!("linecard-ledger-{}.sock", std::process::id()));
    let total = linecard::descriptors().resource();
    let alone = total.share();

    let backend =
        linecard::open(&eal, &pool, &format!("net_vhost0,iface={}", path.display())).expect("a backend");
    assert_eq!(total.share(), alone / 2, "one port, and one to come");
    let before = total.used();
    let frontend = linecard::open(&eal, &pool, &format!("net_virtio_user0,path={}", path.display()));
    let frontend = frontend.expect("a frontend");
    assert_eq!(total.share(), alone / 3, "two ports, whichever end they are");
    // Both ends' connection, and what the frontend sent: eventfds of two rings.
    wait_until("both ends are charged", || total.used() >= before + 2 + 4);
    drop(frontend);
    drop(backend);
    wait_until("all is given back", || total.used() == 0);
    assert_eq!(total.share(), alone);
}
