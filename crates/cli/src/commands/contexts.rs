//! `context`.

use serde::Serialize;

use super::Session;
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
            contexts.current = Some(name);
            Ok(contexts.save(&path)?)
        }
        ContextCommand::Add { name, control, ca } => {
            let ca = std::fs::read_to_string(&ca).map_err(|error| Failure::usage(format!("cannot read {}: {error}", ca.display())))?;
            let token = value::read(None, false, "operator token")?;
            let token = std::str::from_utf8(&token).map_err(|_| Failure::usage("the token is not text"))?.trim().to_owned();
            let account = session.global.account.clone();
            contexts.contexts.insert(name.clone(), Context { control, ca, token, account, edges: Vec::new(), members: Vec::new() });
            contexts.current.get_or_insert(name);
            Ok(contexts.save(&path)?)
        }
        ContextCommand::Ca { name, ca } => {
            contexts.choose(Some(&name))?;
            let ca = std::fs::read_to_string(&ca).map_err(|error| Failure::usage(format!("cannot read {}: {error}", ca.display())))?;
            if let Some(context) = contexts.contexts.get_mut(&name) {
                context.ca = ca;
            }
            Ok(contexts.save(&path)?)
        }
        ContextCommand::Remove { name } => {
            contexts.choose(Some(&name))?;
            contexts.contexts.remove(&name);
            if contexts.current.as_deref() == Some(name.as_str()) {
                contexts.current = None;
            }
            Ok(contexts.save(&path)?)
        }
        ContextCommand::Env | ContextCommand::Exec { .. } => Err(Failure::failed("this command is carried out elsewhere")),
    }
}
