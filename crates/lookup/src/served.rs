//! How often each secret was served: soft state, for the operator's eyes, outside Raft.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use types::SecretId;

/// Locks that share the counting, so that readers on different cores rarely meet.
const SHARDS: usize = 16;

/// The count of one secret since it was last taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServedRow {
    /// The secret.
    pub secret: SecretId,
    /// How many times its value was handed out.
    pub count: u64,
}

/// A bounded table of counts. When it is full, a secret that has no row yet is counted under [`Served::overflow`] only.
///
/// **Concurrency**: one short lock of a shard per lookup; never held across anything else.
#[derive(Debug)]
pub struct Served {
    shards: Vec<Mutex<HashMap<SecretId, u64>>>,
    rows_per_shard: usize,
    overflow: std::sync::atomic::AtomicU64,
}

impl Served {
    /// A table of at most about `rows_max` secrets.
    pub fn new(rows_max: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            rows_per_shard: rows_max.div_ceil(SHARDS),
            overflow: std::sync::atomic::AtomicU64::new(0),
        }
    }

    /// Counts one.
    pub fn count(&self, secret: SecretId) {
        // Ids are random, so any byte spreads them.
        let shard = &self.shards[usize::from(secret.as_bytes()[0]) % SHARDS];
        let mut rows = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = rows.get_mut(&secret) {
            *count += 1;
        } else if rows.len() < self.rows_per_shard {
            rows.insert(secret, 1);
        } else {
            self.overflow.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }

    /// Takes all rows out, in the order of ids: what was served since they were last taken.
    pub fn take(&self) -> Vec<ServedRow> {
        let mut taken = Vec::new();
        for shard in &self.shards {
            let rows = std::mem::take(&mut *shard.lock().unwrap_or_else(PoisonError::into_inner));
            taken.extend(rows.into_iter().map(|(secret, count)| ServedRow { secret, count }));
        }
        taken.sort_by_key(|row| row.secret);
        taken
    }

    /// Lookups that found no room for a row, ever.
    pub fn overflow(&self) -> u64 {
        self.overflow.load(std::sync::atomic::Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn served_counts_per_secret_and_starts_anew_when_taken() {
        let served = Served::new(100);
        let (a, b) = (SecretId::from_bytes([1; 16]), SecretId::from_bytes([2; 16]));
        served.count(b);
        served.count(a);
        served.count(b);
        assert_eq!(served.take(), [ServedRow { secret: a, count: 1 }, ServedRow { secret: b, count: 2 }]);
        assert!(served.take().is_empty());
    }

    #[test]
    fn served_full_table_counts_the_overflow() {
        let served = Served::new(SHARDS);
        let (a, b) = (SecretId::from_bytes([0; 16]), SecretId::from_bytes([SHARDS as u8; 16]));
        served.count(a);
        served.count(b);
        served.count(a);
        assert_eq!(served.take(), [ServedRow { secret: a, count: 2 }]);
        assert_eq!(served.overflow(), 1);
    }
}
