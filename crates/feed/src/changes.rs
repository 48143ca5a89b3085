//! A value that changes, and those who wait for its next change: woken in the order in which they began to wait.
//!
//! tokio's watch spreads its waiters over slots that a random number picks, so two of them wake in an order that differs
//! from run to run; here it is the order of waiting, and a simulated run is the same twice.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// The value; whoever has it may change it. Clones share it.
pub struct Changing<T>(Arc<Shared<T>>);

/// One who looks at the value, and remembers up to where.
pub struct Changes<T> {
    shared: Arc<Shared<T>>,
    seen: u64,
}

struct Shared<T> {
    current: Mutex<(u64, T)>,
    changed: Notify,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, (u64, T)> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Copy> Changing<T> {
    /// With its first value.
    pub fn new(value: T) -> Self {
        Self(Arc::new(Shared { current: Mutex::new((0, value)), changed: Notify::new() }))
    }

    /// Changes the value and wakes all who wait.
    pub fn change(&self, change: impl FnOnce(&mut T)) {
        {
            let mut current = self.0.lock();
            current.0 += 1;
            change(&mut current.1);
        }
        self.0.changed.notify_waiters();
    }

    /// For waiting for changes after this call.
    pub fn changes(&self) -> Changes<T> {
        Changes { seen: self.0.lock().0, shared: self.0.clone() }
    }
}

impl<T: Copy> Changes<T> {
    /// The value now; only what comes after it is a change.
    pub fn look(&mut self) -> T {
        let current = self.shared.lock();
        self.seen = current.0;
        current.1
    }

    /// Completes when the value has changed since it was last looked at, or waited for. Safe to cancel.
    pub async fn changed(&mut self) {
        loop {
            // Made before the look: a change in between completes it.
            let notified = self.shared.changed.notified();
            let now = self.shared.lock().0;
            if now != self.seen {
                self.seen = now;
                return;
            }
            notified.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn changes_are_seen_once_and_never_missed() {
        let changing = Changing::new(1);
        let mut changes = changing.changes();
        assert_eq!(changes.changed().now_or_never(), None);
        changing.change(|value| *value = 2);
        changing.change(|value| *value = 3);
        assert_eq!(changes.changed().now_or_never(), Some(()));
        assert_eq!(changes.changed().now_or_never(), None);
        changing.change(|value| *value = 4);
        assert_eq!(changes.look(), 4);
        assert_eq!(changes.changed().now_or_never(), None);
        let mut waiting = Box::pin(changes.changed());
        assert_eq!(waiting.as_mut().now_or_never(), None);
        changing.change(|value| *value = 5);
        assert_eq!(waiting.as_mut().now_or_never(), Some(()));
    }

    #[test]
    fn changes_wake_in_the_order_of_waiting() {
        let changing = Changing::new(());
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut waiting = futures::stream::FuturesUnordered::new();
        for number in 0..20 {
            let (mut changes, order) = (changing.changes(), order.clone());
            waiting.push(async move {
                changes.changed().await;
                order.lock().unwrap().push(number);
            });
        }
        use futures::StreamExt;
        assert!(waiting.next().now_or_never().is_none());
        changing.change(|()| ());
        while waiting.next().now_or_never().flatten().is_some() {}
        assert_eq!(*order.lock().unwrap(), (0..20).collect::<Vec<_>>());
    }
}
