//! The operator commands: each parses its arguments, makes its calls and prints what came back.

mod accounts;
mod audit;
mod authority;
mod bindings;
mod cluster;
mod consumers;
mod contexts;
mod environment;
mod fleet;
mod imports;
mod levels;
mod login;
mod lookups;
mod nodes;
mod roles;
mod secrets;
mod secrets_store;
mod snapshots;
mod status;
mod stores;
mod tokens;
mod usage;

use std::{
    sync::{Arc, atomic::AtomicU32},
    time::Duration,
};

use client::{Client, ClientError, Config, ConfigError, Tls, Token};
use runtime::{
    config::{LogConfig, LogFormat},
    telemetry,
};
use types::Position;
use wire::v1;

use crate::{AuditCommand, ClusterCommand, Command, Context, ContextCommand, Contexts, Failure, Global, Output, SnapshotCommand};

/// The lines of a file that `audit export` writes.
pub mod audit_file {
    pub use super::audit::{
        AUDIT_EXPORT_FORMAT, AuditBegin, AuditCallLine, AuditCutLine, AuditEnd, AuditEntryLine, AuditLine, AuditPrincipalLine,
        AuditSignerLine, AuditTargetLine,
    };
}

/// Edges that are named when a wait runs out of time.
const LAGGARDS_SHOWN: usize = 8;
/// A wait that takes longer shows that something is going on.
const WAIT_SILENT: Duration = Duration::from_secs(1);

/// Runs an operator command. Servers, `dev`, `bench`, `config` and `completion` are the binary's.
///
/// # Errors
/// [`Failure`] with the exit code and the text to print.
pub async fn run(global: &Global, command: Command) -> Result<(), Failure> {
    if global.verbose {
        trace_calls()?;
    }
    let session = Session { global: global.clone(), out: Output::new(global), trust: Arc::default() };
    let done = carry_out(&session, command).await;
    if done.is_ok() {
        authority::refresh(&session).await;
    }
    done
}

async fn carry_out(session: &Session, command: Command) -> Result<(), Failure> {
    match command {
        Command::Context(ContextCommand::Env) => environment::print(session).await,
        Command::Context(ContextCommand::Exec { command }) => environment::exec(session, command).await,
        Command::Context(command) => contexts::run(session, command),
        Command::Login { token_stdin } => login::run(session, token_stdin).await,
        Command::Whoami => status::whoami(session).await,
        Command::Status => status::status(session).await,
        Command::Fleet => fleet::run(session).await,
        Command::Account(command) => accounts::run(session, command).await,
        Command::Quota(command) => accounts::quota(session, command).await,
        Command::Audit(command @ (AuditCommand::List(_) | AuditCommand::Export(_))) => audit::run(session, command).await,
        Command::Store(command) => stores::run(session, command).await,
        Command::Secret(command) => secrets::run(session, command).await,
        Command::Bind { consumer, binding, store, wait } => bindings::bind(session, &consumer, binding, store, wait).await,
        Command::Unbind { consumer, binding, store, wait } => bindings::unbind(session, &consumer, binding.or(store), wait).await,
        Command::Binding(command) => bindings::run(session, command).await,
        Command::Consumer(command) => consumers::run(session, command).await,
        Command::Node(command) => nodes::run(session, command).await,
        Command::Role(command) => roles::run(session, command).await,
        Command::Token(command) => tokens::run(session, command).await,
        Command::Snapshot(SnapshotCommand::Save { file, force }) => snapshots::save(session, &file, force).await,
        Command::Get(arguments) => lookups::get(session, arguments).await,
        Command::Watch(arguments) => lookups::watch(session, arguments).await,
        Command::SecretsStore(command) => secrets_store::run(session, command).await,
        Command::Cluster(ClusterCommand::Ca(command)) => authority::run(session, command).await,
        Command::Cluster(ClusterCommand::Level(arguments)) => levels::run(session, arguments).await,
        Command::Cluster(
            command @ (ClusterCommand::Status
            | ClusterCommand::Members
            | ClusterCommand::Add { .. }
            | ClusterCommand::Promote { .. }
            | ClusterCommand::Remove { .. }
            | ClusterCommand::Transfer { .. }),
        ) => cluster::run(session, command).await,
        Command::Audit(AuditCommand::Verify(_))
        | Command::Snapshot(SnapshotCommand::Verify(_) | SnapshotCommand::Restore(_))
        | Command::Cluster(ClusterCommand::Init(_))
        | Command::Dev(_)
        | Command::Control(_)
        | Command::Edge(_)
        | Command::Config(_)
        | Command::Completion { .. }
        | Command::Bench(_) => Err(Failure::failed("this command is not one of the operator's")),
    }
}

/// `-v`: each call, where it went, under which label, and what came of it, on stderr. No message is shown, so no value and no token.
fn trace_calls() -> Result<(), Failure> {
    let config = LogConfig { format: LogFormat::Pretty, filter: "client=debug".to_owned() };
    telemetry::init_logging(&config).map_err(|error| Failure::failed(error.to_string()))
}

/// What every command works with.
pub(crate) struct Session {
    pub(crate) global: Global,
    pub(crate) out: Output,
    /// The highest version of the list of believed certificate authorities that a server has named.
    trust: Arc<AtomicU32>,
}

impl Session {
    /// The contexts of this user.
    pub(crate) fn contexts(&self) -> Result<Contexts, Failure> {
        Ok(Contexts::load(&Contexts::path()?)?)
    }

    /// The context in force.
    pub(crate) fn context(&self) -> Result<Context, Failure> {
        Ok(self.contexts()?.choose(self.global.context.as_deref())?.1.clone())
    }

    /// Keeps in the context where the control nodes are, so that later commands reach the cluster when one of them is down. A context
    /// file that cannot be written is no reason to fail a command that was carried out.
    pub(crate) fn remember(&self, members: impl Iterator<Item = String>) {
        let members: Vec<String> = members.filter(|address| !address.is_empty()).collect();
        let save = || -> Result<(), Failure> {
            let mut contexts = self.contexts()?;
            let name = contexts.choose(self.global.context.as_deref())?.0.to_owned();
            match contexts.contexts.get_mut(&name) {
                Some(context) if context.members != members => context.members = members,
                _ => return Ok(()),
            }
            Ok(contexts.save(&Contexts::path()?)?)
        };
        if let Err(error) = save() {
            self.out.say(&format!("the context does not know the cluster's members: {error}"));
        }
    }

    /// A client of the context's control nodes.
    pub(crate) fn control(&self) -> Result<Client, Failure> {
        let token = self.context()?.token;
        self.control_as(Token::new(token).map_err(|error| unusable(&error))?)
    }

    /// The same with another token than the context's.
    pub(crate) fn control_as(&self, token: Token) -> Result<Client, Failure> {
        let context = self.context()?;
        let addresses = context.addresses();
        let tls = Tls { ca_pem: context.ca, ..Tls::default() };
        let config = Config::tls(addresses, tls).token(token).timeout(self.global.timeout).trust_seen(self.trust.clone()).control_only();
        Client::new(config).map_err(|error| unusable(&error))
    }

    /// The account to work in: the option's, else the context's, else the server decides.
    pub(crate) fn account(&self) -> Result<String, Failure> {
        match &self.global.account {
            Some(account) => Ok(account.clone()),
            None => Ok(self.context()?.account.unwrap_or_default()),
        }
    }

    /// A consumer as the wire names it.
    pub(crate) fn consumer(&self, text: &str) -> Result<v1::ConsumerRef, Failure> {
        let none = types::AccountId::from_bytes([0; 16]);
        let parsed = types::ConsumerRef::parse(none, text).map_err(|error| Failure::usage(error.to_string()))?;
        Ok(v1::ConsumerRef { account: self.account()?, kind: v1::ConsumerKind::from(parsed.kind).into(), name: parsed.name.to_string() })
    }

    /// STORE/NAME or an id as the wire names a secret.
    pub(crate) fn secret(&self, text: &str) -> Result<v1::SecretRef, Failure> {
        let account = self.account()?;
        match text.split_once('/') {
            Some((store, secret)) if !store.is_empty() && !secret.is_empty() && !secret.contains('/') => {
                Ok(v1::SecretRef { account, store: store.into(), secret: secret.into() })
            }
            None if text.parse::<types::SecretId>().is_ok() => Ok(v1::SecretRef { account, store: String::new(), secret: text.into() }),
            _ => Err(Failure::usage(format!(
                "not a secret: expected STORE/NAME, such as default/API_KEY, or an id of 32 hex digits; got {text:?}"
            ))),
        }
    }

    /// A store as the wire names it.
    pub(crate) fn store(&self, text: &str) -> Result<v1::StoreRef, Failure> {
        Ok(v1::StoreRef { account: self.account()?, store: text.into() })
    }

    /// As [`Session::wait_live`], when it was asked for.
    pub(crate) async fn wait_if(&self, wait: bool, client: &Client, receipt: Option<v1::Receipt>) -> Result<(), Failure> {
        if wait { self.wait_live(client, receipt).await } else { Ok(()) }
    }

    /// Waits until every edge holds `receipt`'s position. Running out of time is exit code 7: it is written, but not live everywhere.
    pub(crate) async fn wait_live(&self, client: &Client, receipt: Option<v1::Receipt>) -> Result<(), Failure> {
        let position = receipt.and_then(|receipt| receipt.position).map(Position::from).unwrap_or_default();
        let bar = (!self.global.quiet && std::io::IsTerminal::is_terminal(&std::io::stderr())).then(|| {
            let bar = indicatif::ProgressBar::new_spinner().with_message(format!("waiting until {position} is live at every edge"));
            bar.enable_steady_tick(WAIT_SILENT);
            bar
        });
        let reply = client.wait_live(position, self.global.timeout).await;
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
        let reply = reply.map_err(failed)?;
        if reply.is_everywhere() {
            self.out.say(&format!("live on {}/{} edges at {position}", reply.edges_live, reply.edges_known));
            return Ok(());
        }
        if reply.edges_known == 0 {
            let message = format!("written at {position}, but no edge is known that could hold it; look at `cinnabar status`");
            return Err(Failure::deadline(message));
        }
        if reply.edges_live >= reply.edges_known {
            return Err(Failure::deadline(unheard(position, &reply)));
        }
        let mut behind = reply.behind;
        let more = behind.len().saturating_sub(LAGGARDS_SHOWN);
        behind.truncate(LAGGARDS_SHOWN);
        let names = if more > 0 { format!("{} and {more} more", behind.join(", ")) } else { behind.join(", ") };
        Err(Failure::deadline(format!(
            "written at {position}, but live on {} of {} edges when the time was up; behind: {names}. Look at `cinnabar status`",
            reply.edges_live, reply.edges_known
        )))
    }

    /// Asks before something is destroyed; without a terminal, `--yes` is needed.
    pub(crate) fn confirm(&self, what: &str, yes: bool) -> Result<(), Failure> {
        self.ask(&format!("{what} cannot be undone"), yes)
    }

    /// Tells what is about to happen, and asks whether it shall; without a terminal, `--yes` is needed.
    pub(crate) fn ask(&self, what: &str, yes: bool) -> Result<(), Failure> {
        use std::io::{BufRead, IsTerminal, Write};
        if yes {
            return Ok(());
        }
        if !std::io::stdin().is_terminal() {
            return Err(Failure::usage(format!("{what}: add --yes to do it without being asked")));
        }
        let mut answer = String::new();
        let asked = write!(std::io::stderr(), "{what}. Go on? [y/N] ").and_then(|()| std::io::stdin().lock().read_line(&mut answer));
        match asked {
            Ok(_) if matches!(answer.trim(), "y" | "Y" | "yes") => Ok(()),
            _ => Err(Failure::failed("nothing was done")),
        }
    }
}

/// What a context says cannot be used: an address, a certificate, a token.
pub(crate) fn unusable(error: &ConfigError) -> Failure {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    Failure::usage(format!("the context cannot be used: {error}{cause}"))
}

/// A failed call as the person reads it: what, why, what to do next, and the request's label.
pub(crate) fn failed(error: ClientError) -> Failure {
    let public = &error.error;
    let mut text = public.message.clone();
    let advice = public.kind.advice();
    if !advice.is_empty() {
        text = format!("{text}\n  {advice}");
    }
    // Control nodes without a majority answer so; an edge, asked at its socket, has none.
    if public.kind == wire::ErrorKind::DeadlineExceeded && !error.server.contains('/') {
        text =
            format!("{text}\n  Without a majority of the voters nothing is written: `cinnabar fleet` shows when each was last heard of.");
    }
    if public.message.contains("UnknownIssuer") {
        text = format!(
            "{text}\n  The cluster's certificate authority may have been replaced since this context learned it: copy `identity/ca.pem` from the data folder of a control node, and run `cinnabar context ca NAME --ca FILE`"
        );
    }
    if !public.request_id.is_empty() {
        text = format!("{text}\n  request {}", public.request_id);
    }
    Failure::with_code(public.kind.exit_code(), format!("{text} [{}, {}]", public.kind.name(), error.server))
}

/// Every edge that is known where it was asked holds the position; others may not.
fn unheard(position: Position, reply: &v1::WaitLiveReply) -> String {
    let who = if reply.unheard.is_empty() { format!("{} control nodes", reply.controls_unheard) } else { reply.unheard.join(", ") };
    format!(
        "written at {position}, and live on all {} edges known at the control node that was asked; but that one does not hear {who}, which others do hear, so there may be edges that are behind. Ask another control node, or mend the network between them",
        reply.edges_known
    )
}

/// All pages of a list.
pub(crate) async fn all_pages<T, F>(mut page: impl FnMut(v1::Page) -> F) -> Result<Vec<T>, Failure>
where
    F: Future<Output = Result<(Vec<T>, String), ClientError>>,
{
    let mut all = Vec::new();
    let mut token = String::new();
    loop {
        let (mut rows, next) = page(v1::Page { size: 0, token: token.clone() }).await.map_err(failed)?;
        all.append(&mut rows);
        if next.is_empty() {
            return Ok(all);
        }
        token = next;
    }
}

/// The last millisecond of the year 9999.
const YEAR_9999_MS: u64 = 253_402_300_799_999;

/// A time as people read it, in UTC.
pub(crate) fn time(millis: u64) -> String {
    if millis == 0 {
        return "-".into();
    }
    // What lies past the year 9999 has no such form.
    if millis > YEAR_9999_MS {
        return format!("{millis} ms since 1970");
    }
    humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + Duration::from_millis(millis)).to_string()
}

/// A time as programs read it: the same, or nothing.
pub(crate) fn time_or_none(millis: u64) -> Option<String> {
    (millis != 0).then(|| time(millis))
}

/// A duration as people read it, such as `30days`.
pub(crate) fn duration(millis: u64) -> String {
    humantime::format_duration(Duration::from_millis(millis)).to_string()
}

/// A text, or a dash for none.
pub(crate) fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".into() } else { text.into() }
}
