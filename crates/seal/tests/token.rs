//! Tokens: what is accepted, and what a refusal says.

#![allow(clippy::unwrap_used, reason = "helpers of tests stand outside the functions that the lint exempts")]

use proptest::{prelude::*, test_runner::RngSeed};
use seal::{ConsumerToken, JoinToken, OperatorToken, RecoveryKey, SealError};
use seams::sim::SimEntropy;
use types::{ClusterId, Hash};

const CLUSTER: ClusterId = ClusterId::from_bytes([7; 16]);

fn operator(seed: u64) -> OperatorToken {
    OperatorToken::generate(&SimEntropy::new(seed))
}

#[test]
fn token_refused_says_what_is_wrong_and_never_the_token() {
    let text = operator(1).text().expose().to_owned();
    let consumer = ConsumerToken::generate(&SimEntropy::new(1)).text().expose().to_owned();
    let mistyped = format!("{}{}", &text[..59], if text.ends_with('a') { 'b' } else { 'a' });
    let cases = [
        (String::new(), "not an operator token: it should start with cbo_"),
        (consumer, "not an operator token: it should start with cbo_"),
        (text.to_uppercase(), "not an operator token: it should start with cbo_"),
        (format!(" {text}"), "not an operator token: it should start with cbo_"),
        ("cbo_".into(), "not an operator token: it has 4 characters where 60 are wanted; it may have been cut when it was copied"),
        (text[..59].into(), "not an operator token: it has 59 characters where 60 are wanted; it may have been cut when it was copied"),
        (format!("{text}\n"), "not an operator token: it has 61 characters where 60 are wanted; it may have been cut when it was copied"),
        (format!("{}0{}", &text[..9], &text[10..]), "not an operator token: the character at place 10 is none of a-z and 2-7"),
        (format!("{}é{}", &text[..9], &text[11..]), "not an operator token: the character at place 10 is none of a-z and 2-7"),
        (mistyped, "not an operator token: its checksum does not match; it was mistyped or changed"),
    ];
    for (text, error) in cases {
        assert_eq!(OperatorToken::parse(&text).err().unwrap().to_string(), error);
    }
}

#[test]
fn token_hash_tells_kinds_and_tokens_apart() {
    let consumer = ConsumerToken::generate(&SimEntropy::new(1));
    let join = JoinToken::generate(&SimEntropy::new(1), CLUSTER, Hash::ZERO, Hash::ZERO);
    assert_ne!(operator(1).hash(), consumer.hash(), "the same random bytes, another kind");
    assert_ne!(operator(1).hash(), join.hash());
    assert_ne!(operator(1).hash(), operator(2).hash());
}

#[test]
fn token_shape_is_what_scanners_look_for() {
    let (operator, consumer) = (operator(1).text(), ConsumerToken::generate(&SimEntropy::new(1)).text());
    let join = JoinToken::generate(&SimEntropy::new(1), CLUSTER, Hash::ZERO, Hash::ZERO).text();
    let recovery = RecoveryKey::generate(&SimEntropy::new(1)).unwrap().text();
    for (text, prefix, len) in [(operator, "cbo_", 60), (consumer, "cbc_", 60), (join, "cbj_", 188), (recovery, "cbr_", 60)] {
        assert!(text.expose().starts_with(prefix));
        assert_eq!(text.expose().len(), len);
        assert!(text.expose()[4..].bytes().all(|c| matches!(c, b'a'..=b'z' | b'2'..=b'7')));
    }
}

/// One seed, so that a run says the same twice.
fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, rng_seed: RngSeed::Fixed(0xc1), failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config(256))]
    #[test]
    fn token_text_round_trips(seed in any::<u64>(), cluster in any::<[u8; 16]>(), ca in any::<[u8; 32]>(), signers in any::<[u8; 32]>()) {
        let token = operator(seed);
        prop_assert_eq!(OperatorToken::parse(token.text().expose()).unwrap().hash(), token.hash());
        let cluster = ClusterId::from_bytes(cluster);
        let join = JoinToken::generate(&SimEntropy::new(seed), cluster, Hash::from_bytes(ca), Hash::from_bytes(signers));
        let read = JoinToken::parse(join.text().expose()).unwrap();
        prop_assert_eq!((read.hash(), read.cluster(), read.ca(), read.signers()), (join.hash(), cluster, join.ca(), join.signers()));
        prop_assert_eq!(JoinToken::hash_of_secret(join.expose_secret()), Some(join.hash()));
        let recovery = RecoveryKey::generate(&SimEntropy::new(seed)).unwrap();
        prop_assert_eq!(RecoveryKey::parse(recovery.text().expose()).unwrap().public(), recovery.public());
    }

    #[test]
    fn token_with_one_character_changed_is_refused(seed in any::<u64>(), at in 4..60usize, to in "[a-z2-7]") {
        let text = operator(seed).text().expose().to_owned();
        prop_assume!(text[at..=at] != to);
        let changed = format!("{}{to}{}", &text[..at], &text[at + 1..]);
        let refused = matches!(OperatorToken::parse(&changed).err(), Some(SealError::TokenChecksum { .. }));
        prop_assert!(refused);
    }

    #[test]
    fn token_of_any_text_is_refused_without_panic(text in "(cb[ocjr]_)?.{0,190}") {
        prop_assert!(OperatorToken::parse(&text).is_err());
        prop_assert!(ConsumerToken::parse(&text).is_err());
        prop_assert!(JoinToken::parse(&text).is_err());
        prop_assert!(RecoveryKey::parse(&text).is_err());
    }
}
