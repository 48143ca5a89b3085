//! The client against servers in this process, on real sockets.

mod server;

use std::{path::Path, time::Duration};

use tonic::Status;
use wire::{ErrorKind, PublicError, v1};
use zeroize::Zeroizing;

use crate::{Client, Config, ConfigError, Identity, Retries, Tls, Token};
use server::{Authority, Script, Server};

const MARK: &str = "cbo_canary-7f3a";

fn token() -> Token {
    Token::new(format!(" {MARK}\n")).unwrap()
}

/// Repetitions that do not slow the tests.
const QUICK: Retries = Retries { attempts_max: 3, pause: Duration::from_millis(2), pause_max: Duration::from_millis(4) };

fn client(socket: &Path) -> Client {
    Client::new(Config::unix(socket).token(token()).retries(QUICK)).unwrap()
}

fn create(request_id: &str) -> v1::CreateStoreRequest {
    v1::CreateStoreRequest { name: "default".into(), request_id: request_id.into(), ..Default::default() }
}

fn get(binding: &str) -> v1::GetRequest {
    v1::GetRequest { wanted: Some(v1::Wanted { binding: binding.into(), ..Default::default() }), ..Default::default() }
}

fn unavailable() -> Status {
    PublicError::new(ErrorKind::Unavailable, "no majority").with_request_id("5e11").into()
}

#[tokio::test]
async fn call_carries_token_and_request_id() {
    let server = Server::unix(Script::default()).await;
    let reply = client(&server.socket).create_store(create("")).await.unwrap();
    assert_eq!(reply.store.unwrap().name, "default");
    let seen = server.script.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].authorization, format!("Bearer {MARK}"));
    assert_eq!(seen[0].correlation.len(), 32);
    assert_eq!(seen[0].correlation, seen[0].request_id, "one id names the change and its log lines");
    assert!(seen[0].has_deadline);
}

#[tokio::test]
async fn change_that_may_pass_is_sent_again_under_the_same_id() {
    let server = Server::unix(Script::failing([unavailable(), unavailable()])).await;
    client(&server.socket).create_store(create("")).await.unwrap();
    let ids: Vec<_> = server.script.seen().into_iter().map(|seen| seen.request_id).collect();
    assert_eq!(ids.len(), 3);
    assert!(!ids[0].is_empty() && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}

#[tokio::test]
async fn change_that_keeps_failing_ends_at_the_limit_with_kind_and_request_id() {
    let server = Server::unix(Script::failing([unavailable(), unavailable(), unavailable(), unavailable()])).await;
    let error = client(&server.socket).create_store(create("00112233445566778899aabbccddeeff")).await.unwrap_err();
    assert_eq!((error.kind(), error.request_id(), error.attempts), (ErrorKind::Unavailable, "5e11", 3));
    assert_eq!(error.error.message, "no majority");
    assert!(error.to_string().starts_with("stores.create at /"), "{error}");
}

#[tokio::test]
async fn change_refused_for_good_is_sent_once() {
    for kind in ErrorKind::all().filter(|kind| !kind.retryable()) {
        let server = Server::unix(Script::failing([PublicError::new(kind, "no").into()])).await;
        let error = client(&server.socket).create_store(create("")).await.unwrap_err();
        let seen = server.script.seen();
        assert_eq!((error.kind(), seen.len()), (kind, 1));
        assert_eq!(error.request_id(), seen[0].correlation, "when the server names no id, ours finds the call");
    }
}

#[tokio::test]
async fn token_is_made_once_unless_the_caller_chose_the_request_id() {
    let server = Server::unix(Script::failing([unavailable()])).await;
    let error = client(&server.socket).create_consumer_token(v1::CreateConsumerTokenRequest::default()).await.unwrap_err();
    assert_eq!((error.kind(), server.script.seen().len()), (ErrorKind::Unavailable, 1));

    let server = Server::unix(Script::failing([unavailable()])).await;
    let request = v1::CreateConsumerTokenRequest { request_id: "00112233445566778899aabbccddeeff".into(), ..Default::default() };
    assert_eq!(client(&server.socket).create_consumer_token(request).await.unwrap().token, "cbc_made");
    assert_eq!(server.script.seen().len(), 2);
}

#[tokio::test]
async fn call_without_answer_ends_at_its_deadline() {
    let server = Server::unix(Script::silent()).await;
    let error = client(&server.socket).timeout(Duration::from_millis(30)).create_store(create("")).await.unwrap_err();
    assert_eq!((error.kind(), error.attempts), (ErrorKind::DeadlineExceeded, 1));
    assert_eq!(error.error.message, "no answer within 30ms");
}

#[tokio::test]
async fn server_that_is_absent_is_unavailable_and_named_with_the_cause() {
    let folder = tempfile::tempdir().unwrap();
    let error = client(&folder.path().join("none.sock")).show_store(v1::ShowStoreRequest::default()).await.unwrap_err();
    assert_eq!((error.kind(), error.attempts), (ErrorKind::Unavailable, 3));
    assert!(error.server.ends_with("none.sock"));
    assert!(error.error.message.contains("No such file or directory"), "{}", error.error.message);
}

#[tokio::test]
async fn server_that_restarts_is_found_again() {
    let server = Server::unix(Script::default()).await;
    let client = client(&server.socket);
    client.create_store(create("")).await.unwrap();
    let (socket, _folder) = server.stop().await;
    let error = client.create_store(create("")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.error.message);
    let _server = Server::unix_at(socket, Script::default()).await;
    client.create_store(create("")).await.unwrap();
}

#[tokio::test]
async fn server_that_dies_within_a_call_is_unavailable() {
    let mut server = Server::unix(Script::silent()).await;
    let client = Client::new(Config::unix(&server.socket).retries(Retries::NONE)).unwrap();
    let call = tokio::spawn(async move { client.show_store(v1::ShowStoreRequest::default()).await });
    server.script.called().await;
    server.cut();
    let error = call.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.error.message);
}

#[tokio::test]
async fn get_many_of_the_greatest_size_passes_with_each_outcome_in_its_place() {
    let server = Server::unix(Script::default()).await;
    let wanted = |place: usize| v1::Wanted { binding: if place == 7 { "UNBOUND".into() } else { "LARGE".into() }, ..Default::default() };
    let request = v1::GetManyRequest { wanted: (0..wire::GET_MANY_MAX).map(wanted).collect(), ..Default::default() };
    let outcomes = client(&server.socket).get_many(request).await.unwrap();
    assert_eq!(outcomes.len(), wire::GET_MANY_MAX);
    assert_eq!(outcomes[7].as_ref().unwrap_err().kind, ErrorKind::NotBound);
    assert_eq!(outcomes[255].as_ref().unwrap().value.len(), types::VALUE_BYTES_MAX);
}

#[tokio::test]
async fn lookups_on_one_stream_come_back_by_tag_until_all_is_answered() {
    let server = Server::unix(Script::default()).await;
    let (requests, mut replies) = client(&server.socket).stream(16).await.unwrap();
    let sender = tokio::spawn(async move {
        for tag in 0..1000 {
            requests.send(tag, get(if tag % 100 == 0 { "UNBOUND" } else { "A" })).await.unwrap();
        }
    });
    let mut tags = Vec::new();
    while let Some((tag, outcome)) = replies.next().await.unwrap() {
        assert_eq!(outcome.is_err(), tag % 100 == 0);
        tags.push(tag);
    }
    sender.await.unwrap();
    tags.sort_unstable();
    assert_eq!(tags, (0..1000).collect::<Vec<_>>());
}

#[tokio::test]
async fn watch_reconnects_and_demands_the_position_it_has_seen() {
    let server = Server::unix(Script::default()).await;
    let mut watch = client(&server.socket).watch(get("A"));
    for version in 1..=3 {
        // The server ends each watch after one value.
        assert_eq!(watch.next().await.unwrap().unwrap().version, version);
    }
    let demanded: Vec<_> = server.script.seen().iter().map(|seen| seen.min_revision).collect();
    assert_eq!(demanded, [None, Some(1), Some(2)]);
}

#[tokio::test]
async fn watch_refused_for_good_says_so_and_can_be_tried_again() {
    let server = Server::unix(Script::failing([PublicError::new(ErrorKind::NotBound, "no").into()])).await;
    let mut watch = client(&server.socket).watch(get("A"));
    assert_eq!(watch.next().await.unwrap_err().kind(), ErrorKind::NotBound);
    assert!(watch.next().await.unwrap().is_ok());
}

#[tokio::test]
async fn wait_live_asks_again_until_all_edges_are_live() {
    let server = Server::unix(Script::default()).await;
    let reply = client(&server.socket).wait_live("1.7".parse().unwrap(), Duration::from_secs(30)).await.unwrap();
    assert_eq!((reply.edges_live, reply.edges_known), (2, 2));
    let reply = client(&server.socket).wait_live("1.7".parse().unwrap(), Duration::ZERO).await.unwrap();
    assert_eq!((reply.edges_live, reply.edges_known), (2, 2));
    assert_eq!(server.script.seen().len(), 3, "the first answer said 1 of 2");
}

#[tokio::test]
async fn tls_with_the_cluster_ca_works_with_and_without_a_certificate() {
    let authority = Authority::new();
    let server = Server::tls(&authority, Script::default()).await;
    for identity in [None, Some(authority.identity("spiffe://c/account/a/worker/web"))] {
        let certified = identity.is_some();
        let tls = Tls { ca_pem: authority.ca_pem(), identity, server_name: None };
        let client = Client::new(Config::tls([&server.address], tls).token(token()).connections(2)).unwrap();
        client.create_store(create("")).await.unwrap();
        assert_eq!(server.script.seen().last().unwrap().certified, certified);
    }
}

#[tokio::test]
async fn tls_with_another_ca_or_another_name_never_sends_the_token() {
    let authority = Authority::new();
    let server = Server::tls(&authority, Script::default()).await;
    let cases = [
        Tls { ca_pem: Authority::new().ca_pem(), ..Default::default() },
        Tls { ca_pem: authority.ca_pem(), server_name: Some("elsewhere.example".into()), ..Default::default() },
    ];
    for tls in cases {
        let client = Client::new(Config::tls([&server.address], tls).token(token()).retries(QUICK)).unwrap();
        let error = client.create_store(create("")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.error.message.contains("certificate"), "{}", error.error.message);
    }
    assert!(server.script.seen().is_empty());
}

/// Makes calls until the client believes a list of this version.
async fn until_held(client: &Client, version: u32) {
    let held = async {
        while client.trust_held() != version {
            client.create_store(create("")).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), held).await.expect("the list is taken over");
}

#[tokio::test]
async fn client_follows_its_cluster_from_authority_to_authority_and_keeps_the_list() {
    let [first, second, third] = [Authority::new(), Authority::new(), Authority::new()];
    let server = Server::tls(&first, Script::default()).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    let config = || {
        let tls = Tls { ca_pem: first.ca_pem(), ..Default::default() };
        Config::tls([&server.address], tls).token(token()).retries(QUICK).connections(2).trust_file(&file)
    };
    let client = Client::new(config()).unwrap();
    client.create_store(create("")).await.unwrap();
    assert_eq!(client.trust_held(), 0);

    // Each time: the next one issues beside the one before, then the server has its certificate, then the one before is dropped.
    for (version, (before, next)) in [(1, (&first, &second)), (3, (&second, &third))] {
        server.script.trusts(version, &[next, before]);
        until_held(&client, version).await;
        assert_eq!(crate::trust_version(&std::fs::read_to_string(&file).unwrap()), version);
        server.shows(next);
        server.script.trusts(version + 1, &[next]);
        until_held(&client, version + 1).await;
    }
    // A program that starts anew begins where the other is; one without the file is where it began.
    Client::new(config()).unwrap().create_store(create("")).await.unwrap();
    std::fs::remove_file(&file).unwrap();
    let error = Client::new(config()).unwrap().create_store(create("")).await.unwrap_err();
    assert!(error.error.message.contains("certificate"), "{}", error.error.message);
}

#[tokio::test]
async fn list_that_no_server_is_verified_by_is_not_taken_over_and_calls_go_on() {
    let (authority, other) = (Authority::new(), Authority::new());
    let server = Server::tls(&authority, Script::default()).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    let tls = Tls { ca_pem: authority.ca_pem(), ..Default::default() };
    let client = Client::new(Config::tls([&server.address], tls).retries(QUICK).trust_file(&file)).unwrap();
    server.script.trusts(7, &[&other]);
    let asked = || server.script.asked();
    while asked() == 0 {
        client.create_store(create("")).await.unwrap();
    }
    // The attempt is over when another may begin.
    client.attempted().await;
    client.create_store(create("")).await.unwrap();
    assert_eq!((client.trust_held(), file.exists()), (0, false));
    // An older list, and one that cannot be used, change nothing either.
    server.script.trusts(8, &[]);
    client.create_store(create("")).await.unwrap();
    server.script.trusts(9, &[&other, &authority]);
    until_held(&client, 9).await;
    server.script.trusts(4, &[&other]);
    client.create_store(create("")).await.unwrap();
    assert_eq!(client.trust_held(), 9);
}

#[tokio::test]
async fn client_that_makes_no_calls_asks_by_itself_when_it_was_told_to() {
    let (authority, other) = (Authority::new(), Authority::new());
    let server = Server::tls(&authority, Script::default()).await;
    let tls = Tls { ca_pem: authority.ca_pem(), ..Default::default() };
    let client = Client::new(Config::tls([&server.address], tls).trust_asked_every(Duration::ZERO)).unwrap();
    server.script.trusts(1, &[&other, &authority]);
    let held = async {
        while client.trust_held() != 1 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), held).await.expect("the list is taken over");
    assert!(server.script.seen().is_empty(), "no call was made");
}

#[tokio::test]
async fn list_that_somebody_put_into_the_file_is_taken_over_while_the_client_lives() {
    let (first, second) = (Authority::new(), Authority::new());
    // As an edge: it tells nothing of authorities.
    let server = Server::tls(&first, Script::default()).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    let tls = Tls { ca_pem: first.ca_pem(), ..Default::default() };
    let config = Config::tls([&server.address], tls).retries(QUICK).trust_file(&file).trust_asked_every(Duration::ZERO);
    let client = Client::new(config).unwrap();
    client.create_store(create("")).await.unwrap();

    let put = |version: u32, list: &str| {
        let beside = folder.path().join("new.pem");
        std::fs::write(&beside, format!("cinnabar-trust-version: {version}\n{list}")).unwrap();
        std::fs::rename(&beside, &file).unwrap();
    };
    let until = async |what: &str, done: &dyn Fn() -> bool| {
        let waited = async {
            while !done() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), waited).await.expect(what);
    };
    // One that cannot be used changes nothing, and the next is looked at all the same.
    put(2, "-----BEGIN CERTIFICATE-----\nnonsense\n");
    let asked = server.script.asked();
    until("it is looked at", &|| server.script.asked() > asked + 1).await;
    assert_eq!(client.trust_held(), 0);
    put(3, &format!("{}{}", second.ca_pem(), first.ca_pem()));
    until("the list is taken over", &|| client.trust_held() == 3).await;
    server.shows(&second);
    client.create_store(create("")).await.unwrap();
}

#[tokio::test]
async fn call_that_fails_at_one_server_is_repeated_at_the_next() {
    let authority = Authority::new();
    let server = Server::tls(&authority, Script::default()).await;
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let tls = Tls { ca_pem: authority.ca_pem(), ..Default::default() };
    let client = Client::new(Config::tls([dead, server.address.clone()], tls).retries(QUICK)).unwrap();
    for _ in 0..4 {
        client.create_store(create("")).await.unwrap();
        // What is made only once is sent to the next server too, for to the dead one nothing was sent.
        client.create_consumer_token(v1::CreateConsumerTokenRequest::default()).await.unwrap();
    }
}

#[tokio::test]
async fn server_that_is_silent_is_left_for_the_next_and_the_one_that_answered_is_asked_again() {
    let authority = Authority::new();
    let server = Server::tls(&authority, Script::default()).await;
    // Takes connections, and says nothing: what a process that hangs looks like.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let tls = Tls { ca_pem: authority.ca_pem(), ..Default::default() };
    let addresses = [silent.local_addr().unwrap().to_string(), server.address.clone()];
    let client = Client::new(Config::tls(addresses, tls).retries(QUICK)).unwrap();
    client.create_store(create("")).await.unwrap();
    assert_eq!(client.server_in_use(), 1);
    client.create_store(create("")).await.unwrap();
    assert_eq!((client.server_in_use(), server.script.seen().len()), (1, 2));
}

#[tokio::test]
async fn config_that_cannot_be_used_is_refused_before_any_call() {
    let ca_pem = Authority::new().ca_pem();
    let tls = || Tls { ca_pem: ca_pem.clone(), ..Default::default() };
    for address in ["", "localhost", "a b:1", "user@host:7400", "host:99999", ":7400", "http://host:1/"] {
        let error = Client::new(Config::tls([address], tls())).unwrap_err();
        assert!(matches!(error, ConfigError::Address { .. }), "{address}: {error}");
    }
    for address in ["127.0.0.1:7400", "[::1]:7400", "control-1.example:7400"] {
        assert!(Client::new(Config::tls([address], tls())).is_ok(), "{address}");
    }
    assert!(matches!(Client::new(Config::tls([""; 0], tls())), Err(ConfigError::NoAddress)));
    for pem in ["", "text", "-----BEGIN CERTIFICATE-----\n%%%\n-----END CERTIFICATE-----\n"] {
        let error = Client::new(Config::tls(["a:1"], Tls { ca_pem: pem.into(), ..Default::default() })).unwrap_err();
        assert!(matches!(error, ConfigError::Pem { what: "CA certificate", .. } | ConfigError::Tls(_)), "{pem}: {error}");
    }
    let identity = Identity { certificate_pem: ca_pem.clone(), key_pem: Zeroizing::new(MARK.into()) };
    let error = Client::new(Config::tls(["a:1"], Tls { identity: Some(identity), ..tls() })).unwrap_err();
    assert!(!format!("{error} {error:?}").contains(MARK));
    for bad in ["", " ", "two words", "line\nbreak", "é"] {
        assert!(matches!(Token::new(bad.to_owned()), Err(ConfigError::Token)), "{bad:?}");
    }
}

#[tokio::test]
async fn nothing_printed_shows_a_token_or_a_key() {
    let server = Server::unix(Script::failing([PublicError::new(ErrorKind::Denied, "no").into()])).await;
    let identity = Identity { certificate_pem: String::new(), key_pem: Zeroizing::new(MARK.into()) };
    let config = Config::tls(["a:1"], Tls { identity: Some(identity), ..Default::default() }).token(token());
    let client = client(&server.socket);
    let error = client.create_store(create("")).await.unwrap_err();
    for text in [format!("{config:?}"), format!("{client:?}"), format!("{error:?} {error}"), format!("{:?}", token())] {
        assert!(!text.contains("canary"), "{text}");
    }
}
