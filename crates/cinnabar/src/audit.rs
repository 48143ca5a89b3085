//! `audit verify`: is an exported audit log the one that was written? Needs no cluster.
//!
//! Each entry names the hash of the one before, over the bytes that are stored; what people read in a line is made of these bytes again
//! and compared. So an entry that was removed, changed, moved or doubled is found, and named. That the row is not a whole other one, and
//! not cut short, is said by the head that the operator noted elsewhere, or by the signature of the node that exported it.

mod check;
#[cfg(test)]
mod tests;

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
};

use cli::{AuditCommand, AuditVerify, Command, Failure, Global, Output};
use serde::Serialize;
use types::{Hash, NodeId};

use check::{Checked, Checker};

/// The longest line: an entry may name thousands of secrets, in hex and in base64.
const LINE_BYTES_MAX: u64 = 4 << 20;
/// Faults that are named; of more it is said how many there are.
const FAULTS_SHOWN: usize = 100;

/// Runs `audit`.
pub(crate) async fn run(global: &Global, command: AuditCommand) -> Result<(), Failure> {
    match command {
        AuditCommand::Verify(arguments) => {
            let global = global.clone();
            let work = tokio::task::spawn_blocking(move || verify(&global, &arguments));
            work.await.unwrap_or_else(|_| Err(Failure::failed("the thread that checks the file ended")))
        }
        command => cli::run(global, Command::Audit(command)).await,
    }
}

/// What `audit verify` prints.
#[derive(Serialize)]
struct Report {
    file: String,
    cluster: String,
    node: u64,
    entries: u64,
    first: u64,
    last: u64,
    head: String,
    cut: Option<u64>,
    signed_by: Option<String>,
    checked: Vec<String>,
    not_checked: Vec<String>,
    faults: Vec<String>,
    faults_more: u64,
}

/// The entry of this number has this hash.
fn head(text: &str) -> Result<(u64, Hash), Failure> {
    let parsed = text.split_once(':').and_then(|(sequence, hash)| Some((sequence.parse().ok()?, hash.parse().ok()?)));
    parsed.ok_or_else(|| Failure::usage(format!("--head {text:?}: expected SEQUENCE:HASH, such as 40:9f86…, with 64 hex digits")))
}

fn signer(text: &str) -> Result<(NodeId, [u8; 32]), Failure> {
    let parsed = text.split_once(':').and_then(|(node, key)| Some((NodeId::new(node.parse().ok()?), check::hex(key)?)));
    parsed.ok_or_else(|| Failure::usage(format!("--signer {text:?}: expected NODE:KEY, with 64 hex digits")))
}

fn verify(global: &Global, arguments: &AuditVerify) -> Result<(), Failure> {
    let shown = arguments.file.display().to_string();
    let reader: Box<dyn BufRead> = if shown == "-" {
        Box::new(BufReader::new(io::stdin()))
    } else {
        let file = File::open(&arguments.file).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Failure::with_code(3, format!("there is no file {shown}")),
            _ => Failure::failed(format!("cannot open {shown}: {error}")),
        })?;
        Box::new(BufReader::with_capacity(1 << 20, file))
    };
    let noted = arguments.head.as_deref().map(head).transpose()?;
    let pinned = arguments.signers.iter().map(|text| signer(text)).collect::<Result<Vec<_>, _>>()?;
    let checked = read(reader, Checker::new(noted, pinned), &shown)?;
    print(global, shown, checked)
}

fn read(mut reader: impl BufRead, mut checker: Checker, shown: &str) -> Result<Checked, Failure> {
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = io::Read::take(&mut reader, LINE_BYTES_MAX).read_until(b'\n', &mut line);
        match read.map_err(|error| Failure::failed(format!("cannot read {shown}: {error}")))? {
            0 => return checker.end(),
            _ => checker.line(line.trim_ascii())?,
        }
    }
}

fn print(global: &Global, file: String, checked: Checked) -> Result<(), Failure> {
    let out = Output::new(global);
    let Checked { begin, entries, first, last, signed_by, checked, not_checked, mut faults } = checked;
    let total = faults.len();
    faults.truncate(FAULTS_SHOWN);
    let (last, head) = last.map_or((0, String::new()), |(last, hash)| (last, format!("{last}:{hash}")));
    let report = Report {
        file,
        cluster: begin.cluster,
        node: begin.node,
        entries,
        first,
        last,
        head,
        cut: begin.cut.map(|cut| cut.sequence),
        signed_by,
        checked,
        not_checked,
        faults_more: (total - faults.len()) as u64,
        faults,
    };
    out.record(
        &report,
        &[
            ("file", report.file.clone()),
            ("cluster", report.cluster.clone()),
            ("entries", format!("{}, from {} to {}", report.entries, report.first, report.last)),
            ("head", report.head.clone()),
            ("signed by", report.signed_by.clone().unwrap_or_else(|| "-".into())),
            ("checked", report.checked.join("; ")),
            ("not checked", if report.not_checked.is_empty() { "-".into() } else { report.not_checked.join("; ") }),
            ("faults", total.to_string()),
        ],
    )?;
    if total == 0 {
        return Ok(());
    }
    let more = if report.faults_more > 0 { format!("\n  and {} more", report.faults_more) } else { String::new() };
    Err(Failure::failed(format!("this is not the log that was written:\n  {}{more}", report.faults.join("\n  "))))
}
