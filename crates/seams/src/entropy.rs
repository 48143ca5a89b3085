//! Randomness.

/// A source of bytes that nobody can predict; in the simulation, of bytes that follow from a seed.
pub trait Entropy: Send + Sync + 'static {
    /// Fills `bytes`. A source that fails to deliver stops the process: no caller could go on safely.
    fn fill(&self, bytes: &mut [u8]);

    /// A random 128-bit value, for ids.
    fn id(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        self.fill(&mut bytes);
        bytes
    }

    /// A random number, for jitter.
    fn number(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }
}
