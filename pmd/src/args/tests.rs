use super::*;
use proptest::prelude::*;

fn parse(text: &str) -> DevArgs {
    DevArgs::parse(text).expect(text)
}

fn message<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    result.expect_err("an error").to_string()
}

#[test]
fn names_stand_for_drivers() {
    for (name, driver) in [
        ("net_virtio_user0", "net_virtio_user"),
        ("virtio_user0", "net_virtio_user"),
        ("eth_vhost12", "net_vhost"),
        ("net_af_packet1", "net_af_packet"),
        ("net_null", "net_null"),
    ] {
        let args = parse(name);
        assert_eq!((args.driver(), args.name()), (driver, name));
    }
}

#[test]
fn what_is_no_device_is_refused() {
    for text in ["", ",size=1", "0", "path=/x", "net null0", "/tmp/sock", "-x"] {
        assert!(message(DevArgs::parse(text)).contains("write the driver and a number first"), "{text}");
    }
}

#[test]
fn pieces_without_a_value_or_given_twice_are_refused() {
    assert_eq!(message(DevArgs::parse("net_null0,copy")), "net_null0: 'copy' has no value; write copy=VALUE");
    let twice = message(DevArgs::parse("net_null0,size=1,copy=1,size=2"));
    assert_eq!(twice, "net_null0: 'size' is given twice, as '1' and as '2'; leave one of them out");
}

#[test]
fn files_of_queues_may_be_given_several_times() {
    let args = parse("net_pcap0,rx_pcap=a,tx_pcap=x,rx_pcap=b");
    assert_eq!((args.values("rx_pcap"), args.values("tx_pcap")), (vec!["a", "b"], vec!["x"]));
    assert_eq!(args.values("iface"), [""; 0]);
    args.finish().expect("all asked for");
}

#[test]
fn brackets_keep_a_value_together() {
    let args = parse("net_impair0,on=[net_impair1,on=[net_null0,size=64],rx_loss=1%],seed=7");
    assert_eq!(args.value("on"), Some("net_impair1,on=[net_null0,size=64],rx_loss=1%"));
    assert_eq!(args.value("seed"), Some("7"));
    assert_eq!(parse("net_vhost0,iface=/tmp/a[1]").value("iface"), Some("/tmp/a[1]"));
    let open = message(DevArgs::parse("net_impair0,on=[net_null0,size=64"));
    assert_eq!(
        open,
        "net_impair0: 'on=[net_null0,size=64' opens a bracket that it does not close; write on=[VALUE]"
    );
}

#[test]
fn empty_pieces_and_blanks_do_not_count() {
    let args = parse("net_vhost0, iface=/tmp/a=b ,,queues=2,");
    assert_eq!(args.value("iface"), Some("/tmp/a=b"));
    assert_eq!(args.number("queues", 1..=4_u16).expect("a number"), Some(2));
    args.finish().expect("all asked for");
}

#[test]
fn numbers_have_ranges() {
    for (text, want) in [("1", Some(1)), ("0x10", Some(16)), ("256", Some(256)), ("0x100", Some(256))] {
        let args = parse(&format!("net_x0,n={text}"));
        assert_eq!(args.number("n", 1..=256_u16).expect(text), want);
    }
    for text in ["", "0", "257", "-1", "1k", "0x", "0x+1", "99999999999999999999", "1.5"] {
        let args = parse(&format!("net_x0,n={text}"));
        let want = format!("net_x0: 'n={text}' is not possible; give n a number from 1 to 256");
        assert_eq!(message(args.number("n", 1..=256_u16)), want);
    }
}

#[test]
fn switches_words_and_addresses() {
    let args = parse("net_x0,a=1,b=0,c=yes,mode=fast,mac=02:00:00:00:00:01,group=01:00:5e:00:00:01,bad=1:2");
    assert_eq!((args.flag("a").ok(), args.flag("b").ok()), (Some(Some(true)), Some(Some(false))));
    assert_eq!(args.flag("d").ok(), Some(None));
    assert_eq!(message(args.flag("c")), "net_x0: 'c=yes' is not possible; give c 0 or 1");
    assert_eq!(args.choice("mode", &["slow", "fast"]).ok(), Some(Some("fast")));
    assert_eq!(
        message(args.choice("mode", &["slow"])),
        "net_x0: 'mode=fast' is not possible; give mode one of slow"
    );
    assert_eq!(args.mac("mac").ok(), Some(Some(MacAddr([2, 0, 0, 0, 0, 1]))));
    for key in ["group", "bad"] {
        assert!(message(args.mac(key)).ends_with("a unicast address as in 02:00:00:00:00:01"));
    }
}

#[test]
fn a_required_key_is_asked_for() {
    for text in ["net_vhost0", "net_vhost0,iface="] {
        let args = parse(text);
        assert_eq!(
            message(args.required("iface")),
            "net_vhost0: 'iface' is missing; write net_vhost0,iface=VALUE"
        );
    }
    assert_eq!(
        message(parse("net_vhost0,ifcae=/tmp/s").required("iface")),
        "net_vhost0: unknown argument 'ifcae'; did you mean 'iface'? write net_vhost0,iface=VALUE"
    );
    for text in ["net_vhost0,mac=02:00:00:00:00:01", "net_vhost0,client=1"] {
        assert!(message(parse(text).required("iface")).contains("'iface' is missing"), "{text}");
    }
}

#[test]
fn unknown_keys_are_named_with_the_nearest() {
    let args = parse("net_x0,queue_size=1,ueues=2");
    assert_eq!(message(args.finish()), "net_x0: unknown argument 'queue_size'; known: none");
    let _ = (args.value("queue-size"), args.value("queues"), args.value("queue_size"));
    assert_eq!(
        message(args.finish()),
        "net_x0: unknown argument 'ueues'; did you mean 'queues'? known: queue-size, queues, queue_size"
    );
    let _ = args.value("ueues");
    args.finish().expect("all asked for");
}

#[test]
fn distances() {
    for (a, b, want) in [
        ("", "", 0),
        ("mac", "mac", 0),
        ("MAC", "mac", 0),
        ("no_rx", "no-rx", 0),
        ("abc", "", 3),
        ("kitten", "sitting", 3),
    ] {
        assert_eq!(distance(a, b), want, "{a} {b}");
    }
}

proptest! {
    #[test]
    fn never_panics(text: String, key in "[a-z=,]{0,6}") {
        for text in [text.clone(), format!("net_x0,{key}"), format!("net_x0,{text}")] {
            if let Ok(args) = DevArgs::parse(&text) {
                let _ = (args.number("n", 0..=u8::MAX), args.flag("a"), args.mac("m"), args.finish());
            }
        }
    }

    #[test]
    fn what_was_written_is_read(pairs in prop::collection::btree_map("[a-z_]{1,8}", "[a-z0-9/=.]{0,12}", 0..6)) {
        let text = pairs.iter().fold("net_x0".to_owned(), |text, (key, value)| format!("{text},{key}={value}"));
        let args = DevArgs::parse(&text).expect("well formed");
        for (key, value) in &pairs {
            prop_assert_eq!(args.value(key.clone().leak()), Some(value.as_str()));
        }
        prop_assert!(args.finish().is_ok());
    }
}
