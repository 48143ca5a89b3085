//! The types that own secret bytes.
//!
//! Each keeps its bytes in one heap block of final size, so that moving the value moves a pointer and leaves no copy behind;
//! wipes the block on drop; compares in constant time; and has neither Debug, Display, Clone nor Serialize.
//!
//! **Invariants**
//! 1. The one way to the bytes is a method called `expose`.
//!
//! **Left out**: locking pages into memory and keeping them out of core dumps, which the process does as a whole; copies that
//! the compiler may leave in registers and dead stack frames.

use seams::Entropy;
use subtle::{Choice, ConstantTimeEq};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// The length of every symmetric key here: 256 bits.
pub const KEY_BYTES: usize = 32;

macro_rules! key {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        pub struct $name(Box<[u8; KEY_BYTES]>);

        impl $name {
            /// A fresh random key.
            pub fn generate(entropy: &dyn Entropy) -> Self {
                let mut key = Self::zeroed();
                entropy.fill(&mut key.0[..]);
                key
            }

            /// Takes a key over and wipes the place it came from.
            pub fn take(bytes: &mut [u8; KEY_BYTES]) -> Self {
                let mut key = Self::zeroed();
                key.0.copy_from_slice(bytes);
                bytes.zeroize();
                key
            }

            /// The key's bytes. Whoever copies them wipes the copy.
            pub fn expose(&self) -> &[u8; KEY_BYTES] {
                &self.0
            }

            pub(crate) fn zeroed() -> Self {
                Self(Box::new([0; KEY_BYTES]))
            }

            /// For filling in place, so that a key never lies in a second block.
            #[allow(dead_code, reason = "not every kind of key is unwrapped in place")]
            pub(crate) fn expose_mut(&mut self) -> &mut [u8; KEY_BYTES] {
                &mut self.0
            }
        }

        impl ConstantTimeEq for $name {
            fn ct_eq(&self, other: &Self) -> Choice {
                self.0.as_slice().ct_eq(other.0.as_slice())
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.ct_eq(other).into()
            }
        }

        impl Eq for $name {}

        impl Drop for $name {
            fn drop(&mut self) {
                self.0.zeroize();
            }
        }

        impl ZeroizeOnDrop for $name {}
    };
}

key!(
    /// A root key in software. In memory during unlock only: whoever opened it drops it when the epochs are unwrapped.
    RootKey);
key!(
    /// A key-encryption key: one epoch of one key domain. Wraps DEKs.
    Kek);
key!(
    /// A data-encryption key of one account. Never seals by itself: a key per value is derived from it.
    Dek);
key!(
    /// The key of one snapshot archive, used for nothing else.
    ArchiveKey);

/// The opened bytes of a value.
pub struct Plaintext(Vec<u8>);

impl Plaintext {
    /// Takes bytes over without copying them; they are wiped when this is dropped, spare capacity included. Copies that the
    /// vector left behind while it grew are the caller's: allocate the final size first.
    pub fn from_vec(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Copies bytes; the caller wipes its own.
    pub fn copy_of(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    /// The bytes. Whoever copies them wipes the copy.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The length in bytes; not a secret, since limits and quotas show it.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the value is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn zeroed(len: usize) -> Self {
        Self(vec![0; len])
    }

    pub(crate) fn expose_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl ConstantTimeEq for Plaintext {
    /// Constant for two plaintexts of one length; that lengths differ is not hidden.
    fn ct_eq(&self, other: &Self) -> Choice {
        self.0.as_slice().ct_eq(other.0.as_slice())
    }
}

impl PartialEq for Plaintext {
    fn eq(&self, other: &Self) -> bool {
        self.ct_eq(other).into()
    }
}

impl Eq for Plaintext {}

impl Drop for Plaintext {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl ZeroizeOnDrop for Plaintext {}
