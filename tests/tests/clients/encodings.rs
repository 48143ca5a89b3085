//! No way to write a path reaches another account, another store, or another route than the one that is asked for.

use serde_json::{Value, json};
use tests::clients::{Answer, Rest};

use crate::ground::{Ground, text};

/// An id that nothing has.
const NOBODY: &str = "0123456789abcdef0123456789abcdef";

/// An account with one store and one secret in it.
struct Place {
    account: String,
    store: String,
    secret: String,
}

impl Place {
    async fn new(ground: &Ground, name: &str) -> Self {
        let account = ground.account(name).await;
        let mut rest = ground.rest("control-1");
        let stores = format!("/client/v4/accounts/{account}/secrets_store/stores");
        let store = text(&rest.ask("POST", &stores, &json!({ "name": format!("{name}-store") })).await.result(), "id");
        let new = json!([{ "name": format!("{name}_SECRET"), "value": "v", "scopes": ["workers"], "comment": format!("{name} only") }]);
        let made = rest.ask("POST", &format!("{stores}/{store}/secrets"), &new).await.result();
        Self { account, store, secret: text(&made[0], "id") }
    }

    fn stores(&self) -> String {
        format!("/client/v4/accounts/{}/secrets_store/stores", self.account)
    }

    fn path(&self) -> String {
        format!("{}/{}/secrets/{}", self.stores(), self.store, self.secret)
    }

    /// All that is in it, as its administrator sees it.
    async fn content(&self, rest: &mut Rest) -> [Value; 2] {
        let secrets = format!("{}/{}/secrets", self.stores(), self.store);
        [rest.get(&self.stores()).await.result(), rest.get(&secrets).await.result()]
    }
}

/// Ways from the mine to the theirs, for whoever reads them in a way of their own.
fn ways(mine: &Place, theirs: &Place) -> Vec<Vec<u8>> {
    let (a, b) = (&mine.account, &theirs.account);
    let rest_of = |place: &Place| place.path().split_off("/client/v4/accounts/".len() + 32);
    let (own, other) = (rest_of(mine), rest_of(theirs));
    let (root, upper) = ("/client/v4/accounts", b.to_uppercase());
    // One character of the other's id as another writing of it.
    let (first, tail) = b.split_at(1);
    let digit = first.as_bytes()[0];
    let mut ways = vec![
        // The other's own path, with the token of the first.
        format!("{root}/{b}{other}"),
        format!("{root}/{upper}{other}"),
        format!("{root}/%{digit:02x}{tail}{other}"),
        format!("{root}/%{digit:02X}{tail}{other}"),
        format!("{root}/%25{digit:02x}{tail}{other}"),
        // Up and down again.
        format!("{root}/{a}/../{b}{other}"),
        format!("{root}/{a}/%2e%2e/{b}{other}"),
        format!("{root}/{a}/%2E./{b}{other}"),
        format!("{root}/{a}/..%2f{b}{other}"),
        format!("{root}/{a}%2f..%2f{b}{other}"),
        format!("{root}/{a}%2F%2E%2E%2F{b}{other}"),
        format!("{root}/{a}/%252e%252e/{b}{other}"),
        format!("{root}/{a}/..;/{b}{other}"),
        format!("{root}/{a}/..\\{b}{other}"),
        format!("{root}/{a}/%5c..%5c{b}{other}"),
        format!("{root}/./{b}{other}"),
        format!("{root}/{a}/./{own}/../../../../../{b}{other}"),
        format!("/client/v4/user/../accounts/{b}{other}"),
        format!("/client/../client/v4/accounts/{b}{other}"),
        format!("//client//v4//accounts//{b}{other}"),
        format!("/{root}/{b}{other}"),
        // The other's ids under the first account.
        format!("{root}/{a}{other}"),
        format!("{}/{}/secrets/{}", mine.stores(), mine.store, theirs.secret),
        format!("{}/{}%2fsecrets%2f{}", theirs.stores(), theirs.store, theirs.secret),
        format!("{}/../../../{b}/secrets_store/stores", mine.stores()),
        format!("{}/{}/secrets/..%2f..%2f{}%2fsecrets%2f{}", mine.stores(), mine.store, theirs.store, theirs.secret),
        // Two at once.
        format!("{root}/{a},{b}{other}"),
        format!("{root}/{a}%20{b}{other}"),
        format!("{root}/{a}%00{b}{other}"),
        format!("{root}/{b}%00{other}"),
        format!("{root}/{b}%0d%0a{other}"),
        format!("{root}/{a};{b}{other}"),
        format!("{root}/{a}?/../{b}{other}"),
        format!("{root}/{a}{own}?account_id={b}&account={b}&store_id={}&secret_id={}", theirs.store, theirs.secret),
        format!("{root}/{a}#{b}{other}"),
        // Dots, slashes and digits of other alphabets, and longer than they may be.
        format!("{root}/{a}/%c0%ae%c0%ae/{b}{other}"),
        format!("{root}/{a}/%e0%80%ae%e0%80%ae/{b}{other}"),
        format!("{root}/{a}/..%c0%af{b}{other}"),
        format!("{root}/{a}/%ef%bc%8e%ef%bc%8e/{b}{other}"),
        format!("{root}/{a}/..%e2%88%95{b}{other}"),
        format!("{root}/{}{other}", b.chars().map(|c| if c == 'a' { '\u{430}' } else { c }).flat_map(escaped).collect::<String>()),
        format!("{root}/{}{other}", b.chars().map(full_width).flat_map(escaped).collect::<String>()),
        format!("{root}/%ef%bb%bf{b}{other}"),
        // With something behind.
        format!("{root}/{b}{other}/"),
        format!("{root}/{b}/{other}//"),
        format!("{root}/{b}{other}/."),
        format!("{root}/{b}{other}%20"),
        format!("{root}/{b}{other}.json"),
        format!("{root}/{b}/"),
        format!("{root}/"),
        format!("{root}//secrets_store/stores"),
        // The whole address, and a name that is not this server's.
        format!("https://cinnabar.example{root}/{b}{other}"),
        // Another case, and no name of a route.
        format!("{}/{b}{other}", root.to_uppercase()),
        format!("{root}/{b}{}", other.replace("secrets_store", "SECRETS_STORE")),
        format!("/client/V4/accounts/{b}{other}"),
        format!("/accounts/{b}{other}"),
        "*".to_owned(),
    ]
    .into_iter()
    .map(String::into_bytes)
    .collect::<Vec<_>>();
    // What is no text at all.
    for bytes in [&b"\0"[..], b"\xff\xfe", b"\xc0\xae\xc0\xae/", b"\x7f", "\u{202e}".as_bytes(), "\u{2025}/".as_bytes(), b"\t", b"\r"] {
        ways.push([format!("{root}/{a}/").as_bytes(), bytes, format!("{b}{other}").as_bytes()].concat());
        ways.push([format!("{root}/{b}").as_bytes(), bytes, other.as_bytes()].concat());
    }
    // And longer than any path.
    ways.push([format!("{root}/{a}").into_bytes(), b"/..".repeat(4000), format!("/{b}{other}").into_bytes()].concat());
    ways.push(format!("{root}/{}{other}", b.repeat(1000)).into_bytes());
    ways
}

fn escaped(c: char) -> Vec<char> {
    if c.is_ascii() {
        return vec![c];
    }
    let mut bytes = [0; 4];
    c.encode_utf8(&mut bytes).bytes().flat_map(|byte| format!("%{byte:02X}").chars().collect::<Vec<_>>()).collect()
}

fn full_width(c: char) -> char {
    char::from_u32(u32::from(c) + 0xfee0).unwrap()
}

/// The answer holds nothing of theirs, and is an envelope unless it was not even a request.
fn tells_nothing(answer: &Answer, way: &str, theirs: &Place) {
    let body = String::from_utf8_lossy(&answer.body);
    let shown = body.replace(way.split('?').next().unwrap_or_default(), "");
    for secret in ["theirs-store", "theirs_SECRET", "theirs only"] {
        assert!(!shown.contains(secret), "{way} tells {secret}: {body}");
    }
    let done = (200..300).contains(&answer.status);
    assert!(done || (400..500).contains(&answer.status), "{way}: {}: {body}", answer.status);
    if answer.body.is_empty() {
        assert!([400, 414, 431].contains(&answer.status), "{way}: {}", answer.status);
        return;
    }
    let envelope = answer.envelope();
    assert!(!done || !envelope["result"].to_string().contains(&theirs.secret), "{way}: {envelope}");
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_however_written_reach_no_other_account() {
    let ground = Ground::new(0).await;
    let (mine, theirs) = (Place::new(&ground, "mine").await, Place::new(&ground, "theirs").await);
    let token = ground.token("mine", &[format!("super-administrator@{}", mine.account)]).await;
    let mut root = ground.rest("control-1");
    let before = theirs.content(&mut root).await;
    let own = mine.content(&mut root).await;
    let mut rest = root.token(&token);
    let patch = json!({ "comment": "taken over" }).to_string();
    let new = json!([{ "name": "PLANTED", "value": "v", "scopes": ["workers"] }]).to_string();
    let (mut refused, mut asked) = (0, 0);
    for way in ways(&mine, &theirs) {
        let shown = String::from_utf8_lossy(&way).into_owned();
        // What is read as the first's own may be read, and is not to be changed here.
        let reads_own = shown.starts_with(&mine.path());
        let mut read = 0;
        for (method, body) in
            [("GET", ""), ("HEAD", ""), ("OPTIONS", ""), ("DELETE", ""), ("PATCH", patch.as_str()), ("POST", &new), ("PUT", &new)]
        {
            if reads_own && method != "GET" {
                continue;
            }
            asked += 1;
            match rest.send_bytes(method.as_bytes(), &way, &[], body.as_bytes()).await {
                Ok(answer) if method == "HEAD" => assert_eq!(answer.status, read, "HEAD {shown}: {answer:?}"),
                Ok(answer) => {
                    tells_nothing(&answer, &shown, &theirs);
                    if method == "GET" {
                        read = answer.status;
                    }
                    refused += usize::from(answer.status >= 400);
                }
                // What is no request of HTTP may end the connection.
                Err(_) => assert!(way.iter().any(|byte| *byte <= b' ' || *byte >= 0x7f) || way.len() > 8000, "{method} {shown}"),
            }
        }
    }
    assert!(refused > asked / 2, "{refused} of {asked} were refused");
    assert_eq!(theirs.content(&mut root).await, before, "nothing of theirs has changed");
    assert_eq!(mine.content(&mut root).await, own, "and nothing of the first's own");
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_proxies_obey_change_neither_route_nor_account() {
    let ground = Ground::new(0).await;
    let (mine, theirs) = (Place::new(&ground, "mine").await, Place::new(&ground, "theirs").await);
    let token = ground.token("mine", &[format!("super-administrator@{}", mine.account)]).await;
    let mut root = ground.rest("control-1");
    let mut rest = root.token(&token);
    let plain = rest.get(&mine.path()).await.result();
    let path = theirs.path();
    for header in [
        ("X-Original-URL", path.as_str()),
        ("X-Rewrite-URL", &path),
        ("X-Forwarded-Path", &path),
        ("X-Forwarded-Prefix", "/.."),
        ("X-HTTP-Method-Override", "DELETE"),
        ("X-HTTP-Method", "DELETE"),
        ("X-Method-Override", "DELETE"),
        ("X-Auth-Email", "root@example.com"),
        ("X-Account-Id", &theirs.account),
        ("X-Forwarded-For", "127.0.0.1"),
    ] {
        let answer = rest.send("GET", &mine.path(), &[header], b"").await.unwrap();
        assert_eq!(answer.result(), plain, "{header:?}");
    }
    // Two credentials: the one that counts is known, whichever stands first.
    let (_, everywhere) = ground.fleet.credentials();
    let key = [("X-Auth-Key", everywhere.as_str()), ("X-Auth-Email", "root@example.com")];
    let answer = rest.send("GET", &theirs.path(), &key, b"").await.unwrap();
    assert_eq!(answer.refusal().0, 404, "a bearer's token is who asks");
    assert_eq!(root.get(&mine.path()).await.result(), plain);
}

/// What is another account's, and what is nobody's, are answered with the same words, wherever the ids stand.
#[tokio::test(flavor = "multi_thread")]
async fn ids_of_another_account_are_answered_as_unknown_ones() {
    let ground = Ground::new(0).await;
    let (mine, theirs) = (Place::new(&ground, "mine").await, Place::new(&ground, "theirs").await);
    let mut root = ground.rest("control-1");
    for role in ["super-administrator", "admin", "deployer", "reporter"] {
        let token = ground.token(role, &[format!("{role}@{}", mine.account)]).await;
        let mut rest = root.token(&token);
        let of = |account: &str, store: &str, secret: &str| {
            format!("/client/v4/accounts/{account}/secrets_store/stores/{store}/secrets/{secret}")
        };
        let pairs = [
            (theirs.path(), of(NOBODY, NOBODY, NOBODY)),
            (of(&mine.account, &theirs.store, &theirs.secret), of(&mine.account, NOBODY, NOBODY)),
            (of(&mine.account, &mine.store, &theirs.secret), of(&mine.account, &mine.store, NOBODY)),
            (of(&mine.account, "theirs-store", "theirs_SECRET"), of(&mine.account, "nobodys-store", "NOBODYS")),
            (of("theirs", "theirs-store", "theirs_SECRET"), of("nobody", "nobodys-store", "NOBODYS")),
        ];
        for (other, unknown) in pairs {
            for (method, tail, body) in [
                ("GET", "", json!(null)),
                ("DELETE", "", json!(null)),
                ("PATCH", "", json!({ "comment": "c" })),
                ("PATCH", "", json!({ "value": "v" })),
                ("POST", "/duplicate", json!({ "name": "COPY", "scopes": ["workers"] })),
            ] {
                let [theirs, nobodys] = [&other, &unknown].map(|path| format!("{path}{tail}"));
                let said = [rest.ask(method, &theirs, &body).await, rest.ask(method, &nobodys, &body).await];
                // An answer repeats what it was asked for, and knows nothing else.
                let parts = |path: &str| path.split('/').map(str::to_owned).collect::<Vec<_>>();
                let asked = [parts(&theirs), parts(&nobodys)];
                let mut told = said.into_iter().zip(&asked).map(|(answer, asked)| {
                    let mut errors = answer.envelope()["errors"].to_string();
                    for place in [4, 7, 9] {
                        errors = errors.replace(&asked[place], &format!("<{place}>"));
                    }
                    (answer.status, header_names(&answer), errors)
                });
                let (one, two) = (told.next().unwrap(), told.next().unwrap());
                assert_eq!(one, two, "{role}: {method} {theirs}");
                // In its own store, a role that changes nothing is told so before it is looked for the secret.
                let own = theirs.contains(&mine.store) && one.0 == 403;
                assert!(one.0 == 404 || own, "{role}: {method} {theirs}: {}: {}", one.0, one.2);
            }
        }
    }
    assert_eq!(root.get(&theirs.path()).await.status, 200);
}

fn header_names(answer: &Answer) -> Vec<String> {
    answer.headers.iter().map(|(name, _)| name.clone()).collect()
}
