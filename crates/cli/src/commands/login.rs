//! `login`: another token for the context in force.

use client::{Client, Token};
use wire::v1;

use super::{Session, failed, status};
use crate::{Contexts, Failure, value};

/// Takes the token only once the cluster has accepted it: the context is as it was when anything fails.
pub(super) async fn run(session: &Session, from_stdin: bool) -> Result<(), Failure> {
    let mut contexts = session.contexts()?;
    let name = contexts.choose(session.global.context.as_deref())?.0.to_owned();
    let text = value::read_token(from_stdin, &format!("token for context {name}"))?.to_string();
    let token = Token::new(text.clone()).map_err(|error| Failure::usage(error.to_string()))?;
    let client: Client = session.control_as(token)?;
    let reply = client.who_am_i(v1::WhoAmIRequest {}).await.map_err(failed)?;
    if let Some(context) = contexts.contexts.get_mut(&name) {
        context.token = text;
    }
    contexts.save(&Contexts::path()?)?;
    session.out.say(&format!("context {name} has the new token"));
    status::print_me(session, reply)
}
