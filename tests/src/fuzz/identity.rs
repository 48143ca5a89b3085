//! What says who somebody is: names in certificates, certificates, requests for them, the files of a node that joins.

use std::{path::Path, sync::OnceLock};

use runtime::tls::{PeerCertificate, PeerIdentity};

use super::{Seen, Target};

pub(super) const TARGETS: &[Target] = &[
    Target::new("spiffe_name", &["runtime/src/tls/identity.rs", "types/src/consumer.rs"], names, name).with_words(&[
        "spiffe://",
        "/node/",
        "/account/",
        "/",
        "%2f",
    ]),
    Target::new("certificate", &["runtime/src/tls/identity.rs"], || vec![material().certificate.clone()], certificate).up_to(4096, 1 << 20),
    Target::new("certificate_request", &["enrol/src/keys.rs"], || vec![material().request.clone()], request).up_to(4096, 1 << 20),
    Target::new("joining_files", &["enrol/src/peers.rs", "enrol/src/founding.rs"], || material().files.clone(), file),
];

struct Material {
    certificate: Vec<u8>,
    request: Vec<u8>,
    files: Vec<Vec<u8>>,
}

fn names() -> Vec<Vec<u8>> {
    let c = "00112233445566778899aabbccddeeff";
    let texts = [
        format!("spiffe://{c}/node/7"),
        format!("spiffe://{c}/account/{c}/worker/web"),
        format!("spiffe://{c}/account/{c}/container/a.b_c-d"),
    ];
    texts.into_iter().chain(["worker/web".to_owned()]).map(String::into_bytes).collect()
}

fn name(bytes: &[u8]) -> Seen {
    let text = String::from_utf8_lossy(bytes);
    let account = types::AccountId::from_bytes([1; 16]);
    if let Ok(consumer) = types::ConsumerRef::parse(account, &text) {
        assert_eq!(types::ConsumerRef::parse(account, &format!("{}/{}", consumer.kind, consumer.name)), Ok(consumer));
        return Seen::Read("consumer of an account".into());
    }
    match PeerIdentity::parse(&text) {
        Ok(identity) => {
            assert_eq!(identity.to_string(), text, "an identity has one name");
            Seen::Read(if identity.node().is_some() { "node".into() } else { "consumer".into() })
        }
        Err(_) => Seen::Refused("no identity".into()),
    }
}

fn material() -> &'static Material {
    static MATERIAL: OnceLock<Material> = OnceLock::new();
    MATERIAL.get_or_init(|| {
        use runtime::{RealClock, dev_pki::DevPki};
        use rustls::pki_types::{CertificateDer, pem::PemObject};
        use seams::Clock;
        use types::{ClusterId, NodeId};
        let folder = tempfile::tempdir().expect("a folder");
        let pki = DevPki::ensure(&folder.path().join("pki"), ClusterId::from_bytes([1; 16]), RealClock::new().wall()).expect("a CA");
        let files = pki.node(NodeId::new(7)).expect("a certificate");
        let key = enrol::NodeKey::generate().expect("a key");
        let peers = enrol::Peers(vec![enrol::Peer { node: NodeId::new(2), address: "control-2:7400".into(), public_key: vec![1; 40] }]);
        let path = folder.path().join("file");
        peers.write(&path).expect("written");
        let peers = runtime::read_checked_file(&path).expect("the file");
        Material {
            certificate: CertificateDer::from_pem_file(&files.cert).expect("a certificate").to_vec(),
            request: key.request(&["edge-1.example".to_owned(), "10.0.0.7".to_owned()]).expect("a request"),
            files: vec![[&[0][..], &peers].concat()],
        }
    })
}

fn certificate(bytes: &[u8]) -> Seen {
    match PeerCertificate::read(bytes) {
        Ok(read) => Seen::Read(format!("{} names", read.names.len())),
        Err(error) => Seen::Refused(error.to_string().chars().take(30).collect()),
    }
}

fn request(bytes: &[u8]) -> Seen {
    match enrol::CertificateRequest::read(bytes) {
        Ok(read) => Seen::Read(format!("{} names", read.names.len())),
        Err(error) => Seen::Refused(error.to_string()),
    }
}

fn file(bytes: &[u8]) -> Seen {
    let Some((which, bytes)) = bytes.split_first() else { return Seen::Refused("empty".into()) };
    let path = Path::new("file");
    let read = if which % 2 == 0 {
        enrol::Peers::decode(path, bytes).map(|peers| format!("{} peers", peers.0.len()))
    } else {
        enrol::Founding::decode(path, bytes).map(|_| "founding".to_owned())
    };
    match read {
        Ok(text) => Seen::Read(text),
        Err(error) => Seen::Refused(error.to_string()),
    }
}
