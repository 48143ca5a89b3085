//! What sealed and wrapped bytes are bound to: the one place where associated data is built.
//!
//! Every associated data, derivation info and HPKE info is a label and fields in a fixed order, each preceded by its length as
//! two bytes, big-endian. Two different lists of fields never give the same bytes, nor do two purposes, since labels differ.
//!
//! ```text
//! label                     fields
//! cinnabar value            format, key domain, account, store, secret id, name, value id, DEK id
//! cinnabar dek wrap         format, cluster, key domain, KEK epoch, account, DEK id
//! cinnabar kek wrap         format, cluster, key domain, KEK epoch, root key id
//! cinnabar kek envelope     format, cluster, key domain, KEK epoch, recipient
//! cinnabar archive key      format, cluster, archive id, recipient
//! cinnabar authority key    format, cluster, recipient
//! cinnabar kek commitment   cluster, key domain, KEK epoch
//! cinnabar fingerprint      cluster, key domain, KEK epoch
//! ```
//!
//! A format is one byte, an epoch four, big-endian; ids are 16 raw bytes, names and domains their UTF-8 text. A recipient is one
//! byte, 0 for a node and 1 for the recovery key, and eight bytes, big-endian: the node id, or 0.

use types::{AccountId, ClusterId, DekId, KekEpoch, KeyDomain, NodeId, RootKeyId, SecretId, SecretName, StoreId, ValueId};

use crate::SealError;

/// Names one KEK: an epoch of a key domain of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KekName<'a> {
    /// The cluster.
    pub cluster: ClusterId,
    /// The key domain.
    pub domain: &'a KeyDomain,
    /// The epoch in it.
    pub epoch: KekEpoch,
}

/// Names one DEK as it is wrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DekName {
    /// The account whose values it seals.
    pub account: AccountId,
    /// Its id.
    pub dek: DekId,
}

/// All that a sealed value is bound to. It opens only in the place it was sealed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValueContext<'a> {
    /// The account.
    pub account: AccountId,
    /// The store.
    pub store: StoreId,
    /// The secret.
    pub secret: SecretId,
    /// The secret's name, which never changes.
    pub name: &'a SecretName,
    /// The value's random id.
    pub value_id: ValueId,
    /// The DEK it is sealed under.
    pub dek: DekId,
    /// The key domain whose KEKs wrap that DEK. Never an epoch of it, so that a KEK rotation touches no value.
    pub domain: &'a KeyDomain,
}

/// Who can open an envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Recipient {
    /// A node of the registry.
    Node(NodeId),
    /// The offline recovery key.
    Recovery,
}

impl Recipient {
    pub(crate) fn bytes(self) -> [u8; 9] {
        let (kind, node) = match self {
            Self::Node(node) => (0, node.get()),
            Self::Recovery => (1, 0),
        };
        let mut bytes = [kind; 9];
        bytes[1..].copy_from_slice(&node.to_be_bytes());
        bytes
    }
}

impl From<NodeId> for Recipient {
    fn from(node: NodeId) -> Self {
        Self::Node(node)
    }
}

impl ValueContext<'_> {
    pub(crate) fn associated_data(&self, format: u8) -> Labelled {
        let mut labelled = Labelled::new("cinnabar value");
        labelled
            .field(&[format])
            .field(self.domain.as_str().as_bytes())
            .field(self.account.as_bytes())
            .field(self.store.as_bytes())
            .field(self.secret.as_bytes())
            .field(self.name.as_str().as_bytes())
            .field(self.value_id.as_bytes())
            .field(self.dek.as_bytes());
        labelled
    }
}

impl KekName<'_> {
    pub(crate) fn dek_wrap(&self, format: u8, name: DekName) -> Labelled {
        let mut labelled = Labelled::new("cinnabar dek wrap");
        self.fields(labelled.field(&[format])).field(name.account.as_bytes()).field(name.dek.as_bytes());
        labelled
    }

    pub(crate) fn root_wrap(&self, format: u8, root: RootKeyId) -> Labelled {
        let mut labelled = Labelled::new("cinnabar kek wrap");
        self.fields(labelled.field(&[format])).field(root.as_bytes());
        labelled
    }

    pub(crate) fn envelope(&self, format: u8, recipient: Recipient) -> Labelled {
        let mut labelled = Labelled::new("cinnabar kek envelope");
        self.fields(labelled.field(&[format])).field(&recipient.bytes());
        labelled
    }

    pub(crate) fn commitment_info(&self) -> Labelled {
        let mut labelled = Labelled::new("cinnabar kek commitment");
        self.fields(&mut labelled);
        labelled
    }

    pub(crate) fn fingerprint_info(&self) -> Labelled {
        let mut labelled = Labelled::new("cinnabar fingerprint");
        self.fields(&mut labelled);
        labelled
    }

    fn fields<'l>(&self, labelled: &'l mut Labelled) -> &'l mut Labelled {
        labelled.field(self.cluster.as_bytes()).field(self.domain.as_str().as_bytes()).field(&self.epoch.get().to_be_bytes())
    }
}

/// The longest of the lists above: label 16, format 3, domain 65, five ids of 18, name 257.
const LABELLED_BYTES_MAX: usize = 16 + 3 + 2 + KeyDomain::BYTES_MAX + 5 * 18 + 2 + SecretName::BYTES_MAX;

/// A label and fields, on the stack: the lookup path builds one per value.
pub(crate) struct Labelled {
    bytes: [u8; LABELLED_BYTES_MAX],
    /// The length that all fields together want; more than the buffer holds only by a defect, which [`Labelled::bytes`] reports.
    len: usize,
}

impl Labelled {
    pub(crate) fn new(label: &str) -> Self {
        let mut labelled = Self { bytes: [0; LABELLED_BYTES_MAX], len: 0 };
        labelled.field(label.as_bytes());
        labelled
    }

    pub(crate) fn field(&mut self, field: &[u8]) -> &mut Self {
        let end = self.len + 2 + field.len();
        if let (Some(place), Ok(len)) = (self.bytes.get_mut(self.len..end), u16::try_from(field.len())) {
            place[..2].copy_from_slice(&len.to_be_bytes());
            place[2..].copy_from_slice(field);
            self.len = end;
        } else {
            self.len = usize::MAX / 2;
        }
        self
    }

    pub(crate) fn bytes(&self) -> Result<&[u8], SealError> {
        self.bytes.get(..self.len).ok_or(SealError::Defect { operation: "build associated data" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labelled_fields_never_run_into_each_other() {
        let of = |fields: &[&str]| {
            let mut labelled = Labelled::new("l");
            for field in fields {
                labelled.field(field.as_bytes());
            }
            labelled.bytes().unwrap().to_vec()
        };
        assert_eq!(of(&["ab", ""]), [0, 1, b'l', 0, 2, b'a', b'b', 0, 0]);
        assert_ne!(of(&["ab", "c"]), of(&["a", "bc"]));
        assert_ne!(of(&["ab", ""]), of(&["ab"]));
    }

    #[test]
    fn labelled_holds_the_longest_names_and_reports_what_it_cannot_hold() {
        let domain = KeyDomain::new("d".repeat(KeyDomain::BYTES_MAX)).unwrap();
        let name = SecretName::new("n".repeat(SecretName::BYTES_MAX)).unwrap();
        let context = ValueContext {
            account: AccountId::from_bytes([1; 16]),
            store: StoreId::from_bytes([2; 16]),
            secret: SecretId::from_bytes([3; 16]),
            name: &name,
            value_id: ValueId::from_bytes([4; 16]),
            dek: DekId::from_bytes([5; 16]),
            domain: &domain,
        };
        assert_eq!(context.associated_data(1).bytes().unwrap().len(), LABELLED_BYTES_MAX);
        assert!(context.associated_data(1).field(b"").field(b"more").bytes().is_err());
        assert!(Labelled::new("l").field(&[0; 70_000]).field(b"x").bytes().is_err());
    }
}
