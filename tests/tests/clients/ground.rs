//! What these tests share: a cluster, accounts in it, and users with programs and tokens of their own.

use serde_json::Value;
use tests::{
    clients::{Programs, Rest},
    process::{Fleet, Role, Run},
};

/// Three control nodes, and edges that tell what a value is.
pub(crate) struct Ground {
    pub(crate) fleet: Fleet,
}

impl Ground {
    pub(crate) async fn new(edges: usize) -> Self {
        Self { fleet: Fleet::start(3, edges).await }
    }

    /// A new account.
    pub(crate) async fn account(&self, name: &str) -> String {
        let made = self.fleet.cli.ok(&["--format", "json", "account", "create", name]).await.json();
        text(&made, "id")
    }

    /// A token with these roles.
    pub(crate) async fn token(&self, name: &str, grants: &[String]) -> String {
        let grants = grants.iter().flat_map(|grant| ["--grant", grant.as_str()]);
        let arguments: Vec<_> = ["--format", "json", "token", "create", name].into_iter().chain(grants).collect();
        text(&self.fleet.cli.ok(&arguments).await.json(), "token")
    }

    /// The first operator over REST, at one of the control nodes.
    pub(crate) fn rest(&self, node: &str) -> Rest {
        let (ca, token) = self.fleet.credentials();
        Rest::new(self.fleet.address(node), &ca, &token)
    }

    /// What clients are told as the base, at one of the control nodes.
    pub(crate) fn base(&self, node: &str) -> String {
        format!("https://{}/client/v4", self.fleet.address(node))
    }

    /// A user of wrangler with a token, and perhaps an account. What they leave in their folder is searched at the end, too.
    pub(crate) fn user(&self, name: &str, token: &str, account: Option<&str>) -> Programs {
        let (ca, _) = self.fleet.credentials();
        // Not the leader, wherever that is: every node takes every request.
        let node = self.fleet.names(Role::Control).pop().unwrap();
        let programs = Programs::new(&self.fleet.folder().join(format!("user-{name}")), &ca);
        let programs = programs.with(&[("CLOUDFLARE_API_BASE_URL", &self.base(&node)), ("CLOUDFLARE_API_TOKEN", token)]);
        match account {
            Some(account) => programs.with(&[("CLOUDFLARE_ACCOUNT_ID", account)]),
            None => programs,
        }
    }
}

/// A field of text.
pub(crate) fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_else(|| panic!("no {field}: {value}")).to_owned()
}

/// The rows of the table that a command prints, as cells, without the head.
pub(crate) fn rows(run: &Run) -> Vec<Vec<String>> {
    let cells = |line: &str| line.trim().trim_matches('│').split('│').map(|cell| cell.trim().to_owned()).collect();
    run.stdout.lines().filter(|line| line.trim_start().starts_with('│')).skip(1).map(cells).collect()
}
