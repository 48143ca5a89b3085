//! What these tests share: clients that are told where to go, and what a node says of itself.

use std::{
    fs,
    path::{Path, PathBuf},
};

use client::{Client, Config, Retries, Tls, Token};
use tests::process::{Fleet, Readers, Role, Writers, http};

/// A path as an argument.
pub(crate) fn text(path: &Path) -> String {
    path.display().to_string()
}

/// The quoted value of a key in a node's configuration file.
pub(crate) fn configured(fleet: &Fleet, node: &str, key: &str) -> String {
    let file = fs::read_to_string(fleet.config(node)).unwrap();
    let value = file.lines().find_map(|line| line.strip_prefix(&format!("{key} = \"")));
    value.and_then(|value| value.strip_suffix('"')).unwrap_or_else(|| panic!("{node} has no {key}")).to_owned()
}

/// Changes the text of a node's configuration file, for its next start.
pub(crate) fn reconfigure(fleet: &Fleet, node: &str, change: impl FnOnce(String) -> String) {
    let file = fleet.config(node);
    let changed = change(fs::read_to_string(&file).unwrap());
    fs::write(file, changed).unwrap();
}

/// Lets an edge follow these control nodes only, from its next start on.
pub(crate) fn follow_only(fleet: &Fleet, edge: &str, controls: &[&str]) {
    let relays: Vec<_> = controls.iter().map(|control| format!("{:?}", configured(fleet, control, "advertise"))).collect();
    reconfigure(fleet, edge, |file| {
        let lines = file.lines().map(|line| match line.starts_with("endpoints = ") {
            true => format!("endpoints = [{}]\n", relays.join(", ")),
            false => format!("{line}\n"),
        });
        lines.collect()
    });
}

/// The context of the first operator.
pub(crate) fn context(fleet: &Fleet) -> cli::Context {
    let contexts = cli::Contexts::load(&contexts(fleet)).unwrap();
    contexts.contexts.into_values().next().unwrap()
}

/// The file with the contexts.
pub(crate) fn contexts(fleet: &Fleet) -> PathBuf {
    fleet.folder().join("cli/contexts.toml")
}

/// A client of one control node, past its relay, that sends everything once. `token`: another than the first operator's.
pub(crate) fn once(fleet: &Fleet, node: &str, token: Option<&str>) -> Client {
    let context = context(fleet);
    let tls = Tls { ca_pem: context.ca.clone(), identity: None, server_name: None };
    let token = Token::new(token.map_or(context.token.clone(), str::to_owned)).unwrap();
    let config = Config::tls([configured(fleet, node, "grpc")], tls).token(token).retries(Retries::NONE);
    Client::new(config).unwrap()
}

/// All control nodes but one.
pub(crate) fn others(fleet: &Fleet, node: &str) -> Vec<String> {
    fleet.names(Role::Control).into_iter().filter(|name| name != node).collect()
}

/// Parts a control node from all other control nodes, and from no edge.
pub(crate) fn cut_from_majority(fleet: &Fleet, node: &str) {
    others(fleet, node).iter().for_each(|other| fleet.net.part(node, other));
}

/// The sum of a metric's samples at a node; none when it has none.
pub(crate) fn metric(fleet: &Fleet, node: &str, name: &str) -> Option<f64> {
    let (_, page) = http(configured(fleet, node, "health").parse().unwrap(), "/metrics").ok()?;
    let samples = page.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
    samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).reduce(|sum, sample| sum + sample)
}

/// What a node has logged since it was founded.
pub(crate) fn log(fleet: &Fleet, node: &str) -> String {
    fs::read_to_string(fleet.logs().join(format!("{node}.log"))).unwrap()
}

/// The control node that an edge follows, if any.
pub(crate) async fn followed_by(fleet: &Fleet, edge: &str) -> Option<String> {
    let nodes = fleet.cli.ok(&["--format", "json", "fleet"]).await.json();
    let row = nodes.as_array().unwrap().iter().find(|row| row["node"] == edge).cloned();
    row.and_then(|row| row["connected_to"].as_str().map(str::to_owned))
}

/// So many writers, and readers at every edge that notice each refusal; what is bound is live.
pub(crate) async fn clients(fleet: &Fleet, writers: usize) -> (Writers, Readers) {
    let writers = Writers::start((0..writers).map(|_| fleet.operator()).collect()).await;
    fleet.operator().live(writers.bound()).await;
    (writers, Readers::start(fleet.readers()))
}

/// Every acknowledged write is at every edge once, and nobody was refused a read.
pub(crate) async fn judge(fleet: &Fleet, writers: Writers, readers: Readers) {
    let written = writers.end().await;
    assert!(readers.end().await > 0);
    let operator = fleet.operator();
    let last = operator.set("COUNTER_0", b"the last").await.1;
    operator.live(last).await;
    let everywhere: Vec<_> = fleet.readers().into_iter().map(|(_, reader)| reader).collect();
    written.judge(&operator, &everywhere, last, &[(0, b"the last")]).await;
}
