//! `cinnabar dev`: a whole cluster in this process, for trying it and for developing against it.

use std::{io::IsTerminal, path::Path, time::Duration};

use cli::{Context, Contexts, DevArgs, EdgeContext, Failure, Global, Keyboard, Output};
use runtime::{
    RealClock,
    config::{LogConfig, LogFormat},
    process, telemetry,
};
use seams::Clock;
use types::Position;

use crate::{
    cluster::Cluster,
    prepare::{self, Ports},
    proof,
};

/// The context that `dev` writes.
const CONTEXT: &str = "dev";
/// What calls the binary that a checkout has built.
const WRAPPER: &str = "scripts/cinnabar";
/// How often the view looks for news.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Runs the cluster: proves that it works, then ends (`--once`) or stays.
pub(crate) async fn run(global: &Global, arguments: DevArgs) -> Result<(), Failure> {
    let out = Output::new(global);
    let clock = RealClock::new();
    let failed = |error: anyhow::Error| Failure::failed(format!("{error:#}"));
    let prepared = prepare::prepare(&arguments.data, arguments.edges, Ports::Usual).map_err(failed)?;
    if arguments.prepare {
        return out.line(&format!(
            "prepared {}: start `cinnabar control --config {}`, then the edges",
            arguments.data.display(),
            prepared.control.display()
        ));
    }
    let filter = std::env::var("CINNABAR_LOG").unwrap_or_else(|_| if global.verbose { "info".to_owned() } else { "error".to_owned() });
    telemetry::init_logging(&LogConfig { format: LogFormat::Pretty, filter }).map_err(|error| Failure::failed(crate::chain(&error)))?;
    let metrics = telemetry::init_metrics().map_err(|error| Failure::failed(crate::chain(&error)))?;
    let signals = process::cancelled_by_signals().map_err(|error| Failure::failed(error.to_string()))?;

    out.line(&format!(
        "cinnabar dev   1 voter, {} edges, mTLS on   data {} (kept)   DEVELOPMENT: root key is a file",
        arguments.edges,
        arguments.data.display()
    ))?;
    let mut cluster = Cluster::start(prepared, metrics).await.map_err(failed)?;
    let stays = arguments.serve || !arguments.once && std::io::stdout().is_terminal();
    let ended = tokio::select! {
        biased;
        () = signals.cancelled() => Ok(()),
        ended = prove_and_stay(&mut cluster, &clock, out, stays) => ended,
    };
    // However it ended, what was accepted is finished and the disks are left in order.
    process::notify_stopping();
    cluster.stop().await;
    ended
}

/// Writes the context, proves the main job, and stays if that is wanted: until `q`, or until the voter stops.
async fn prove_and_stay(cluster: &mut Cluster, clock: &RealClock, out: Output, stays: bool) -> Result<(), Failure> {
    // A run that ends after the proof leaves the context of one that may be live alone.
    let in_force = if stays { save_context(cluster)? } else { false };
    let proved = proof::prove(cluster, clock, |line| {
        let _ = out.line(&line);
    });
    proved.await.map_err(|error| Failure::failed(format!("{error:#}")))?;
    process::notify_ready("serving");
    if !stays {
        return Ok(());
    }
    out.line(&your_turn(cluster, in_force))?;
    let mut keyboard = Keyboard::open();
    if keyboard.is_some() {
        out.line("  keys: k kills edge-1   r restarts it   q quits")?;
    }
    watch(cluster, clock, out, &mut keyboard).await
}

/// What to try next. When another context is in force each line names this one.
fn your_turn(cluster: &Cluster, in_force: bool) -> String {
    let last = cluster.edges.len();
    // From the root of a checkout by its wrapper, which finds the build; elsewhere as it is installed.
    let binary = if Path::new(WRAPPER).is_file() { WRAPPER } else { "cinnabar" };
    let call = if in_force { binary.to_owned() } else { format!("{binary} -c {CONTEXT}") };
    format!(
        "Your turn (another terminal):\n  \
         printf s3cret | {call} secret create {store}/API_KEY --scope workers --wait\n  \
         {call} bind worker/web API_KEY={store}/API_KEY\n  \
         {call} get worker/web API_KEY --edge edge-{last}      # the consumer's lookup\n\
         The same over REST, for wrangler, SDKs and curl; no token is shown:\n  \
         {call} context exec -- npx wrangler secrets-store secret list {store} --remote\n  \
         eval \"$({call} context env)\"      # then, in this shell:\n  \
         printf 'Authorization: Bearer %s' \"$CLOUDFLARE_API_TOKEN\" | curl -H @- --cacert \"$NODE_EXTRA_CA_CERTS\" \\\n    \
         \"$CLOUDFLARE_API_BASE_URL/accounts/$CLOUDFLARE_ACCOUNT_ID/secrets_store/stores\"",
        store = proof::STORE
    )
}

/// Writes the 0600 context that the other commands use. It becomes the one in force when no other is; says whether it is.
fn save_context(cluster: &Cluster) -> Result<bool, Failure> {
    let failed = |error: anyhow::Error| Failure::failed(format!("{error:#}"));
    let path = Contexts::path()?;
    let mut contexts = Contexts::load(&path)?;
    let edges = cluster.sockets().map_err(failed)?.into_iter().map(|(name, socket)| EdgeContext { name, socket }).collect();
    let context = Context {
        control: cluster.control.address().to_string(),
        ca: cluster.ca_pem().map_err(failed)?,
        token: cluster.operator_token().map_err(failed)?.to_string(),
        account: Some(cluster.prepared().account.to_string()),
        edges,
        members: Vec::new(),
    };
    contexts.contexts.insert(CONTEXT.into(), context);
    let in_force = contexts.current.get_or_insert_with(|| CONTEXT.into()) == CONTEXT;
    contexts.save(&path)?;
    Ok(in_force)
}

/// Shows what happens and obeys keys, until `q`.
async fn watch(cluster: &mut Cluster, clock: &RealClock, out: Output, keyboard: &mut Option<Keyboard>) -> Result<(), Failure> {
    let mut shown: Vec<Option<Position>> = positions(cluster);
    loop {
        let key = async {
            match keyboard {
                Some(keyboard) => keyboard.key().await,
                None => std::future::pending().await,
            }
        };
        let pressed = tokio::select! {
            biased;
            key = key => Some(key),
            reason = cluster.control.stopped() => return Err(Failure::failed(format!("the control node stopped: {reason}"))),
            () = clock.sleep(LOOK_EVERY) => None,
        };
        match pressed {
            Some('q') => return Ok(()),
            Some('k') => {
                let was_up = cluster.stop_edge(0).await;
                out.line(if was_up { "  edge-1 is down; edge-2 serves on" } else { "  edge-1 is down already" })?;
            }
            Some('r') if cluster.edges[0].is_none() => {
                let started = clock.monotonic();
                cluster.start_edge(0).await.map_err(|error| Failure::failed(format!("{error:#}")))?;
                out.line(&format!(
                    "  edge-1 is up again after {:.0} ms, from its own disk",
                    (clock.monotonic() - started).as_secs_f64() * 1e3
                ))?;
            }
            Some('r') => out.line("  edge-1 is up already")?,
            Some(_) | None => {}
        }
        let now = positions(cluster);
        if now != shown {
            out.line(&format!("  {}", describe(cluster, &now)))?;
            shown = now;
        }
    }
}

fn positions(cluster: &Cluster) -> Vec<Option<Position>> {
    cluster.edges.iter().map(|edge| edge.as_ref().and_then(|edge| edge.status().position)).collect()
}

fn describe(cluster: &Cluster, edges: &[Option<Position>]) -> String {
    let head = cluster.control.position();
    let held = edges.iter().enumerate().map(|(number, position)| match position {
        Some(position) => format!("edge-{} {position}", number + 1),
        None => format!("edge-{} down", number + 1),
    });
    format!("control {head}   {}", held.collect::<Vec<_>>().join("   "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prepare_twice_keeps_identity_keys_and_ports() {
        runtime::tls::install_provider();
        let folder = tempfile::tempdir().unwrap();
        let first = prepare::prepare(folder.path(), 2, Ports::Usual).unwrap();
        assert!(folder.path().join("control.toml").exists());
        let control = std::fs::read(&first.control).unwrap();
        let root = std::fs::read(folder.path().join("keys/root.key")).unwrap();
        let second = prepare::prepare(folder.path(), 2, Ports::Usual).unwrap();
        assert_eq!(first.account, second.account);
        assert_eq!(control, std::fs::read(&second.control).unwrap());
        assert_eq!(root, std::fs::read(folder.path().join("keys/root.key")).unwrap());
    }
}
