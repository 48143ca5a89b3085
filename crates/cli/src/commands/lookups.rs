//! `get` and `watch`: what a consumer does, from the command line.

use std::time::Duration;

use client::{Client, Config, Token};
use serde::Serialize;
use types::Position;
use wire::v1;
use zeroize::Zeroizing;

use super::{Session, failed};
use crate::{EdgeContext, Failure, LookupArgs};

#[derive(Serialize)]
struct Found<'a> {
    value: &'a str,
    version: u64,
    position: String,
    age_ms: Option<u64>,
    edge: &'a str,
}

pub(super) async fn get(session: &Session, arguments: LookupArgs) -> Result<(), Failure> {
    let client = edge(session, &arguments)?;
    let found = client.get(request(session, &arguments)?).await.map_err(failed)?;
    print(session, found, arguments.raw)
}

pub(super) async fn watch(session: &Session, arguments: LookupArgs) -> Result<(), Failure> {
    let client = edge(session, &arguments)?;
    let mut watch = client.watch(request(session, &arguments)?);
    loop {
        tokio::select! {
            biased;
            _ = tokio::signal::ctrl_c() => return Ok(()),
            next = watch.next() => match next.map_err(failed)? {
                Ok(found) => print(session, found, arguments.raw)?,
                Err(error) => session.out.say(&format!("{} [{}]", error.message, error.kind.name())),
            },
        }
    }
}

fn edge(session: &Session, arguments: &LookupArgs) -> Result<Client, Failure> {
    let chosen = chosen(session, arguments.edge.as_deref())?;
    let mut config = Config::unix(&chosen.socket).timeout(session.global.timeout);
    if let Some(path) = &arguments.token_file {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Failure::usage(format!("cannot read the token from {}: {error}", path.display())))?;
        config = config.token(Token::new(Zeroizing::new(text)).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?);
    }
    Client::new(config).map_err(|error| Failure::usage(format!("cannot reach edge {}: {error}", chosen.name)))
}

/// The socket that was named by its path, which needs no context, or an edge of the context.
fn chosen(session: &Session, wanted: Option<&str>) -> Result<EdgeContext, Failure> {
    if let Some(path) = wanted.filter(|wanted| wanted.contains('/')) {
        return Ok(EdgeContext { name: path.to_owned(), socket: path.into() });
    }
    let edges = session.context()?.edges;
    let name_a_socket = "name an edge's socket by its path, such as `--edge /run/cinnabar/edge.sock`";
    if edges.is_empty() {
        return Err(Failure::usage(format!("this context names no edge to ask: {name_a_socket}")));
    }
    let known = edges.iter().map(|edge| edge.name.as_str()).collect::<Vec<_>>().join(", ");
    let mut edges = edges.into_iter();
    match wanted {
        Some(name) => edges.find(|edge| edge.name == name),
        None => edges.next(),
    }
    .ok_or_else(|| {
        Failure::usage(format!("no edge {:?} in this context; known are: {known}; or {name_a_socket}", wanted.unwrap_or_default()))
    })
}

fn request(session: &Session, arguments: &LookupArgs) -> Result<v1::GetRequest, Failure> {
    let min_position =
        arguments.min_position.as_deref().map(str::parse::<Position>).transpose().map_err(|error| Failure::usage(error.to_string()))?;
    let freshness = v1::Freshness { min_position: min_position.map(Into::into), max_age_ms: arguments.max_age.map(millis) };
    let which = match (arguments.previous, arguments.exact) {
        (true, _) => Some(v1::wanted::Which::Pointer(v1::Pointer::Previous.into())),
        (false, Some(version)) => Some(v1::wanted::Which::Version(version)),
        (false, None) => None,
    };
    let wanted = v1::Wanted { binding: arguments.binding.clone(), secret: arguments.secret.clone().unwrap_or_default(), which };
    Ok(v1::GetRequest { consumer: Some(session.consumer(&arguments.consumer)?), wanted: Some(wanted), freshness: Some(freshness) })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn print(session: &Session, found: v1::Found, raw: bool) -> Result<(), Failure> {
    let position = found.position.map(Position::from).unwrap_or_default().to_string();
    let value = Zeroizing::new(found.value);
    if session.out.is_json() {
        let text = std::str::from_utf8(&value)
            .map_err(|_| Failure::failed("the value is not text: take --format table with --raw to get its bytes"))?;
        return session.out.json(&Found { value: text, version: found.version, position, age_ms: found.age_ms, edge: &found.edge });
    }
    session.out.bytes(&value, !raw)?;
    let age = found.age_ms.map_or_else(|| "unknown".to_owned(), |age| format!("{age} ms"));
    session.out.say(&format!("version {} at position {position}, age {age}, from {}", found.version, found.edge));
    Ok(())
}
