//! How nodes become members, keep their certificates, and are shut out.

use enrol::NodeKey;
use runtime::{config::TlsFiles, tls::PeerCertificate};
use seal::{JoinToken, NodeKeyPair};
use tonic::{Request, metadata::MetadataValue, transport::Channel};
use types::{Hash, NodeId};
use wire::{
    ErrorKind, PublicError,
    internal::{self, EnrolledRole, enrol_client::EnrolClient},
    v1::{self, nodes_client::NodesClient},
};

use crate::harness::{CLUSTER, CONTROL, Ground, Node, create, delete, item, secret, set, until, with_store};

/// What a new node brings.
struct Newcomer {
    key: NodeKey,
    envelope_key: NodeKeyPair,
}

impl Newcomer {
    fn new() -> Self {
        Self { key: NodeKey::generate().unwrap(), envelope_key: NodeKeyPair::generate(&runtime::OsEntropy).unwrap() }
    }

    fn request(&self, token: &JoinToken, name: &str) -> internal::JoinRequest {
        internal::JoinRequest {
            token: token.expose_secret().to_vec(),
            certificate_request: self.key.request(&["edge-1.example".to_owned()]).unwrap(),
            name: name.to_owned(),
            envelope_key: self.envelope_key.public().encode(),
            feature_level: state::FEATURE_LEVEL_MAX.get(),
            software: "test".to_owned(),
            ..Default::default()
        }
    }

    async fn join(&self, node: &Node<'_>, token: &JoinToken, name: &str) -> Result<internal::JoinReply, PublicError> {
        join(node, self.request(token, name)).await
    }

    /// The files by which it connects.
    fn files(&self, ground: &Ground, certificates: &[impl AsRef<[u8]>]) -> TlsFiles {
        let files = TlsFiles { cert: ground.at("new.pem"), key: ground.at("new.key"), ca: ground.pki.ca() };
        self.key.write(&files.key).unwrap();
        let pem = enrol::certificates_pem(certificates.iter().map(AsRef::as_ref));
        runtime::write_secret_file(&files.cert, pem.as_bytes()).unwrap();
        files
    }
}

async fn join(node: &Node<'_>, request: internal::JoinRequest) -> Result<internal::JoinReply, PublicError> {
    let reply = EnrolClient::new(node.channel(None)).join(request).await;
    reply.map(tonic::Response::into_inner).map_err(|status| PublicError::from_status(&status))
}

async fn renew(channel: Channel, key: &NodeKey) -> Result<internal::RenewReply, PublicError> {
    let request =
        internal::RenewRequest { certificate_request: key.request(&[]).unwrap().into(), feature_level: 1, software: "test".to_owned() };
    let reply = EnrolClient::new(channel).renew(request).await;
    reply.map(tonic::Response::into_inner).map_err(|status| PublicError::from_status(&status))
}

/// The operator's calls.
struct Operator<'a>(&'a Node<'a>);

impl Operator<'_> {
    fn request<M>(&self, message: M) -> Request<M> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", MetadataValue::try_from(self.0.bearer()).unwrap());
        request
    }

    fn client(&self) -> NodesClient<Channel> {
        NodesClient::new(self.0.channel(None))
    }

    async fn token(&self, message: v1::CreateJoinTokenRequest) -> (String, JoinToken) {
        let reply = self.client().create_join_token(self.request(message)).await.unwrap().into_inner();
        (reply.token_id, JoinToken::parse(&reply.token).unwrap())
    }

    async fn edge_token(&self) -> JoinToken {
        self.token(v1::CreateJoinTokenRequest { role: v1::NodeRole::Edge.into(), ..Default::default() }).await.1
    }

    async fn nodes(&self) -> Vec<v1::Node> {
        self.client().list(self.request(v1::ListNodesRequest::default())).await.unwrap().into_inner().nodes
    }

    async fn tokens(&self) -> Vec<v1::JoinToken> {
        self.client().list_join_tokens(self.request(v1::ListJoinTokensRequest::default())).await.unwrap().into_inner().tokens
    }

    async fn revoke(&self, node: &str) -> Result<v1::RevokeNodeReply, PublicError> {
        let request = self.request(v1::RevokeNodeRequest { node: node.to_owned(), ..Default::default() });
        let reply = self.client().revoke(request).await;
        reply.map(tonic::Response::into_inner).map_err(|status| PublicError::from_status(&status))
    }

    async fn exposure(&self, node: &str) -> Vec<v1::ExposedSecret> {
        let (mut all, mut token) = (Vec::new(), String::new());
        loop {
            // Each on a page of its own.
            let page = Some(v1::Page { size: 1, token });
            let request = self.request(v1::ExposureRequest { node: node.to_owned(), page });
            let reply = self.client().exposure(request).await.unwrap().into_inner();
            assert!(reply.secrets.len() <= 1, "{reply:?}");
            all.extend(reply.secrets);
            token = reply.next_page;
            if token.is_empty() {
                return all;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_joins_by_a_token_and_an_answer_that_was_lost_is_given_again() {
    let ground = Ground::new();
    let node = ground.start().await;
    let operator = Operator(&node);
    let token = operator.edge_token().await;
    assert_eq!(token.cluster(), CLUSTER);

    let newcomer = Newcomer::new();
    let joined = newcomer.join(&node, &token, "edge-1").await.unwrap();
    assert_eq!((joined.node, &*joined.name, joined.role()), (2, "edge-1", EnrolledRole::Edge));
    assert_eq!(joined.cluster, CLUSTER.as_bytes().to_vec());
    let own = PeerCertificate::read(&joined.certificates[0]).unwrap();
    assert_eq!((own.identity.node(), own.public_key), (Some(NodeId::new(2)), newcomer.key.public_key()));
    assert!(own.names.iter().any(|name| name == "edge-1.example"), "{:?}", own.names);
    assert_eq!(enrol::authority_fingerprint(&joined.certificates[1]), Some(token.ca()));
    let first = state::record::SignerSetRecord::decode(&joined.signer_set_encoded).unwrap();
    assert_eq!(first.hash(CLUSTER), token.signers());
    let control: Vec<_> = joined.control_nodes.iter().map(|node| (node.node, &*node.name)).collect();
    assert_eq!(control, [(CONTROL.get(), "control-1")]);
    assert!(!joined.control_nodes[0].address.is_empty());

    let again = newcomer.join(&node, &token, "edge-1").await.unwrap();
    assert_eq!(again.node, joined.node);
    let tokens = operator.tokens().await;
    assert_eq!((tokens.len(), tokens[0].uses_left, tokens[0].state()), (1, 0, v1::JoinTokenState::UsedUp));
    assert_eq!(tokens[0].node_ids, [2]);
    let nodes = operator.nodes().await;
    let shown: Vec<_> = nodes.iter().map(|node| (node.node_id, &*node.name, node.role())).collect();
    assert_eq!(shown, [(1, "control-1", v1::NodeRole::Control), (2, "edge-1", v1::NodeRole::Edge)]);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_token_that_is_not_good_is_refused_alike() {
    let ground = Ground::new();
    let node = ground.start().await;
    let operator = Operator(&node);
    let used_up = operator.edge_token().await;
    Newcomer::new().join(&node, &used_up, "edge-1").await.unwrap();
    let (id, revoked) = operator.token(v1::CreateJoinTokenRequest { role: v1::NodeRole::Edge.into(), ..Default::default() }).await;
    let request = operator.request(v1::RevokeJoinTokenRequest { token_id: id, ..Default::default() });
    operator.client().revoke_join_token(request).await.unwrap();
    let brief = v1::CreateJoinTokenRequest { role: v1::NodeRole::Edge.into(), expires_in_ms: 300, ..Default::default() };
    let (_, expired) = operator.token(brief).await;
    until("the token to expire", async || operator.tokens().await.into_iter().find(|token| token.state() == v1::JoinTokenState::Expired))
        .await;
    let unknown = JoinToken::generate(&runtime::OsEntropy, CLUSTER, Hash::ZERO, Hash::ZERO);

    let mut messages = Vec::new();
    for token in [&used_up, &revoked, &expired, &unknown] {
        let refusal = Newcomer::new().join(&node, token, "edge-2").await.unwrap_err();
        assert_eq!(refusal.kind, ErrorKind::Unauthenticated, "{refusal:?}");
        messages.push(refusal.message);
    }
    messages.dedup();
    assert_eq!(messages.len(), 1, "{messages:?}");
    let short = internal::JoinRequest { token: vec![1; 5], ..Newcomer::new().request(&unknown, "edge-2") };
    assert_eq!(join(&node, short).await.unwrap_err().message, messages[0]);
    assert_eq!(operator.nodes().await.len(), 2);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_node_that_joins_signs_and_issues_and_holds_the_keys() {
    let ground = Ground::new();
    let node = ground.start().await;
    let operator = Operator(&node);
    let role = v1::NodeRole::Control.into();
    let (_, token) = operator.token(v1::CreateJoinTokenRequest { role, name: "control-2".to_owned(), ..Default::default() }).await;
    let newcomer = Newcomer::new();
    let refusal = newcomer.join(&node, &token, "whatever").await.unwrap_err();
    assert!(refusal.kind == ErrorKind::InvalidArgument && refusal.message.contains("signing_key"), "{refusal:?}");
    let request = || internal::JoinRequest {
        signing_key: vec![7; 32],
        address: "control-2.example:7400".to_owned(),
        ..newcomer.request(&token, "whatever")
    };
    // A server that is something else is told so before the token's one use is spent.
    let refusal = join(&node, internal::JoinRequest { role: EnrolledRole::Edge.into(), ..request() }).await.unwrap_err();
    assert!(refusal.kind == ErrorKind::InvalidArgument && refusal.message.contains("of the role `edge`"), "{refusal:?}");
    let joined = join(&node, request()).await.unwrap();
    assert_eq!((joined.node, &*joined.name, joined.role()), (2, "control-2", EnrolledRole::Control));
    let own = PeerCertificate::read(&joined.certificates[0]).unwrap();
    assert!(own.names.iter().any(|name| name == "control-2.example"), "{:?}", own.names);
    node.stop().await;

    let log = ground.log().await;
    let state = log.state();
    let set = state.signer_set().unwrap().unwrap();
    assert_eq!((set.version, set.keys.len(), set.key_of(NodeId::new(2))), (2, 2, Some(&[7; 32])));
    feed::verify_successor(CLUSTER, &state.signer_set_of(1).unwrap().unwrap(), &set).unwrap();
    let authority = state.authority().unwrap().unwrap();
    let envelope = authority.envelope(state::Recipient::Node(NodeId::new(2))).unwrap();
    let key = seal::open_authority(CLUSTER, NodeId::new(2), &newcomer.envelope_key, &envelope.bytes).unwrap();
    enrol::Issuer::open(&authority.certificate, key.expose()).unwrap();
    let domain = types::KeyDomain::global();
    let epoch = state.active_kek_epoch(&domain).unwrap().unwrap();
    let envelope = state.envelope(&domain, epoch.n, state::Recipient::Node(NodeId::new(2))).unwrap().unwrap();
    let ring = seal::KeyRing::new(CLUSTER);
    let commitment = Hash::from_bytes(epoch.commitment);
    ring.open_envelope(NodeId::new(2), &newcomer.envelope_key, &domain, epoch.n, &commitment, &envelope.bytes).unwrap();
    log.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificate_is_renewed_for_the_registered_key_alone_and_not_after_a_revocation() {
    let ground = Ground::new();
    let node = ground.start().await;
    let operator = Operator(&node);
    let newcomer = Newcomer::new();
    let joined = newcomer.join(&node, &operator.edge_token().await, "edge-1").await.unwrap();
    let channel = || node.channel(Some(&newcomer.files(&ground, &joined.certificates)));

    let renewed = renew(channel(), &newcomer.key).await.unwrap();
    let fresh = PeerCertificate::read(&renewed.certificates[0]).unwrap();
    assert_eq!((fresh.identity.node(), fresh.public_key), (Some(NodeId::new(2)), newcomer.key.public_key()));
    assert_eq!(renewed.control_nodes.len(), 1);
    assert_eq!(operator.nodes().await[1].feature_level, 1, "what it said of itself is noted");

    let other = NodeKey::generate().unwrap();
    assert_eq!(renew(channel(), &other).await.unwrap_err().kind, ErrorKind::Denied, "another key");
    assert_eq!(renew(node.channel(None), &other).await.unwrap_err().kind, ErrorKind::Unauthenticated, "no certificate");
    let stranger = node.channel(Some(&ground.pki.node(NodeId::new(77)).unwrap()));
    assert!(renew(stranger, &other).await.is_err(), "a certificate of the CA that the registry does not know");

    // One that asks again and again is held up, and nobody else by it: it has asked twice above.
    let mut answers = Vec::new();
    for _ in 0..19 {
        answers.push(renew(channel(), &newcomer.key).await.map(drop).map_err(|error| error.kind));
    }
    assert!(answers[..18].iter().all(Result::is_ok) && answers[18] == Err(ErrorKind::Busy), "{answers:?}");
    let second = Newcomer::new();
    let joined_too = second.join(&node, &operator.edge_token().await, "edge-2").await.unwrap();
    renew(node.channel(Some(&second.files(&ground, &joined_too.certificates))), &second.key).await.unwrap();

    let revoked = operator.revoke("edge-2").await.unwrap().node.unwrap();
    assert!(revoked.node_id == 3 && revoked.revoked_ms > 0, "{revoked:?}");
    let channel = node.channel(Some(&second.files(&ground, &joined_too.certificates)));
    assert_eq!(renew(channel, &second.key).await.unwrap_err().kind, ErrorKind::Revoked);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revocation_replaces_the_keys_and_says_what_the_node_could_open() {
    let ground = Ground::new();
    let node = ground.start().await;
    let operator = Operator(&node);
    let client = node.operator();
    with_store(&client).await;
    client.create_secrets(create(vec![item("A", "a1"), item("B", "b1")])).await.unwrap();
    Newcomer::new().join(&node, &operator.edge_token().await, "edge-1").await.unwrap();
    let names = |exposed: Vec<v1::ExposedSecret>| -> Vec<(String, Vec<u64>, bool)> {
        let mut rows: Vec<_> = exposed.into_iter().map(|secret| (secret.secret_name, secret.versions, secret.current)).collect();
        rows.sort();
        rows
    };
    let row = |name: &str, versions: &[u64], current| (name.to_owned(), versions.to_vec(), current);
    assert_eq!(names(operator.exposure("edge-1").await), [row("A", &[1], true), row("B", &[1], true)]);

    operator.revoke("edge-1").await.unwrap();
    assert_eq!(operator.revoke("edge-1").await.unwrap_err().kind, ErrorKind::Precondition);
    assert_eq!(operator.revoke("edge-9").await.unwrap_err().kind, ErrorKind::NotFound);
    // What is written now is sealed under keys that the node never had; this node has them at once.
    client.set_value(set("A", "a2")).await.unwrap();
    client.create_secrets(create(vec![item("C", "c1")])).await.unwrap();
    assert_eq!(names(operator.exposure("2").await), [row("A", &[1], false), row("B", &[1], true)]);
    // What was deleted could come back with these values, so it stays in the list, behind the others; what is new is not in it then either.
    let deleted = async || -> Vec<(String, Vec<u64>, bool)> {
        let exposed = operator.exposure("2").await;
        exposed.into_iter().map(|secret| (secret.secret_name, secret.versions, secret.deleted_ms > 0)).collect()
    };
    client.delete_secrets(delete(&["A", "C"], true)).await.unwrap();
    assert_eq!(deleted().await, [row("B", &[1], false), row("A", &[1], true)]);
    client.delete_secrets(delete(&["B"], true)).await.unwrap();
    let mut both = deleted().await;
    both.sort();
    assert_eq!(both, [row("A", &[1], true), row("B", &[1], true)]);
    client.destroy_secret(v1::DestroySecretRequest { secret: secret("A"), ..Default::default() }).await.unwrap();
    client.undelete_secret(v1::UndeleteSecretRequest { secret: secret("B"), ..Default::default() }).await.unwrap();
    assert_eq!(deleted().await, [row("B", &[1], false)]);
    let only = operator.revoke("control-1").await.unwrap_err();
    assert!(only.kind == ErrorKind::Precondition && only.message.contains("cluster remove control-1"), "{only:?}");
    node.stop().await;

    let log = ground.log().await;
    let state = log.state();
    let domain = types::KeyDomain::global();
    let active = state.active_kek_epoch(&domain).unwrap().unwrap();
    assert_eq!(active.n.get(), 2);
    assert!(state.envelope(&domain, active.n, state::Recipient::Recovery).unwrap().is_some());
    for epoch in [1, 2] {
        let held = state.envelope(&domain, types::KekEpoch::new(epoch), state::Recipient::Node(NodeId::new(2))).unwrap();
        assert!(held.is_none(), "epoch {epoch}");
    }
    log.close().await;
    // A restart opens both epochs, by the root key or without it.
    let mut config = ground.config();
    config.keys.root = ground.at("no-root.key");
    let node = ground.start_with(config).await;
    assert!(node.control.readiness().is_ready(), "{}", node.control.readiness().report());
    assert_eq!(node.operator().set_value(set("B", "b2")).await.unwrap().version, 2);
    node.stop().await;
}
