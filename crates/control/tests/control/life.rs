//! A node's life: founding, restart, the wrong root key, and its end.

use std::{error::Error, time::Duration};

use seal::FileRoot;
use state::record::SettingsRecord;
use tokio_stream::StreamExt;
use tonic::{Request, client::Grpc};
use wire::{
    ErrorKind, PublicError, internal,
    v1::{self, receipts_client::ReceiptsClient},
};

use crate::harness::{
    CLUSTER, EDGE, Ground, PATIENCE, bind, create, create_consumer, files, item, refused, set, show, until, with_store, worker,
};

/// The message of an error with all its causes.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}

async fn status(client: &client::Client) -> v1::NodeStatus {
    client.status(v1::ShowStatusRequest {}).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarted_node_is_the_same_cluster_with_the_same_data() {
    let ground = Ground::new();
    let node = ground.start().await;
    assert!(node.control.readiness().is_ready(), "{}", node.control.readiness().report());
    let client = node.operator();
    with_store(&client).await;
    let before = client.create_secrets(create(vec![item("A", "one")])).await.unwrap().secrets.remove(0);
    let (token, was) = (ground.first_token(), status(&client).await);
    node.stop().await;

    let node = ground.start().await;
    assert_eq!(ground.first_token(), token);
    let client = node.operator();
    let is = status(&client).await;
    assert_eq!((&is.cluster_id, &is.position, &is.chain_hash), (&was.cluster_id, &was.position, &was.chain_hash));
    assert_eq!((is.cluster_id, is.unlocked, is.problems.len()), (CLUSTER.to_string(), true, 0));
    assert_eq!(show(&client, "A").await.unwrap().id, before.id);
    assert_eq!(client.set_value(set("A", "two")).await.unwrap().version, 2);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn empty_data_without_a_founding_founds_no_second_cluster() {
    let ground = Ground::new();
    ground.start().await.stop().await;
    std::fs::rename(ground.data(), ground.at("unmounted")).unwrap();
    for _ in 0..2 {
        let refusal = ground.try_start(ground.config()).await.err().expect("must not start");
        let text = chain(&refusal);
        assert!(text.contains("is empty") && text.contains("restore") && text.contains("cluster init"), "{text}");
    }
    // The disk is mounted again.
    std::fs::remove_dir_all(ground.data()).unwrap();
    std::fs::rename(ground.at("unmounted"), ground.data()).unwrap();
    let node = ground.start().await;
    assert!(node.operator().who_am_i(v1::WhoAmIRequest {}).await.is_ok());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn founding_leaves_nothing_of_the_authoritys_key_also_after_a_crash() {
    let ground = Ground::new();
    let file = ground.data().join("founding");
    assert!(file.exists());
    ground.start().await.stop().await;
    assert!(!file.exists());
    // A crash came between the log and the removal: the file changes nothing any more, and goes.
    let other = seal::OperatorToken::generate(&runtime::OsEntropy);
    ground.write_founding(other.hash());
    let node = ground.start().await;
    assert!(!file.exists());
    assert_eq!(node.operator().who_am_i(v1::WhoAmIRequest {}).await.unwrap().name, "first-operator");
    refused(node.client(other.text().expose()).who_am_i(v1::WhoAmIRequest {}).await, ErrorKind::Unauthenticated);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_of_another_cluster_and_a_folder_in_use_are_refused() {
    let ground = Ground::new();
    let node = ground.start().await;
    assert!(ground.try_start(ground.config()).await.is_err(), "another process has the folder");
    node.stop().await;
    let other = Ground::new();
    let mut config = ground.config();
    config.node.id = Some(types::NodeId::new(7));
    let text = chain(&ground.try_start(config).await.err().expect("the certificate is node 1's"));
    assert!(text.contains("node/1") && text.contains("node/7"), "{text}");
    drop(other);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_with_another_root_key_serves_metadata_and_says_that_it_is_locked() {
    let ground = Ground::new();
    let node = ground.start().await;
    let client = node.operator();
    with_store(&client).await;
    client.create_secrets(create(vec![item("A", "one")])).await.unwrap();
    create_consumer(&client, "web").await;
    node.stop().await;

    FileRoot::create(&runtime::RealDisk, &runtime::OsEntropy, &ground.at("other-root.key")).unwrap();
    let mut config = ground.config();
    config.keys.root = ground.at("other-root.key");
    let other = seal::NodeKeyPair::generate(&runtime::OsEntropy).unwrap().to_file_bytes();
    runtime::write_secret_file(&ground.at("other-node.key"), &other).unwrap();
    config.keys.node = ground.at("other-node.key");
    let node = ground.start_with(config).await;
    assert!(!node.control.readiness().is_ready());
    let report = node.control.readiness().report();
    assert!(report.contains("[-] keys unlocked") && report.contains("locked"), "{report}");
    let client = node.operator();
    let is = status(&client).await;
    assert!(!is.unlocked && is.problems.iter().any(|problem| problem.contains("locked")), "{is:?}");
    assert_eq!(show(&client, "A").await.unwrap().current_version, 1);
    refused(client.create_secrets(create(vec![item("B", "b")])).await, ErrorKind::Locked);
    refused(client.set_value(set("A", "two")).await, ErrorKind::Locked);
    let copy = v1::DuplicateSecretRequest { source: crate::harness::secret("A"), name: "C".into(), ..Default::default() };
    refused(client.duplicate_secret(copy).await, ErrorKind::Locked);
    // What brings no value needs no key, also under a request id (which the client gives to each change): retries are told there, too.
    let request = |id: &str| v1::CreateConsumerRequest { consumer: crate::harness::worker("locked"), request_id: id.repeat(32) };
    let made = client.create_consumer(request("a")).await.unwrap();
    assert_eq!(client.create_consumer(request("a")).await.unwrap(), made);
    refused(client.create_consumer(request("b")).await, ErrorKind::AlreadyExists);
    let other = v1::CreateConsumerRequest { consumer: crate::harness::worker("other"), request_id: "a".repeat(32) };
    refused(client.create_consumer(other).await, ErrorKind::RequestReused);
    // One with a value is for a node that has the keys to judge.
    let valued = v1::SetValueRequest { request_id: "a".repeat(32), ..set("A", "two") };
    refused(client.set_value(valued).await, ErrorKind::Locked);
    node.stop().await;

    // Either of the two is enough: the root key, or the node's own, for which the epoch is sealed.
    let mut config = ground.config();
    config.keys.root = ground.at("no-root.key");
    let node = ground.start_with(config).await;
    assert!(node.control.readiness().is_ready(), "{}", node.control.readiness().report());
    node.stop().await;
    let mut config = ground.config();
    config.keys.node = ground.at("other-node.key");
    let node = ground.start_with(config).await;
    assert!(node.control.readiness().is_ready(), "the right key unlocks again");
    let client = node.operator();
    assert_eq!(client.set_value(set("A", "two")).await.unwrap().version, 2);
    assert_eq!(client.create_consumer(request("a")).await.unwrap(), made, "the retry of a request that a locked node took");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_key_is_replaced_when_its_uses_are_spent() {
    let ground = Ground::new();
    ground.found_with(SettingsRecord { dek_uses_max: 3, ..SettingsRecord::defaults(CLUSTER) }).await;
    let node = ground.start().await;
    let client = node.operator();
    let store = with_store(&client).await;
    client.create_secrets(create(vec![item("A", "a1"), item("B", "b1")])).await.unwrap();
    // Does not fit in what is left of the first key; then one by one, and many at once.
    client.create_secrets(create(vec![item("C", "c1"), item("D", "d1")])).await.unwrap();
    for version in 2..=8 {
        assert_eq!(client.set_value(set("A", format!("a{version}"))).await.unwrap().version, version);
    }
    let racing = (0..6).map(|n| {
        let client = client.clone();
        tokio::spawn(async move { client.create_secrets(create(vec![item(&format!("R{n}"), format!("r{n}"))])).await })
    });
    let mut failed = 0;
    for task in racing.collect::<Vec<_>>() {
        failed +=
            usize::from(task.await.unwrap().is_err_and(|error| refused(Err::<(), _>(error), ErrorKind::Reseal).contains("try again")));
    }
    assert!(failed < 6, "some of those that race come through");
    node.stop().await;

    let log = ground.log().await;
    let (state, id) = (log.state(), store.id.parse().unwrap());
    assert_eq!(log.value(&ground, id, "B", 1), b"b1");
    assert_eq!(log.value(&ground, id, "D", 1), b"d1");
    for version in 1..=8 {
        assert_eq!(log.value(&ground, id, "A", version), format!("a{version}").as_bytes());
    }
    let mut uses = std::collections::BTreeMap::<_, u64>::new();
    for (secret, record) in state.secrets(id, None, 1000).unwrap().items {
        for entry in record.versions {
            *uses.entry(state.value(secret, entry.value_id).unwrap().unwrap().dek).or_default() += 1;
        }
    }
    assert!(uses.len() >= 4 && uses.values().all(|uses| *uses <= 3), "{uses:?}");
    log.close().await;
}

async fn wait_live(node: &crate::harness::Node<'_>, position: v1::Position, deadline_ms: u64) -> Result<v1::WaitLiveReply, PublicError> {
    let mut request = Request::new(v1::WaitLiveRequest { position: Some(position), deadline_ms });
    request.metadata_mut().insert("authorization", node.bearer().parse().unwrap());
    let reply = ReceiptsClient::new(node.channel(None)).wait_live(request).await;
    reply.map(tonic::Response::into_inner).map_err(|status| PublicError::from_status(&status))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_live_where_no_edge_is_known_or_none_has_spoken() {
    for with_edge in [false, true] {
        let ground = Ground::new();
        let node = ground.start_with(if with_edge { ground.config_with_edge() } else { ground.config() }).await;
        let client = node.operator();
        with_store(&client).await;
        let receipt = client.create_secrets(create(vec![item("A", "a")])).await.unwrap().receipt.unwrap();
        let position = receipt.position.unwrap();
        // A wait of nothing answers at once, and one of a moment is over in time, though nothing came.
        for deadline in [0, 50] {
            let answer = tokio::time::timeout(PATIENCE / 4, wait_live(&node, position, deadline)).await.expect("within its deadline");
            let reply = answer.unwrap();
            assert_eq!((reply.edges_live, reply.edges_known), (0, u32::from(with_edge)));
            assert_eq!(reply.behind.len(), usize::from(with_edge), "{:?}", reply.behind);
        }
        assert_eq!(show(&client, "A").await.unwrap().status(), v1::SecretStatus::Pending);
        let future = v1::Position { revision: position.revision + 1000, ..position };
        assert_eq!(wait_live(&node, future, 0).await.unwrap_err().kind, ErrorKind::InvalidArgument);
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_cuts_waiting_calls_and_streams_within_its_deadline() {
    let ground = Ground::new();
    let node = ground.start_with(ground.config_with_edge()).await;
    let client = node.operator();
    with_store(&client).await;
    let position = client.create_secrets(create(vec![item("A", "a")])).await.unwrap().receipt.unwrap().position.unwrap();

    let mut health = Grpc::new(node.channel(None));
    health.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    let watch = "/grpc.health.v1.Health/Watch".parse().unwrap();
    let mut watched = health.server_streaming(Request::new(()), watch, codec).await.unwrap().into_inner();
    watched.message().await.unwrap().expect("a first state");

    let hello = internal::Hello {
        cluster: CLUSTER.as_bytes().to_vec().into(),
        node: EDGE.get(),
        feature_level: state::FEATURE_LEVEL_MAX.get(),
        ..Default::default()
    };
    let up = internal::SubscribeUp { message: Some(internal::subscribe_up::Message::Hello(hello)) };
    let mut feed = internal::feed_client::FeedClient::new(node.channel(Some(&ground.pki.node(EDGE).unwrap())));
    let messages = tokio_stream::once(up).chain(tokio_stream::pending());
    let mut frames = feed.subscribe(messages).await.unwrap().into_inner();
    frames.message().await.unwrap().expect("the feed begins");
    until("the edge counts as connected", async || status(&client).await.edges.iter().any(|edge| edge.connected).then_some(())).await;

    let cut = async {
        let waiting = wait_live(&node, position, 60_000);
        let ending = async {
            // The wait has begun once the node has counted the call in; a read behind it says no less.
            status(&client).await;
            node.control.shutdown(Duration::from_secs(20)).await
        };
        tokio::join!(waiting, ending)
    };
    let (waited, ended) = tokio::time::timeout(Duration::from_secs(30), cut).await.expect("within the deadline");
    assert!(ended, "everything ended in time");
    assert_eq!(waited.unwrap_err().kind, ErrorKind::Unavailable);
    while let Ok(Some(_)) = frames.message().await {}
    while let Ok(Some(_)) = watched.message().await {}
    refused(client.status(v1::ShowStatusRequest {}).await, ErrorKind::Unavailable);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_and_tokens_are_in_no_error_and_no_file() {
    let marked = "XyzzyPlughMarkedValue";
    let ground = Ground::new();
    let node = ground.start().await;
    let client = node.operator();
    with_store(&client).await;
    create_consumer(&client, "web").await;
    client.create_secrets(create(vec![item("A", marked)])).await.unwrap();
    client.set_value(v1::SetValueRequest { request_id: "1".repeat(32), ..set("A", format!("2{marked}")) }).await.unwrap();
    let copy = v1::DuplicateSecretRequest { source: crate::harness::secret("A"), name: "B".into(), ..Default::default() };
    client.duplicate_secret(copy).await.unwrap();
    let token = v1::CreateConsumerTokenRequest { consumer: worker("web"), request_id: "2".repeat(32), ..Default::default() };
    let token = client.create_consumer_token(token).await.unwrap().token;

    let mut errors = Vec::new();
    let mut seen = |error: client::ClientError| errors.push(format!("{error:?} {}", chain(&error)));
    let long = marked.repeat(types::VALUE_BYTES_MAX / marked.len() + 1);
    for items in [
        vec![item("A", marked)],
        vec![item("", marked)],
        vec![item("D", long.clone())],
        vec![item("D", marked), item("D", marked)],
        vec![v1::NewSecret { scopes: vec!["nowhere".into()], ..item("D", marked) }],
    ] {
        seen(client.create_secrets(create(items)).await.unwrap_err());
    }
    for request in [
        set("NONE", marked),
        set("A", long),
        v1::SetValueRequest { expect_version: Some(77), ..set("A", marked) },
        v1::SetValueRequest { request_id: "1".repeat(32), ..set("A", marked) },
        v1::SetValueRequest { request_id: "no id".into(), ..set("A", marked) },
        v1::SetValueRequest { stage: 9, ..set("A", marked) },
        v1::SetValueRequest { secret: None, ..set("A", marked) },
    ] {
        seen(client.set_value(request).await.unwrap_err());
    }
    seen(client.bind(bind("none", "DB", "A")).await.unwrap_err());
    // A token is as bad a guest in an error as a value: also a wrong one, and one where something else belongs.
    let wrong = seal::OperatorToken::generate(&runtime::OsEntropy).text().expose().to_owned();
    seen(node.client(&wrong).status(v1::ShowStatusRequest {}).await.unwrap_err());
    seen(node.client(&token).status(v1::ShowStatusRequest {}).await.unwrap_err());
    let misplaced = v1::RevokeConsumerTokenRequest { consumer: worker("web"), token_id: token.clone(), request_id: String::new() };
    seen(client.revoke_consumer_token(misplaced).await.unwrap_err());
    let first = ground.first_token();
    assert!(!format!("{client:?}").contains(&first));
    node.stop().await;

    let needles = [marked, &wrong, &token, &first].map(str::as_bytes);
    for text in &errors {
        assert!(!text.contains(marked) && [&wrong, &token, &first].iter().all(|token| !text.contains(&token[4..])), "{text}");
    }
    let files = files(&ground.data());
    assert!(files.iter().any(|(path, bytes)| path.starts_with(ground.data().join("raft")) && bytes.len() > 1000), "the log is there");
    for (path, bytes) in files {
        let holds = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
        assert!(!needles.iter().any(|needle| holds(needle)), "{}", path.display());
    }
}
