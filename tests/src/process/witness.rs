//! Witnesses: clients that write and read while a cluster suffers, and remember only what they saw.
//!
//! [`Writers`] write one value after the other, each under a request id of its own that is sent again until it is answered.
//! [`Readers`] ask every edge without pause. Afterwards both are judged: every acknowledged write is there once, under the version that
//! was said; no edge ever failed to answer, or went back.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use runtime::RealClock;
use seams::Clock;
use tokio::task::JoinSet;
use types::Position;
use wire::v1;

use super::{Operator, Reader, until};

/// What a writer knows: of each value, the version that the server said it got; none when no answer came.
type Sent = Arc<Mutex<BTreeMap<String, Option<u64>>>>;

/// Writers at full speed, each with a secret of its own.
pub struct Writers {
    sent: Vec<Sent>,
    bound: Position,
    tasks: JoinSet<()>,
    /// The longest time between two acknowledgements of any writer since the last look, in milliseconds.
    silence_ms: Arc<AtomicU64>,
    ending: Arc<AtomicBool>,
}

impl Writers {
    /// Makes and binds the secrets, and begins to write. Each operator is the client of one writer.
    pub async fn start(operators: Vec<Operator>) -> Self {
        let silence_ms: Arc<AtomicU64> = Arc::default();
        let ending: Arc<AtomicBool> = Arc::default();
        let heard = Arc::new(Heard { clock: RealClock::new(), last: Mutex::default(), longest_ms: silence_ms.clone() });
        let mut writers = Self { sent: Vec::new(), bound: Position::default(), tasks: JoinSet::new(), silence_ms, ending };
        for (number, operator) in operators.into_iter().enumerate() {
            writers.bound = operator.create_bound(&secret(number), b"0").await;
            let sent = Sent::default();
            writers.sent.push(sent.clone());
            let (heard, ending) = (heard.clone(), writers.ending.clone());
            writers.tasks.spawn(async move { write_on(&operator, number, &sent, &heard, &ending).await });
        }
        writers
    }

    /// Where all secrets were bound.
    pub const fn bound(&self) -> Position {
        self.bound
    }

    /// How many writes were acknowledged until now.
    pub fn acknowledged(&self) -> usize {
        self.sent.iter().map(|sent| locked(sent).values().flatten().count()).sum()
    }

    /// Waits until `more` writes are acknowledged than now.
    pub async fn go_on(&mut self, more: usize) {
        let wanted = self.acknowledged() + more;
        until("writes to be acknowledged", async || {
            while let Some(ended) = self.tasks.try_join_next() {
                ended.expect("a writer goes on");
            }
            let now = self.acknowledged();
            if now >= wanted { Ok(()) } else { Err(format!("{now} of {wanted}")) }
        })
        .await;
    }

    /// The longest time without any acknowledgement since this was asked last.
    pub fn longest_silence(&self) -> Duration {
        Duration::from_millis(self.silence_ms.swap(0, Ordering::Relaxed))
    }

    /// Lets every writer finish the write it has begun.
    pub async fn end(mut self) -> Written {
        self.ending.store(true, Ordering::Relaxed);
        until("the writers to end", async || {
            while let Some(ended) = self.tasks.try_join_next() {
                ended.expect("a writer ends in order");
            }
            if self.tasks.is_empty() { Ok(()) } else { Err(format!("{} still write", self.tasks.len())) }
        })
        .await;
        Written(self.sent)
    }
}

/// Measures the silence of all writers together.
struct Heard {
    clock: RealClock,
    last: Mutex<Option<Duration>>,
    longest_ms: Arc<AtomicU64>,
}

impl Heard {
    fn acknowledged(&self) {
        let now = self.clock.monotonic();
        let before = self.last.lock().unwrap_or_else(PoisonError::into_inner).replace(now);
        let silent = before.map_or(Duration::ZERO, |before| now.saturating_sub(before));
        self.longest_ms.fetch_max(u64::try_from(silent.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// Writes one value after the other, each under a request id of its own.
async fn write_on(operator: &Operator, number: usize, sent: &Sent, heard: &Heard, ending: &AtomicBool) {
    for count in 1_u64.. {
        if ending.load(Ordering::Relaxed) {
            return;
        }
        let value = format!("{number}-{count}");
        locked(sent).insert(value.clone(), None);
        let request = v1::SetValueRequest {
            secret: Some(operator.secret(&secret(number))),
            value: value.clone().into_bytes(),
            request_id: format!("{number:016x}{count:016x}"),
            ..Default::default()
        };
        let version = loop {
            match operator.client.set_value(request.clone()).await {
                Ok(reply) => break reply.version,
                Err(error) if error.kind().retryable() => {}
                Err(error) => panic!("{value} was refused: {error}: {}", error.error),
            }
        };
        locked(sent).insert(value, Some(version));
        heard.acknowledged();
    }
}

/// What the writers wrote.
pub struct Written(Vec<Sent>);

impl Written {
    /// Every acknowledged value stands under the version that was said, wherever `readers` read, and the versions have no gap and no
    /// repeat: each value that was sent got one version, in the order of sending. `after`: what was written besides, one value to each
    /// writer's secret; `last`: a position that every reader has.
    pub async fn judge(&self, operator: &Operator, readers: &[Reader], last: Position, after: &[(usize, &[u8])]) {
        for (number, sent) in self.0.iter().enumerate() {
            let sent = locked(sent).clone();
            let after = after.iter().find(|(writer, _)| *writer == number).map(|(_, value)| *value);
            let said: BTreeMap<u64, &String> = sent.iter().filter_map(|(value, version)| version.map(|version| (version, value))).collect();
            let count = u64::try_from(sent.len()).expect("a count");
            assert_eq!(said.len(), sent.len(), "writer {number} ended in order, so every value was answered, each with its own version");
            // Version 1 is the value that the secret was made with.
            assert!(said.keys().copied().eq(2..=count + 1), "writer {number}: one version for one value, although requests were repeated");
            let mut in_order = said.iter().map(|(version, value)| (*version, format!("{number}-{}", version - 1) == **value));
            assert_eq!(in_order.find(|(_, right)| !right), None, "writer {number}: values in the order of sending");

            let shown = operator.client.show_secret(show(operator, number)).await.expect("the secret is there");
            let newest = count + 1 + u64::from(after.is_some());
            assert_eq!(shown.current_version, newest, "writer {number}");
            let kept = v1::ListVersionsRequest { secret: Some(operator.secret(&secret(number))) };
            let kept = operator.client.list_versions(kept).await.expect("its versions are there");
            for (place, reader) in readers.iter().enumerate() {
                for version in kept.versions.iter().map(|version| version.version).filter(|version| *version > 1) {
                    let mut request = reader.request(&secret(number));
                    request.wanted.as_mut().expect("a binding").which = Some(v1::wanted::Which::Version(version));
                    request.freshness = Some(v1::Freshness { min_position: Some(last.into()), max_age_ms: None });
                    let found = reader.client.get(request).await;
                    let found = found.unwrap_or_else(|error| panic!("reader {place} did not answer: {error}: {}", error.error));
                    let wanted = said.get(&version).map(|value| value.as_bytes()).or(after).expect("nobody else writes");
                    assert_eq!(found.value, wanted, "version {version} of writer {number} at reader {place}");
                }
            }
        }
    }
}

fn show(operator: &Operator, number: usize) -> v1::ShowSecretRequest {
    v1::ShowSecretRequest { secret: Some(operator.secret(&secret(number))) }
}

fn secret(number: usize) -> String {
    format!("COUNTER_{number}")
}

/// Readers of the first writer's secret, one at each place, that ask without pause.
pub struct Readers {
    tasks: JoinSet<()>,
    reads: Arc<AtomicU64>,
    ending: Arc<AtomicBool>,
}

impl Readers {
    /// Begins to read. A reader that is refused, or that sees a position or a version go back, fails the test.
    pub fn start(readers: Vec<(String, Reader)>) -> Self {
        let (reads, ending): (Arc<AtomicU64>, Arc<AtomicBool>) = Default::default();
        let mut tasks = JoinSet::new();
        for (name, reader) in readers {
            let (reads, ending) = (reads.clone(), ending.clone());
            tasks.spawn(async move {
                let mut seen = (Position::default(), 0);
                while !ending.load(Ordering::Relaxed) {
                    let found = reader.get(&secret(0)).await;
                    let found = found.unwrap_or_else(|error| panic!("{name} did not answer: {error}: {}", error.error));
                    let now = (Position::from(found.position.expect("a position")), found.version);
                    assert!(now >= seen, "{name} went back from {seen:?} to {now:?}");
                    seen = now;
                    reads.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        Self { tasks, reads, ending }
    }

    /// How many answers there were.
    pub fn answers(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// Stops reading.
    ///
    /// # Panics
    /// When a reader had failed.
    pub async fn end(mut self) -> u64 {
        self.ending.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("a reader reads on to the end");
        }
        self.answers()
    }
}

fn locked(sent: &Sent) -> std::sync::MutexGuard<'_, BTreeMap<String, Option<u64>>> {
    sent.lock().unwrap_or_else(PoisonError::into_inner)
}
