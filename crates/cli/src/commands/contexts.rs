//! `context`.

use client::{Client, Config, Tls, Token};
use serde::Serialize;

use super::{Session, unusable};
use crate::{Context, ContextCommand, Contexts, Failure, value};

#[derive(Serialize)]
struct Row {
    name: String,
    current: bool,
    control: String,
    account: String,
    edges: Vec<String>,
}

pub(super) fn run(session: &Session, command: ContextCommand) -> Result<(), Failure> {
    let path = Contexts::path()?;
    let mut contexts = session.contexts()?;
    match command {
        ContextCommand::List => {
            let current = contexts.current.clone();
            let row = |(name, context): (String, Context)| Row {
                current: current.as_deref() == Some(name.as_str()),
                name,
                control: context.control,
                account: context.account.unwrap_or_default(),
                edges: context.edges.into_iter().map(|edge| edge.name).collect(),
            };
            let rows: Vec<Row> = contexts.contexts.into_iter().map(row).collect();
            session.out.rows(&["", "name", "control", "account", "edges"], &rows, |row| {
                let mark = if row.current { "*" } else { "" };
                vec![mark.into(), row.name.clone(), row.control.clone(), super::or_dash(&row.account), super::or_dash(&row.edges.join(","))]
            })
        }
        ContextCommand::Use { name } => {
            contexts.choose(Some(&name))?;
            contexts.current = Some(name.clone());
            contexts.save(&path)?;
            session.out.say(&format!("{name} is in force now"));
            Ok(())
        }
        ContextCommand::Add { name, control, ca } => {
            let ca = std::fs::read_to_string(&ca).map_err(|error| Failure::usage(format!("cannot read {}: {error}", ca.display())))?;
            let token = value::read_token(false, "operator token")?.to_string();
            let account = session.global.account.clone();
            let context = Context { control, ca, token, account, edges: Vec::new(), members: Vec::new() };
            check(&context)?;
            contexts.contexts.insert(name.clone(), context);
            let in_force = *contexts.current.get_or_insert(name.clone()) == name;
            contexts.save(&path)?;
            let (choice, note) = if in_force { (String::new(), ", in force") } else { (format!("-c {name} "), "") };
            session.out.say(&format!("added {name}{note}; `cinnabar {choice}whoami` tries it"));
            Ok(())
        }
        ContextCommand::Ca { name, ca } => {
            contexts.choose(Some(&name))?;
            let ca = std::fs::read_to_string(&ca).map_err(|error| Failure::usage(format!("cannot read {}: {error}", ca.display())))?;
            if let Some(context) = contexts.contexts.get_mut(&name) {
                context.ca = ca;
                check(context)?;
            }
            contexts.save(&path)?;
            session.out.say(&format!("{name} believes this authority now"));
            Ok(())
        }
        ContextCommand::Remove { name } => {
            contexts.choose(Some(&name))?;
            contexts.contexts.remove(&name);
            let was_in_force = contexts.current.as_deref() == Some(name.as_str());
            if was_in_force {
                contexts.current = None;
            }
            contexts.save(&path)?;
            let note = if was_in_force { "; none is in force now: `cinnabar context use NAME`" } else { "" };
            session.out.say(&format!("removed {name} with its token{note}"));
            Ok(())
        }
        ContextCommand::Env | ContextCommand::Exec { .. } => Err(Failure::failed("this command is carried out elsewhere")),
    }
}

/// Whether a client can be made of it; what is at the address is not asked.
fn check(context: &Context) -> Result<(), Failure> {
    let token = Token::new(context.token.clone()).map_err(|error| unusable(&error))?;
    let tls = Tls { ca_pem: context.ca.clone(), ..Tls::default() };
    Client::new(Config::tls([context.control.as_str()], tls).token(token)).map(drop).map_err(|error| unusable(&error))
}
