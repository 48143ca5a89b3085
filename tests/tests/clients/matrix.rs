//! Who may do what: every route of REST and every call of gRPC, as every role with every permission, in its own account and in another's.
//! What is expected comes from the one table (`state::Operation`); which row a call stands under is said here, once per call.
//!
//! A call that may be made is made for something that cannot be (a name that is taken, a node that nobody has), so that it can be made
//! over and over: what counts is whether it is refused for want of permission, or because nothing of the kind is there.

mod calls;
mod routes;

use std::collections::BTreeSet;

use state::{Operation, Permission, Role};
use tests::process::{Extra, Fleet, raw};
use wire::{ErrorKind, v1};

/// Under which row of the table a call stands, and what it reaches.
#[derive(Clone, Copy, Debug)]
enum Rule {
    /// The cluster.
    Cluster(Operation),
    /// An account, or something in it.
    Account(Operation),
    /// An account, by those who have the operation in the whole cluster.
    Over(Operation),
    /// An account, but who has the operation nowhere is told so before it is looked for the account.
    Within(Operation),
    /// Something of an account that is not there for those who have not the first; the second is what is done with it.
    Unseen(Operation, Operation),
    /// Whoever has the operation somewhere; shown is what they have it for.
    Somewhere(Operation),
    /// Whoever is known; shown is what they may see.
    Known,
}

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Permission was no hindrance.
    Allowed,
    /// It was refused for want of permission.
    Refused,
    /// The account, or a token of it, was said not to be there.
    Hidden,
    /// Nobody knows who asks.
    Stranger,
    /// It is not served.
    Missing,
}

/// An account with one of everything.
struct Place {
    account: String,
    store: String,
    secret: String,
    /// The name of a consumer, and of its binding to the secret.
    consumer: &'static str,
    binding: &'static str,
    /// The id of a token of its own, and the name of a member.
    token: String,
    member: &'static str,
}

const TAKEN: &str = "TAKEN";

impl Place {
    async fn new(fleet: &Fleet, name: &str) -> Self {
        let client = fleet.operator().client;
        let (consumer, binding, member) = ("shop", "BOUND", "clerk");
        let made = client.create_account(v1::CreateAccountRequest { name: name.into(), ..Default::default() }).await.unwrap();
        let account = made.account.unwrap().id;
        let new = v1::CreateStoreRequest { account: account.clone(), name: "store".into(), ..Default::default() };
        let store = client.create_store(new).await.unwrap().store.unwrap().id;
        let new =
            |name: &str| v1::NewSecret { name: name.into(), value: b"v".to_vec(), scopes: vec!["workers".into()], ..Default::default() };
        let at = Some(v1::StoreRef { account: account.clone(), store: store.clone() });
        let secrets = vec![new("KEPT"), new(TAKEN)];
        let made = client.create_secrets(v1::CreateSecretsRequest { store: at, secrets, ..Default::default() }).await.unwrap();
        let secret = made.secrets[0].id.clone();
        let mut place = Self { account, store, secret, consumer, binding, token: String::new(), member };
        client.create_consumer(v1::CreateConsumerRequest { consumer: place.consumer(), ..Default::default() }).await.unwrap();
        place.bind(fleet, binding).await;
        let new = v1::CreateMemberRequest { member: place.member(member), ..Default::default() };
        client.create_member(new).await.unwrap();
        place.token = place.make_token(fleet).await;
        place
    }

    fn store(&self) -> Option<v1::StoreRef> {
        Some(v1::StoreRef { account: self.account.clone(), store: self.store.clone() })
    }

    fn secret(&self) -> Option<v1::SecretRef> {
        Some(v1::SecretRef { account: self.account.clone(), store: self.store.clone(), secret: self.secret.clone() })
    }

    fn consumer(&self) -> Option<v1::ConsumerRef> {
        Some(v1::ConsumerRef { account: self.account.clone(), kind: v1::ConsumerKind::Worker.into(), name: self.consumer.into() })
    }

    fn member(&self, name: &str) -> Option<v1::MemberRef> {
        Some(v1::MemberRef { account: self.account.clone(), name: name.into() })
    }

    async fn bind(&self, fleet: &Fleet, name: &str) {
        let target = self.secret().map(v1::bind_request::Target::Secret);
        let bind = v1::BindRequest { consumer: self.consumer(), name: name.into(), target, ..Default::default() };
        fleet.operator().client.bind(bind).await.unwrap();
    }

    /// A secret that was deleted: its id.
    async fn delete_one(&self, fleet: &Fleet, name: &str) -> String {
        let client = fleet.operator().client;
        let new = v1::NewSecret { name: name.into(), value: b"v".to_vec(), scopes: vec!["workers".into()], ..Default::default() };
        let create = v1::CreateSecretsRequest { store: self.store(), secrets: vec![new], ..Default::default() };
        let made = client.create_secrets(create).await.unwrap().secrets[0].id.clone();
        let delete = v1::DeleteSecretsRequest { store: self.store(), secrets: vec![made.clone()], ..Default::default() };
        client.delete_secrets(delete).await.unwrap();
        made
    }

    /// A token that is to be replaced or revoked: its id.
    async fn make_token(&self, fleet: &Fleet) -> String {
        let new = v1::CreateTokenRequest { name: "spare".into(), grants: vec![grant("reporter", &self.account)], ..Default::default() };
        fleet.operator().client.create_token(new).await.unwrap().token_id
    }
}

/// A role in an account; in the whole cluster where none is named.
fn grant(role: &str, account: &str) -> v1::TokenGrant {
    v1::TokenGrant { role: role.into(), account: account.into(), ..Default::default() }
}

/// Somebody with a role, a permission, and a reach.
struct Caller {
    role: Role,
    permission: Permission,
    /// None: the whole cluster.
    account: Option<String>,
    token: String,
}

impl Caller {
    async fn all(fleet: &Fleet, account: &str) -> Vec<Self> {
        let mut callers = Vec::new();
        for account in [Some(account.to_owned()), None] {
            for role in Role::ALL {
                for permission in Permission::ALL {
                    let grants = vec![grant(role.name(), account.as_deref().unwrap_or_default())];
                    let (name, permission_name) = (format!("{}-{}", role.name(), permission.name()), permission.name().to_owned());
                    let new = v1::CreateTokenRequest { name, grants, permission: permission_name, ..Default::default() };
                    let token = fleet.operator().client.create_token(new).await.unwrap().token;
                    callers.push(Self { role, permission, account: account.clone(), token });
                }
            }
        }
        callers
    }

    /// What the table says of a call that reaches for `account`.
    fn expected(&self, rule: Rule, account: &str) -> Verdict {
        let has = |operation: Operation| operation.roles().contains(self.role) && self.permission >= operation.permission();
        let verdict = |allowed: bool| if allowed { Verdict::Allowed } else { Verdict::Refused };
        match rule {
            Rule::Known => Verdict::Allowed,
            Rule::Somewhere(operation) => verdict(has(operation)),
            Rule::Cluster(operation) => verdict(self.account.is_none() && has(operation)),
            Rule::Within(operation) if !has(operation) => Verdict::Refused,
            Rule::Unseen(seen, _) if !has(seen) => Verdict::Hidden,
            Rule::Account(_) | Rule::Over(_) | Rule::Within(_) | Rule::Unseen(..)
                if self.account.as_ref().is_some_and(|own| own != account) =>
            {
                Verdict::Hidden
            }
            Rule::Over(operation) => verdict(self.account.is_none() && has(operation)),
            Rule::Account(operation) | Rule::Within(operation) | Rule::Unseen(_, operation) => verdict(has(operation)),
        }
    }

    fn shown(&self) -> String {
        format!("{} with {} in {}", self.role.name(), self.permission.name(), self.account.as_deref().unwrap_or("the cluster"))
    }
}

/// One control node that limits nobody.
async fn ground() -> (Fleet, [Place; 2], Vec<Caller>) {
    let control = "\n[rates]\nwrites_per_second = 0\nfailed_logins_per_minute = 0\nfailed_logins_in_all_per_minute = 0\n".to_owned();
    let fleet = Fleet::start_with(1, 0, Extra { control, ..Default::default() }).await;
    let places = [Place::new(&fleet, "own").await, Place::new(&fleet, "other").await];
    let callers = Caller::all(&fleet, &places[0].account).await;
    (fleet, places, callers)
}

/// Every rule has an operation, and every operation that a person can have is tried.
fn covers_the_table(rules: impl Iterator<Item = Rule>) {
    let tried: BTreeSet<Operation> = rules
        .filter_map(|rule| match rule {
            Rule::Cluster(operation) | Rule::Account(operation) | Rule::Over(operation) => Some(operation),
            Rule::Within(operation) | Rule::Unseen(_, operation) | Rule::Somewhere(operation) => Some(operation),
            Rule::Known => None,
        })
        .collect();
    let open = Operation::ALL.into_iter().filter(|operation| !operation.roles().is_empty());
    let missing: Vec<_> = open.filter(|operation| !tried.contains(operation) && !operation.open_to_nodes()).collect();
    assert!(missing.is_empty(), "no call stands under {missing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn matrix_of_calls_is_as_the_table_says() {
    let (fleet, places, callers) = ground().await;
    let calls = calls::all();
    covers_the_table(calls.iter().map(|call| call.rule));
    let (ca, _) = fleet.credentials();
    let mut channel = raw::connect(fleet.address("control-1"), &ca, None);
    let mut wrong = Vec::new();
    for call in &calls {
        for place in &places {
            for caller in &callers {
                let fresh = calls::fresh(&fleet, place, call.fresh).await;
                let body = raw::framed(&(call.message)(place, &fresh));
                let answer = raw::call(&mut channel, &call.path(), Some(&caller.token), body).await;
                let got = verdict(&answer);
                let expected = caller.expected(call.rule, &place.account);
                if got != expected {
                    let of = if place.account == places[0].account { "own" } else { "other" };
                    wrong.push(format!(
                        "{} of the {of} account as {}: {got:?}, not {expected:?}: {:?}",
                        call.name,
                        caller.shown(),
                        answer.error
                    ));
                }
            }
            let fresh = calls::fresh(&fleet, place, call.fresh).await;
            let body = (call.message)(place, &fresh);
            for token in [None, Some("nobody")] {
                let answer = raw::call(&mut channel, &call.path(), token, raw::framed(&body)).await;
                assert_eq!(verdict(&answer), Verdict::Stranger, "{}: {answer:?}", call.name);
            }
        }
    }
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

fn verdict(answer: &raw::Answer) -> Verdict {
    let unseen = |error: &wire::PublicError| error.subject == "account" || error.message.starts_with("no token ");
    match (answer.code, answer.error.kind) {
        (0, _) => Verdict::Allowed,
        (_, ErrorKind::Denied) => Verdict::Refused,
        (_, ErrorKind::Unauthenticated) => Verdict::Stranger,
        (_, ErrorKind::NotFound) if unseen(&answer.error) => Verdict::Hidden,
        (_, ErrorKind::Unsupported) => Verdict::Missing,
        (_, ErrorKind::Internal | ErrorKind::Unavailable | ErrorKind::Busy) => panic!("{answer:?}"),
        _ => Verdict::Allowed,
    }
}

/// The calls of the matrix are those that the protocol has.
#[test]
fn matrix_has_every_call() {
    let listed: BTreeSet<String> =
        calls::all().iter().map(|call| call.name.to_owned()).chain(calls::ELSEWHERE.iter().map(|name| (*name).to_owned())).collect();
    assert_eq!(listed, calls::declared());
}

#[tokio::test(flavor = "multi_thread")]
async fn matrix_of_routes_is_as_the_table_says_and_has_every_route() {
    let (fleet, places, callers) = ground().await;
    let (ca, token) = fleet.credentials();
    let mut root = tests::clients::Rest::new(fleet.address("control-1"), &ca, &token);
    let routes = routes::all();
    let listed: BTreeSet<String> = routes.iter().map(|route| format!("{} {}", route.method, route.path)).collect();
    assert_eq!(listed, routes::declared(&mut root).await);
    let mut wrong = Vec::new();
    for route in &routes {
        for place in &places {
            for caller in &callers {
                let path = route.path(place, &calls::fresh(&fleet, place, route.fresh).await);
                let answer = root.token(&caller.token).ask(route.method, &path, &(route.body)(place)).await;
                let got = routes::verdict(&answer);
                let expected = caller.expected(route.rule, &place.account);
                if got != expected {
                    let body = String::from_utf8_lossy(&answer.body);
                    wrong.push(format!("{} {path} as {}: {got:?}, not {expected:?}: {body}", route.method, caller.shown()));
                }
            }
            let path = route.path(place, "BOUND");
            let answer = root.showing(&[]).ask(route.method, &path, &(route.body)(place)).await;
            assert_eq!(routes::verdict(&answer), Verdict::Stranger, "{} {path}: {answer:?}", route.method);
        }
    }
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}
