use std::collections::BTreeSet;

use super::*;

const CONTROL: &str = include_str!("../../../../deploy/control.toml");
const EDGE: &str = include_str!("../../../../deploy/edge.toml");

fn parsed<C: Checks>(text: &str) -> Result<C, String> {
    parse(Path::new("x.toml"), text).map_err(|error| error.to_string())
}

/// The sample with its optional keys in force: lines that begin with `#` and no space.
fn uncommented(sample: &str) -> String {
    let line = |line: &str| match line.strip_prefix('#') {
        Some(key) if !key.is_empty() && !key.starts_with(' ') => format!("{key}\n"),
        _ => format!("{line}\n"),
    };
    sample.lines().map(line).collect()
}

/// All keys of a document, dotted; those of a list of tables once.
fn keys(value: &toml::Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        toml::Value::Table(table) => table.iter().for_each(|(key, value)| keys(value, &format!("{path}.{key}"), found)),
        toml::Value::Array(list) if list.iter().any(toml::Value::is_table) => list.iter().for_each(|value| keys(value, path, found)),
        _ => {
            found.insert(path.to_owned());
        }
    }
}

fn keys_of(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    keys(&toml::from_str(text).unwrap(), "", &mut found);
    found
}

#[test]
fn sample_control_equals_the_defaults_and_holds_every_key() {
    assert_eq!(parsed::<ControlConfig>(CONTROL).unwrap(), ControlConfig::default());
    let full: ControlConfig = parsed(&uncommented(CONTROL)).unwrap();
    assert!(full.node.cluster.is_some());
    assert_eq!(keys_of(&uncommented(CONTROL)), keys_of(&render(&full).unwrap()));
}

#[test]
fn sample_edge_equals_the_defaults_and_holds_every_key() {
    assert_eq!(parsed::<EdgeConfig>(EDGE).unwrap(), EdgeConfig::default());
    let full: EdgeConfig = parsed(&uncommented(EDGE)).unwrap();
    assert!(full.node.cluster.is_some());
    assert_eq!(full.peer[0].consumers.len(), 2);
    assert_eq!(keys_of(&uncommented(EDGE)), keys_of(&render(&full).unwrap()));
}

#[test]
fn config_rendered_parses_to_the_same() {
    let mut edge: EdgeConfig = parsed(&uncommented(EDGE)).unwrap();
    edge.limits.index_bytes_max = ByteSize::from_bytes(3 << 29);
    assert_eq!(parsed::<EdgeConfig>(&render(&edge).unwrap()).unwrap(), edge);
    let mut control = ControlConfig::default();
    control.cluster.edge_offline_max = "never".parse().unwrap();
    let text = render(&control).unwrap();
    assert!(text.contains("edge_offline_max = \"never\""), "{text}");
    assert_eq!(parsed::<ControlConfig>(&text).unwrap(), control);
}

#[test]
fn config_empty_is_the_default() {
    assert_eq!(parsed::<ControlConfig>("").unwrap(), ControlConfig::default());
    assert_eq!(parsed::<EdgeConfig>("").unwrap(), EdgeConfig::default());
}

#[test]
fn config_paths_of_the_identity_are_below_the_data_folder_unless_they_are_absolute() {
    let text = "[node]\nname = \"e\"\ndata_dir = \"/data\"\n[tls]\nkey = \"own/x.key\"\nca = \"/etc/ca.pem\"\n";
    let edge: EdgeConfig = parsed(text).unwrap();
    let paths = [&edge.tls.cert, &edge.tls.key, &edge.tls.ca, &edge.keys.node, &edge.keys.signers].map(|path| path.to_str().unwrap());
    assert_eq!(
        paths,
        ["/data/identity/node.pem", "/data/own/x.key", "/etc/ca.pem", "/data/identity/envelope.key", "/data/identity/signers"]
    );
    let relative: ControlConfig = parsed("[node]\nname = \"c\"\ndata_dir = \"data\"\n").unwrap();
    assert!(relative.keys.signing.is_absolute() && relative.keys.signing.ends_with("data/identity/signing.key"));
    assert_eq!(parsed::<ControlConfig>(&render(&relative).unwrap()).unwrap(), relative);
}

#[test]
fn config_mistake_is_reported_with_line_column_and_key() {
    let cases = [
        ("[limits]\nwindow_byte = \"1MiB\"\n", "x.toml:2:1: limits.window_byte: unknown field `window_byte`, expected one of"),
        ("\n\n[logs]\n", "x.toml:3:2: unknown field `logs`"),
        ("[limits]\n  window_bytes = \"64MB\"\n", "x.toml:2:18: limits.window_bytes: \"64MB\" is not a size such as"),
        ("[limits]\nwindow_bytes = 64\n", "x.toml:2:16: limits.window_bytes: invalid type: integer `64`, expected a string"),
        ("[cluster]\nlease = \"soon\"\n", "x.toml:2:9: cluster.lease: \"soon\" is not a duration such as"),
        ("[listen]\ngrpc = \"localhost\"\n", "x.toml:2:8: listen.grpc: "),
        ("[node]\nid = 1\nname = \"Control 1\"\ndata_dir = \"d\"\n", "x.toml:3:8: node.name: a node name has 'C' at place 1"),
        ("[node]\nid = -1\n", "x.toml:2:6: node.id: "),
        ("[node]\nid = 1\nname = \"c\"\n", "x.toml:1:1: missing field `data_dir`"),
        ("[log]\nformat = \"xml\"\n", "x.toml:2:10: log.format: unknown variant `xml`, expected `json` or `pretty`"),
        ("[log\n", "x.toml:1:5: "),
        ("[node]\nid = 1\nid = 2\n", "x.toml:3:1: node.id: duplicate key"),
    ];
    for (text, expected) in cases {
        let error = parsed::<ControlConfig>(text).unwrap_err();
        assert!(error.starts_with(expected), "{text}: {error}");
    }
}

#[test]
fn config_that_contradicts_itself_is_refused_by_key() {
    let control = [
        ("[cluster]\nedge_offline_max = \"30s\"", "x.toml: cluster.edge_offline_max: is shorter than cluster.lease"),
        ("[cluster]\nlease = \"1s\"", "x.toml: cluster.lease: is 1000, must be 3000 to 86400000 milliseconds"),
        ("[listen]\nhealth = \"127.0.0.1:7400\"", "x.toml: listen.health: is the address of listen.grpc"),
        ("[limits]\nwindow_bytes = \"1MiB\"", "x.toml: limits.window_bytes: is 1MiB, must be 16MiB to 1TiB"),
        ("[limits]\nproposals_queued_max = 0", "x.toml: limits.proposals_queued_max: is 0, must be 1 to 1048576"),
        ("[connections]\nconnections_max = 0", "x.toml: connections.connections_max: is 0"),
        ("[lookups]\ngrpc = \"127.0.0.1:7401\"", "x.toml: lookups.grpc: is the address of listen.grpc or listen.health"),
        (
            "[[peer]]\nuid = 5\naccount = \"00112233445566778899aabbccddeeff\"\nconsumers = [\"*\"]",
            "x.toml: peer: has rules, but there is no socket",
        ),
        ("[listen]\ngrpc = \"0.0.0.0:7400\"", "x.toml: listen.advertise: is needed"),
        ("[certificates]\nlifetime = \"1ms\"", "x.toml: certificates.lifetime: is 1, must be 1000 to 31536000000 milliseconds"),
        ("[certificates]\nnames = [\"a b\"]", "x.toml: certificates.names: holds \"a b\""),
        ("[shutdown]\ndeadline = \"0s\"", "x.toml: shutdown.deadline: is 0"),
        ("[log]\nfilter = \"info,feed=loud\"", "x.toml: log.filter: "),
    ];
    for (text, expected) in control {
        let error = parsed::<ControlConfig>(text).unwrap_err();
        assert!(error.starts_with(expected), "{text}: {error}");
    }
    let edge = [
        ("[control]\nendpoints = []", "x.toml: control.endpoints: is empty"),
        ("[control]\nreconnect_min = \"1m\"", "x.toml: control.reconnect_max: is shorter"),
        ("[limits]\nlog_bytes_max = \"1MiB\"", "x.toml: limits.log_bytes_max: is smaller"),
        ("[[peer]]\nuid = 5\naccount = \"00112233445566778899aabbccddeeff\"\nconsumers = []", "x.toml: peer.consumers: is empty for uid 5"),
    ];
    for (text, expected) in edge {
        let error = parsed::<EdgeConfig>(text).unwrap_err();
        assert!(error.starts_with(expected), "{text}: {error}");
    }
}

#[test]
fn config_absent_file_is_named_with_the_remedy() {
    let error = load::<EdgeConfig>(Path::new("nowhere/edge.toml")).unwrap_err().to_string();
    assert_eq!(error, "cannot read the configuration nowhere/edge.toml; name another with --config");
}
