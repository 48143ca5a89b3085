//! Invariant 3, at compile time: what holds a secret can be neither printed nor copied, and is wiped when dropped.

use std::fmt::{Debug, Display};

use seal::{ConsumerToken, Dek, FileRoot, JoinToken, Kek, KeyRing, NodeKeyPair, OperatorToken, Plaintext, RecoveryKey, RootKey, TokenText};
use serde::Serialize;
use zeroize::ZeroizeOnDrop;

/// Fails to compile, for an ambiguous name, if the type has the trait.
macro_rules! lacks {
    ($($type:ty),+: $trait:path) => {
        $(const _: () = {
            trait Ambiguous<Marker> {
                fn name() {}
            }
            impl<T: ?Sized> Ambiguous<()> for T {}
            struct Has;
            impl<T: ?Sized + $trait> Ambiguous<Has> for T {}
            let _ = <$type as Ambiguous<_>>::name;
        };)+
    };
}

lacks!(Kek, Dek, RootKey, Plaintext, FileRoot, NodeKeyPair, RecoveryKey, KeyRing, OperatorToken, ConsumerToken, JoinToken, TokenText: Debug);
lacks!(Kek, Dek, RootKey, Plaintext, FileRoot, NodeKeyPair, RecoveryKey, KeyRing, OperatorToken, ConsumerToken, JoinToken, TokenText: Display);
lacks!(Kek, Dek, RootKey, Plaintext, FileRoot, NodeKeyPair, RecoveryKey, KeyRing, OperatorToken, ConsumerToken, JoinToken, TokenText: Clone);
lacks!(Kek, Dek, RootKey, Plaintext, FileRoot, NodeKeyPair, RecoveryKey, KeyRing, OperatorToken, ConsumerToken, JoinToken, TokenText: AsRef<[u8]>);
lacks!(Kek, Dek, RootKey, Plaintext, FileRoot, NodeKeyPair, RecoveryKey, KeyRing, OperatorToken, ConsumerToken, JoinToken, TokenText: AsRef<str>);
lacks!(Kek, Dek, RootKey, Plaintext, FileRoot, NodeKeyPair, RecoveryKey, KeyRing, OperatorToken, ConsumerToken, JoinToken, TokenText: Serialize);

const fn wiped<T: ZeroizeOnDrop>() {}
const fn shared<T: Send + Sync>() {}

#[test]
fn secrets_are_wiped_and_may_be_shared_between_threads() {
    wiped::<Kek>();
    wiped::<Dek>();
    wiped::<RootKey>();
    wiped::<Plaintext>();
    wiped::<NodeKeyPair>();
    wiped::<RecoveryKey>();
    wiped::<TokenText>();
    shared::<KeyRing>();
    shared::<Plaintext>();
    shared::<FileRoot>();
}

#[test]
fn secrets_compare_by_content() {
    assert!(Kek::take(&mut [1; 32]) == Kek::take(&mut [1; 32]));
    assert!(Kek::take(&mut [1; 32]) != Kek::take(&mut [2; 32]));
    assert!(Plaintext::copy_of(b"ab") == Plaintext::from_vec(b"ab".to_vec()));
    assert!(Plaintext::copy_of(b"ab") != Plaintext::copy_of(b"abc"));
}

#[test]
fn key_taken_wipes_where_it_came_from() {
    let mut bytes = [7; 32];
    let kek = Kek::take(&mut bytes);
    assert_eq!((bytes, *kek.expose()), ([0; 32], [7; 32]));
}
