//! The kinds of public errors and the one table that says what each means on every surface.

use tonic::Code;

use crate::v1;

/// What went wrong, named by what the caller should do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// A field is missing or not allowed; the message names it.
    InvalidArgument,
    /// A value, record or request is above its limit.
    TooLarge,
    /// The request id was used before with other content.
    RequestReused,
    /// This node does not serve this call.
    Unsupported,
    /// No credential, or one that is unknown or expired.
    Unauthenticated,
    /// The credential is good, but grants no such thing.
    Denied,
    /// The credential, consumer or node was revoked.
    Revoked,
    /// No such thing for this caller.
    NotFound,
    /// The name is taken.
    AlreadyExists,
    /// The state is not what the request expected.
    Precondition,
    /// The account is full.
    QuotaExceeded,
    /// The cluster's feature level does not allow it yet.
    Level,
    /// The data key was replaced meanwhile: the write must be sealed anew.
    Reseal,
    /// Another node leads, or an election is under way.
    NotLeader,
    /// The node cannot answer now.
    Unavailable,
    /// A queue or a limit on concurrent work is full.
    Busy,
    /// The node has no root key at hand.
    Locked,
    /// The time given passed; a write may or may not have been done.
    DeadlineExceeded,
    /// The consumer has no binding of this name.
    NotBound,
    /// The secret's scopes leave out this kind of consumer.
    ScopeNotAllowed,
    /// Bound, but deleted or without such a version; said only from a complete copy.
    Absent,
    /// The edge has no complete copy yet, or not the position that was asked for.
    NotSynced,
    /// The edge's copy is older than the caller or the cluster allows.
    TooStale,
    /// A fault of Cinnabar.
    Internal,
}

/// One row of the table.
struct Row {
    name: &'static str,
    number: v1::ErrorKind,
    code: Code,
    http: u16,
    retryable: bool,
    exit: u8,
    advice: &'static str,
}

impl ErrorKind {
    /// All kinds, in the order of their numbers on the wire.
    pub fn all() -> impl Iterator<Item = Self> {
        use ErrorKind::*;
        [
            InvalidArgument,
            TooLarge,
            RequestReused,
            Unsupported,
            Unauthenticated,
            Denied,
            Revoked,
            NotFound,
            AlreadyExists,
            Precondition,
            QuotaExceeded,
            Level,
            Reseal,
            NotLeader,
            Unavailable,
            Busy,
            Locked,
            DeadlineExceeded,
            NotBound,
            ScopeNotAllowed,
            Absent,
            NotSynced,
            TooStale,
            Internal,
        ]
        .into_iter()
    }

    /// The kind's name in JSON, metrics, logs and documents.
    pub const fn name(self) -> &'static str {
        self.row().name
    }

    /// The kind's number on the wire.
    pub const fn number(self) -> v1::ErrorKind {
        self.row().number
    }

    /// The gRPC status code. Several kinds share one: the kind itself travels beside it.
    pub const fn code(self) -> Code {
        self.row().code
    }

    /// The HTTP status.
    pub const fn http_status(self) -> u16 {
        self.row().http
    }

    /// Whether the same request may succeed later or elsewhere. A change is sent again only under a request id.
    pub const fn retryable(self) -> bool {
        self.row().retryable
    }

    /// The exit code of the command line.
    pub const fn exit_code(self) -> u8 {
        self.row().exit
    }

    /// What the caller should do, one sentence.
    pub const fn advice(self) -> &'static str {
        self.row().advice
    }

    /// The kind of a number on the wire, or none for a number that a newer version added.
    pub fn from_number(number: i32) -> Option<Self> {
        Self::all().find(|kind| kind.number() as i32 == number)
    }

    /// The kind of an error that names only a gRPC code: from the transport, a proxy, or a server that is not ours.
    pub(crate) const fn from_code(code: Code) -> Self {
        match code {
            Code::Ok | Code::Unknown | Code::Internal | Code::DataLoss => Self::Internal,
            // A peer that resets a stream, or a connection that breaks, shows as cancelled.
            Code::Cancelled | Code::Unavailable => Self::Unavailable,
            Code::InvalidArgument => Self::InvalidArgument,
            // A decoder's limit.
            Code::OutOfRange => Self::TooLarge,
            Code::DeadlineExceeded => Self::DeadlineExceeded,
            Code::NotFound => Self::NotFound,
            Code::AlreadyExists => Self::AlreadyExists,
            Code::PermissionDenied => Self::Denied,
            Code::ResourceExhausted => Self::Busy,
            Code::FailedPrecondition | Code::Aborted => Self::Precondition,
            Code::Unimplemented => Self::Unsupported,
            Code::Unauthenticated => Self::Unauthenticated,
        }
    }

    /// The table.
    const fn row(self) -> Row {
        use v1::ErrorKind as N;
        const fn row(name: &'static str, number: N, code: Code, http: u16, retryable: bool, exit: u8, advice: &'static str) -> Row {
            Row { name, number, code, http, retryable, exit, advice }
        }
        match self {
            Self::InvalidArgument => row(
                "invalid_argument",
                N::InvalidArgument,
                Code::InvalidArgument,
                400,
                false,
                2,
                "Correct the field that the message names.",
            ),
            Self::TooLarge => {
                row("too_large", N::TooLarge, Code::InvalidArgument, 413, false, 2, "Send less: the message names the limit.")
            }
            Self::RequestReused => row(
                "request_reused",
                N::RequestReused,
                Code::FailedPrecondition,
                409,
                false,
                5,
                "Use a fresh request id for a request with other content.",
            ),
            Self::Unsupported => {
                row("unsupported", N::Unsupported, Code::Unimplemented, 501, false, 1, "Ask a node of the role that serves this call.")
            }
            Self::Unauthenticated => row(
                "unauthenticated",
                N::Unauthenticated,
                Code::Unauthenticated,
                401,
                false,
                4,
                "Send a valid token or client certificate; `cinnabar context add` stores an operator's token.",
            ),
            Self::Denied => row(
                "denied",
                N::Denied,
                Code::PermissionDenied,
                403,
                false,
                4,
                "Ask an administrator for the role; `cinnabar whoami` shows what you have.",
            ),
            Self::Revoked => {
                row("revoked", N::Revoked, Code::PermissionDenied, 403, false, 4, "Get a new credential: this one was withdrawn.")
            }
            Self::NotFound => row(
                "not_found",
                N::NotFound,
                Code::NotFound,
                404,
                false,
                3,
                "Check the name or id and the account; the `list` verbs show what there is.",
            ),
            Self::AlreadyExists => {
                row("already_exists", N::AlreadyExists, Code::AlreadyExists, 409, false, 5, "Choose another name, or change what is there.")
            }
            Self::Precondition => {
                row("precondition", N::Precondition, Code::FailedPrecondition, 409, false, 5, "Read the present state, then decide again.")
            }
            Self::QuotaExceeded => row(
                "quota_exceeded",
                N::QuotaExceeded,
                Code::ResourceExhausted,
                403,
                false,
                5,
                "Delete what is not needed, or raise the limit; `cinnabar quota show` shows both.",
            ),
            Self::Level => row(
                "level",
                N::Level,
                Code::FailedPrecondition,
                409,
                false,
                5,
                "Upgrade all nodes, then run `cinnabar cluster level raise`; `cinnabar cluster level` shows who is missing.",
            ),
            Self::Reseal => row("reseal", N::Reseal, Code::Aborted, 503, true, 6, "Try again: the data key was replaced meanwhile."),
            Self::NotLeader => row("not_leader", N::NotLeader, Code::Unavailable, 503, true, 6, "Try again in a moment, or at the leader."),
            Self::Unavailable => row(
                "unavailable",
                N::Unavailable,
                Code::Unavailable,
                503,
                true,
                6,
                "Try again, or ask another node; `cinnabar status` shows them.",
            ),
            Self::Busy => row("busy", N::Busy, Code::ResourceExhausted, 429, true, 6, "Wait a little, then try again with less at once."),
            Self::Locked => row(
                "locked",
                N::Locked,
                Code::Unavailable,
                503,
                true,
                6,
                "Ask another node: `cinnabar status` at each shows which is unlocked. Give this one its key file back, and restart it.",
            ),
            Self::DeadlineExceeded => row(
                "deadline_exceeded",
                N::DeadlineExceeded,
                Code::DeadlineExceeded,
                504,
                true,
                7,
                "Look whether the change was made, or send it again under the same request id; `--timeout` gives more time.",
            ),
            Self::NotBound => row(
                "not_bound",
                N::NotBound,
                Code::PermissionDenied,
                403,
                false,
                4,
                "Bind it first: `cinnabar bind KIND/NAME VAR=STORE/NAME`.",
            ),
            Self::ScopeNotAllowed => row(
                "scope_not_allowed",
                N::ScopeNotAllowed,
                Code::PermissionDenied,
                403,
                false,
                4,
                "Add the consumer's scope to the secret: `cinnabar secret edit STORE/NAME --scope S`.",
            ),
            Self::Absent => row(
                "absent",
                N::Absent,
                Code::NotFound,
                404,
                false,
                3,
                "Bind to a secret that exists: one of the same name made later is another, and needs a new binding.",
            ),
            Self::NotSynced => row(
                "not_synced",
                N::NotSynced,
                Code::Unavailable,
                503,
                true,
                6,
                "Try again in a moment, or at another edge: this one is catching up.",
            ),
            Self::TooStale => row(
                "too_stale",
                N::TooStale,
                Code::Unavailable,
                503,
                true,
                6,
                "Allow a greater age, or ask an edge that hears from the control plane.",
            ),
            Self::Internal => row(
                "internal",
                N::Internal,
                Code::Internal,
                500,
                false,
                1,
                "Report it with the request id: the server's log has the cause.",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn table_has_every_kind_of_the_proto_file_exactly_once() {
        let mut numbers: Vec<_> = ErrorKind::all().map(|kind| kind.number() as i32).collect();
        assert_eq!(numbers, (1..=24).collect::<Vec<_>>(), "in the order of the proto file, none missing, none twice");
        assert!(v1::ErrorKind::try_from(25).is_err(), "a kind was added to error.proto: add its row and raise the numbers here");
        numbers.dedup();
        assert_eq!(ErrorKind::all().map(ErrorKind::name).collect::<BTreeSet<_>>().len(), numbers.len(), "names differ");
        for kind in ErrorKind::all() {
            assert_eq!(ErrorKind::from_number(kind.number() as i32), Some(kind));
            assert_eq!(kind.number().as_str_name(), format!("ERROR_KIND_{}", kind.name().to_uppercase()));
        }
        assert_eq!(ErrorKind::from_number(0), None);
    }

    #[test]
    fn table_columns_agree_with_each_other() {
        for kind in ErrorKind::all() {
            assert_ne!(kind.code(), Code::Ok, "{kind:?}");
            assert!(kind.advice().ends_with('.') && kind.advice().len() > 20, "{kind:?}");
            // The exit code says to scripts what the HTTP status says to machines.
            let exits: &[u8] = match kind.http_status() {
                400 | 413 => &[2],
                401 => &[4],
                403 => &[4, 5],
                404 => &[3],
                409 => &[5],
                429 | 503 => &[6],
                504 => &[7],
                500 | 501 => &[1],
                other => panic!("{kind:?} has HTTP status {other}"),
            };
            assert!(exits.contains(&kind.exit_code()), "{kind:?}");
            assert_eq!(kind.retryable(), [6, 7].contains(&kind.exit_code()), "{kind:?}: exit codes 6 and 7 mean: try again");
        }
    }

    /// The page of the table, as `docs/errors.md` must hold it.
    fn page() -> String {
        let mut page = String::from(
            "# Errors\n\nEvery failed call names one kind of error. The kind decides the gRPC code, the HTTP status, the exit code of `cinnabar`, and \
             whether the\nsame request may be sent again (a change only under a request id). Several kinds share a gRPC code: the kind itself is in \
             the call's binary\nmetadata `cinnabar-error-bin`, an encoded `cinnabar.v1.ErrorDetail`, together with the request id that finds the call \
             in the server's log.\nThis page is made from the table in `crates/wire/src/kind.rs`; a test holds it to that.\n\n\
             | kind | gRPC code | HTTP | again | exit | what to do |\n|---|---|---|---|---|---|\n",
        );
        for kind in ErrorKind::all() {
            let again = if kind.retryable() { "yes" } else { "no" };
            let (name, code, http, exit, advice) = (kind.name(), kind.code(), kind.http_status(), kind.exit_code(), kind.advice());
            page += &format!("| `{name}` | {code:?} | {http} | {again} | {exit} | {advice} |\n");
        }
        page
    }

    #[test]
    fn page_of_errors_equals_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/errors.md");
        if std::env::var_os("CINNABAR_REGENERATE").is_some() {
            std::fs::write(path, page()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(path).unwrap(), page(), "run the test with CINNABAR_REGENERATE=1, then read the difference");
    }

    #[test]
    fn kind_from_a_bare_code_has_that_code_where_one_exists() {
        for code in (1..=16).map(Code::from_i32) {
            let kind = ErrorKind::from_code(code);
            let excepted = matches!(code, Code::Unknown | Code::DataLoss | Code::Cancelled | Code::OutOfRange | Code::Aborted);
            assert!(excepted || kind.code() == code, "{code:?} became {kind:?}");
        }
    }
}
