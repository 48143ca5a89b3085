//! What `seal` reads: wraps, envelopes, public keys, key files, texts of tokens, and what opens them.

use std::{path::Path, sync::OnceLock};

use seal::{
    ArchiveKey, ArchiveOpener, ConsumerToken, Dek, FileRoot, JoinToken, Kek, KekName, NodeKeyPair, NodePublicKey, OperatorToken,
    RecoveryKey, RootKey, RootProvider, ValueContext, WrappedDek, WrappedKek,
};
use seams::{
    Disk, OpenMode,
    sim::{SimDisk, SimEntropy},
};
use sha2::{Digest, Sha256};
use types::{
    AccountId, ClusterId, DekId, Hash, KekEpoch, KeyDomain, NodeId, RootKeyId, SealedValue, SecretId, SecretName, StoreId, ValueId,
};

use super::{Seen, Target, reread};

pub(super) const TARGETS: &[Target] = &[
    Target::new(
        "key_wrap",
        &["seal/src/root.rs", "seal/src/deks.rs"],
        || vec![tagged(0, material().kek_wrap.clone()), tagged(1, material().dek_wrap.clone())],
        key_wrap,
    ),
    Target::new(
        "envelope",
        &["seal/src/envelope.rs", "seal/src/authority.rs", "seal/src/archive.rs"],
        || vec![tagged(0, material().envelope.clone()), tagged(1, material().authority.clone()), tagged(2, material().archive_key.clone())],
        envelope,
    ),
    Target::new("opened_value", &["seal/src/value.rs"], || vec![material().value.clone()], opened_value),
    Target::new("node_public_key", &["seal/src/envelope.rs"], || vec![material().node.public().encode()], node_public_key),
    Target::new(
        "key_file",
        &["seal/src/envelope.rs", "seal/src/file_root.rs", "feed/src/sign.rs"],
        || {
            let signing = feed::SigningKey::generate(&SimEntropy::new(5));
            vec![
                tagged(0, material().node.to_file_bytes().to_vec()),
                tagged(1, material().root_file.clone()),
                tagged(2, signing.to_file_bytes().to_vec()),
            ]
        },
        key_file,
    )
    .repaired(repair_key_file),
    Target::new("token_text", &["seal/src/token.rs", "seal/src/recovery.rs"], tokens, token)
        .with_words(&["cbo_", "cbc_", "cbj_", "cbr_", "aaaa", "7777", "=", " ", "\u{130}", "cbt_"])
        .repaired(repair_token),
];

struct Material {
    domain: KeyDomain,
    name: SecretName,
    root: RootKey,
    node: NodeKeyPair,
    dek: Dek,
    kek_wrap: Vec<u8>,
    dek_wrap: Vec<u8>,
    envelope: Vec<u8>,
    authority: Vec<u8>,
    archive_key: Vec<u8>,
    value: Vec<u8>,
    root_file: Vec<u8>,
}

const CLUSTER: ClusterId = ClusterId::from_bytes([7; 16]);
const ROOT: RootKeyId = RootKeyId::from_bytes([1; 16]);
const DEK: DekId = DekId::from_bytes([2; 16]);
const ACCOUNT: AccountId = AccountId::from_bytes([3; 16]);
const ARCHIVE: [u8; 16] = [4; 16];
const NODE: NodeId = NodeId::new(1);

fn tagged(tag: u8, bytes: Vec<u8>) -> Vec<u8> {
    [vec![tag], bytes].concat()
}

fn kek_name(domain: &KeyDomain) -> KekName<'_> {
    KekName { cluster: CLUSTER, domain, epoch: KekEpoch::new(1) }
}

fn context(material: &Material) -> ValueContext<'_> {
    ValueContext {
        account: ACCOUNT,
        store: StoreId::from_bytes([5; 16]),
        secret: SecretId::from_bytes([6; 16]),
        name: &material.name,
        value_id: ValueId::from_bytes([7; 16]),
        dek: DEK,
        domain: &material.domain,
    }
}

fn material() -> &'static Material {
    static MATERIAL: OnceLock<Material> = OnceLock::new();
    MATERIAL.get_or_init(|| {
        let entropy = SimEntropy::new(1);
        let (domain, node) = (KeyDomain::global(), NodeKeyPair::generate(&entropy).expect("a key"));
        let (root, kek, dek) = (RootKey::generate(&entropy), Kek::generate(&entropy), Dek::generate(&entropy));
        let name = kek_name(&domain);
        let ring = seal::KeyRing::new(CLUSTER);
        let commitment = seal::commitment(&name, &kek).expect("a commitment");
        let copy = Kek::take(&mut kek.expose().to_owned());
        ring.install_kek(&domain, KekEpoch::new(1), &commitment, copy).expect("its own commitment");
        let minted = ring.mint_dek(&entropy, &domain, KekEpoch::new(1), ACCOUNT).expect("a data key");
        let disk = SimDisk::new();
        FileRoot::create(&disk, &entropy, Path::new("root")).expect("a root file");
        let mut material = Material {
            kek_wrap: root.wrap_kek(&entropy, ROOT, &name, &kek).expect("wrapped").as_bytes().to_vec(),
            dek_wrap: minted.wrapped.as_bytes().to_vec(),
            envelope: seal::seal_envelope(&entropy, &name, NODE, node.public(), &kek).expect("sealed"),
            authority: seal::seal_authority(&entropy, CLUSTER, NODE, node.public(), b"an authority's key").expect("sealed"),
            archive_key: seal::seal_archive_key(&entropy, CLUSTER, ARCHIVE, NODE, node.public(), &ArchiveKey::generate(&entropy))
                .expect("sealed"),
            root_file: disk.read(Path::new("root")).expect("the root file"),
            value: Vec::new(),
            name: "API_KEY".parse().expect("a name"),
            domain: domain.clone(),
            root,
            node,
            dek,
        };
        let sealed = seal::seal_value(&entropy, &material.dek, &context(&material), b"a value").expect("sealed");
        material.value = sealed.as_bytes().to_vec();
        material
    })
}

fn ended<T, E: std::fmt::Display>(result: Result<T, E>, kind: &str) -> Seen {
    match result {
        Ok(_) => Seen::Read(kind.to_owned()),
        Err(error) => Seen::Refused(error.to_string()),
    }
}

fn key_wrap(bytes: &[u8]) -> Seen {
    let Some((tag, bytes)) = bytes.split_first() else { return Seen::Refused("empty".into()) };
    let name = kek_name(&material().domain);
    if tag % 2 == 1 {
        return reread(bytes, |bytes| WrappedDek::decode(DEK, bytes), |wrap| wrap.as_bytes().to_vec(), "data key wrap");
    }
    let seen = reread(bytes, |bytes| WrappedKek::decode(&name, bytes), |wrap| wrap.as_bytes().to_vec(), "key wrap");
    match WrappedKek::decode(&name, bytes) {
        Ok(wrapped) => ended(material().root.unwrap_kek(ROOT, &name, &wrapped), "key wrap that opens"),
        Err(_) => seen,
    }
}

fn envelope(bytes: &[u8]) -> Seen {
    let Some((tag, bytes)) = bytes.split_first() else { return Seen::Refused("empty".into()) };
    let (material, node) = (material(), &material().node);
    match tag % 3 {
        0 => ended(seal::open_envelope(&kek_name(&material.domain), NODE, node, bytes), "envelope"),
        1 => ended(seal::open_authority(CLUSTER, NODE, node, bytes), "authority"),
        _ => ended(seal::open_archive_key(CLUSTER, ARCHIVE, NODE, node, bytes), "archive key"),
    }
}

fn opened_value(bytes: &[u8]) -> Seen {
    // A chunk of an archive is sealed the same way, under another key.
    let mut opener = ArchiveOpener::new(&ArchiveKey::take(&mut [9; 32]), [0; 32]);
    assert!(opener.open(true, bytes, &mut Vec::new()).is_err(), "what was never sealed opens");
    match SealedValue::from_bytes(bytes.to_vec()) {
        Err(error) => Seen::Refused(error.to_string()),
        Ok(sealed) => {
            let opened = seal::open_value(&material().dek, &context(material()), &sealed);
            assert!(opened.is_err() || bytes == material().value, "a changed value opens");
            ended(opened, "value")
        }
    }
}

fn node_public_key(bytes: &[u8]) -> Seen {
    reread(bytes, NodePublicKey::decode, NodePublicKey::encode, "public key")
}

fn key_file(bytes: &[u8]) -> Seen {
    let Some((tag, bytes)) = bytes.split_first() else { return Seen::Refused("empty".into()) };
    match tag % 3 {
        0 => reread(bytes, NodeKeyPair::from_file_bytes, |key| key.to_file_bytes().to_vec(), "node key"),
        1 => {
            let disk = SimDisk::new();
            let file = disk.open(Path::new("root"), OpenMode::CreateNew).expect("a new file");
            file.write_all_at(bytes, 0).expect("written");
            ended(FileRoot::open(&disk, Path::new("root")).map(|root| root.root_key_id()), "root file")
        }
        _ => reread(bytes, feed::SigningKey::from_file_bytes, |key| key.to_file_bytes().to_vec(), "signing key"),
    }
}

/// The two files with a checksum end with the first eight bytes of SHA-256 over the rest.
fn repair_key_file(input: &mut [u8]) {
    if let Some((_, bytes)) = input.split_first_mut()
        && let Some((content, sum)) = bytes.split_last_chunk_mut::<8>()
    {
        sum.copy_from_slice(&Sha256::digest(content)[..8]);
    }
}

fn tokens() -> Vec<Vec<u8>> {
    let entropy = SimEntropy::new(2);
    let recovery = RecoveryKey::generate(&entropy).expect("a key");
    let join = JoinToken::generate(&entropy, CLUSTER, Hash::ZERO, Hash::ZERO);
    let texts = [OperatorToken::generate(&entropy).text(), ConsumerToken::generate(&entropy).text(), join.text(), recovery.text()];
    texts.iter().map(|text| text.expose().as_bytes().to_vec()).collect()
}

fn token(bytes: &[u8]) -> Seen {
    let text = String::from_utf8_lossy(bytes);
    let all = [
        OperatorToken::parse(&text).map(|token| token.text()),
        ConsumerToken::parse(&text).map(|token| token.text()),
        JoinToken::parse(&text).map(|token| token.text()),
        RecoveryKey::parse(&text).map(|key| key.text()),
    ];
    let mut said = String::new();
    for (read, kind) in all.into_iter().zip(["operator", "consumer", "join", "recovery"]) {
        match read {
            Ok(again) => {
                assert_eq!(again.expose(), text, "a token has one text");
                return Seen::Read(kind.to_owned());
            }
            Err(error) => {
                let message = error.to_string();
                // A mistyped token is nearly a token: nothing of it may be said.
                assert!(bytes.len() < 12 || !message.contains(&*text), "an error repeats the token: {message}");
                said = message;
            }
        }
    }
    Seen::Refused(said)
}

/// A token's last five letters hold its checksum: so many of the alphabet's that what was changed before them is mostly still refused; the
/// letters themselves are made valid, so that the checksum is reached.
fn repair_token(input: &mut [u8]) {
    for byte in input.iter_mut().skip(4) {
        if !matches!(byte, b'a'..=b'z' | b'2'..=b'7') {
            *byte = b'a' + *byte % 26;
        }
    }
}
