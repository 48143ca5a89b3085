//! `context exec` and `context env`: the context as wrangler, the SDKs and Terraform find it in their environment.
//!
//! **Invariants**
//! 1. The token is shown to no terminal and stands in no argument. `exec` gives it to the one command; `env` writes it into a pipe, for a
//!    shell that asks for it.

use std::{
    ffi::OsString,
    fs,
    io::{self, IsTerminal, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Map, Value};
use wire::v1;

use super::{Session, failed};
use crate::{Contexts, Failure};

/// What programs for Cloudflare's API read the token from.
const TOKEN: &str = "CLOUDFLARE_API_TOKEN";

/// Replaces this process by the command.
pub(super) async fn exec(session: &Session, command: Vec<OsString>) -> Result<(), Failure> {
    let (program, arguments) = command.split_first().ok_or_else(|| Failure::usage("name a command after `--`"))?;
    let file = Contexts::path()?;
    let name = session.contexts()?.choose(session.global.context.as_deref())?.0.to_owned();
    let mut command = Command::new(program);
    command.args(arguments).envs(variables(session).await?).env("CINNABAR_CONFIG", file).env("CINNABAR_CONTEXT", name);
    let error = command.exec();
    Err(Failure::failed(format!("cannot run {}: {error}", Path::new(program).display())))
}

/// Prints the variables as a shell takes them, or as a JSON object.
pub(super) async fn print(session: &Session) -> Result<(), Failure> {
    let hidden = io::stdout().is_terminal();
    let shown = variables(session).await?.into_iter().filter(|(name, _)| !(hidden && *name == TOKEN));
    if session.out.is_json() {
        let object: Map<String, Value> = shown.map(|(name, value)| (name.to_owned(), value.into())).collect();
        session.out.json(&object)?;
    } else {
        let lines: Vec<_> = shown.map(|(name, value)| format!("export {name}={}", quoted(&value))).collect();
        session.out.line(&lines.join("\n"))?;
    }
    if hidden {
        session
            .out
            .say(&format!("{TOKEN} is not shown to a terminal: eval \"$(cinnabar context env)\", or `cinnabar context exec -- COMMAND`"));
    }
    Ok(())
}

/// In single quotes, so that a shell changes nothing.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

async fn variables(session: &Session) -> Result<Vec<(&'static str, String)>, Failure> {
    let contexts = session.contexts()?;
    let (name, context) = contexts.choose(session.global.context.as_deref())?;
    let account = account_id(session).await?;
    let base = format!("https://{}/client/v4", context.control);
    let ca = ca_file(&Contexts::path()?, name, &context.ca)?;
    Ok(vec![
        ("CLOUDFLARE_API_BASE_URL", base.clone()),
        ("CLOUDFLARE_BASE_URL", base),
        ("CLOUDFLARE_ACCOUNT_ID", account),
        ("NODE_EXTRA_CA_CERTS", ca.display().to_string()),
        ("WRANGLER_SEND_METRICS", "false".to_owned()),
        (TOKEN, context.token.clone()),
    ])
}

/// The id of the account in use: those programs take no names.
async fn account_id(session: &Session) -> Result<String, Failure> {
    let account = session.account()?;
    if account.parse::<types::AccountId>().is_ok() {
        return Ok(account);
    }
    let client = session.control()?;
    if !account.is_empty() {
        return Ok(client.show_account(v1::ShowAccountRequest { account }).await.map_err(failed)?.id);
    }
    let seen = client.list_accounts(v1::ListAccountsRequest { page: None }).await.map_err(failed)?.accounts;
    match &seen[..] {
        [only] => Ok(only.id.clone()),
        _ => Err(Failure::usage(format!("this token sees {} accounts: say which one (`-a ACCOUNT`)", seen.len()))),
    }
}

/// The context's authorities as a file beside the contexts, since such programs take no text. It holds nothing secret.
fn ca_file(contexts: &Path, name: &str, pem: &str) -> Result<PathBuf, Failure> {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '_' };
    let folder = contexts.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let path = folder.join(format!("{}.ca.pem", name.chars().map(plain).collect::<String>()));
    if fs::read_to_string(&path).is_ok_and(|before| before == pem) {
        return Ok(path);
    }
    let beside = path.with_extension(format!("pem.{}", std::process::id()));
    let written = fs::File::create(&beside).and_then(|mut file| file.write_all(pem.as_bytes())).and_then(|()| fs::rename(&beside, &path));
    written.map_err(|error| Failure::failed(format!("cannot write {}: {error}", path.display())))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shell_reads_back_what_was_quoted() {
        for value in ["plain", "it's", "$HOME `id` \\ \"x\"", "a\nb"] {
            let run = Command::new("sh").arg("-c").arg(format!("printf %s {}", quoted(value))).output().unwrap();
            assert_eq!(String::from_utf8(run.stdout).unwrap(), value);
        }
    }

    #[test]
    fn authorities_lie_beside_the_contexts_and_follow_them() {
        let folder = tempfile::tempdir().unwrap();
        let contexts = folder.path().join("contexts.toml");
        let first = ca_file(&contexts, "../up here", "one").unwrap();
        assert_eq!(first.parent().unwrap(), folder.path().canonicalize().unwrap());
        assert_eq!(fs::read_to_string(&first).unwrap(), "one");
        assert_eq!(ca_file(&contexts, "../up here", "two").unwrap(), first);
        assert_eq!(fs::read_to_string(&first).unwrap(), "two");
    }
}
