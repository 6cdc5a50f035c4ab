//! `set verbose`: prints packets on standard output, in a separate thread.

mod packets;

use std::io::Write;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::time::Duration;

pub(crate) use self::packets::{received, sent, shows_received, shows_sent};

/// The most bursts that wait to be printed. Further ones are only counted, because a polling thread never
/// waits for output.
const WAITING: usize = 64;

/// The pause after each printed burst, in which other threads can write to the output.
const BETWEEN: Duration = Duration::from_micros(50);

enum Message {
    Burst(String),
    /// A request to confirm that everything before it has been printed.
    Flush(Sender<()>),
}

#[derive(Debug, Default)]
struct Counts {
    waiting: AtomicUsize,
    not_shown: AtomicU64,
}

/// The channel to the printing thread, which is started when packets are first displayed.
#[derive(Debug, Default)]
pub(crate) struct Verbose {
    sender: OnceLock<SyncSender<Message>>,
    counts: Arc<Counts>,
}

impl Verbose {
    /// Starts the printing thread, if it does not run yet.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(crate) fn begin(&self) -> std::io::Result<()> {
        self.begin_with(std::io::stdout())
    }

    fn begin_with(&self, output: impl Write + Send + 'static) -> std::io::Result<()> {
        if self.sender.get().is_some() {
            return Ok(());
        }
        let (sender, messages) = mpsc::sync_channel(WAITING);
        let counts = Arc::clone(&self.counts);
        let body = move || print(output, &messages, &counts);
        std::thread::Builder::new().name("lc-verbose".into()).spawn(body)?;
        let _ = self.sender.set(sender);
        Ok(())
    }

    /// Prints a burst of `packets` with the text of `describe`; only counts them when too many bursts wait.
    pub(crate) fn show(&self, packets: usize, describe: impl FnOnce() -> String) {
        let Some(sender) = self.sender.get() else { return };
        // The text is created only if there is room, because that takes longer than receiving the packets.
        let room = self.counts.waiting.fetch_add(1, Ordering::Relaxed) < WAITING;
        if !room || sender.try_send(Message::Burst(describe())).is_err() {
            self.counts.waiting.fetch_sub(1, Ordering::Relaxed);
            self.counts.not_shown.fetch_add(packets as u64, Ordering::Relaxed);
        }
    }

    /// Waits until all earlier bursts are printed.
    pub(crate) fn flush(&self) {
        let Some(sender) = self.sender.get() else { return };
        let (done, printed) = mpsc::channel();
        if sender.send(Message::Flush(done)).is_ok() {
            let _ = printed.recv();
        }
    }
}

fn print(mut output: impl Write, messages: &Receiver<Message>, counts: &Counts) {
    for message in messages {
        // Write errors are ignored: they cannot be reported while packets are forwarded.
        match message {
            Message::Burst(text) => {
                let _ = output.write_all(text.as_bytes());
                counts.waiting.fetch_sub(1, Ordering::Relaxed);
                tell_not_shown(&mut output, counts);
                // Lets other threads that wait for the output, especially the console, write in between.
                std::thread::sleep(BETWEEN);
            }
            Message::Flush(done) => {
                tell_not_shown(&mut output, counts);
                let _ = done.send(());
            }
        }
        let _ = output.flush();
    }
}

fn tell_not_shown(output: &mut impl Write, counts: &Counts) {
    let count = counts.not_shown.swap(0, Ordering::Relaxed);
    if count > 0 {
        let _ = writeln!(
            output,
            "\n{count} received packets are not shown: they came faster than this output takes them"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Condvar, Mutex};
    use std::time::Instant;

    use super::*;

    /// An output that blocks until it is opened.
    #[derive(Clone, Default)]
    struct Valve(Arc<(Mutex<(bool, String)>, Condvar)>);

    impl Valve {
        fn open(&self) {
            self.0.0.lock().unwrap().0 = true;
            self.0.1.notify_all();
        }

        fn text(&self) -> String {
            self.0.0.lock().unwrap().1.clone()
        }
    }

    impl Write for Valve {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let mut state = self.0.1.wait_while(self.0.0.lock().unwrap(), |state| !state.0).unwrap();
            state.1 += std::str::from_utf8(bytes).unwrap();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_output_that_takes_nothing_keeps_no_polling_thread_waiting() {
        let (verbose, valve) = (Verbose::default(), Valve::default());
        verbose.show(1, || unreachable!("nobody prints yet"));
        verbose.begin_with(valve.clone()).unwrap();
        let (shown, bursts) = (AtomicU64::new(0), 1000);
        let poller = std::thread::scope(|scope| {
            let poller = scope.spawn(|| {
                for _ in 0..bursts {
                    verbose.show(3, || format!("burst {}\n", shown.fetch_add(1, Ordering::Relaxed)));
                }
            });
            let start = Instant::now();
            while !poller.is_finished() && start.elapsed() < Duration::from_secs(60) {
                std::thread::sleep(Duration::from_millis(1));
            }
            let ended = poller.is_finished();
            valve.open();
            ended
        });
        assert!(poller, "it ended while the output was shut");
        verbose.flush();
        let (text, shown) = (valve.text(), shown.into_inner());
        assert!(shown <= WAITING as u64 + 1, "{shown}");
        assert_eq!(text.matches("burst ").count() as u64, shown);
        let not_shown: u64 = text
            .lines()
            .filter_map(|line| line.strip_suffix(" takes them")?.split(' ').next()?.parse::<u64>().ok())
            .sum();
        assert_eq!(not_shown, 3 * (bursts - shown), "{text}");
    }
}
