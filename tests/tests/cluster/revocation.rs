//! P7: what was revoked at one node is refused at every node, also at one that lags behind or is cut off.

use std::{collections::BTreeMap, fs, time::Duration};

use seal::{DekWrap, KeyRing, NodeKeyPair, Plaintext, RecoveryKey, SealError, ValueContext};
use state::State;
use tests::process::{Fleet, Role, until};
use types::{Hash, NodeId};
use wire::{ErrorKind, v1};

use crate::ground::{follow_only, followed_by, log, metric, once, others, text};

/// More than a node that is cut off needs to notice that it gets no answer.
const ASKED_FOR: Duration = Duration::from_millis(1500);

/// Every way to be served that claims to be fresh, or changes something. None: it was served.
async fn kinds(client: &client::Client, secret: &v1::SecretRef) -> Vec<Option<ErrorKind>> {
    let client = client.timeout(ASKED_FOR);
    let kind = |error: client::ClientError| error.kind();
    let account = v1::CreateAccountRequest { name: "another".into(), ..Default::default() };
    let value = v1::SetValueRequest { secret: Some(secret.clone()), value: b"by a thief".into(), ..Default::default() };
    let show = v1::ShowSecretRequest { secret: Some(secret.clone()) };
    let store = v1::StoreRef { account: secret.account.clone(), store: secret.store.clone() };
    let list = v1::ListSecretsRequest { store: Some(store), ..Default::default() };
    let (who, shown, listed, written, made, nodes) = tokio::join!(
        Box::pin(client.who_am_i(v1::WhoAmIRequest {})),
        Box::pin(client.show_secret(show)),
        Box::pin(client.list_secrets(list)),
        Box::pin(client.set_value(value)),
        Box::pin(client.create_account(account)),
        Box::pin(client.list_nodes(v1::ListNodesRequest::default())),
    );
    vec![
        who.map_err(kind).err(),
        shown.map_err(kind).err(),
        listed.map_err(kind).err(),
        written.map_err(kind).err(),
        made.map_err(kind).err(),
        nodes.map_err(kind).err(),
    ]
}

/// Asks without pause until everything is refused: until then a node may only say that it does not know.
async fn until_refusing(client: &client::Client, secret: &v1::SecretRef) {
    until("a revoked token to be refused", async || {
        let kinds = kinds(client, secret).await;
        assert!(kinds.iter().all(Option::is_some), "a revoked token was served: {kinds:?}");
        let refused = kinds.iter().all(|kind| *kind == Some(ErrorKind::Unauthenticated));
        if refused { Ok(()) } else { Err(format!("{kinds:?}")) }
    })
    .await;
}

/// A token that may do everything.
fn everything() -> v1::CreateTokenRequest {
    let grant = v1::TokenGrant { role: "super-administrator".into(), ..Default::default() };
    v1::CreateTokenRequest { name: "thief".into(), grants: vec![grant], ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn token_revoked_at_one_node_is_served_by_none_whether_it_lags_is_cut_off_or_comes_back() {
    let mut fleet = Fleet::start(3, 0).await;
    let operator = fleet.operator();
    operator.create_bound("A", b"1").await;
    let secret = operator.secret("A");
    let leader = fleet.leader().await;
    let [lagging, here] = others(&fleet, &leader).try_into().unwrap();

    let made = once(&fleet, &lagging, None).create_token(everything()).await.unwrap();
    let thief = |node: &str| once(&fleet, node, Some(&made.token));
    for node in fleet.names(Role::Control) {
        let who = thief(&node).who_am_i(v1::WhoAmIRequest {}).await;
        assert_eq!(who.unwrap().name, "thief", "the token is good at {node} as soon as it is made");
    }

    // The one that is cut off has applied the token, and will not hear that it is revoked.
    fleet.net.part_from_all(&lagging);
    let revoke = v1::RevokeTokenRequest { token_id: made.token_id.clone(), ..Default::default() };
    fleet.operator_at(&[&here]).client.revoke_token(revoke).await.unwrap();
    for node in [&here, &leader] {
        assert_eq!(kinds(&thief(node), &secret).await, [Some(ErrorKind::Unauthenticated); 6], "{node}");
    }
    let cut_off = thief(&lagging);
    for kind in kinds(&cut_off, &secret).await {
        let kind = kind.expect("a node that is cut off serves nobody");
        assert!(matches!(kind, ErrorKind::Unavailable | ErrorKind::DeadlineExceeded), "{kind:?}");
    }

    fleet.net.mend();
    until_refusing(&cut_off, &secret).await;
    // What it sent while the cable was cut may have arrived since; none of it was applied.
    let shown = operator.client.show_secret(v1::ShowSecretRequest { secret: Some(secret.clone()) }).await.unwrap();
    assert_eq!(shown.current_version, 1);
    assert_eq!(operator.set("A", b"2").await.0, 2);

    // One that slept through the revocation wakes up behind, and is asked before it can have heard.
    let again = once(&fleet, &here, None).create_token(everything()).await.unwrap();
    let sleeper = once(&fleet, &lagging, Some(&again.token));
    sleeper.who_am_i(v1::WhoAmIRequest {}).await.unwrap();
    fleet.freeze(&lagging);
    let revoke = v1::RevokeTokenRequest { token_id: again.token_id, ..Default::default() };
    fleet.operator_at(&[&here]).client.revoke_token(revoke).await.unwrap();
    fleet.thaw(&lagging);
    until_refusing(&sleeper, &secret).await;
    assert_eq!(operator.set("A", b"3").await.0, 3);
}

/// What an edge can open by: its own key, and every envelope that it has kept.
struct Loot {
    node: NodeId,
    pair: NodeKeyPair,
    envelopes: BTreeMap<String, Vec<u8>>,
}

impl Loot {
    async fn take(fleet: &Fleet, edge: &str) -> Self {
        let data = fleet.data(edge);
        let pair = NodeKeyPair::from_file_bytes(&fs::read(data.join("identity/envelope.key")).unwrap()).unwrap();
        let files = fs::read_dir(data.join("keks")).unwrap().map(|file| file.unwrap().path());
        let envelopes: BTreeMap<_, _> = files.map(|file| (text(&file), fs::read(&file).unwrap())).collect();
        assert!(!envelopes.is_empty(), "an edge that serves has keys");
        let nodes = fleet.operator().client.list_nodes(v1::ListNodesRequest::default()).await.unwrap().nodes;
        let node = nodes.iter().find(|node| node.name == edge).unwrap().node_id;
        Self { node: NodeId::new(node), pair, envelopes }
    }

    /// Opens all versions of a secret, as far as these keys go, by everything that the control plane knows.
    fn open(&self, state: &State, name: &str) -> Vec<Result<Plaintext, SealError>> {
        let ring = KeyRing::new(state.settings().unwrap().unwrap().cluster);
        for epoch in state.all_kek_epochs(None, 64).unwrap().items {
            for envelope in self.envelopes.values() {
                let _ = ring.open_envelope(self.node, &self.pair, &epoch.domain, epoch.n, &Hash::from_bytes(epoch.commitment), envelope);
            }
        }
        let named = |_, secret: &state::record::SecretRecord| Ok((secret.name.as_str() == name).then_some(()));
        let (id, secret, ()) = state.all_secrets(None, 64, named).unwrap().items.remove(0);
        let open = |version: &state::record::VersionEntry| {
            let value = state.value_inline(id, version.value_id).unwrap().unwrap();
            let dek = state.dek(secret.account, value.dek).unwrap().unwrap();
            let wrap = dek.wraps.iter().find(|wrap| wrap.domain == value.domain).unwrap();
            let context = ValueContext {
                account: secret.account,
                store: secret.store,
                secret: id,
                name: &secret.name,
                value_id: version.value_id,
                dek: value.dek,
                domain: &value.domain,
            };
            ring.open_value(&context, DekWrap { epoch: wrap.epoch, bytes: &wrap.bytes }, &value.sealed)
        };
        secret.versions.iter().map(open).collect()
    }
}

/// The newest state, as an archive shows it to the recovery key.
async fn state(fleet: &Fleet) -> State {
    let file = fleet.folder().join("look.cbsnap");
    fleet.cli.ok(&["snapshot", "save", &text(&file), "--force"]).await;
    let recovery = RecoveryKey::parse(fs::read_to_string(fleet.recovery_key()).unwrap().trim()).unwrap();
    control::snapshots::open(
        fs::File::open(file).unwrap(),
        recovery.opening(),
        control::snapshots::Origin::RecoveryKey(recovery.public().signing),
    )
    .unwrap()
    .state
}

/// Waits until an edge refuses a lookup because it is revoked.
async fn until_refused(fleet: &Fleet, edge: &str) {
    let reader = fleet.reader(edge);
    until(&format!("{edge} to refuse lookups"), async || match reader.get("A").await {
        Err(error) if error.error.message.contains("this edge has been revoked") => {
            assert_eq!(error.kind(), ErrorKind::Unavailable);
            Ok(())
        }
        other => Err(format!("{other:?}")),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn edge_that_is_revoked_is_cut_serves_nothing_stays_out_everywhere_and_opens_nothing_that_comes_after() {
    let mut fleet = Fleet::start(3, 2).await;
    let operator = fleet.operator();
    operator.live(operator.create_bound("A", b"before").await).await;
    let loot = Loot::take(&fleet, "edge-1").await;
    let followed = until("edge-1 to follow somebody", async || followed_by(&fleet, "edge-1").await.ok_or_else(String::new)).await;
    let elsewhere = others(&fleet, &followed).remove(0);
    let revoke = v1::RevokeNodeRequest { node: "edge-1".into(), ..Default::default() };
    fleet.operator_at(&[&elsewhere]).client.revoke_node(revoke).await.unwrap();

    // Its stream is cut, it serves nothing more, and says so to everybody who asks.
    until_refused(&fleet, "edge-1").await;
    fleet.until_health("edge-1", "/readyz", 503).await;
    until("its metrics to say so", async || {
        let seen = ["cinnabar_edge_serving", "cinnabar_edge_connected"].map(|name| metric(&fleet, "edge-1", name));
        if seen == [Some(0.0); 2] { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await;
    assert!(fleet.server("edge-1").health("/readyz").unwrap().1.contains("revoked"));
    assert!(log(&fleet, "edge-1").contains("this node has been revoked: it serves nothing more"));
    assert_eq!(fs::read_dir(fleet.data("edge-1").join("keks")).unwrap().count(), 0, "no envelope is left");

    // Nobody waits for it, at any control node, and no list names it.
    for (count, control) in fleet.names(Role::Control).iter().enumerate() {
        let operator = fleet.operator_at(&[control]);
        let (_, position) = operator.set("A", format!("after, {count}").as_bytes()).await;
        let live = operator.client.wait_live(position, ASKED_FOR * 10).await.unwrap();
        assert_eq!((live.edges_live, live.edges_known), (1, 1), "{control}: {live:?}");
        let edges = operator.client.status(v1::ShowStatusRequest {}).await.unwrap().edges;
        assert!(edges.iter().all(|edge| edge.node_name != "edge-1"), "{control}: {edges:?}");
    }
    let set = fleet.cli.pipe(b"the last", &["secret", "set", "default/A", "--wait"]).await;
    assert!(set.code == 0 && set.stderr.contains("live on 1/1 edges"), "{set:?}");
    assert_eq!(fleet.reader("edge-2").get("A").await.unwrap().value, b"the last");

    // What it kept opens what it could open before, and nothing that was written since.
    let opened = loot.open(&state(&fleet).await, "A");
    assert_eq!(opened[0].as_ref().unwrap().expose(), b"before");
    assert_eq!(opened.len(), 5);
    assert!(
        opened[1..].iter().all(|value| matches!(value, Err(SealError::KeyUnavailable { .. }))),
        "{:?}",
        opened[1..].iter().map(|value| value.as_ref().err()).collect::<Vec<_>>()
    );
    let exposed = fleet.cli.ok(&["--format", "json", "node", "exposure", "edge-1"]).await.json();
    let exposed = exposed.as_array().unwrap().iter().find(|row| row["secret"] == "A").unwrap();
    assert_eq!((&exposed["versions"], &exposed["current"]), (&serde_json::json!([1]), &serde_json::json!(false)), "{exposed}");

    // It stays out after a restart, and where its own mark is gone each control node tells it again.
    fleet.stop("edge-1").await;
    fleet.launch("edge-1");
    until_refused(&fleet, "edge-1").await;
    for control in fleet.names(Role::Control) {
        fleet.stop("edge-1").await;
        let mark = fleet.data("edge-1").join("revoked");
        fs::remove_file(&mark).unwrap();
        follow_only(&fleet, "edge-1", &[&control]);
        fleet.launch("edge-1");
        until(&format!("{control} to refuse edge-1"), async || if mark.exists() { Ok(()) } else { Err(log(&fleet, "edge-1")) }).await;
        until_refused(&fleet, "edge-1").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn edge_revoked_while_it_is_cut_off_shows_nothing_newer_and_stops_when_it_is_reached() {
    let mut fleet = Fleet::start(1, 2).await;
    let operator = fleet.operator();
    operator.live(operator.create_bound("A", b"before").await).await;
    fleet.net.part_from_all("edge-1");
    fleet.cli.ok(&["node", "revoke", "edge-1", "--yes"]).await;
    let (_, after) = operator.set("A", b"after").await;
    operator.live(after).await;

    // It cannot know. It serves what it has for `edge_offline_max`, as any edge does that is cut off, and nothing newer.
    let (cut_off, well) = (fleet.reader("edge-1"), fleet.reader("edge-2"));
    assert_eq!(well.get_at("A", after).await.unwrap().value, b"after");
    assert_eq!(cut_off.get("A").await.unwrap().value, b"before");
    until("its age to grow", async || match cut_off.get_within("A", Duration::from_secs(2)).await {
        Err(error) if error.kind() == ErrorKind::TooStale => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;

    fleet.net.mend();
    until_refused(&fleet, "edge-1").await;
    fleet.until_health("edge-1", "/readyz", 503).await;
    // Its disk has the mark: it stops with the control plane out of reach, too.
    let mark = fleet.data("edge-1").join("revoked");
    until("the mark on its disk", async || if mark.exists() { Ok(()) } else { Err("none".to_owned()) }).await;
    fleet.kill("edge-1");
    fleet.kill("control-1");
    fleet.launch("edge-1");
    until_refused(&fleet, "edge-1").await;
}
