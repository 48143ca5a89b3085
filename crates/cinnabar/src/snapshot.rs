//! `snapshot verify` and `snapshot restore`: what is done with an archive without a cluster.

mod restore;

use std::{fs::File, io, path::Path};

use cli::{Command, Failure, Global, Output, SnapshotCommand, SnapshotVerify};
use control::snapshots::{self, ArchiveError, Checked, Opened, Origin};
use seal::{NodeKeyPair, RecoveryKey};
use serde::Serialize;
use types::Hash;
use zeroize::Zeroizing;

use crate::chain;

/// Runs `snapshot`.
pub(crate) async fn run(global: &Global, command: SnapshotCommand) -> Result<(), Failure> {
    let global = global.clone();
    match command {
        SnapshotCommand::Save { .. } => cli::run(&global, Command::Snapshot(command)).await,
        SnapshotCommand::Verify(arguments) => off_the_async_threads(move || verify(&global, &arguments)).await,
        SnapshotCommand::Restore(arguments) => off_the_async_threads(move || restore::run(&global, &arguments)).await,
    }
}

async fn off_the_async_threads(work: impl FnOnce() -> Result<(), Failure> + Send + 'static) -> Result<(), Failure> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(Failure::failed("the thread that works on the archive ended")))
}

/// What `snapshot verify` prints.
#[derive(Serialize)]
struct Report {
    file: String,
    cluster: String,
    position: String,
    saved: String,
    saved_by: u64,
    software: String,
    feature_level: u32,
    bytes: u64,
    records: u64,
    opens_with: Vec<String>,
    contents: Option<ContentsReport>,
    checked: Vec<&'static str>,
    not_checked: Vec<&'static str>,
    origin: &'static str,
}

/// What is known only with a key.
#[derive(Serialize)]
struct ContentsReport {
    accounts: u64,
    stores: u64,
    secrets: u64,
    values: u64,
    bindings: u64,
    nodes: u64,
    operator_tokens: u64,
    key_epochs: u64,
    key_epochs_opened: u64,
    opened_as: String,
    signers: String,
}

fn verify(global: &Global, arguments: &SnapshotVerify) -> Result<(), Failure> {
    let path = &arguments.file;
    let key = match (&arguments.recovery_key_file, &arguments.key_file) {
        (Some(file), _) => Some(Opening::Recovery(recovery_key(Some(file))?.into())),
        (None, Some(file)) => Some(Opening::Node(node_key(file)?.into())),
        (None, None) if arguments.signers.is_some() => {
            return Err(Failure::usage(
                "--signers says whose signature counts, but without a key none is read: add --recovery-key-file or --key-file",
            ));
        }
        (None, None) => None,
    };
    let out = Output::new(global);
    let Some(key) = key else {
        let checked = snapshots::check(source(path)?).map_err(|error| refused(path, &error))?;
        return print(out, &report(path, checked, None, Origin::Unproven));
    };
    let origin = origin(arguments.signers.as_deref(), arguments.trust_archive, key.recovery())?;
    let opened = snapshots::open(source(path)?, key.pair(), origin).map_err(|error| refused(path, &error))?;
    let epochs = snapshots::key_epochs(&opened, key.pair()).map_err(|error| refused(path, &error))?;
    let Opened { checked, contents, opened_as, anchor, .. } = opened;
    let contents = ContentsReport {
        accounts: contents.accounts,
        stores: contents.stores,
        secrets: contents.secrets,
        values: contents.values,
        bindings: contents.bindings,
        nodes: contents.nodes,
        operator_tokens: contents.operator_tokens,
        key_epochs: epochs.there,
        key_epochs_opened: epochs.opened,
        opened_as: opened_as.to_string(),
        signers: anchor.first_signer_set.to_string(),
    };
    print(out, &report(path, checked, Some(contents), origin))?;
    if epochs.opened < epochs.there {
        return Err(Failure::failed(format!(
            "the archive is whole, but {} of its {} key epochs do not open with this key: their values could not be restored by it",
            epochs.there - epochs.opened,
            epochs.there
        )));
    }
    Ok(())
}

fn report(path: &Path, checked: Checked, contents: Option<ContentsReport>, origin: Origin) -> Report {
    let Checked { header, length, .. } = checked;
    let (done, left): (&[_], &[_]) = match &contents {
        None => (
            &["every checksum, and the SHA-256 over the whole file"],
            &[
                "what is sealed inside, and who signed it: that takes --recovery-key-file or --key-file",
                "that what the header says is true",
            ],
        ),
        Some(_) => (
            &[
                "every checksum, and the SHA-256 over the whole file",
                "the seal of every chunk, and every record",
                "state root and signature, by the signer sets inside",
                "that the key epochs open with this key",
            ],
            &["that no value was changed before it was saved: the values themselves are not opened"],
        ),
    };
    let origin = match origin {
        Origin::RecoveryKey(_) => "proven by the recovery key",
        Origin::Signers(_) => "proven by --signers",
        Origin::Unproven if contents.is_some() => "NOT proven: consistent, but it may be made up; give --signers HASH, or the recovery key",
        Origin::Unproven => "NOT proven: nothing inside was read",
    };
    Report {
        file: path.display().to_string(),
        cluster: header.cluster.to_string(),
        position: header.position.to_string(),
        saved: time(header.created.get()),
        saved_by: header.saved_by.get(),
        opens_with: header.recipients().iter().map(ToString::to_string).collect(),
        software: header.software,
        feature_level: header.level.get(),
        bytes: length,
        records: header.records,
        contents,
        checked: done.to_vec(),
        not_checked: left.to_vec(),
        origin,
    }
}

fn print(out: Output, report: &Report) -> Result<(), Failure> {
    let mut fields = vec![
        ("file", report.file.clone()),
        ("cluster", report.cluster.clone()),
        ("position", report.position.clone()),
        ("saved", format!("{} by node {}, {}", report.saved, report.saved_by, report.software)),
        ("bytes", report.bytes.to_string()),
        ("records", report.records.to_string()),
        ("opens with", report.opens_with.join(", ")),
    ];
    if let Some(contents) = &report.contents {
        fields.push(("accounts", contents.accounts.to_string()));
        fields.push(("stores", contents.stores.to_string()));
        fields.push(("secrets", format!("{} with {} sealed values", contents.secrets, contents.values)));
        fields.push(("bindings", contents.bindings.to_string()));
        fields.push(("nodes", contents.nodes.to_string()));
        fields.push(("tokens", format!("{} of operators", contents.operator_tokens)));
        fields.push(("key epochs", format!("{} of {} open with this key", contents.key_epochs_opened, contents.key_epochs)));
        fields.push(("signers", contents.signers.clone()));
    }
    fields.push(("origin", report.origin.to_owned()));
    fields.extend(report.checked.iter().map(|text| ("checked", (*text).to_owned())));
    fields.extend(report.not_checked.iter().map(|text| ("NOT checked", (*text).to_owned())));
    out.record(report, &fields)
}

/// A key that may open an archive.
enum Opening {
    Recovery(Box<RecoveryKey>),
    Node(Box<NodeKeyPair>),
}

impl Opening {
    /// By what a later generation is known.
    fn recovery(&self) -> Option<[u8; 32]> {
        match self {
            Self::Recovery(key) => Some(key.public().signing),
            Self::Node(_) => None,
        }
    }

    fn pair(&self) -> &NodeKeyPair {
        match self {
            Self::Recovery(key) => key.opening(),
            Self::Node(key) => key,
        }
    }
}

/// The archive, to be read from its start.
fn source(path: &Path) -> Result<io::BufReader<File>, Failure> {
    let file = File::open(path).map_err(|error| Failure::usage(format!("cannot open {}: {error}", path.display())))?;
    Ok(io::BufReader::with_capacity(1 << 20, file))
}

fn refused(path: &Path, error: &ArchiveError) -> Failure {
    let hint = match error {
        ArchiveError::Origin(_) => {
            ". Give --signers with the hash that `cluster init` or `snapshot save` showed, if you kept it; or believe the file, for where it comes from, with --trust-archive"
        }
        _ => "",
    };
    Failure::failed(format!("{}: {}{hint}", path.display(), chain(error)))
}

/// The recovery key out of a file of mode 0600, stdin, or a hidden prompt.
fn recovery_key(file: Option<&Path>) -> Result<RecoveryKey, Failure> {
    let text = match file.filter(|file| *file != Path::new("-")) {
        Some(file) => Zeroizing::new(runtime::read_secret_file(file).map_err(|error| Failure::usage(chain(&error)))?),
        None => cli::value::read(None, false, "recovery key")?,
    };
    let text = std::str::from_utf8(&text).map_err(|_| Failure::usage("the recovery key is no text"))?;
    RecoveryKey::parse(text.trim()).map_err(|error| Failure::usage(error.to_string()))
}

fn node_key(file: &Path) -> Result<NodeKeyPair, Failure> {
    let bytes = Zeroizing::new(runtime::read_secret_file(file).map_err(|error| Failure::usage(chain(&error)))?);
    NodeKeyPair::from_file_bytes(&bytes).map_err(|error| Failure::usage(format!("{}: {error}", file.display())))
}

/// What has to show whose archive it is: the first signer set of this hash, else the recovery key where it is at hand; nothing when the
/// caller believes the file.
fn origin(signers: Option<&str>, trusted: bool, recovery: Option<[u8; 32]>) -> Result<Origin, Failure> {
    let bad = |_| Failure::usage("--signers: not a hash of 64 hex digits, as `cluster init` and `snapshot save` show it");
    match (signers, recovery) {
        // Nothing else is believed then, least of all a key that the file itself names.
        (Some(text), _) => Ok(Origin::Signers(feed::Anchor { first_signer_set: text.parse::<Hash>().map_err(bad)?, recovery: None })),
        (None, Some(recovery)) if !trusted => Ok(Origin::RecoveryKey(recovery)),
        (None, _) => Ok(Origin::Unproven),
    }
}

fn time(millis: u64) -> String {
    humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + std::time::Duration::from_millis(millis.min(253_402_300_799_999))).to_string()
}
