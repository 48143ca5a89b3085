//! `account` and `quota`.

use serde::Serialize;
use wire::v1;

use super::{Session, all_pages, failed, time};
use crate::{AccountCommand, Failure, QuotaCommand};

#[derive(Serialize)]
struct Row {
    id: String,
    name: String,
    created: String,
}

impl From<v1::Account> for Row {
    fn from(account: v1::Account) -> Self {
        Self { id: account.id, name: account.name, created: time(account.created_ms) }
    }
}

impl Row {
    fn print(&self, session: &Session) -> Result<(), Failure> {
        session.out.record(self, &[("id", self.id.clone()), ("name", self.name.clone()), ("created", self.created.clone())])
    }
}

pub(super) async fn run(session: &Session, command: AccountCommand) -> Result<(), Failure> {
    let client = session.control()?;
    match command {
        AccountCommand::Create { name } => {
            let reply = client.create_account(v1::CreateAccountRequest { name, ..Default::default() }).await.map_err(failed)?;
            Row::from(reply.account.unwrap_or_default()).print(session)
        }
        AccountCommand::List => {
            let accounts = all_pages(|page| async {
                let reply = client.list_accounts(v1::ListAccountsRequest { page: Some(page) }).await?;
                Ok((reply.accounts, reply.next_page))
            });
            let rows: Vec<Row> = accounts.await?.into_iter().map(Row::from).collect();
            session.out.rows(&["id", "name", "created"], &rows, |row| vec![row.id.clone(), row.name.clone(), row.created.clone()])
        }
        AccountCommand::Show { account } => {
            let account = account.map_or_else(|| session.account(), Ok)?;
            Row::from(client.show_account(v1::ShowAccountRequest { account }).await.map_err(failed)?).print(session)
        }
    }
}

#[derive(Serialize)]
struct QuotaRow {
    secrets: u64,
    secrets_max: u64,
    stores: u64,
    stores_max: u64,
    value_bytes_max: u64,
}

pub(super) async fn quota(session: &Session, command: QuotaCommand) -> Result<(), Failure> {
    let client = session.control()?;
    let account = session.account()?;
    let quota = match command {
        QuotaCommand::Show => client.show_quota(v1::ShowQuotaRequest { account }).await.map_err(failed)?,
        QuotaCommand::Set { secrets, stores, value_bytes } => {
            let request = v1::SetQuotaRequest {
                account,
                secrets_max: secrets.map(u64::from),
                stores_max: stores.map(u64::from),
                value_bytes_max: value_bytes.map(u64::from),
                ..Default::default()
            };
            client.set_quota(request).await.map_err(failed)?.quota.unwrap_or_default()
        }
    };
    let row = QuotaRow {
        secrets: quota.secrets,
        secrets_max: quota.secrets_max,
        stores: quota.stores,
        stores_max: quota.stores_max,
        value_bytes_max: quota.value_bytes_max,
    };
    let fields = [
        ("secrets", format!("{} of {}", row.secrets, row.secrets_max)),
        ("stores", format!("{} of {}", row.stores, row.stores_max)),
        ("bytes of a value", format!("at most {}", row.value_bytes_max)),
    ];
    session.out.record(&row, &fields)
}
