//! `bind`, `unbind` and `binding`.

use serde::Serialize;
use wire::v1;

use super::{Session, all_pages, failed, or_dash, time};
use crate::{BindingCommand, Failure};

/// The store of a binding that names none.
const USUAL_STORE: &str = "default";

#[derive(Serialize)]
struct Row {
    consumer: String,
    name: String,
    target: String,
    target_id: String,
    dangling: bool,
    created: String,
}

impl From<v1::Binding> for Row {
    fn from(binding: v1::Binding) -> Self {
        let kind = wire::parse::consumer_kind("kind", binding.consumer_kind).map_or("unknown", types::ConsumerKind::name);
        let is_store = binding.secret_id.is_empty();
        let target = if is_store { format!("{}/*", binding.store_name) } else { format!("{}/{}", binding.store_name, binding.secret_name) };
        Self {
            consumer: format!("{kind}/{}", binding.consumer_name),
            name: binding.name,
            target,
            target_id: if is_store { binding.store_id } else { binding.secret_id },
            dangling: binding.target_deleted,
            created: time(binding.created_ms),
        }
    }
}

pub(super) async fn bind(
    session: &Session,
    consumer: &str,
    binding: Option<String>,
    store: Option<String>,
    wait: bool,
) -> Result<(), Failure> {
    let client = session.control()?;
    let reference = session.consumer(consumer)?;
    let (name, target) = match (binding, store) {
        (None, Some(store)) => {
            let name = store.replace('-', "_");
            (name, v1::bind_request::Target::Store(session.store(&store)?))
        }
        (Some(binding), _) => {
            let (name, secret) = match binding.split_once('=') {
                Some((name, secret)) => (name.to_owned(), secret.to_owned()),
                None => (binding.clone(), format!("{USUAL_STORE}/{binding}")),
            };
            (name, v1::bind_request::Target::Secret(session.secret(&secret)?))
        }
        (None, None) => return Err(Failure::usage("say what to bind: VAR=STORE/NAME, or --store STORE")),
    };
    let request = v1::BindRequest { consumer: Some(reference), name, target: Some(target), ..Default::default() };
    let reply = client.bind(request).await.map_err(failed)?;
    let row = Row::from(reply.binding.unwrap_or_default());
    session.out.record(&row, &[("bound", format!("{} reads {} as {}", row.consumer, row.target, row.name))])?;
    session.wait_if(wait, &client, reply.receipt).await
}

pub(super) async fn unbind(session: &Session, consumer: &str, name: Option<String>, wait: bool) -> Result<(), Failure> {
    let client = session.control()?;
    let name = name.ok_or_else(|| Failure::usage("say which binding: VAR, or --store STORE"))?.replace('-', "_");
    let request = v1::UnbindRequest { consumer: Some(session.consumer(consumer)?), name: name.clone(), ..Default::default() };
    let reply = client.unbind(request).await.map_err(failed)?;
    session.out.say(&format!("{consumer} no longer reads {name}"));
    session.wait_if(wait, &client, reply.receipt).await
}

pub(super) async fn run(session: &Session, command: BindingCommand) -> Result<(), Failure> {
    let client = session.control()?;
    let BindingCommand::List { consumer } = command;
    let consumer = consumer.map(|consumer| session.consumer(&consumer)).transpose()?;
    let account = session.account()?;
    let bindings = all_pages(|page| {
        let request = v1::ListBindingsRequest { account: account.clone(), consumer: consumer.clone(), page: Some(page) };
        async { client.list_bindings(request).await.map(|reply| (reply.bindings, reply.next_page)) }
    });
    let rows: Vec<Row> = bindings.await?.into_iter().map(Row::from).collect();
    session.out.rows(&["consumer", "name", "reads", "created", "note"], &rows, |row| {
        let note = or_dash(if row.dangling { "its target was deleted" } else { "" });
        vec![row.consumer.clone(), row.name.clone(), row.target.clone(), row.created.clone(), note]
    })
}
