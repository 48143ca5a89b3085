//! `account` and `quota`.

use serde::Serialize;
use wire::v1;

use super::{Session, all_pages, duration, failed, time};
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
    tokens: u64,
    tokens_max: u64,
    undelete_window_ms: u64,
    deleted_secrets: u64,
    undelete_secrets_max: u64,
    deleted_bytes: u64,
    undelete_bytes_max: u64,
}

pub(super) async fn quota(session: &Session, command: QuotaCommand) -> Result<(), Failure> {
    let client = session.control()?;
    let quota = match command {
        QuotaCommand::Show => client.show_quota(v1::ShowQuotaRequest { account: session.account()? }).await.map_err(failed)?,
        QuotaCommand::Set { all_accounts, .. } => {
            let account = if all_accounts { String::new() } else { session.account()? };
            let reply = client.set_quota(limits(command, account)).await.map_err(failed)?;
            let Some(quota) = reply.quota else {
                session.out.say("set for all accounts that have no such limit of their own");
                return Ok(());
            };
            quota
        }
    };
    print_quota(session, &quota)
}

fn limits(command: QuotaCommand, account: String) -> v1::SetQuotaRequest {
    let QuotaCommand::Set { secrets, stores, value_bytes, tokens, undelete_window, undelete_secrets, undelete_bytes, all_accounts } =
        command
    else {
        return v1::SetQuotaRequest { account, ..Default::default() };
    };
    v1::SetQuotaRequest {
        account,
        secrets_max: secrets.map(u64::from),
        stores_max: stores.map(u64::from),
        value_bytes_max: value_bytes.map(u64::from),
        tokens_max: tokens.map(u64::from),
        undelete_window_ms: undelete_window.map(|window| u64::try_from(window.as_millis()).unwrap_or(u64::MAX)),
        undelete_secrets_max: undelete_secrets.map(u64::from),
        undelete_bytes_max: undelete_bytes,
        all_accounts,
        ..Default::default()
    }
}

fn print_quota(session: &Session, quota: &v1::Quota) -> Result<(), Failure> {
    let row = QuotaRow {
        secrets: quota.secrets,
        secrets_max: quota.secrets_max,
        stores: quota.stores,
        stores_max: quota.stores_max,
        value_bytes_max: quota.value_bytes_max,
        tokens: quota.tokens,
        tokens_max: quota.tokens_max,
        undelete_window_ms: quota.undelete_window_ms,
        deleted_secrets: quota.deleted_secrets,
        undelete_secrets_max: quota.undelete_secrets_max,
        deleted_bytes: quota.deleted_bytes,
        undelete_bytes_max: quota.undelete_bytes_max,
    };
    let window = if row.undelete_window_ms == 0 { "not at all".to_owned() } else { format!("for {}", duration(row.undelete_window_ms)) };
    let fields = [
        ("secrets", format!("{} of {}", row.secrets, row.secrets_max)),
        ("stores", format!("{} of {}", row.stores, row.stores_max)),
        ("bytes of a value", format!("at most {}", row.value_bytes_max)),
        ("tokens", format!("{} of {}", row.tokens, row.tokens_max)),
        ("undelete", window),
        ("deleted secrets kept", format!("{} of {}", row.deleted_secrets, row.undelete_secrets_max)),
        ("bytes of those", format!("{} of {}", row.deleted_bytes, row.undelete_bytes_max)),
    ];
    session.out.record(&row, &fields)
}
