//! The operating system's randomness.

use seams::Entropy;

/// Bytes from `getrandom(2)`.
///
/// **Failure**: the call fails only on a kernel without it, or before the pool is initialised in a broken sandbox. Keys and
/// nonces made without it would be guessable, so the process stops.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsEntropy;

impl Entropy for OsEntropy {
    #[expect(clippy::disallowed_methods, reason = "this is the one place where real randomness enters")]
    fn fill(&self, bytes: &mut [u8]) {
        if let Err(error) = getrandom::fill(bytes) {
            tracing::error!(%error, "the operating system gives no randomness; stopping, since keys and nonces would be guessable");
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entropy_ids_differ() {
        assert_ne!(OsEntropy.id(), OsEntropy.id());
        assert_ne!(OsEntropy.id(), [0; 16]);
    }
}
