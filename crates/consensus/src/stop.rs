//! Why the voter stopped, for everybody who asks.

use std::sync::{Arc, Mutex};

use futures::{
    FutureExt,
    channel::oneshot,
    future::{BoxFuture, Shared},
};

use crate::{error::StopReason, lock};

/// Set once, with the first cause; clones share it.
#[derive(Clone)]
pub(crate) struct Stop {
    reason: Arc<Mutex<Option<StopReason>>>,
    wake: Arc<Mutex<Option<oneshot::Sender<()>>>>,
    woken: Shared<BoxFuture<'static, ()>>,
}

impl Stop {
    pub(crate) fn new() -> Self {
        let (wake, woken) = oneshot::channel();
        let woken = woken.map(|_| ()).boxed().shared();
        Self { reason: Arc::default(), wake: Arc::new(Mutex::new(Some(wake))), woken }
    }

    /// The voter stops for this reason, unless it has stopped for another before.
    pub(crate) fn because(&self, reason: StopReason) {
        lock(&self.reason).get_or_insert(reason);
        if let Some(wake) = lock(&self.wake).take() {
            let _ = wake.send(());
        }
    }

    /// The reason, if it has stopped.
    pub(crate) fn reason(&self) -> Option<StopReason> {
        lock(&self.reason).clone()
    }

    /// Completes when it has stopped.
    pub(crate) async fn wait(&self) -> StopReason {
        self.woken.clone().await;
        self.reason().unwrap_or_else(|| StopReason("stopped".to_owned()))
    }
}
