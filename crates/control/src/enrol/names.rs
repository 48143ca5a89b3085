//! Which names a certificate carries, of those that its node asks for: people and joining nodes know a control node by its name.

use std::{collections::BTreeSet, net::IpAddr, str::FromStr};

use runtime::config::HostPort;
use state::{State, record::NodeRole};
use wire::PublicError;

use super::control_nodes;
use crate::core::Core;

/// The names that a node gets. A control node gets all: it issues certificates itself. Another may carry no name under which a control
/// node is reached, or it would pass for one with whoever goes by names, and be shown their tokens.
pub(super) fn allowed(core: &Core, state: &State, role: NodeRole, asked: &[String]) -> Result<Vec<String>, PublicError> {
    if role == NodeRole::Control {
        return Ok(asked.to_vec());
    }
    let addresses = control_nodes(state)?.into_iter().filter_map(|node| HostPort::from_str(&node.address).ok());
    let hosts = addresses.map(|address| address.host().to_owned());
    // What else control nodes are called, only their own configurations say; as a rule they are called alike.
    let reserved: Vec<String> = hosts.chain(core.enrolment.names.iter().cloned()).collect();
    let (given, left_out) = divided(&reserved, asked);
    if !left_out.is_empty() {
        tracing::warn!(
            ?left_out,
            "a node that is no control node asked for names that are a control node's, or could be; they were left out"
        );
    }
    Ok(given)
}

/// What a node may carry of what it asks for, and what not: a reserved name in whatever spelling, and a name with a wildcard, which
/// would stand for others.
fn divided(reserved: &[String], asked: &[String]) -> (Vec<String>, Vec<String>) {
    let reserved: BTreeSet<String> = reserved.iter().map(|name| spelt(name)).collect();
    asked.iter().cloned().partition(|name| !name.contains('*') && !reserved.contains(&spelt(name)))
}

/// The one spelling of a name or address.
fn spelt(name: &str) -> String {
    match name.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().to_string(),
        Err(_) => name.trim_end_matches('.').to_ascii_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_that_could_stand_for_a_control_node_is_left_out_however_it_is_written() {
        let strings = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let reserved = strings(&["control-1.example", "10.0.0.1", "fd00:0:0:0:0:0:0:1", "Cinnabar.Example."]);
        let good = strings(&["edge-1.example", "10.0.0.2", "fd00::2", "1.control-1.example"]);
        assert_eq!(divided(&reserved, &good), (good, Vec::new()));
        let bad = ["Control-1.EXAMPLE", "control-1.example.", "*.example", "10.0.0.1", "::ffff:10.0.0.1", "fd00::1", "cinnabar.example"];
        for name in bad {
            assert_eq!(divided(&reserved, &strings(&[name])), (Vec::new(), strings(&[name])), "{name}");
        }
    }
}
