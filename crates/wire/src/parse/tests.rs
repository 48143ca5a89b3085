use prost::Message;
use tonic::Code;

use super::*;

const ID: &str = "30313233343536373839616263646566";

#[test]
fn secret_reference_by_name_needs_a_store_and_by_id_does_not() {
    let parse = |store: &str, secret: &str| {
        SecretTarget::try_from(v1::SecretRef { account: String::new(), store: store.into(), secret: secret.into() })
            .map_err(|e| e.to_string())
    };
    let by_id = parse("", ID).unwrap();
    assert_eq!(by_id.secret.id, Some(ID.parse().unwrap()));
    assert_eq!(by_id.account, None);
    assert!(parse("default", "API_KEY").unwrap().secret.id.is_none());
    let cases = [
        ("", "API_KEY", "field `store`: is missing; only a secret that is given by its id needs no store"),
        ("default", "", "field `secret`: a secret name is empty"),
        ("de fault", "A", "field `store`: a store name has ' ' at place 3; allowed are letters, digits, '-' and '_'"),
    ];
    for (store, secret, error) in cases {
        assert_eq!(parse(store, secret).unwrap_err(), error);
    }
}

#[test]
fn reference_that_is_both_resolves_to_the_id_first() {
    let both: IdOrName<StoreId, StoreName> = IdOrName::parse("store", ID.into()).unwrap();
    assert_eq!(both.resolve(|_| Some("id"), |_| Some("name")), Some("id"));
    assert_eq!(both.resolve(|_| None, |_| Some("name")), Some("name"));
    let name: IdOrName<StoreId, StoreName> = IdOrName::parse("store", "default".into()).unwrap();
    assert_eq!(name.resolve(|_| Some("id"), |_| None), None);
    assert_eq!(name.to_string(), "default");
}

#[test]
fn consumer_kind_has_a_number_for_every_kind() {
    for kind in ConsumerKind::all() {
        assert_eq!(consumer_kind("kind", v1::ConsumerKind::from(kind).into()), Ok(kind));
    }
    assert_eq!(consumer_kind("kind", 0).unwrap_err().to_string(), "field `kind`: is missing");
    for number in [7, -1, i32::MAX] {
        assert_eq!(
            consumer_kind("kind", number).unwrap_err().to_string(),
            format!("field `kind`: no consumer kind has the number {number}")
        );
    }
}

#[test]
fn scopes_unknown_or_none_refused_by_place() {
    let parse = |names: &[&str]| scopes("scopes", &names.iter().map(|&name| name.into()).collect::<Vec<_>>());
    assert_eq!(parse(&["workers", "ai-gateway"]).map(crate::v1::ScopeList::from).unwrap().scopes, ["ai_gateway", "workers"]);
    assert!(
        parse(&["workers", "nowhere"])
            .unwrap_err()
            .to_string()
            .starts_with("field `scopes[1]`: unknown scope \"nowhere\"; known are workers")
    );
    assert_eq!(parse(&[]).unwrap_err().field, "scopes");
}

#[test]
fn new_secret_errors_name_the_field_and_never_the_value() {
    let good = || v1::NewSecret { name: "A".into(), value: b"canary".to_vec(), scopes: vec!["workers".into()], comment: String::new() };
    assert_eq!(new_secret(good()).unwrap().1, b"canary");
    let empty = v1::NewSecret { value: vec![], ..good() };
    assert!(new_secret(empty).is_ok(), "an empty value is a value");
    let cases = [
        (v1::NewSecret { name: "a.b".into(), ..good() }, "name", Code::InvalidArgument),
        (v1::NewSecret { scopes: vec![], ..good() }, "scopes", Code::InvalidArgument),
        (v1::NewSecret { comment: "bell\u{7}".into(), ..good() }, "comment", Code::InvalidArgument),
        (v1::NewSecret { value: vec![b'x'; VALUE_BYTES_MAX + 1], ..good() }, "value", Code::InvalidArgument),
    ];
    for (message, field, code) in cases {
        let error = new_secret(message).unwrap_err().under("secrets[2]");
        assert_eq!(error.field, format!("secrets[2].{field}"));
        assert!(!error.to_string().contains("canary"));
        assert_eq!(tonic::Status::from(error).code(), code);
    }
    let large = new_secret(v1::NewSecret { value: vec![b'x'; VALUE_BYTES_MAX + 1], ..good() }).unwrap_err();
    assert_eq!(PublicError::from(large).kind, ErrorKind::TooLarge);
}

#[test]
fn page_size_is_bounded_and_has_a_default() {
    let size = |size| PageTarget::from(Some(v1::Page { size, token: String::new() })).size;
    assert_eq!([size(0), size(1), size(1000), size(1001), size(u32::MAX)], [PAGE_USUAL, 1, PAGE_MAX, PAGE_MAX, PAGE_MAX]);
    assert_eq!(PageTarget::from(None), PageTarget { size: PAGE_USUAL, token: None });
}

#[test]
fn get_request_defaults_and_errors() {
    let wanted = |which| v1::Wanted { binding: "API_KEY".into(), secret: String::new(), which };
    let get = |which| GetTarget::try_from(v1::GetRequest { wanted: Some(wanted(which)), ..Default::default() });
    use v1::wanted::Which as W;
    assert_eq!(get(None).unwrap().wanted.which, Which::Current);
    assert_eq!(get(Some(W::Pointer(0))).unwrap().wanted.which, Which::Current);
    assert_eq!(get(Some(W::Pointer(2))).unwrap().wanted.which, Which::Previous);
    assert_eq!(get(Some(W::Version(7))).unwrap().wanted.which, Which::Exact(Version::new(7)));
    assert_eq!(get(Some(W::Version(0))).unwrap_err().to_string(), "field `wanted.version`: is 0; versions count from 1");
    assert_eq!(get(Some(W::Pointer(9))).unwrap_err().to_string(), "field `wanted.pointer`: no pointer has the number 9");
    assert_eq!(GetTarget::try_from(v1::GetRequest::default()).unwrap_err().to_string(), "field `wanted`: is missing");
    let consumer = Some(v1::ConsumerRef { account: String::new(), kind: 1, name: "a/b".into() });
    let error = GetTarget::try_from(v1::GetRequest { consumer, wanted: Some(wanted(None)), freshness: None }).unwrap_err();
    assert_eq!(error.field, "consumer.name");
}

#[test]
fn get_many_fails_an_entry_alone_and_too_many_together() {
    let good = v1::Wanted { binding: "A".into(), ..Default::default() };
    let request = v1::GetManyRequest { wanted: vec![good.clone(), v1::Wanted::default()], ..Default::default() };
    let parsed = GetManyTarget::try_from(request).unwrap();
    assert!(parsed.wanted[0].is_ok());
    assert_eq!(parsed.wanted[1].as_ref().unwrap_err().field, "wanted[1].binding");
    let many = v1::GetManyRequest { wanted: vec![good; GET_MANY_MAX + 1], ..Default::default() };
    assert_eq!(PublicError::from(GetManyTarget::try_from(many).unwrap_err()).kind, ErrorKind::TooLarge);
}

#[test]
fn hello_with_lengths_that_are_wrong_is_refused() {
    let good = || internal::Hello {
        cluster: vec![1; 16].into(),
        position: Some(Position::default().into()),
        chain_hash: vec![2; 32].into(),
        holds: vec![internal::KeyEpoch { domain: "global".into(), epoch: 1 }],
        ..Default::default()
    };
    let parsed = HelloTarget::try_from(&good()).unwrap();
    assert_eq!(parsed.holds, Some((Position::default(), Hash::from_bytes([2; 32]))));
    assert_eq!(HelloTarget::try_from(&internal::Hello { position: None, chain_hash: vec![].into(), ..good() }).unwrap().holds, None);
    let cases = [
        (internal::Hello { cluster: vec![1; 15].into(), ..good() }, "cluster"),
        (internal::Hello { chain_hash: vec![2; 31].into(), ..good() }, "chain_hash"),
        (internal::Hello { chain_hash: vec![].into(), ..good() }, "chain_hash"),
        (internal::Hello { position: None, ..good() }, "chain_hash"),
        (internal::Hello { holds: vec![internal::KeyEpoch { domain: "GLOBAL".into(), epoch: 1 }], ..good() }, "holds[0].domain"),
    ];
    for (hello, field) in cases {
        assert_eq!(HelloTarget::try_from(&hello).unwrap_err().field, field);
    }
}

#[test]
fn messages_truncated_or_damaged_never_panic_and_parse_only_to_checked_values() {
    let request = v1::GetRequest {
        consumer: Some(v1::ConsumerRef { account: "Ä".into(), kind: 3, name: "web".into() }),
        wanted: Some(v1::Wanted { binding: "API_KEY".into(), secret: "S".into(), which: Some(v1::wanted::Which::Version(3)) }),
        freshness: Some(v1::Freshness { min_position: Some(v1::Position { generation: 1, revision: u64::MAX }), max_age_ms: Some(5) }),
    };
    let bytes = request.encode_to_vec();
    for cut in 0..bytes.len() {
        let _ = v1::GetRequest::decode(&bytes[..cut]).map(GetTarget::try_from);
    }
    for place in 0..bytes.len() {
        for flip in [0x01, 0x08, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[place] ^= flip;
            if let Ok(Ok(target)) = v1::GetRequest::decode(&damaged[..]).map(GetTarget::try_from) {
                assert!(BindingName::new(target.wanted.binding.as_str()).is_ok());
            }
        }
    }
    // A length of nearly 2^64, and groups nested a thousand deep.
    assert!(v1::CreateSecretsRequest::decode(&b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"[..]).is_err());
    assert!(v1::GetRequest::decode(&[0x0b; 1000][..]).is_err());
}
