use super::*;
use std::io::pipe;

fn record(key: &str) -> Record {
    Record::Port(PortRecord {
        id: 3,
        spec: serde_json::json!({ "key": key }),
        kept: false,
        open: true,
        handed: true,
        workers: vec![0],
    })
}

fn place(free: &Arc<Free>) -> (Place, OwnedFd) {
    let ends = Ends::new().expect("sockets");
    let held = ends.held.try_clone().expect("a descriptor");
    (Place::new(ends, &record("a"), free).expect("a place"), held)
}

fn found(held: &OwnedFd) -> Kept {
    let mut kept = Kept::default();
    kept.add(held.as_fd());
    kept
}

#[test]
fn what_was_kept_last_is_found_once_and_its_place_serves_again() {
    let free = Arc::<Free>::default();
    let (place, held) = place(&free);
    assert!(found(&held).ports.is_empty() && found(&held).unfit.is_empty(), "nothing is there yet");
    let (reader, writer) = pipe().expect("a pipe");
    for count in [0, 1, 249, 250, 251, 1300] {
        let fds = vec![writer.as_fd(); count];
        place.keep(b"earlier", &fds).expect("it is kept");
        let earlier = place.keep(&[7; 1000], &fds).expect("it is kept");
        assert_eq!(earlier.len(), count + 1, "and the file that says whether it counts");
        place.settle().expect("a file");
        let kept = found(&held);
        let [port] = kept.ports.as_slice() else { panic!("{kept:?}") };
        assert_eq!((port.record.id, port.handed.descriptors.len()), (3, count));
        assert_eq!(port.handed.state, [7; 1000]);
        assert!(found(&held).ports.is_empty(), "it was read");
    }
    // What is kept keeps what it refers to, until it is forgotten.
    place.keep(b"", &[writer.as_fd()]).expect("it is kept");
    drop(writer);
    let is_open = || {
        rustix::io::ioctl_fionread(&reader).is_ok() && {
            let mut wait = [rustix::event::PollFd::new(&reader, rustix::event::PollFlags::IN)];
            let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
            rustix::event::poll(&mut wait, Some(&now)).expect("a poll") == 0
        }
    };
    assert!(is_open());
    drop(place.forget());
    assert!(!is_open(), "the pipe's other end is closed");
    drop(place);
    assert_eq!(free.count(), 1, "the next port gets the place");
}

#[test]
fn what_is_not_settled_does_not_count() {
    let free = Arc::<Free>::default();
    let (place, held) = place(&free);
    for settled in [false, true] {
        place.keep(b"state", &[]).expect("it is kept");
        if settled {
            place.settle().expect("a file");
            place.unsettle().expect("a file");
        }
        assert!(matches!(found(&held).unfit.as_slice(), [UnusableState::Unsettled]));
    }
}

#[test]
fn what_a_switch_does_not_write_is_refused() {
    let ends = Ends::new().expect("sockets");
    let text = serde_json::to_vec(&record("a")).expect("text");
    let len = text.len() as u32;
    let head = |words: [u32; WORDS]| words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<u8>>();
    let good = head([MAGIC, FORMAT, 0, 1, len, 0, 1]);
    let fd = [ends.settled.as_fd()];
    let check = |messages: &[(&[u8], &[BorrowedFd<'_>])], want: &str| {
        for (bytes, fds) in messages {
            send(ends.into.as_fd(), &[bytes], fds).expect("it is sent");
        }
        let kept = found(&ends.held);
        assert!(kept.ports.is_empty() && kept.control.is_none(), "{want}");
        let told: Vec<_> = kept.unfit.iter().map(ToString::to_string).collect();
        assert!(told.len() == 1 && told[0].contains(want), "{want}: {told:?}");
    };
    ends.say(SETTLED).expect("a file");
    let whole = [&good[..], &text].concat();
    check(&[(b"LC", &[])], "shorter than its head");
    check(&[(&[0; 64], &fd)], "does not begin as one");
    check(&[(&[head([MAGIC, FORMAT + 1, 0, 1, len, 0, 1]), text.clone()].concat(), &fd)], "in format 2");
    check(&[(&whole[..whole.len() - 1], &fd)], "not as long as it says");
    check(&[(&[&whole[..], b"x"].concat(), &fd)], "not as long as it says");
    check(&[(&whole, &[])], "descriptors are missing");
    check(&[(&whole, &fd), (&whole, &fd)], "do not belong together");
    check(&[(&[head([MAGIC, FORMAT, 0, 2, len, 0, 1]), text.clone()].concat(), &fd)], "messages are missing");
    check(&[(&[head([MAGIC, FORMAT, 0, 1, 4, 0, 1]), b"{\"a\"".to_vec()].concat(), &fd)], "cannot be read");
    check(&vec![(&good[..], &fd[..]); 9], "do not belong together");
    check(
        &[(&[head([MAGIC, FORMAT, 0, 1, u32::MAX, u32::MAX, 1]), text.clone()].concat(), &fd)],
        "not as long",
    );
    // The first descriptor is no file that says anything.
    let (reader, _writer) = pipe().expect("a pipe");
    check(&[(&whole, &[reader.as_fd()])], "cannot be read");
    ends.say(0).expect("a file");
    check(&[(&whole, &fd)], "in the middle of a request");
}
