//! Input that is wrong gets a clear error of the right kind, and loses nothing: the server goes on serving.

use client::{Client, ClientError};
use prost::Message;
use tests::process::{Cluster, Operator, Reader, raw};
use wire::{ErrorKind, v1};

use ErrorKind::{InvalidArgument, NotFound, TooLarge};

/// What is wrong, what came back, the kind that it should be, and a part of what the message should say.
type Case = (&'static str, Result<(), ClientError>, ErrorKind, &'static str);

fn judge(cases: Vec<Case>) {
    let mut wrong = Vec::new();
    for (what, result, kind, says) in cases {
        match result {
            Ok(()) => wrong.push(format!("{what} was taken")),
            Err(error) if error.kind() != kind => wrong.push(format!("{what} is {:?}, not {kind:?}: {}", error.kind(), error.error)),
            Err(error) if !error.error.message.contains(says) => wrong.push(format!("{what} does not say {says:?}: {}", error.error)),
            Err(error) if error.request_id().is_empty() => wrong.push(format!("{what} names no request")),
            Err(_) => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn item(name: &str) -> v1::NewSecret {
    v1::NewSecret { name: name.into(), value: b"v".to_vec(), scopes: vec!["workers".into()], comment: String::new() }
}

async fn create(operator: &Operator, items: Vec<v1::NewSecret>) -> Result<(), ClientError> {
    let request = v1::CreateSecretsRequest { store: Some(operator.store()), secrets: items, ..Default::default() };
    operator.client.create_secrets(request).await.map(drop)
}

#[tokio::test]
async fn control_node_names_the_field_that_is_wrong_and_serves_on() {
    let mut cluster = Cluster::prepare(1);
    cluster.start_control().await;
    let operator = cluster.operator();
    operator.found().await;
    operator.try_create("API_KEY", b"first").await.unwrap();
    let long = "n".repeat(256);
    let (one, client) = (|item| vec![item], &operator.client);

    judge(vec![
        ("an empty name", create(&operator, one(item(""))).await, InvalidArgument, "secrets[0].name"),
        ("a name with a blank", create(&operator, one(item("a b"))).await, InvalidArgument, "' ' at place 2"),
        ("a name with a letter that only looks right", create(&operator, one(item("кey"))).await, InvalidArgument, "place 1"),
        ("a name that is too long", create(&operator, one(item(&long))).await, InvalidArgument, "at most 255"),
        ("a name with a line break", create(&operator, one(item("a\nb"))).await, InvalidArgument, "secrets[0].name"),
        ("no scopes", create(&operator, one(v1::NewSecret { scopes: vec![], ..item("A") })).await, InvalidArgument, "secrets[0].scopes"),
        (
            "an unknown scope",
            create(&operator, one(v1::NewSecret { scopes: vec!["workers".into(), "moon".into()], ..item("A") })).await,
            InvalidArgument,
            "scopes[1]",
        ),
        (
            "a comment that is too long",
            create(&operator, one(v1::NewSecret { comment: "c".repeat(1025), ..item("A") })).await,
            InvalidArgument,
            "secrets[0].comment",
        ),
        (
            "a value that is too long",
            create(&operator, one(v1::NewSecret { value: vec![b'v'; 65_537], ..item("A") })).await,
            TooLarge,
            "at most 65536",
        ),
        ("the second of two", create(&operator, vec![item("A"), item("a b")]).await, InvalidArgument, "secrets[1].name"),
        ("the same name twice", create(&operator, vec![item("A"), item("A")]).await, ErrorKind::AlreadyExists, "A"),
        ("no secrets at all", create(&operator, vec![]).await, InvalidArgument, "secrets"),
        (
            "more secrets than one command takes",
            create(&operator, (0..1001).map(|number| item(&format!("N{number}"))).collect()).await,
            TooLarge,
            "1000",
        ),
        (
            "secrets beyond the quota",
            create(&operator, (0..100).map(|number| item(&format!("N{number}"))).collect()).await,
            ErrorKind::QuotaExceeded,
            "100",
        ),
        (
            "more bytes than one message takes",
            create(&operator, (0..160).map(|number| v1::NewSecret { value: vec![b'v'; 65_000], ..item(&format!("N{number}")) }).collect())
                .await,
            TooLarge,
            "",
        ),
    ]);
    judge(others(&operator, &long).await);

    // Nothing of all that has been done, and the server goes on.
    let list = client.list_secrets(v1::ListSecretsRequest { store: Some(operator.store()), page: None }).await.unwrap().secrets;
    assert_eq!(list.iter().map(|secret| secret.name.as_str()).collect::<Vec<_>>(), ["API_KEY"]);
    assert_eq!(operator.set("API_KEY", b"second").await.0, 2);
    assert_eq!(cluster.control().health("/readyz").unwrap().0, 200);
}

/// Everything but creating secrets.
async fn others(operator: &Operator, long: &str) -> Vec<Case> {
    let client = &operator.client;
    let secret = || Some(operator.secret("API_KEY"));
    let set = |change: fn(&mut v1::SetValueRequest)| {
        let mut request = v1::SetValueRequest { secret: secret(), value: b"v".to_vec(), ..Default::default() };
        change(&mut request);
        async { client.set_value(request).await.map(drop) }
    };
    let point = |r#move: i32, version| {
        let request = v1::MovePointerRequest { secret: secret(), r#move, version, ..Default::default() };
        async { client.move_pointer(request).await.map(drop) }
    };
    let consumer = |kind, name: &str| {
        let consumer = v1::ConsumerRef { kind, name: name.into(), ..operator.web() };
        let request = v1::CreateConsumerRequest { consumer: Some(consumer), ..Default::default() };
        async { client.create_consumer(request).await.map(drop) }
    };
    let bind = |name: &str, target| {
        let request = v1::BindRequest { consumer: Some(operator.web()), name: name.into(), target, ..Default::default() };
        async { client.bind(request).await.map(drop) }
    };
    let to = |name| Some(v1::bind_request::Target::Secret(operator.secret(name)));
    let account = |name: &str, id: &str| {
        let request = v1::CreateAccountRequest { name: name.into(), id: id.into(), ..Default::default() };
        async { client.create_account(request).await.map(drop) }
    };
    let store = |account: &str, name: &str| {
        let request = v1::CreateStoreRequest { account: account.into(), name: name.into(), ..Default::default() };
        async { client.create_store(request).await.map(drop) }
    };
    let own = operator.store().account;
    let list = |token: &str| {
        let page = Some(v1::Page { size: 10, token: token.into() });
        let request = v1::ListSecretsRequest { store: Some(operator.store()), page };
        async { client.list_secrets(request).await.map(drop) }
    };
    let show = |secret| async { client.show_secret(v1::ShowSecretRequest { secret }).await.map(drop) };
    vec![
        ("no secret named", set(|request| request.secret = None).await, InvalidArgument, "secret"),
        ("an unknown stage", set(|request| request.stage = 99).await, InvalidArgument, "stage"),
        ("a request id of another form", set(|request| request.request_id = "x".into()).await, InvalidArgument, "request_id"),
        ("a value that is too long", set(|request| request.value = vec![0; 65_537]).await, TooLarge, "at most 65536"),
        ("another version than expected", set(|request| request.expect_version = Some(9)).await, ErrorKind::Precondition, ""),
        ("no move", point(0, 1).await, InvalidArgument, "move"),
        ("an unknown move", point(77, 1).await, InvalidArgument, "move"),
        ("a rollback to nothing", point(1, 0).await, NotFound, "version 0"),
        ("a rollback to a version that is not there", point(1, 9).await, NotFound, "version 9"),
        ("nothing to promote", point(2, 0).await, ErrorKind::Precondition, ""),
        ("no kind of consumer", consumer(0, "a").await, InvalidArgument, "kind"),
        ("an unknown kind of consumer", consumer(99, "a").await, InvalidArgument, "99"),
        ("a consumer without a name", consumer(1, "").await, InvalidArgument, "name"),
        ("a binding's name that no program can have", bind("1A", to("API_KEY")).await, InvalidArgument, "name"),
        ("a binding to nothing", bind("A", None).await, InvalidArgument, "target"),
        ("a binding to what is not there", bind("A", to("NOPE")).await, NotFound, "NOPE"),
        ("an account without a name", account("", "").await, InvalidArgument, "name"),
        ("an account's id of another form", account("a", "123").await, InvalidArgument, "id"),
        ("a store's name that is too long", store(&own, long).await, InvalidArgument, "name"),
        ("an account that is not there", store("nobody", "a").await, NotFound, "nobody"),
        ("a page token of nobody", list("garbage").await, InvalidArgument, "page"),
        ("no secret", show(None).await, InvalidArgument, "secret"),
        (
            "a name without a store",
            show(Some(v1::SecretRef { store: String::new(), ..operator.secret("API_KEY") })).await,
            InvalidArgument,
            "store",
        ),
        (
            "a store that is not there",
            show(Some(v1::SecretRef { store: "nope".into(), ..operator.secret("API_KEY") })).await,
            NotFound,
            "nope",
        ),
    ]
}

#[tokio::test]
async fn edge_names_the_field_that_is_wrong_and_serves_on() {
    let cluster = Cluster::start(1).await;
    let operator = cluster.operator();
    operator.found().await;
    operator.live(operator.create_bound("API_KEY", b"s3cret").await).await;
    let reader = cluster.reader(1);
    let wanted = |change: fn(&mut v1::Wanted)| {
        let mut request = reader.request("API_KEY");
        change(request.wanted.as_mut().unwrap());
        get(&reader, request)
    };
    let many = |count: usize| {
        let wanted = vec![v1::Wanted { binding: "API_KEY".into(), ..Default::default() }; count];
        let request = v1::GetManyRequest { consumer: reader.request("").consumer, wanted, freshness: None };
        async { reader.client.get_many(request).await.map(drop) }
    };
    use v1::wanted::Which;
    judge(vec![
        ("nothing wanted", get(&reader, v1::GetRequest { wanted: None, ..reader.request("A") }).await, InvalidArgument, "wanted"),
        ("no binding", wanted(|wanted| wanted.binding.clear()).await, InvalidArgument, "binding"),
        ("a binding's name that cannot be", wanted(|wanted| wanted.binding = "a-b".into()).await, InvalidArgument, "binding"),
        ("a secret's name that cannot be", wanted(|wanted| wanted.secret = "a b".into()).await, InvalidArgument, "secret"),
        ("version 0", wanted(|wanted| wanted.which = Some(Which::Version(0))).await, InvalidArgument, "version"),
        ("a version that is not there", wanted(|wanted| wanted.which = Some(Which::Version(9))).await, ErrorKind::Absent, "version 9"),
        ("an unknown pointer", wanted(|wanted| wanted.which = Some(Which::Pointer(7))).await, InvalidArgument, "pointer"),
        ("no previous value", wanted(|wanted| wanted.which = Some(Which::Pointer(2))).await, ErrorKind::Absent, "previous"),
        (
            "an unknown kind of consumer",
            get(&reader, v1::GetRequest { consumer: Some(v1::ConsumerRef { kind: 99, ..operator.web() }), ..reader.request("A") }).await,
            InvalidArgument,
            "99",
        ),
        ("more at once than allowed", many(257).await, TooLarge, "at most 256"),
    ]);
    assert!(many(256).await.is_ok());
    assert_eq!(reader.get("API_KEY").await.unwrap().value, b"s3cret");
}

async fn get(reader: &Reader, request: v1::GetRequest) -> Result<(), ClientError> {
    reader.client.get(request).await.map(drop)
}

/// Bytes that no client of ours sends. The code is what gRPC asks for; what matters is that there is an answer, and the next one.
#[tokio::test]
async fn broken_messages_are_answered_and_the_connection_serves_on() {
    let cluster = Cluster::start(1).await;
    let operator = cluster.operator();
    operator.found().await;
    operator.live(operator.create_bound("API_KEY", b"s3cret").await).await;
    let (_, consumer_token) = operator.consumer_token().await;
    operator.live(operator.set("API_KEY", b"s3cret").await.1).await;
    let operator_token = cluster.operator_token();

    let set =
        v1::SetValueRequest { secret: Some(operator.secret("API_KEY")), value: b"lost".to_vec(), ..Default::default() }.encode_to_vec();
    let get = v1::GetRequest { consumer: None, ..cluster.reader(1).request("API_KEY") }.encode_to_vec();
    let ca = cluster.ca_pem();
    for (address, path, token, message) in [
        (cluster.control_config().listen.grpc, "/cinnabar.v1.Secrets/SetValue", operator_token.as_str(), &set),
        (cluster.edge_config(1).listen.grpc, "/cinnabar.v1.Lookup/Get", consumer_token.as_str(), &get),
    ] {
        let mut channel = raw::connect(address, &ca, None);
        let whole = raw::framed(message);
        let mut cases: Vec<(String, Vec<u8>)> =
            (0..whole.len()).map(|end| (format!("cut after {end} bytes"), whole[..end].to_vec())).collect();
        cases.extend((0..message.len()).map(|end| (format!("a message cut after {end} bytes"), raw::framed(&message[..end]))));
        cases.push(("compressed, but not said how".into(), [&[1], &whole[1..]].concat()));
        cases.push(("a flag that nobody knows".into(), [&[9], &whole[1..]].concat()));
        cases.push(("a length of 4 GiB".into(), [&[0, 255, 255, 255, 255], &whole[5..]].concat()));
        cases.push(("a length of 64 MiB".into(), [&[0, 4, 0, 0, 0], &whole[5..]].concat()));
        cases.push(("two messages".into(), [whole.clone(), whole.clone()].concat()));
        cases.push(("noise".into(), raw::framed(&[0xff; 64])));
        cases.push(("a text that is not UTF-8".into(), raw::framed(&raw::field(1, &raw::field(1, b"\xff\xfe")))));
        cases.push(("a field of the wrong kind".into(), raw::framed(&[1 << 3, 5])));
        cases.push(("groups in groups in groups".into(), raw::framed(&[3 << 3 | 3; 512])));
        for (what, body) in cases {
            let answer = raw::call(&mut channel, path, Some(token), body).await;
            // Cut between two fields, a message may still be one, without a value: an error all the same, or an older value's name.
            let may_stand = what.starts_with("a message cut") || what == "two messages";
            assert!(answer.code != 0 || may_stand, "{what} to {path}: {answer:?}");
            assert_ne!(answer.error.kind, ErrorKind::Unavailable, "{what} to {path}: {answer:?}");
            assert!(!answer.error.message.contains("lost"), "{what} to {path} repeats the value: {answer:?}");
        }
        let answer = raw::call(&mut channel, path, Some(token), raw::framed(message)).await;
        assert_eq!(answer.code, 0, "{path} answers the whole message on the same connection: {answer:?}");
    }
    for server in cluster.servers() {
        assert_eq!(server.health("/readyz").unwrap().0, 200);
    }
    let client: &Client = &cluster.reader(1).client;
    assert!(client.get(cluster.reader(1).request("API_KEY")).await.is_ok());
}
