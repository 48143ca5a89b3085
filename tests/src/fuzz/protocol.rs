//! What comes over gRPC: every message of both packages, and what the parsers of `wire` make of those that name things.
//!
//! Inputs are made from the descriptors: every field filled, so that a new field is fuzzed without a line here.

use std::sync::OnceLock;

use prost::Message;
use prost_types::{
    DescriptorProto, FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};
use wire::{internal, parse, v1};

use super::{Seen, Target};

pub(super) const TARGETS: &[Target] = &[
    Target::new("requests", &["wire/src/parse.rs"], || seeds(REQUESTS), |bytes| read(REQUESTS, bytes)).with_words(WORDS),
    Target::new("replies", &["wire/src/error.rs"], || seeds(REPLIES), |bytes| read(REPLIES, bytes)).with_words(WORDS),
    Target::new("frames", &["wire/src/frames.rs"], frames, frame).with_words(WORDS),
    Target::new("feed_sent", &["wire/src/parse.rs"], || seeds(FEED), |bytes| read(FEED, bytes)).with_words(WORDS),
];

const WORDS: &[&str] = &["workers", "worker/web", "00112233445566778899aabbccddeeff", "\u{0}", "\u{202e}", "..", "A", "global"];

/// A message: its name in the descriptors, and what reads it.
type Kind = (&'static str, fn(&[u8]) -> Result<String, String>);

/// Decodes, encodes and decodes again; then whatever the servers make of it.
fn message<M: Message + Default + PartialEq + Clone>(bytes: &[u8], then: impl Fn(M) -> Option<String>) -> Result<String, String> {
    let read = M::decode(bytes).map_err(|error| error.to_string())?;
    let written = read.encode_to_vec();
    // Compared as values: a map has no order.
    assert!(M::decode(&written[..]).is_ok_and(|again| again == read), "a message is another when read again");
    Ok(then(read).unwrap_or_else(|| "whole".to_owned()))
}

macro_rules! messages {
    ($name:ident, $package:ident: $($kind:ident $(=> $then:expr)?,)*) => {
        const $name: &[Kind] = &[
            $((concat!(stringify!($package), ".", stringify!($kind)), |bytes| message::<$package::$kind>(bytes, messages!(@ $($then)?))),)*
        ];
    };
    (@) => { |_| None };
    (@ $then:expr) => { $then };
}

fn said<T>(result: Result<T, parse::FieldError>) -> Option<String> {
    Some(match result {
        Ok(_) => "parsed".to_owned(),
        Err(error) => error.to_string(),
    })
}

messages! {
    REQUESTS, v1:
    GetRequest => |message| said(parse::GetTarget::try_from(message)),
    GetManyRequest => |message| said(parse::GetManyTarget::try_from(message)),
    StreamRequest,
    StoreRef => |message| said(parse::StoreTarget::try_from(message)),
    SecretRef => |message| said(parse::SecretTarget::try_from(message)),
    ConsumerRef => |message| said(parse::ConsumerTarget::try_from(message)),
    Wanted => |message| said(parse::WantedTarget::try_from(message)),
    NewSecret => |message| said(parse::new_secret(message)),
    SetValueRequest => |message: v1::SetValueRequest| said(parse::request_id(&message.request_id).and(parse::value("value", &message.value))),
    EditSecretRequest => |message: v1::EditSecretRequest| said(parse::scopes("scopes", &message.scopes.unwrap_or_default().scopes)),
    ListSecretsRequest => |message: v1::ListSecretsRequest| Some(parse::PageTarget::from(message.page).size.to_string()),
    CreateAccountRequest => |message: v1::CreateAccountRequest| said(parse::id::<types::AccountId>("id", &message.id)),
    CreateStoreRequest => |message: v1::CreateStoreRequest| said(parse::AccountTarget::parse_optional("account", message.account)),
    RevokeNodeRequest => |message: v1::RevokeNodeRequest| said(parse::IdOrName::<types::NodeId, types::NodeName>::parse("node", message.node)),
    ListAccountsRequest, ShowAccountRequest, ShowQuotaRequest, SetQuotaRequest, BindRequest, UnbindRequest, ListBindingsRequest,
    ClusterMembersRequest, ClusterStatusRequest, ClusterAddRequest, ClusterPromoteRequest, ClusterRemoveRequest, ClusterTransferRequest,
    CreateConsumerRequest, ListConsumersRequest, DeleteConsumerRequest, CreateConsumerTokenRequest, RollConsumerTokenRequest,
    RevokeConsumerTokenRequest, ListConsumerTokensRequest, ListFleetRequest, ShowLevelRequest, RaiseLevelRequest, ListNodesRequest,
    CreateJoinTokenRequest, ListJoinTokensRequest, RevokeJoinTokenRequest, ExposureRequest, WaitLiveRequest, CreateSecretsRequest,
    ShowSecretRequest, ListVersionsRequest, DeleteSecretsRequest, DuplicateSecretRequest, MovePointerRequest, SaveSnapshotRequest,
    ShowStatusRequest, WhoAmIRequest, ListStoresRequest, ShowStoreRequest, DeleteStoreRequest, CreateTokenRequest, ListTokensRequest,
    RollTokenRequest, CreateMemberRequest, ListMembersRequest, ShowMemberRequest, GrantRoleRequest, RevokeRoleRequest, DeleteMemberRequest,
    ListAuditRequest, ExportAuditRequest, ListDeletedSecretsRequest, UndeleteSecretRequest, DestroySecretRequest,
    RevokeTokenRequest, RotateAuthorityRequest, FinishAuthorityRequest, ShowAuthorityRequest,
}

messages! {
    REPLIES, v1:
    ErrorDetail => |message| Some(wire::PublicError::from_detail(message).to_string()),
    Found, GetManyReply, WatchReply, StreamReply, Account, CreateAccountReply, ListAccountsReply, Quota, SetQuotaReply, BindReply,
    UnbindReply, ListBindingsReply, ClusterMembersReply, ClusterStatusReply, ClusterChangeReply, CreateConsumerReply, ListConsumersReply,
    DeleteConsumerReply, ConsumerTokenReply, RevokeConsumerTokenReply, ListConsumerTokensReply, ListFleetReply, ShowLevelReply,
    RaiseLevelReply, ListNodesReply, JoinTokenReply, ListJoinTokensReply, RevokeJoinTokenReply, RevokeNodeReply, ExposureReply,
    WaitLiveReply, CreateSecretsReply, SetValueReply, EditSecretReply, ListSecretsReply, Secret, ListVersionsReply, DeleteSecretsReply,
    DuplicateSecretReply, MovePointerReply, SaveSnapshotReply, NodeStatus, WhoAmIReply, CreateStoreReply, ListStoresReply, Store,
    ListAuditReply, ExportAuditReply, UndeleteSecretReply, DestroySecretReply, MemberReply, ListMembersReply, RoleMember, DeleteMemberReply,
    DeleteStoreReply, TokenReply, ListTokensReply, RevokeTokenReply, ShowAuthorityReply,
}

messages! {
    FEED, internal:
    SubscribeUp => |message: internal::SubscribeUp| match message.message {
        Some(internal::subscribe_up::Message::Hello(hello)) => said(parse::HelloTarget::try_from(&hello)),
        _ => None,
    },
    Hello => |message| said(parse::HelloTarget::try_from(&message)),
    SubscribeDown, JoinRequest, JoinReply, RenewRequest, RenewReply, WatermarksRequest, WatermarksReply, RaftRequest, RaftReply,
    HandOverRequest, HandOverReply,
}

/// All messages that have a reader, by package and name: what a new call must join.
pub fn messages() -> Vec<&'static str> {
    [REQUESTS, REPLIES, FEED].into_iter().flatten().map(|(name, _)| *name).collect()
}

/// The first byte chooses the message.
fn read(kinds: &[Kind], bytes: &[u8]) -> Seen {
    let Some((kind, bytes)) = bytes.split_first() else { return Seen::Refused("empty".into()) };
    let (name, read) = kinds[usize::from(*kind) % kinds.len()];
    match read(bytes) {
        Ok(text) => Seen::Read(format!("{name}: {text}")),
        Err(text) => Seen::Refused(text),
    }
}

/// The descriptors of all proto files.
pub fn descriptors() -> &'static FileDescriptorSet {
    static DESCRIPTORS: OnceLock<FileDescriptorSet> = OnceLock::new();
    DESCRIPTORS.get_or_init(|| FileDescriptorSet::decode(wire::DESCRIPTORS).expect("the descriptors decode"))
}

fn seeds(kinds: &[Kind]) -> Vec<Vec<u8>> {
    let seed = |(number, (name, _)): (usize, &Kind)| {
        let (package, name) = name.split_once('.').expect("package and name");
        let full = if package == "v1" { format!(".cinnabar.v1.{name}") } else { format!(".cinnabar.internal.v1.{name}") };
        let mut bytes = vec![number as u8];
        fill(&full, 0, &mut bytes);
        bytes
    };
    kinds.iter().enumerate().map(seed).collect()
}

fn find(full: &str) -> &'static DescriptorProto {
    fn within(message: &'static DescriptorProto, own: &str, full: &str) -> Option<&'static DescriptorProto> {
        let deeper = || message.nested_type.iter().find_map(|nested| within(nested, &format!("{own}.{}", nested.name()), full));
        if own == full { Some(message) } else { deeper() }
    }
    let mut all = descriptors().file.iter().flat_map(|file| file.message_type.iter().map(move |message| (file.package(), message)));
    let found = all.find_map(|(package, message)| within(message, &format!(".{package}.{}", message.name()), full));
    found.unwrap_or_else(|| panic!("no message {full}"))
}

/// A message with every field set: texts that many fields take, small numbers, messages three deep.
fn fill(full: &str, depth: usize, out: &mut Vec<u8>) {
    for field in &find(full).field {
        let number = field.number() as u32;
        let times = if field.label() == Label::Repeated { 2 } else { 1 };
        for _ in 0..times {
            match field.r#type() {
                Type::String => put_bytes(number, text(field.name()).as_bytes(), out),
                Type::Bytes => put_bytes(number, &[7; 16], out),
                Type::Message if depth < 3 => {
                    let mut inner = Vec::new();
                    fill(field.type_name(), depth + 1, &mut inner);
                    put_bytes(number, &inner, out);
                }
                Type::Message => {}
                _ => {
                    prost::encoding::encode_varint(u64::from(number << 3), out);
                    prost::encoding::encode_varint(1, out);
                }
            }
        }
    }
}

fn text(field: &str) -> &'static str {
    match field {
        "scopes" => "workers",
        "request_id" | "id" | "token_id" => "00112233445566778899aabbccddeeff",
        "domain" => "global",
        _ => "API_KEY",
    }
}

fn put_bytes(number: u32, bytes: &[u8], out: &mut Vec<u8>) {
    prost::encoding::encode_varint(u64::from(number << 3 | 2), out);
    prost::encoding::encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// Two requests of a pipelined stream in their frames.
fn frames() -> Vec<Vec<u8>> {
    let mut bytes = Vec::new();
    for seed in seeds(REQUESTS).iter().take(2) {
        wire::frames::append_bytes(&seed[1..], &mut bytes);
    }
    vec![bytes]
}

/// Takes frames off the front as long as there are whole ones.
fn frame(bytes: &[u8]) -> Seen {
    use wire::frames::{append_bytes, decode, split};
    let (mut rest, mut count, mut read) = (bytes, 0, 0);
    loop {
        match split(rest, 4096) {
            Ok(Some((frame, left))) => {
                let mut written = Vec::new();
                append_bytes(frame, &mut written);
                assert!(rest.starts_with(&written), "a frame is another when written again");
                read += usize::from(decode::<v1::GetRequest>(frame).is_ok());
                (rest, count) = (left, count + 1);
            }
            Ok(None) => return Seen::Read(format!("{} frames, {} read", count.min(3), read.min(3))),
            Err(error) => return Seen::Refused(error.to_string()),
        }
    }
}
