//! The configuration's `[[peer]]` as rules.

use lookup::{Authenticator, PeerPattern, PeerRule, PeerRules};
use runtime::config::{self, ConsumerPattern};

/// Authenticates by certificate, by token, and by these rules for uids.
pub fn authenticator(peers: &[config::PeerRule]) -> Authenticator {
    let rules = peers.iter().flat_map(|rule| {
        rule.consumers.iter().map(|pattern| {
            let pattern = match pattern {
                ConsumerPattern::Any => PeerPattern::Any,
                ConsumerPattern::Kind(kind) => PeerPattern::Kind(*kind),
                ConsumerPattern::One(kind, name) => PeerPattern::One(*kind, name.clone()),
            };
            PeerRule { uid: rule.uid, account: rule.account, pattern }
        })
    });
    Authenticator::new(PeerRules::new(rules.collect()))
}
