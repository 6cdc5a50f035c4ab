//! Questions of other threads to a started port's control thread.
//!
//! Only the control thread reaches the data paths, each behind the gate of its queue. A thread that queries a
//! path, or wants a queue started or stopped, therefore leaves a question and waits for the control thread's
//! answer. Bursts do not take part in this.

use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use crate::backend::RingId;

/// The longest wait for an answer, which includes the backend's own answer and the end of a burst.
const PATIENCE: Duration = Duration::from_millis(3000);
/// The interval between checks whether there is still a device.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// A question about one queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    /// The number of used descriptors.
    Used,
    /// Whether the queue is in the state that the user requested, started or stopped.
    Settled,
}

/// A question, and the channel for its answer; `None` is sent if there is no answer.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) ring: RingId,
    pub(crate) question: Question,
    told: mpsc::Sender<Option<u16>>,
}

impl Asked {
    pub(crate) fn answer(self, answer: Option<u16>) {
        // The asking thread may have stopped waiting.
        let _ = self.told.send(answer);
    }
}

/// The questions that wait for the control thread.
#[derive(Debug, Default)]
pub(crate) struct Asks(Mutex<Vec<Asked>>);

impl Asks {
    /// Leaves a question, wakes the control thread with `notify`, and waits for the answer while `is_anybody`
    /// reports that there is a device. Returns `None` if the answer does not come in time, and 0, no used
    /// descriptor, without a device.
    pub(crate) fn ask(
        &self,
        ring: RingId,
        question: Question,
        notify: impl FnOnce(),
        is_anybody: impl Fn() -> bool,
    ) -> Option<u16> {
        let (told, answer) = mpsc::channel();
        self.lock().push(Asked { ring, question, told });
        notify();
        let began = Instant::now();
        loop {
            match answer.recv_timeout(LOOK_INTERVAL) {
                Ok(answer) => return answer,
                Err(mpsc::RecvTimeoutError::Disconnected) => return Some(0),
                Err(mpsc::RecvTimeoutError::Timeout) if !is_anybody() => return Some(0),
                Err(mpsc::RecvTimeoutError::Timeout) if began.elapsed() >= PATIENCE => return None,
                Err(mpsc::RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Takes all pending questions.
    pub(crate) fn take(&self) -> Vec<Asked> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Asked>> {
        // The list is consistent even if a thread panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_or_nobody_is_there() {
        let (asks, ring) = (Asks::default(), RingId::receive(0));
        let ask = |notify: &dyn Fn()| asks.ask(ring, Question::Used, notify, || true);
        assert_eq!(ask(&|| asks.take().into_iter().for_each(|asked| asked.answer(Some(7)))), Some(7));
        assert_eq!(ask(&|| asks.take().into_iter().for_each(|asked| asked.answer(None))), None);
        assert_eq!(ask(&|| drop(asks.take())), Some(0), "it ended");
        assert_eq!(asks.ask(ring, Question::Settled, || {}, || false), Some(0), "it is not there");
    }
}
