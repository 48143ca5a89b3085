//! `Debug` for the messages that carry a plaintext or a token: everything but that, and its length in its place.

use std::fmt;

use crate::{internal, v1};

struct Length(usize);

impl fmt::Debug for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} bytes>", self.0)
    }
}

impl fmt::Debug for v1::NewSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, value, scopes, comment } = self;
        let value = &Length(value.len());
        f.debug_struct("NewSecret").field("name", name).field("value", value).field("scopes", scopes).field("comment", comment).finish()
    }
}

impl fmt::Debug for v1::SetValueRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { secret, value, expect_version, stage, request_id, comment, scopes } = self;
        f.debug_struct("SetValueRequest")
            .field("secret", secret)
            .field("value", &Length(value.len()))
            .field("expect_version", expect_version)
            .field("stage", stage)
            .field("request_id", request_id)
            .field("comment", comment)
            .field("scopes", scopes)
            .finish()
    }
}

impl fmt::Debug for v1::ConsumerTokenReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { token_id, token, expires_ms, receipt } = self;
        f.debug_struct("ConsumerTokenReply")
            .field("token_id", token_id)
            .field("token", &Length(token.len()))
            .field("expires_ms", expires_ms)
            .field("receipt", receipt)
            .finish()
    }
}

impl fmt::Debug for v1::Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { value, version, position, age_ms, edge } = self;
        f.debug_struct("Found")
            .field("value", &Length(value.len()))
            .field("version", version)
            .field("position", position)
            .field("age_ms", age_ms)
            .field("edge", edge)
            .finish()
    }
}

impl fmt::Debug for v1::JoinTokenReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { token_id, token, expires_ms } = self;
        f.debug_struct("JoinTokenReply")
            .field("token_id", token_id)
            .field("token", &Length(token.len()))
            .field("expires_ms", expires_ms)
            .finish()
    }
}

impl fmt::Debug for v1::TokenReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { token_id, token, expires_ms } = self;
        f.debug_struct("TokenReply")
            .field("token_id", token_id)
            .field("token", &Length(token.len()))
            .field("expires_ms", expires_ms)
            .finish()
    }
}

impl fmt::Debug for internal::JoinRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { token, certificate_request, name, envelope_key, feature_level, signing_key, address, software, role } = self;
        f.debug_struct("JoinRequest")
            .field("token", &Length(token.len()))
            .field("certificate_request", &Length(certificate_request.len()))
            .field("name", name)
            .field("envelope_key", &Length(envelope_key.len()))
            .field("feature_level", feature_level)
            .field("signing_key", &Length(signing_key.len()))
            .field("address", address)
            .field("software", software)
            .field("role", role)
            .finish()
    }
}

impl fmt::Debug for internal::HandOverRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cluster, from, to, operation, message, token, peer, request, within_ms } = self;
        f.debug_struct("HandOverRequest")
            .field("cluster", cluster)
            .field("from", from)
            .field("to", to)
            .field("operation", operation)
            .field("message", &Length(message.len()))
            .field("token", &Length(token.len()))
            .field("peer", peer)
            .field("request", request)
            .field("within_ms", within_ms)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use prost::Message;
    use prost_types::{FileDescriptorSet, field_descriptor_proto::Type};

    use super::*;
    use crate::{DESCRIPTORS, carriers::CARRIERS};

    const MARK: &str = "canary-7f3a";

    /// What a reader of a log would see of the mark: the text itself, or its bytes as numbers.
    fn shows(message: &impl Debug) -> bool {
        [format!("{message:?}"), format!("{message:#?}")].iter().any(|text| text.contains(MARK) || text.contains("99, 97, 110"))
    }

    #[test]
    fn debug_of_a_carrier_shows_a_length_and_no_content() {
        let value = || MARK.as_bytes().to_vec();
        let new = v1::NewSecret { name: "A".into(), value: value(), ..Default::default() };
        assert!(format!("{new:?}").contains("<11 bytes>"));
        assert!(!shows(&new));
        assert!(!shows(&v1::CreateSecretsRequest { secrets: vec![new], ..Default::default() }));
        assert!(!shows(&v1::SetValueRequest { value: value(), ..Default::default() }));
        assert!(!shows(&v1::ConsumerTokenReply { token: MARK.into(), ..Default::default() }));
        assert!(!shows(&v1::JoinTokenReply { token: MARK.into(), ..Default::default() }));
        assert!(!shows(&v1::TokenReply { token: MARK.into(), ..Default::default() }));
        let found = v1::Found { value: value(), ..Default::default() };
        assert!(!shows(&found));
        let outcome = v1::Outcome { outcome: Some(v1::outcome::Outcome::Found(found)) };
        assert!(!shows(&v1::StreamReply { tag: 1, outcome: Some(outcome) }));
        assert!(!shows(&internal::JoinRequest { token: value(), ..Default::default() }));
        assert!(!shows(&internal::HandOverRequest { message: value(), token: value(), ..Default::default() }));
    }

    #[test]
    fn every_public_field_that_could_hold_a_secret_belongs_to_a_carrier() {
        let files = FileDescriptorSet::decode(DESCRIPTORS).unwrap().file;
        let mut carriers = Vec::new();
        for file in &files {
            for message in &file.message_type {
                let name = format!("{}.{}", file.package(), message.name());
                let secret = message.field.iter().any(|field| {
                    // What is saved is sealed, a certificate is for all to see, and an entry of the audit log has ids and names only.
                    let open = ["SaveSnapshotReply", "Authority", "AuditEntry"].contains(&message.name());
                    let public_bytes = field.r#type() == Type::Bytes && file.package() == "cinnabar.v1" && !open;
                    // The token of a list's next page is none.
                    public_bytes || field.name() == "token" && message.name() != "Page"
                });
                if secret {
                    carriers.push(name);
                }
            }
        }
        carriers.sort();
        let mut listed = CARRIERS.to_vec();
        listed.sort();
        assert_eq!(carriers, listed, "src/carriers.rs must list exactly the messages with a plaintext or a token");
    }
}
