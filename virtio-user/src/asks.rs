//! What any thread may ask of a started port's control thread, and waits for.
//!
//! Only the control thread reaches the data paths, each behind the gate of its queue. So who wants to know something of a path, or
//! to have a queue started or stopped, leaves a question, and gets the answer when the control thread comes to it. Nothing of that
//! is on the way of a burst.

use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use crate::backend::RingId;

/// How long an answer may take: of a backend that a queue is told of, and a burst that has to end before.
const PATIENCE: Duration = Duration::from_millis(3000);
/// How soon to look whether there is still somebody to answer.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// What is asked of one queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    /// How many of its descriptors are used.
    Used,
    /// Whether it is as the user wants it: started or stopped.
    Settled,
}

/// A question, and who waits for its answer: `None` where it could not be had.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) ring: RingId,
    pub(crate) question: Question,
    told: mpsc::Sender<Option<u16>>,
}

impl Asked {
    pub(crate) fn answer(self, answer: Option<u16>) {
        // Nobody may wait for it any more.
        let _ = self.told.send(answer);
    }
}

/// Questions that wait for the control thread.
#[derive(Debug, Default)]
pub(crate) struct Asks(Mutex<Vec<Asked>>);

impl Asks {
    /// Leaves a question, has the control thread look by `notify`, and waits for the answer as long as there `is_anybody` to give
    /// one; `None` when it could not be had in time. Where nobody is there, the answer is 0: no descriptor is used.
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

    /// Takes all questions.
    pub(crate) fn take(&self) -> Vec<Asked> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Asked>> {
        // A list is whole even if a thread panicked.
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
