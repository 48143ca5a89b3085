//! `store`.

use serde::Serialize;
use wire::v1;

use super::{Session, all_pages, failed, time};
use crate::{Failure, StoreCommand};

#[derive(Serialize)]
pub(super) struct Row {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) account_id: String,
    pub(super) created: String,
    pub(super) modified: String,
}

impl From<v1::Store> for Row {
    fn from(store: v1::Store) -> Self {
        Self {
            id: store.id,
            name: store.name,
            account_id: store.account_id,
            created: time(store.created_ms),
            modified: time(store.modified_ms),
        }
    }
}

impl Row {
    fn print(&self, session: &Session) -> Result<(), Failure> {
        let fields = [
            ("id", self.id.clone()),
            ("name", self.name.clone()),
            ("account", self.account_id.clone()),
            ("created", self.created.clone()),
            ("modified", self.modified.clone()),
        ];
        session.out.record(self, &fields)
    }
}

pub(super) async fn run(session: &Session, command: StoreCommand) -> Result<(), Failure> {
    let client = session.control()?;
    match command {
        StoreCommand::Create { name } => {
            let request = v1::CreateStoreRequest { account: session.account()?, name, ..Default::default() };
            Row::from(client.create_store(request).await.map_err(failed)?.store.unwrap_or_default()).print(session)
        }
        StoreCommand::List => {
            let account = session.account()?;
            let stores = all_pages(|page| {
                let request = v1::ListStoresRequest { account: account.clone(), page: Some(page) };
                async { client.list_stores(request).await.map(|reply| (reply.stores, reply.next_page)) }
            });
            let rows: Vec<Row> = stores.await?.into_iter().map(Row::from).collect();
            session.out.rows(&["name", "id", "created", "modified"], &rows, |row| {
                vec![row.name.clone(), row.id.clone(), row.created.clone(), row.modified.clone()]
            })
        }
        StoreCommand::Show { store } => {
            let request = v1::ShowStoreRequest { store: Some(session.store(&store)?) };
            Row::from(client.show_store(request).await.map_err(failed)?).print(session)
        }
        StoreCommand::Delete { store, force, yes, wait } => {
            session.confirm(&format!("deleting store {store}"), yes)?;
            let request = v1::DeleteStoreRequest { store: Some(session.store(&store)?), force, ..Default::default() };
            let reply = client.delete_store(request).await.map_err(failed)?;
            session.out.say(&format!("deleted {store}"));
            session.wait_if(wait, &client, reply.receipt).await
        }
    }
}
