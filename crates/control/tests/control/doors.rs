//! Who is let in, and what a caller may know of.

use prost::Message;
use state::{Grant, GrantScope, Role};
use tonic::{Code, Request, Status, client::Grpc, codegen::http::uri::PathAndQuery, metadata::MetadataValue, transport::Channel};
use types::{AccountId, NodeId, StoreId};
use wire::{
    ErrorKind, PublicError,
    v1::{self, status_client::StatusClient},
};

use crate::harness::{
    ACCOUNT, CONTROL, EDGE, Ground, Node, PATIENCE, create, create_store, item, refused, secret, set, show, store, with_store,
};

/// Every method of the public API, as a path, less those that only edges serve; and the feed's, and reflection's.
fn methods() -> Vec<PathAndQuery> {
    let schema = prost_types::FileDescriptorSet::decode(wire::DESCRIPTORS).unwrap();
    let services = schema.file.iter().flat_map(|file| file.service.iter().map(|service| (file.package(), service)));
    let public = |package, service| package == "cinnabar.v1" && service != "Lookup";
    let own = services.filter(|(package, service)| public(*package, service.name()) || service.name() == "Feed");
    let paths = own.flat_map(|(package, service)| {
        service.method.iter().map(move |method| format!("/{package}.{}/{}", service.name(), method.name()).parse().unwrap())
    });
    let reflection = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo".parse().unwrap();
    paths.chain([reflection]).collect()
}

/// Calls with a body that never comes.
async fn call(channel: Channel, path: PathAndQuery, authorization: Option<&str>) -> Result<(), Status> {
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.unwrap();
    let mut request = Request::new(tokio_stream::pending::<()>());
    if let Some(text) = authorization {
        request.metadata_mut().insert("authorization", MetadataValue::try_from(text).unwrap());
    }
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    let answer = tokio::time::timeout(PATIENCE, grpc.streaming(request, path.clone(), codec)).await;
    answer.unwrap_or_else(|_| panic!("{path} waits for the body")).map(drop)
}

async fn who(channel: Channel, authorization: Option<&str>) -> Result<v1::WhoAmIReply, PublicError> {
    let mut request = Request::new(v1::WhoAmIRequest {});
    if let Some(text) = authorization {
        request.metadata_mut().insert("authorization", MetadataValue::try_from(text).unwrap());
    }
    let reply = StatusClient::new(channel).who_am_i(request).await;
    reply.map(tonic::Response::into_inner).map_err(|status| PublicError::from_status(&status))
}

fn unknown_token() -> String {
    seal::OperatorToken::generate(&runtime::OsEntropy).text().expose().to_owned()
}

/// A certificate of the node's number that the CA signed, for another key than the registry has.
fn other_key(ground: &Ground, node: NodeId) -> runtime::config::TlsFiles {
    let files = ground.pki.node(node).unwrap();
    let registered = (std::fs::read(&files.cert).unwrap(), std::fs::read(&files.key).unwrap());
    std::fs::remove_file(&files.cert).unwrap();
    std::fs::remove_file(&files.key).unwrap();
    let made = ground.pki.node(node).unwrap();
    let other = runtime::config::TlsFiles { cert: ground.at("other.pem"), key: ground.at("other.key"), ca: made.ca };
    for (path, bytes) in [(&other.cert, std::fs::read(&made.cert).unwrap()), (&other.key, std::fs::read(&made.key).unwrap())] {
        runtime::write_secret_file(path, &bytes).unwrap();
    }
    runtime::write_secret_file(&files.cert, &registered.0).unwrap();
    runtime::write_secret_file(&files.key, &registered.1).unwrap();
    other
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stranger_is_turned_away_before_a_body_is_read() {
    let ground = Ground::new();
    let mut config = ground.config_with_edge();
    // Every call is made with every bad token, from one address.
    config.rates.failed_logins_per_minute = 0;
    let node = ground.start_with(config).await;
    let methods = methods();
    assert!(methods.len() > 30, "{methods:?}");
    let strangers = |text: Option<String>| (node.channel(None), text);
    let consumer = seal::ConsumerToken::generate(&runtime::OsEntropy).text().expose().to_owned();
    let first = ground.first_token();
    let mut callers = vec![strangers(None), strangers(Some("Bearer".into())), strangers(Some(format!("Basic {first}")))];
    callers.push(strangers(Some(format!("Bearer {}", unknown_token()))));
    callers.push(strangers(Some(format!("Bearer {consumer}"))));
    callers.push(strangers(Some(format!("Bearer {}", &first[..first.len() - 1]))));
    callers.push((node.channel(Some(&ground.pki.node(EDGE).unwrap())), None));
    callers.push((node.channel(Some(&other_key(&ground, CONTROL))), None));
    // A token that is none never falls back to the certificate of the connection.
    callers.push((node.channel(Some(&ground.pki.node(CONTROL).unwrap())), Some("Bearer cbo_typo".into())));
    for (place, (channel, text)) in callers.iter().enumerate() {
        for path in &methods {
            if path.path().ends_with("Feed/Subscribe") {
                continue;
            }
            let status = call(channel.clone(), path.clone(), text.as_deref()).await.expect_err("must be refused");
            assert_eq!(status.code(), Code::Unauthenticated, "caller {place} at {path}: {status:?}");
            assert!(!format!("{status:?}").contains(&first[4..20]), "no token in an error");
        }
    }
    let own = who(node.channel(Some(&ground.pki.node(CONTROL).unwrap())), None).await.unwrap();
    assert_eq!((&*own.name, own.kind()), ("node 1", v1::PrincipalKind::Node));
    let operator = who(node.channel(None), Some(&format!("bearer {first}"))).await.unwrap();
    assert_eq!((&*operator.name, operator.all_accounts), ("first-operator", true));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_alone_is_open_and_reflection_answers_who_is_known() {
    let ground = Ground::new();
    let node = ground.start().await;
    let health = "/grpc.health.v1.Health/Check".parse().unwrap();
    let mut grpc = Grpc::new(node.channel(None));
    grpc.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    grpc.unary(Request::new(()), health, codec).await.expect("health is for everybody");
    let lookup = "/cinnabar.v1.Lookup/Get".parse().unwrap();
    let bearer = format!("Bearer {}", ground.first_token());
    let status = call(node.channel(None), lookup, Some(&bearer)).await.expect_err("a control node serves no lookups");
    assert_eq!(status.code(), Code::Unimplemented);
    let reflection = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo".parse().unwrap();
    call(node.channel(None), reflection, Some(&bearer)).await.expect("a stream that answers what is asked");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn feed_is_for_registered_nodes_by_their_key() {
    let ground = Ground::new();
    let node = ground.start_with(ground.config_with_edge()).await;
    let path = methods().into_iter().find(|path| path.path().ends_with("Feed/Subscribe")).unwrap();
    let bearer = format!("Bearer {}", ground.first_token());
    let unregistered = ground.pki.node(NodeId::new(999)).unwrap();
    let cases = [
        (node.channel(None), None, Code::Unauthenticated),
        (node.channel(None), Some(&*bearer), Code::Unauthenticated),
        (node.channel(Some(&unregistered)), None, Code::PermissionDenied),
        (node.channel(Some(&other_key(&ground, EDGE))), None, Code::PermissionDenied),
        (node.channel(Some(&ground.pki.node(CONTROL).unwrap())), None, Code::PermissionDenied),
    ];
    for (place, (channel, text, code)) in cases.into_iter().enumerate() {
        let status = call(channel, path.clone(), text).await.expect_err("must be refused");
        assert_eq!(status.code(), code, "case {place}: {status:?}");
    }
    call(node.channel(Some(&ground.pki.node(EDGE).unwrap())), path, None).await.expect("the edge may subscribe");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_allow_what_they_say_and_nothing_outside_their_reach() {
    let ground = Ground::new();
    let node = ground.start().await;
    let client = node.operator();
    let mine = with_store(&client).await;
    create_store(&client, "other").await;
    let theirs = client.create_account(v1::CreateAccountRequest { name: "theirs".into(), ..Default::default() }).await.unwrap();
    let their_account = theirs.account.unwrap().id;
    let request = v1::CreateStoreRequest { account: their_account.clone(), name: "default".into(), ..Default::default() };
    let their_store = client.create_store(request).await.unwrap().store.unwrap().id;
    client.create_secrets(create(vec![item("A", "a")])).await.unwrap();
    let their = v1::CreateSecretsRequest {
        store: Some(v1::StoreRef { account: their_account.clone(), store: their_store.clone() }),
        ..create(vec![item("T", "t")])
    };
    let their_secret = client.create_secrets(their).await.unwrap().secrets[0].id.clone();
    node.stop().await;

    let account: AccountId = mine.account_id.parse().unwrap();
    let one_store = GrantScope::Store(account, mine.id.parse::<StoreId>().unwrap());
    let [reporter, admin, narrow] = ground
        .operators([
            Grant::read(account),
            vec![Grant { role: Role::Admin, scope: GrantScope::Account(account) }],
            vec![Grant { role: Role::Admin, scope: one_store }],
        ])
        .await;
    let node = ground.start().await;
    let [reporter, admin, narrow] = [reporter, admin, narrow].map(|token| node.client(&token));

    assert_eq!(reporter.list_accounts(v1::ListAccountsRequest { page: None }).await.unwrap().accounts.len(), 1);
    assert!(show(&reporter, "A").await.is_ok());
    refused(reporter.set_value(set("A", "x")).await, ErrorKind::Denied);
    refused(reporter.create_secrets(create(vec![item("B", "b")])).await, ErrorKind::Denied);
    refused(reporter.delete_secrets(crate::harness::delete(&["A"], true)).await, ErrorKind::Denied);
    admin.set_value(set("A", "x")).await.unwrap();
    crate::harness::create_consumer(&node.operator(), "web").await;
    refused(admin.bind(crate::harness::bind("web", "DB", "A")).await, ErrorKind::Denied);
    let token = v1::CreateConsumerTokenRequest { consumer: crate::harness::worker("web"), ..Default::default() };
    refused(admin.create_consumer_token(token).await, ErrorKind::Denied);
    refused(admin.create_account(v1::CreateAccountRequest { name: "new".into(), ..Default::default() }).await, ErrorKind::Denied);
    refused(admin.set_quota(v1::SetQuotaRequest { account: ACCOUNT.into(), ..Default::default() }).await, ErrorKind::Denied);
    narrow.set_value(set("A", "y")).await.unwrap();
    let stores = narrow.list_stores(v1::ListStoresRequest { account: ACCOUNT.into(), page: None }).await.unwrap().stores;
    assert!(matches!(&stores[..], [one] if one.id == mine.id), "{stores:?}");
    refused(narrow.show_store(v1::ShowStoreRequest { store: store("other") }).await, ErrorKind::NotFound);
    refused(
        narrow.create_store(v1::CreateStoreRequest { account: ACCOUNT.into(), name: "x".into(), ..Default::default() }).await,
        ErrorKind::Denied,
    );

    foreign_is_as_unknown(&reporter, &their_account, &their_store, &their_secret).await;
    foreign_is_as_unknown(&admin, &their_account, &their_store, &their_secret).await;
    node.stop().await;
}

/// What another account has answers in the very words in which an id that nobody has does.
async fn foreign_is_as_unknown(client: &client::Client, account: &str, store: &str, secret: &str) {
    let nobody = "0123456789abcdef0123456789abcdef";
    let stores = async |account: &str, store: &str| {
        let store = Some(v1::StoreRef { account: account.to_owned(), store: store.to_owned() });
        refused(client.show_store(v1::ShowStoreRequest { store }).await, ErrorKind::NotFound).replace(nobody, "ID")
    };
    assert_eq!(stores("", store).await.replace(store, "ID"), stores("", nobody).await);
    assert_eq!(stores(account, store).await.replace(account, "ID"), stores(nobody, store).await);
    assert_eq!(stores("theirs", store).await.replace("theirs", "ID"), stores(nobody, store).await);
    let secrets = async |secret: &str| {
        let secret = Some(v1::SecretRef { secret: secret.to_owned(), ..Default::default() });
        refused(client.show_secret(v1::ShowSecretRequest { secret }).await, ErrorKind::NotFound).replace(nobody, "ID")
    };
    assert_eq!(secrets(secret).await.replace(secret, "ID"), secrets(nobody).await);
    let deleting = async |store: &str| {
        let store = Some(v1::StoreRef { store: store.to_owned(), ..Default::default() });
        let request = v1::DeleteStoreRequest { store, force: true, request_id: String::new() };
        refused(client.delete_store(request).await, ErrorKind::NotFound).replace(nobody, "ID")
    };
    assert_eq!(deleting(store).await.replace(store, "ID"), deleting(nobody).await);
}

async fn by_id_alone(node: &Node<'_>, id: &str) -> Result<v1::Secret, client::ClientError> {
    let secret = Some(v1::SecretRef { account: ACCOUNT.into(), secret: id.to_owned(), ..Default::default() });
    node.operator().show_secret(v1::ShowSecretRequest { secret }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bare_id_is_never_taken_for_a_name() {
    let ground = Ground::new();
    let node = ground.start().await;
    let client = node.operator();
    with_store(&client).await;
    create_store(&client, "decoys").await;
    let real = client.create_secrets(create(vec![item("A", "a")])).await.unwrap().secrets.remove(0);
    let decoy = v1::CreateSecretsRequest { store: store("decoys"), ..create(vec![item(&real.id, "decoy")]) };
    let decoy = client.create_secrets(decoy).await.unwrap().secrets.remove(0);
    assert_eq!(decoy.name, real.id);

    assert_eq!(by_id_alone(&node, &real.id).await.unwrap().name, "A");
    let named = Some(v1::SecretRef { account: ACCOUNT.into(), store: "decoys".into(), secret: real.id.clone() });
    assert_eq!(client.show_secret(v1::ShowSecretRequest { secret: named }).await.unwrap().id, decoy.id, "with its store it is a name");
    // In the same store the id wins over the name.
    client.create_secrets(create(vec![item(&decoy.id, "other")])).await.unwrap();
    let same = client.create_secrets(create(vec![item(&real.id, "same store")])).await.unwrap().secrets.remove(0);
    assert_eq!(show(&client, &real.id).await.unwrap().name, "A");
    client.delete_secrets(crate::harness::delete(&["A"], false)).await.unwrap();
    refused(by_id_alone(&node, &real.id).await, ErrorKind::NotFound);
    let alone = Some(v1::SecretRef { account: ACCOUNT.into(), secret: real.id.clone(), ..Default::default() });
    let setting = v1::SetValueRequest { secret: alone, ..set("A", "stray") };
    refused(client.set_value(setting).await, ErrorKind::NotFound);
    let by_own_id = by_id_alone(&node, &same.id).await.unwrap();
    assert_eq!((&by_own_id.name, by_own_id.current_version), (&real.id, 1));
    let nameless = Some(v1::SecretRef { account: ACCOUNT.into(), secret: "A".into(), ..Default::default() });
    refused(client.show_secret(v1::ShowSecretRequest { secret: nameless }).await, ErrorKind::InvalidArgument);
    assert_eq!(client.list_versions(v1::ListVersionsRequest { secret: secret(&same.id) }).await.unwrap().versions.len(), 1);
    node.stop().await;
}
